"""What it saves that PostgreSQL decides filters, and which filters it decides.

    python benchmarks/filters.py [--rounds 21] [--items 1000]

A filter that compiles to SQL is decided where the rows are, and of a row that it leaves out little is fetched
(ADR 29). A partition is queried with filters that let 1 in 100, half and all of its items through, and
counted: as the store does it, and with every row fetched whole and the filter evaluated in Python. Both in
the processor time of the client and of the server (Linux only), a scanned item, medians over the rounds, in
turns; the ratio is the median of each round's. Items have a document, which SQL does not size, or none.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import sqlalchemy as sa
from orders import Base, OrderRow, item_of, order_model

from dualstore import schema
from dualstore.expressions import Condition, compile_condition, condition
from dualstore.items import Item
from dualstore.mapping import TableMapping, map_table
from dualstore.operations import PutItem, Query
from dualstore.stores.postgres import PostgresStore, pages
from dualstore.stores.postgres.authority_single import sql_columns
from dualstore.testing.servers import PostgresServer

PARTITIONS = {"with a document": "customer", "without one": "plain"}
NAMES = {"#n": "number", "#note": "note", "#total": "total", "#paid": "paid", "#a": "address"}
VALUES: Item = {
    ":t": {"N": "990"},
    ":u": {"N": "995"},
    ":h": {"N": "500"},
    ":z": {"N": "0"},
    ":s": {"S": "n"},
    ":y": {"BOOL": True},
    ":m": {"S": "S"},
}

FILTERS = (
    "#total = :t",
    "#total > :t",
    "#total BETWEEN :t AND :u",
    "#total IN (:t, :u)",
    "#paid = :y",
    "#paid <> :y AND #total >= :t",
    "#total > :t OR #paid = :y",
    "NOT #total < :t",
    "begins_with(#note, :s)",
    "contains(#note, :s)",
    "attribute_exists(#note)",
    "attribute_not_exists(deleted)",
    "attribute_type(#note, :m)",
    "size(#note) > :t",
    "#a.street = :s",
    "attribute_exists(#a.street)",
    "#a = :s",
)
"""Filters of the kinds that AWS documents, as applications write them."""
MEASURED: dict[str, dict[str, str]] = {
    "1 in 100 found": {"FilterExpression": "#total >= :t"},
    "half found": {"FilterExpression": "#total >= :h"},
    "all found": {"FilterExpression": "#total >= :z"},
    "all counted": {"Select": "COUNT"},
}


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"[#:]\w+", text))


def bound(text: str) -> Condition:
    used = placeholders(text)
    return condition(text, *({name: each[name] for name in used & each.keys()} for each in (NAMES, VALUES)))


def filled(engine: sa.Engine, items: int) -> TableMapping:
    """The table with partitions of so many items, whose totals are 0 to 999."""
    mapping = map_table("orders", order_model("orders", "http://localhost"), OrderRow)
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    store = PostgresStore(engine, {"orders": mapping})
    for number in range(items):
        item = {**item_of(number), "total": {"N": str(number % 1000)}}
        plain = {name: value for name, value in item.items() if name != "address"}
        for partition, each in zip(PARTITIONS.values(), (item, plain), strict=True):
            store.execute(PutItem({"TableName": "orders", "Item": {**each, "customer": {"S": partition}}}))
    with engine.begin() as connection:
        connection.exec_driver_sql("ANALYZE orders")
    return mapping


def query(store: PostgresStore, partition: str, asked: dict[str, str]) -> Callable[[], list[Any]]:
    """All pages of a Query."""
    used = placeholders(asked.get("FilterExpression", ""))
    request: dict[str, Any] = {
        "TableName": "orders",
        "KeyConditionExpression": "customer = :c",
        "ExpressionAttributeValues": {
            ":c": {"S": partition},
            **{name: VALUES[name] for name in used & VALUES.keys()},
        },
        **asked,
    }
    if names := used & NAMES.keys():
        request["ExpressionAttributeNames"] = {name: NAMES[name] for name in names}

    def call() -> list[Any]:
        found = [store.execute(Query(request))]
        while (start := found[-1].get("LastEvaluatedKey")) is not None:
            found.append(store.execute(Query({**request, "ExclusiveStartKey": start})))
        return found

    return call


class Worked(NamedTuple):
    """Processor time for a scanned item, in microseconds."""

    client: float
    server: float


def worked(call: Callable[[], Any], server: Path, items: int) -> Worked:
    def server_ns() -> int:
        return int(server.read_text().split()[0])

    client_before, server_before = time.thread_time_ns(), server_ns()
    call()
    client_ns = time.thread_time_ns() - client_before
    return Worked(client_ns / items / 1000, (server_ns() - server_before) / items / 1000)


def compared(call: Callable[[], Any], server: Path, rounds: int, items: int) -> str:
    """What a Query costs with every row fetched whole, and as it is; both answer the same."""
    taken: list[tuple[Worked, Worked]] = []
    for _ in range(5 + rounds):  # statements are prepared, and their plans kept, after a few
        with patch.object(pages, "weights", lambda *_: None):
            whole, before = call(), worked(call, server, items)
        assert call() == whole
        taken.append((before, worked(call, server, items)))
    del taken[:5]
    (client, server_), (client_now, server_now) = (
        map(statistics.median, zip(*each, strict=True)) for each in zip(*taken, strict=True)
    )
    ratio = statistics.median(sum(now) / sum(before) for before, now in taken)
    return (
        f"{client:.1f} + {server_:.1f} µs with every row whole, "
        f"{client_now:.1f} + {server_now:.1f} now: {ratio:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=21, help="how often each is measured (default: 21)")
    parser.add_argument("--items", type=int, default=1000, help="of a partition (default: 1000)")
    options = parser.parse_args()
    with PostgresServer(settings={"fsync": "off"}) as server:
        engine = sa.create_engine(server.create_database(), pool_size=1)
        mapping = filled(engine, options.items)
        compiled = [text for text in FILTERS if compile_condition(bound(text), sql_columns(mapping), first=1)]
        print(f"{len(compiled)} of {len(FILTERS)} kinds of filters compile to SQL; these do not:")
        print("  " + ", ".join(text for text in FILTERS if text not in compiled))
        print(f"client + server, for each of {options.items} scanned items:")
        store = PostgresStore(engine, {"orders": mapping})
        with engine.connect() as connection:
            backend = Path(
                f"/proc/{connection.exec_driver_sql('SELECT pg_backend_pid()').scalar_one()}/schedstat"
            )
        for kind, partition in PARTITIONS.items():
            for share, asked in MEASURED.items():
                call = query(store, partition, asked)
                print(f"  {kind}, {share}: {compared(call, backend, options.rounds, options.items)}")
        engine.dispose()


if __name__ == "__main__":
    main()
