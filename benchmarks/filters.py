"""What pushing filters down to SQL would save, and which filters it could be done for.

    python benchmarks/filters.py [--rounds 9] [--items 1000]

Filters of Query and Scan are evaluated in Python: a page ends at 1 MB of *scanned* items, and only a decoded
item tells its size in DynamoDB (ADR 23). Here is what that costs. A partition is queried with a filter, once
as the store does it; and once by the SQL that `compile_condition` makes of the filter, which decodes what it
lets through and nothing else, so that it knows neither ScannedCount nor where the page ends. Both in the
processor time of the client and by the clock, a scanned item; a figure is the median over the rounds.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable

import psycopg
import sqlalchemy as sa
from orders import Base, OrderRow, item_of, order_model

from dualstore import schema
from dualstore.expressions import Condition, compile_condition, condition
from dualstore.items import Item
from dualstore.mapping import OVERFLOW_COLUMN, TableMapping, map_table
from dualstore.operations import PutItem, Query
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres.authority_single import sql_columns
from dualstore.testing.servers import PostgresServer

PARTITION = "customer"
NAMES = {"#n": "number", "#note": "note", "#total": "total", "#paid": "paid", "#a": "address"}
VALUES: Item = {
    ":t": {"N": "990"},
    ":u": {"N": "995"},
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
MEASURED = {"1 in 100": "#total >= :t", "all": "attribute_exists(#note)", "none": "#paid = :y"}


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"[#:]\w+", text))


def bound(text: str) -> Condition:
    used = placeholders(text)
    return condition(text, *({name: each[name] for name in used & each.keys()} for each in (NAMES, VALUES)))


def filled(engine: sa.Engine, items: int) -> TableMapping:
    """The table with a partition of so many items, whose totals are 0 to 999."""
    mapping = map_table("orders", order_model("orders", "http://localhost"), OrderRow)
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    store = PostgresStore(engine, {"orders": mapping})
    for number in range(items):
        total = {"total": {"N": str(number % 1000)}, "customer": {"S": PARTITION}}
        store.execute(PutItem({"TableName": "orders", "Item": {**item_of(number), **total}}))
    return mapping


def by_evaluator(store: PostgresStore, text: str) -> Callable[[], int]:
    """All pages of a Query, as the store makes them; how many items they hold."""
    used = placeholders(text)
    request = {
        "TableName": "orders",
        "KeyConditionExpression": "customer = :c",
        "FilterExpression": text,
        "ExpressionAttributeNames": {name: NAMES[name] for name in used & NAMES.keys()},
        "ExpressionAttributeValues": {
            ":c": {"S": PARTITION},
            **{name: VALUES[name] for name in used & VALUES.keys()},
        },
    }

    def call() -> int:
        found, start = 0, None
        while True:
            more = {} if start is None else {"ExclusiveStartKey": start}
            answer = store.execute(Query({**request, **more}))
            found += len(answer["Items"])
            if (start := answer.get("LastEvaluatedKey")) is None:
                return found

    return call


def by_sql(connection: psycopg.Connection, mapping: TableMapping, text: str) -> Callable[[], int]:
    """The items that SQL lets through, decoded; how many."""
    compiled = compile_condition(bound(text), sql_columns(mapping), first=2)
    assert compiled is not None
    attributes = f"${2 + len(compiled.values)}"
    statement = (
        f"SELECT {', '.join(mapping.read_expressions('t'))} FROM {mapping.table.name} t WHERE customer = $1 "
        f"AND (coalesce(t.{OVERFLOW_COLUMN} ?| {attributes}::text[], false) OR {compiled.holds}) "
        "ORDER BY number"
    )
    values = (PARTITION, *compiled.values, list(compiled.attributes))

    def call() -> int:
        with psycopg.RawCursor(connection) as cursor:
            return len([mapping.decode(row) for row in cursor.execute(statement, values, prepare=True)])

    return call


def microseconds(call: Callable[[], int], items: int) -> tuple[float, float]:
    """Of one call, for each scanned item: the client's processor, and the clock."""
    worked, started = time.thread_time(), time.perf_counter()
    call()
    return (time.thread_time() - worked) / items * 1e6, (time.perf_counter() - started) / items * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="how often each is measured (default: 9)")
    parser.add_argument("--items", type=int, default=1000, help="of the partition (default: 1000)")
    options = parser.parse_args()
    with PostgresServer(settings={"fsync": "off"}) as server:
        engine = sa.create_engine(server.create_database())
        mapping = filled(engine, options.items)
        compiled = [text for text in FILTERS if compile_condition(bound(text), sql_columns(mapping), first=1)]
        print(f"{len(compiled)} of {len(FILTERS)} kinds of filters compile to SQL; these do not:")
        print("  " + ", ".join(text for text in FILTERS if text not in compiled))
        print(f"µs for each of {options.items} scanned items, processor time of the client / clock")
        store = PostgresStore(engine, {"orders": mapping})
        dsn = engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(dsn, autocommit=True) as connection:
            for share, text in MEASURED.items():
                ways = {"evaluated": by_evaluator(store, text), "by SQL": by_sql(connection, mapping, text)}
                assert len({call() for call in ways.values()}) == 1, "both find the same"
                taken = {
                    name: [microseconds(call, options.items) for _ in range(options.rounds)]
                    for name, call in ways.items()
                }
                told = (
                    f"{name} {statistics.median(cpu for cpu, _ in each):.1f} / "
                    f"{statistics.median(wall for _, wall in each):.1f}"
                    for name, each in taken.items()
                )
                print(f"  {share:>8} let through: {', '.join(told)}")
        engine.dispose()


if __name__ == "__main__":
    main()
