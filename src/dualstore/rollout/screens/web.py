"""The dashboard's server: it only reads, for this machine alone, and looks once for all who ask."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from dualstore.rollout.screens.document import picture_document
from dualstore.rollout.screens.page import SCRIPT, STYLE, Histories, body, live_page, policy_of
from dualstore.rollout.screens.picture import Picture

logger = logging.getLogger(__name__)

Look = Callable[[], tuple[Picture, Histories]]

_SOCKET_SECONDS = 10
_HTML, _JSON, _TEXT = "text/html; charset=utf-8", "application/json", "text/plain; charset=utf-8"
_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {policy_of(STYLE)}; script-src {policy_of(SCRIPT)}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Dashboard(ThreadingHTTPServer):
    """Serves one page, its changing part, and the same as JSON.

    It listens on the loopback address alone. A page of another site that a browser shows may still send
    requests here: the name that it asks for must be this machine's (DNS rebinding), and nothing but GET and
    HEAD is answered.

    Args:
        look: looks at the databases; called by one thread at a time, at most once in `seconds`.
        port: 0: any free one.
        seconds: between two looks.
    """

    daemon_threads = True

    def __init__(self, look: Look, *, port: int = 0, seconds: float = 5.0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.seconds = seconds
        self._look = look
        self._lock = threading.Lock()
        self._seen: tuple[float, tuple[Picture, Histories]] | None = None

    @property
    def url(self) -> str:
        """Where it is to be found."""
        return f"http://127.0.0.1:{self.server_port}/"

    @property
    def names(self) -> frozenset[str]:
        """What a request may call this machine."""
        return frozenset(f"{host}:{self.server_port}" for host in ("127.0.0.1", "localhost"))

    def seen(self) -> tuple[Picture, Histories]:
        """What there is to show; looked up at most once in `seconds`, however many ask."""
        with self._lock:
            if self._seen is None or time.monotonic() - self._seen[0] >= self.seconds:
                found = self._look()
                self._seen = time.monotonic(), found
            return self._seen[1]

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's signature
        """Log what went wrong, without what was asked."""
        logger.debug("A request of the dashboard ended early")


class _Handler(BaseHTTPRequestHandler):
    server: Dashboard  # pyright: ignore[reportIncompatibleVariableOverride] - it is made by no other
    server_version, sys_version = "dualstore", ""
    protocol_version = "HTTP/1.1"
    timeout = _SOCKET_SECONDS

    def do_GET(self) -> None:
        asked = self.headers.get_all("Host", [])
        if len(asked) != 1 or asked[0].lower() not in self.server.names:
            self._answer(HTTPStatus.MISDIRECTED_REQUEST, _TEXT, "This is not what that host is called.\n")
            return
        show = _PATHS.get(self.path)
        if show is None:
            self._answer(HTTPStatus.NOT_FOUND, _TEXT, "There is nothing here.\n")
            return
        try:
            picture, histories = self.server.seen()
        except Exception as error:  # noqa: BLE001 - whatever it is, the page says that it is not live
            logger.warning("The dashboard could not look: %s", type(error).__name__)
            self._answer(HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"cannot look: {type(error).__name__}\n")
            return
        kind, content = show(picture, histories, self.server.seconds)
        self._answer(HTTPStatus.OK, kind, content)

    do_HEAD = do_GET  # noqa: N815 - http.server's name

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._refuse
        raise AttributeError(name)

    def _refuse(self) -> None:
        self.close_connection = True  # what its body holds is not read
        self._answer(HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, "The dashboard reads only.\n", Allow="GET, HEAD")

    def _answer(self, status: HTTPStatus, kind: str, content: str, **more: str) -> None:
        encoded = content.encode()
        self.send_response(status)
        for name, value in {**_HEADERS, **more, "Content-Type": kind}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(encoded)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's signature
        """Nobody needs a line for each request."""


_PATHS: Mapping[str, Callable[[Picture, Histories, float], tuple[str, str]]] = {
    "/": lambda picture, histories, seconds: (_HTML, live_page(picture, histories, seconds=seconds)),
    "/body": lambda picture, histories, _: (_HTML, body(picture, histories)),
    "/status.json": lambda picture, _histories, _: (_JSON, json.dumps(picture_document(picture))),
}
