"""`dualstore serve` as a process of its own, and what talks to it."""

import http.client
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from integration.deployment import REGION, Deployment

TESTS = Path(__file__).parents[1]
_LISTENING = re.compile(r"listening on http://[^:]+:(\d+)")


@dataclass(frozen=True)
class Served:
    """A server that listens.

    Attributes:
        process: the server.
        port: where it listens, on 127.0.0.1.
    """

    process: subprocess.Popen[str]
    port: int

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **credentials: str) -> Any:
        """boto3's client, which gives up at once."""
        given = {"aws_access_key_id": "dualstore", "aws_secret_access_key": "dualstore", **credentials}
        config = Config(retries={"max_attempts": 0}, read_timeout=30)
        return boto3.client(
            "dynamodb", endpoint_url=self.endpoint_url, region_name=REGION, config=config, **given
        )

    def post(self, operation: str, body: bytes, **headers: str) -> tuple[int, bytes]:
        """Status and body of the answer to a request that no SDK would send."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(
                "POST", "/", body, {"X-AMZ-TARGET": f"DynamoDB_20120810.{operation}", **headers}
            )
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def stop(self) -> int:
        """End it as an operator does; its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)


@contextmanager
def served(*arguments: str, folder: Path, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """A server that was started from a folder, and is ended."""
    path = os.pathsep.join(filter(None, (str(TESTS), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, "-c", "from dualstore.cli import main; main()", "serve", "--port", "0", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Served(process, _port_of(process))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)
        assert process.stdout is not None
        process.stdout.close()


def _port_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        found = _LISTENING.search(line)
        if found is not None:
            return int(found[1])
    raise AssertionError(f"it ended with {process.wait(timeout=60)} and said: {''.join(said)}")


def configuration_alone(folder: Path, url: str) -> Path:
    """A configuration of PostgreSQL alone."""
    path = folder / "dualstore.toml"
    path.write_text(f'[postgres]\nurl = "{url.replace("+psycopg", "")}"\n')
    return path


def configuration_of(folder: Path, deployment: Deployment, table: str, name: str) -> Path:
    """The configuration of a table that is being migrated, with its models beside it."""
    (folder / "their_models.py").write_text(
        "from integration.deployment import order_model, order_row\n"
        f"Order = order_model({table!r}, {deployment.endpoint_url!r})\n"
        f"OrderRow = order_row({table.replace('-', '_')!r})\n"
    )
    postgres = deployment.engine.url.render_as_string(hide_password=False).replace("+psycopg", "")
    path = folder / "dualstore.toml"
    path.write_text(
        f'[postgres]\nurl = "{postgres}"\n'
        f'[dynamodb]\nendpoint_url = "{deployment.endpoint_url}"\nregion = "{REGION}"\n'
        f'bookkeeping_table = "{deployment.bookkeeping}"\n'
        f'[tables.{name}]\nmodel = "their_models:Order"\nrow = "their_models:OrderRow"\n'
    )
    return path
