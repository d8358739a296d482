"""A server that answers every Scan at once with the same page, and the ways of reading it."""

import contextlib
import multiprocessing
import socket
import socketserver
import time
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from random import Random
from typing import Any

import boto3
import msgspec
from boto3.dynamodb.types import TypeDeserializer

from bulk.table import MAPPING, TABLE, item
from dualstore.mapping.transcoding import transcoder_of
from dualstore.stores.bulk import collector_paused
from dualstore.stores.scan_pages import ScanPages

PAGE_ITEMS = 3000
"""About a megabyte, where DynamoDB ends a page."""


def page() -> bytes:
    chance = Random(7)
    items = [item(number, chance) for number in range(PAGE_ITEMS)]
    answer = {"Count": PAGE_ITEMS, "Items": items, "ScannedCount": PAGE_ITEMS}
    return msgspec.json.encode(answer | {"LastEvaluatedKey": {"pk": {"S": "a"}, "sk": {"N": "1"}}})


class _Instantly(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answer = b""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("x-amz-crc32", str(zlib.crc32(self.answer)))
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer)

    def log_message(self, *_: object) -> None: ...


def _serve(listening: socket.socket) -> None:
    _Instantly.answer = page()
    with socketserver.ThreadingTCPServer(
        listening.getsockname(), _Instantly, bind_and_activate=False
    ) as server:
        server.socket = listening
        server.daemon_threads = True
        server.serve_forever()


@contextlib.contextmanager
def instant_server() -> Iterator[str]:
    """The server's URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=_serve, args=(listening,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        process.kill()
        process.join()


def _client(url: str) -> Any:
    account = {"aws_access_key_id": "dualstore", "aws_secret_access_key": "dualstore"}
    return boto3.client("dynamodb", endpoint_url=url, region_name="us-east-1", **account)


def _by_boto3(url: str) -> Callable[[], int]:
    client, deserialize = _client(url), TypeDeserializer().deserialize

    def read() -> int:
        items = client.scan(TableName=TABLE, ConsistentRead=True)["Items"]
        return len([{name: deserialize(value) for name, value in each.items()} for each in items])

    return read


def _by_pages(url: str, *, accelerated: bool) -> Callable[[], int]:
    pages = ScanPages(_client(url), transcoder_of(MAPPING, accelerated=accelerated), TABLE)

    def read() -> int:
        with collector_paused():
            return pages.read().rows.rows

    return read


def scan_rates(rounds: int, *, accelerated: bool) -> dict[str, list[float]]:
    """Items a second of each way of reading, round by round; the first is the baseline."""
    with instant_server() as url:
        ways = {
            "boto3 scan + TypeDeserializer": _by_boto3(url),
            "pages to COPY text, Python": _by_pages(url, accelerated=False),
        }
        if accelerated:
            ways["pages to COPY text, accelerated"] = _by_pages(url, accelerated=True)
        for read in ways.values():
            read()
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, read in ways.items():
                began = time.perf_counter()
                items = sum(read() for _ in range(3))
                rates[name].append(items / (time.perf_counter() - began))
        return rates
