"""DynamoDB over a bad line: answers that are refusals, server errors, or end in the middle."""

import http.client
import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

FAULTS = ("throttled", "server error", "refused before it is read", "cut in the middle")

_ROUNDS = 2
"""So often each fault befalls each operation: who is throttled for ever reads ever more slowly."""

_REFUSALS = {
    "throttled": (400, "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException"),
    "server error": (500, "com.amazonaws.dynamodb.v20120810#InternalServerError"),
}
_END_TO_END = ("Content-Type", "X-Amz-Target", "X-Amz-Date", "Authorization")


class _Line(BaseHTTPRequestHandler):
    """Passes requests on, but for those that come to grief."""

    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.server.fault_of(self.headers["X-Amz-Target"].rpartition(".")[2])
        if fault in _REFUSALS:
            status, kind = _REFUSALS[fault]
            self._answer(status, json.dumps({"__type": kind, "message": "injected"}).encode())
        elif fault == "refused before it is read":
            self.close_connection = True
        else:
            status, content = self._passed_on(body)
            self._answer(status, content, cut=fault is not None)

    def _passed_on(self, body: bytes) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(self.server.behind)
        try:
            headers = {name: self.headers[name] for name in _END_TO_END if name in self.headers}
            connection.request("POST", "/", body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, content: bytes, *, cut: bool = False) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, behind: str, operations: frozenset[str]) -> None:
        super().__init__(("127.0.0.1", 0), _Line)
        self.behind = behind
        self.done: Counter[tuple[str, str]] = Counter()
        self._coming = {name: itertools.cycle(FAULTS) for name in operations}
        self._turn = dict.fromkeys(operations, 0)
        self._lock = threading.Lock()

    def fault_of(self, operation: str) -> str | None:
        """What befalls this request of an operation: to every other one something does, at first."""
        with self._lock:
            if operation not in self._turn:
                return None
            self._turn[operation] += 1
            if self._turn[operation] % 2 == 0 or self._turn[operation] > 2 * _ROUNDS * len(FAULTS):
                return None
            fault = next(self._coming[operation])
            self.done[operation, fault] += 1
            return fault


@contextmanager
def bad_line(endpoint_url: str, *operations: str) -> Iterator[tuple[str, Counter[tuple[str, str]]]]:
    """An endpoint in front of DynamoDB where every other request of some operations fails, at first.

    Args:
        endpoint_url: what is behind it.
        *operations: such as `Scan`.

    Yields:
        Its URL, and how often which fault has befallen which operation.
    """
    with _Server(urlsplit(endpoint_url).netloc, frozenset(operations)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.done
        finally:
            server.shutdown()
            thread.join()
