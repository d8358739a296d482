"""A DynamoDB that answers every request at once with a prepared body, in a process of its own."""

import asyncio
import contextlib
import json
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from typing import Any


@contextlib.contextmanager
def instant_dynamodb(items: list[dict[str, Any]]) -> Iterator[str]:
    """Its endpoint; a GetItem answers the first of the items, a Query all of them."""
    with subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(items) + "\n")
        server.stdin.flush()
        try:
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def bodies(items: list[dict[str, Any]]) -> Mapping[bytes, bytes]:
    """The whole HTTP answers, by the operation's name."""
    answers = {
        b"GetItem": {"Item": items[0]},
        b"PutItem": {},
        b"UpdateItem": {"Attributes": items[0]},
        b"Query": {"Items": items, "Count": len(items), "ScannedCount": len(items)},
    }
    return {name: _answer(json.dumps(answer).encode()) for name, answer in answers.items()}


def _answer(body: bytes) -> bytes:
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nx-amzn-RequestId: 0\r\n"
        f"x-amz-crc32: {zlib.crc32(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Instant(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: Mapping[bytes, bytes]) -> None:
        self._answers = answers
        self._waiting = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._waiting += data
        head, separator, rest = self._waiting.partition(b"\r\n\r\n")
        if not separator:
            return
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        length = int(fields[b"content-length"])
        if len(rest) < length:
            return
        self._waiting = rest[length:]
        name = next(name for name in self._answers if name.lower() in fields[b"x-amz-target"])
        self._transport.write(self._answers[name])


async def serve() -> None:
    answers = bodies(json.loads(sys.stdin.readline()))
    server = await asyncio.get_running_loop().create_server(lambda: Instant(answers), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
