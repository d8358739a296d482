"""What a condition says as SQL, of rows on a real server, is what the evaluator says of their items."""

import os
from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dualstore import schema
from dualstore.expressions import SqlColumn, compile_condition, evaluate
from dualstore.expressions.conditions import (
    And,
    Attribute,
    Between,
    Call,
    Comparison,
    Condition,
    Constant,
    Membership,
    Not,
    Or,
)
from dualstore.items import Item, KeySchema, normalized_item
from dualstore.mapping import OVERFLOW_COLUMN, TableMapping, quoted
from dualstore.stores.postgres.authority_single import sql_columns
from integration.postgres.conditions import predicates
from mapping_cases import MAPPINGS, Base, items

EXAMPLES = int(os.environ.get("DUALSTORE_SQL_EXAMPLES", "10"))
"""Of each table; thousands say more."""


@pytest.fixture(scope="module")
def connection(postgres_server) -> Iterator[psycopg.Connection]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    dsn = url.replace("postgresql+psycopg://", "postgresql://", 1)
    with psycopg.connect(dsn, autocommit=True, cursor_factory=psycopg.RawCursor) as connection:
        yield connection
    engine.dispose()
    postgres_server.drop_database(url)


def key_text(keys: KeySchema, item: Item) -> str:
    return repr(keys.key_of(item))


def answers(
    connection: psycopg.Connection, mapping: TableMapping, found: list[Item], conditions: list[Condition]
) -> Iterator[tuple[Item, Condition, bool | None]]:
    """What SQL says of each item and condition; None where it leaves that to the evaluator."""
    values: list[object] = []
    columns, compiled = sql_columns(mapping), []
    for condition in conditions:
        sql = compile_condition(condition, columns, first=len(values) + 1)
        compiled.append((condition, sql))
        if sql is not None:
            values += (*sql.values, sql.attributes)
            assert sql.holds_of_nothing == evaluate(condition, None)
    selected, number = [], 0
    for _, sql in compiled:
        if sql is not None:
            number += len(sql.values) + 1
            overflows = f"coalesce(t.{OVERFLOW_COLUMN} ?| ${number}::text[], false)"
            selected.append(f"CASE WHEN NOT {overflows} THEN coalesce(({sql.holds})::int, 7) END")
    read = mapping.read_expressions("t")
    names = ", ".join(map(quoted, mapping.column_names))
    insert = f"INSERT INTO {mapping.table.name} ({names}) SELECT {', '.join(mapping.placeholders)}"
    with connection.transaction(force_rollback=True), connection.cursor() as cursor:
        for item in found:
            cursor.execute(insert, mapping.encode(item))
        said = ", ".join(selected + list(read))
        rows = cursor.execute(f"SELECT {said} FROM {mapping.table.name} t", values).fetchall()
    for row in rows:
        item, decided = mapping.decode(row[len(selected) :]), iter(row)
        for condition, sql in compiled:
            answer = None if sql is None else next(decided)
            assert answer in {None, 0, 1}, "SQL's answer is null"
            yield item, condition, None if answer is None else bool(answer)


@pytest.mark.parametrize("table", MAPPINGS)
@settings(
    max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_sql_and_the_evaluator_say_the_same(connection, table, data):
    mapping = MAPPINGS[table]
    keys = mapping.shape.keys
    drawn = data.draw(st.lists(items(mapping), min_size=1, max_size=4, unique_by=lambda i: key_text(keys, i)))
    found = list({key_text(keys, item): item for item in map(normalized_item, drawn)}.values())
    held = {name for item in found for name in item} | set(mapping.column_of)
    names = [*sorted(held - {"_dsv", "_dsp"}), "absent"]
    conditions = data.draw(st.lists(predicates(found, names).map(Condition), min_size=4, max_size=8))
    for item, condition, answer in answers(connection, mapping, found, conditions):
        if answer is not None:
            assert answer == evaluate(condition, item), condition


TEXT, NUMBER, OTHER_TEXT = Attribute(("text",)), Attribute(("number",)), Attribute(("other",))
COLUMNS = {
    "text": SqlColumn("t.text", "S", comparable=True),
    "other": SqlColumn("t.other", "S", comparable=True),
    "number": SqlColumn("t.number", "N", comparable=True),
    "moment": SqlColumn("t.moment", "S", comparable=False),
}
A, ONE = Constant({"S": "a"}), Constant({"N": "1"})


@pytest.mark.parametrize(
    "predicate",
    [
        *(Comparison(operator, TEXT, A) for operator in ("=", "<>", "<", "<=", ">", ">=")),
        *(Comparison(operator, NUMBER, ONE) for operator in ("=", "<>", "<", "<=", ">", ">=")),
        Comparison("=", TEXT, OTHER_TEXT),
        Comparison("=", TEXT, NUMBER),
        Between(NUMBER, ONE, ONE),
        Membership(TEXT, (A, ONE)),
        Call("begins_with", (TEXT, A)),
        Call("contains", (TEXT, A)),
        *(Call("attribute_exists", (Attribute((name,)),)) for name in (*COLUMNS, "absent")),
        Call("attribute_not_exists", (TEXT,)),
        Call("attribute_type", (TEXT, Constant({"S": "N"}))),
        And((Not(Comparison("=", TEXT, A)), Or((Comparison("=", NUMBER, ONE), Comparison("=", TEXT, A))))),
    ],
    ids=str,
)
def test_sql_decides(predicate):
    """What the test above compares: a compiler that compiled nothing would agree with everything."""
    assert compile_condition(Condition(predicate), COLUMNS, first=1) is not None


@pytest.mark.parametrize("name", ["_dsv", "odd\x01", "\ud800"], ids=["stamp", "escaped", "surrogate"])
def test_of_some_attributes_sql_says_nothing(name):
    assert (
        compile_condition(Condition(Call("attribute_exists", (Attribute((name,)),))), COLUMNS, first=1)
        is None
    )
