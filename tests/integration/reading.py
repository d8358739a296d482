"""A second process of a service: reads one key after the other, and says which side answered, and when.

Run as `python -m integration.reading SPECIFICATION`; it ends when its standard input does.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dualstore.stages import Side
from dualstore.stores.dynamo import dynamo_clients
from integration.deployment import REGION, Deployment, order_model, order_row, served_by
from integration.writing import NAME, key_of, say


@dataclass(frozen=True)
class Read:
    """One read.

    Attributes:
        began: by the machine's monotonic clock, which all its processes share.
        side: which side answered it.
    """

    began: float
    side: Side


@dataclass
class Reads:
    """What a process has reported, as its reports come in."""

    process: "subprocess.Popen[str]"
    done: list[Read] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, _, rest = line.strip().partition(" ")
            if kind == "read":
                began, side = rest.split()
                self.done.append(Read(float(began), Side(side)))
            else:
                self.errors.append(line.strip())

    def since(self, moment: float) -> list[Side]:
        """Which sides answered what began after a moment."""
        return [read.side for read in list(self.done) if read.began > moment]

    def finish(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)
        self._reading.join(10)


@contextmanager
def reading(deployment: Deployment, table: str) -> Iterator[Reads]:
    """A process that reads."""
    specification = {
        "url": deployment.engine.url.render_as_string(hide_password=False),
        "endpoint_url": deployment.endpoint_url,
        "bookkeeping": deployment.bookkeeping,
        "table": table,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "integration.reading", json.dumps(specification)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    reads = Reads(process)
    try:
        yield reads
        reads.finish()
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def read(specification: dict[str, Any]) -> None:
    """Read until standard input ends."""
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    engine = sa.create_engine(specification["url"], connect_args={"connect_timeout": 1})
    endpoint_url, table = specification["endpoint_url"], specification["table"]
    with dynamo_clients(
        endpoint_url=endpoint_url, region=REGION, access_key_id="dualstore", secret_access_key="dualstore"
    ) as clients:
        deployment = Deployment(engine, None, clients, endpoint_url, specification["bookkeeping"])
        with deployment.store() as store:
            store.bind(order_model(table, endpoint_url), order_row(table.replace("-", "_")), name=NAME)
            client = store.client()
            while not stop.is_set():
                before, began = served_by(store, Side.POSTGRES), time.monotonic()
                if "Item" not in client.get_item(TableName=table, Key=key_of(1), ConsistentRead=True):
                    say("missed", "the item is there")
                asked_postgres = served_by(store, Side.POSTGRES) > before
                say("read", began, Side.POSTGRES if asked_postgres else Side.DYNAMODB)
                time.sleep(0.005)
    engine.dispose()


if __name__ == "__main__":
    read(json.loads(sys.argv[1]))
