"""A second process of a service: writes one key after the other, and says what was acknowledged.

Run as `python -m integration.writing SPECIFICATION`; it ends when its standard input does.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from botocore.exceptions import ClientError

from dualstore.replication.agent import GrantTimes
from dualstore.stores.dynamo import dynamo_clients
from integration.deployment import REGION, Deployment, order_model, order_row

NAME = "orders"
KEYS = 20


def key_of(sk: int) -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"N": str(sk)}}


def item_of(sk: int, number: int) -> dict[str, Any]:
    return {**key_of(sk), "name": {"S": f"{number}"}}


class Writes:
    """What a process has reported, as its reports come in.

    Attributes:
        process: the process.
        acknowledged: the last number acknowledged for each key.
        errors: what else its callers saw.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.acknowledged: dict[int, str] = {}
        self.errors: list[str] = []
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, _, rest = line.strip().partition(" ")
            if kind == "wrote":
                sk, number = rest.split()
                self.acknowledged[int(sk)] = number
            else:
                self.errors.append(line.strip())

    def finish(self) -> None:
        """Let the process end its work, and take in all of its reports."""
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.stdin.close()
        self.process.wait(30)
        self._reading.join(10)


@contextmanager
def writing(
    deployment: Deployment, table: str, first: int, *, grants: GrantTimes | None = None
) -> Iterator[Writes]:
    """A process that writes keys from a number on; `grants`: other ones than `deployment.QUICK` has."""
    times = {} if grants is None else {each.name: getattr(grants, each.name) for each in fields(grants)}
    specification = {
        "grants": {name: time.total_seconds() for name, time in times.items()},
        "url": deployment.engine.url.render_as_string(hide_password=False),
        "endpoint_url": deployment.endpoint_url,
        "bookkeeping": deployment.bookkeeping,
        "table": table,
        "first": first,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "integration.writing", json.dumps(specification)],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    writes = Writes(process)
    try:
        yield writes
    finally:
        process.kill()
        writes.finish()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


def say(*words: object) -> None:
    """Report to the process that started this one."""
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def write(specification: dict[str, Any]) -> None:
    """Write until standard input ends."""
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    engine = sa.create_engine(specification["url"], connect_args={"connect_timeout": 1})
    endpoint_url, table = specification["endpoint_url"], specification["table"]
    with dynamo_clients(
        endpoint_url=endpoint_url, region=REGION, access_key_id="dualstore", secret_access_key="dualstore"
    ) as clients:
        deployment = Deployment(engine, None, clients, endpoint_url, specification["bookkeeping"])
        grants = {name: timedelta(seconds=seconds) for name, seconds in specification["grants"].items()}
        options = {"grants": GrantTimes(**grants)} if grants else {}
        with deployment.store(**options) as store:
            store.bind(order_model(table, endpoint_url), order_row(table.replace("-", "_")), name=NAME)
            client, number = store.client(), 0
            while not stop.is_set():
                sk, number = specification["first"] + number % KEYS, number + 1
                try:
                    client.put_item(TableName=table, Item=item_of(sk, number))
                    say("wrote", sk, number)
                    found = client.get_item(TableName=table, Key=key_of(sk), ConsistentRead=True)
                    if found["Item"]["name"] != {"S": f"{number}"}:
                        say("read", sk, found["Item"]["name"], "after", number)
                except ClientError as error:
                    say("refused", error)
                time.sleep(0.005)
    engine.dispose()


if __name__ == "__main__":
    write(json.loads(sys.argv[1]))
