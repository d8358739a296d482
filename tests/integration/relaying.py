"""A relay between a real stream and a real PostgreSQL; run as a program, one that can be killed."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from dualstore.control import ControlRecord
from dualstore.items import Item, KeyAttribute, KeySchema, TableShape
from dualstore.mapping import unmapped_table
from dualstore.replication.carrier import Carrier
from dualstore.replication.relay import Relay, RelayTimes
from dualstore.replication.served import ServedTable
from dualstore.replication.views import View
from dualstore.stages import Stage
from dualstore.stores import DynamoStore, PostgresStore
from dualstore.stores.dynamo import DynamoClients, dynamo_clients
from dualstore.stores.dynamo_streams import DynamoStreams
from dualstore.stores.postgres_outbox import PostgresOutbox
from dualstore.stores.postgres_streams import PostgresCheckpoints
from dualstore.telemetry import Telemetry

EPOCH = 1
TIMES = RelayTimes(
    poll=timedelta(milliseconds=20),
    lease=timedelta(seconds=1),
    propagation=timedelta(milliseconds=100),
    mark=timedelta(0),
    page_records=50,
)


def shape_of(table: str) -> TableShape:
    return TableShape(table, KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N")))


@dataclass
class Relaying:
    """Both sides of a table, and what relays of it need."""

    table: str
    engine: sa.Engine
    clients: DynamoClients
    telemetry: Telemetry = field(default_factory=Telemetry)

    def __post_init__(self) -> None:
        self.record = ControlRecord(self.table, stage=Stage.SHADOW, epoch=EPOCH, loaded=True)
        self.mapping = unmapped_table(self.table, shape_of(self.table))
        mappings = {self.table: self.mapping}
        self.postgres = PostgresStore(self.engine, mappings)
        self.outbox = PostgresOutbox(self.engine, mappings)
        self.checkpoints = PostgresCheckpoints(self.engine)
        self.streams = DynamoStreams(self.clients)
        self.suspected: list[str] = []

    def _suspect(self, _: str, kind: str, *, once: bool) -> bool:
        noted = not once or kind not in self.suspected
        self.suspected += [kind] * noted
        return noted

    def relay(self, *, holder: str = "first") -> Relay:
        carrier = Carrier(
            dynamodb=DynamoStore(reads=self.clients.reads, writes=self.clients.writes),
            postgres=self.postgres,
            outbox=self.outbox,
            view=lambda _: View(record=self.record, read_until=0, write_until=float("inf")),
            suspect=self._suspect,
            telemetry=self.telemetry,
        )
        return Relay(
            streams=self.streams,
            checkpoints=self.checkpoints,
            tables=lambda: [ServedTable("items", shape_of(self.table))],
            carrier=carrier,
            clear_suspects=lambda *_: None,
            telemetry=self.telemetry,
            times=TIMES,
            holder=holder,
        )

    def counted(self, metric: str) -> dict[str, int]:
        """The values of a counter by its last label."""
        counters = self.telemetry.snapshot().counters
        return {series.labels[-1]: n for series, n in counters.items() if series.metric.name == metric}

    def in_dynamodb(self) -> list[Item]:
        paginator = self.clients.reads.get_paginator("scan")
        pages = paginator.paginate(TableName=self.table, ConsistentRead=True)
        return in_order(item for page in pages for item in page["Items"])

    def in_postgres(self) -> list[Item]:
        return in_order(item for page in self.postgres.all_items(self.table) for item in page)


def in_order(items: Iterator[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (item["pk"]["S"], int(item["sk"]["N"])))


@contextmanager
def relaying(table: str, url: str, endpoint_url: str) -> Iterator[Relaying]:
    """What relays of a table need, by the addresses of its two sides."""
    engine = sa.create_engine(url)
    account: dict[str, Any] = {"access_key_id": "dualstore", "secret_access_key": "dualstore"}
    with dynamo_clients(endpoint_url=endpoint_url, region="us-east-1", **account) as clients:
        yield Relaying(table, engine, clients)
    engine.dispose()


def main() -> None:
    """Follow a stream until killed."""
    holder, *addresses = sys.argv[1:]
    with relaying(*addresses) as both, both.relay(holder=holder) as relay:
        relay.run(threading.Event())


if __name__ == "__main__":
    main()
