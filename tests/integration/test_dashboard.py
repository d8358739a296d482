"""The dashboard on a real socket, and in a real browser where there is one."""

import http.client
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dualstore.rollout.screens import Picture, PlanPicture, TablePicture
from dualstore.rollout.screens.web import Dashboard
from dualstore.stages import Side

HOSTILE = "<script>document.title = 'taken'</script>"
PICTURE = Picture(
    taken_at=datetime(2026, 1, 1, 12, tzinfo=UTC),
    version="1",
    databases={Side.DYNAMODB: None, Side.POSTGRES: "PostgreSQL does not answer"},
    tables=(TablePicture(name="orders", missing=(HOSTILE,)),),
    plans=(PlanPicture(name="move", problem="another version wrote it"),),
)


class Looks:
    """Looks that differ each time."""

    def __init__(self) -> None:
        self.count = 0
        self.fails = False

    def __call__(self) -> tuple[Picture, dict[str, tuple[()]]]:
        if self.fails:
            raise RuntimeError("postgresql://kim:secret@db")
        self.count += 1
        return replace(PICTURE, version=f"look-{self.count}"), {}


@pytest.fixture
def looks() -> Looks:
    return Looks()


@contextmanager
def served(looks: Looks, *, seconds: float) -> Iterator[Dashboard]:
    with Dashboard(looks, seconds=seconds) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def dashboard(looks: Looks) -> Iterator[Dashboard]:
    with served(looks, seconds=1) as server:
        yield server


def asked(
    dashboard: Dashboard, path: str = "/", *, method: str = "GET", host: str | None = None
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", dashboard.server_port, timeout=5)
    try:
        connection.request(method, path, headers={} if host is None else {"Host": host})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def test_the_page_its_body_and_the_same_as_json_are_served(dashboard: Dashboard) -> None:
    status, headers, page = asked(dashboard)
    assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "PostgreSQL does not answer" in page
    assert "orders: unknown" in asked(dashboard, "/body")[2]
    told = json.loads(asked(dashboard, "/status.json")[2])
    assert (told["databases"], [each["table"] for each in told["tables"]]) == (
        {"dynamodb": None, "postgres": "PostgreSQL does not answer"},
        ["orders"],
    )
    assert asked(dashboard, "/elsewhere")[0] == 404


def test_it_listens_on_this_machine_alone(dashboard: Dashboard) -> None:
    assert dashboard.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_nothing_but_reading_is_answered(dashboard: Dashboard, looks: Looks, method: str) -> None:
    status, headers, _ = asked(dashboard, method=method)
    assert (status, headers["Allow"], looks.count) == (405, "GET, HEAD", 0)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1"])
def test_a_request_for_another_host_is_refused_before_anything_is_looked_at(
    dashboard: Dashboard, looks: Looks, host: str
) -> None:
    status, _, content = asked(dashboard, host=host.format(port=dashboard.server_port))
    assert (status, looks.count, "orders" in content) == (421, 0, False)


def test_nothing_that_is_shown_becomes_part_of_the_page(dashboard: Dashboard) -> None:
    _, headers, page = asked(dashboard)
    assert HOSTILE not in page
    assert "unsafe-inline" not in headers["Content-Security-Policy"]
    assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_however_many_ask_the_databases_are_looked_at_once(looks: Looks) -> None:
    with Dashboard(looks, seconds=60) as server:
        asking = [threading.Thread(target=server.seen) for _ in range(20)]
        for each in asking:
            each.start()
        for each in asking:
            each.join()
    assert looks.count == 1


def test_a_look_that_fails_says_so_without_what_an_error_may_quote(
    dashboard: Dashboard, looks: Looks
) -> None:
    looks.fails = True
    status, _, content = asked(dashboard)
    assert (status, content) == (503, "cannot look: RuntimeError\n")


def test_in_a_browser_the_page_goes_on_by_itself_and_needs_nothing_from_elsewhere(
    looks: Looks, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        assert not os.environ.get("DUALSTORE_REQUIRE_BROWSER"), "no chromium is to be found"
        pytest.skip("no chromium is to be found; the requests themselves are tested above")
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync"
    quiet = "--disable-background-networking --disable-component-update --enable-logging=stderr"
    with served(looks, seconds=0.05) as dashboard:
        done = subprocess.run(
            [
                browser,
                *options.split(),
                *quiet.split(),
                f"--user-data-dir={tmp_path}",
                "--virtual-time-budget=1000",
                "--dump-dom",
                dashboard.url,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    seen = done.stdout
    assert "dualstore look-1<" not in seen, "the page still shows its first look"
    assert "dualstore look-" in seen, seen
    assert "live, every 0.05 s" in seen
    assert "<title>dualstore: dashboard</title>" in seen, "what is shown has run as a script"
    assert "Content Security Policy" not in done.stderr, done.stderr
