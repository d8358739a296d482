"""Query and Scan of rows that PostgreSQL weighs answer what the evaluator says of the items themselves."""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import psycopg
import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dualstore import schema
from dualstore.errors import DualStoreError, RequestRejected
from dualstore.expressions.conditions import (
    And,
    Attribute,
    Call,
    Comparison,
    Condition,
    Constant,
    Membership,
    Not,
    Size,
)
from dualstore.items import Index, Item, KeyAttribute, KeySchema, item_size_bytes, normalized_item
from dualstore.mapping import TableMapping, quoted
from dualstore.operations import PagedRead, Query, Scan
from dualstore.stores import semantics
from dualstore.stores.postgres import PostgresStore, pages
from dualstore.stores.postgres.pages import Walk
from dualstore.stores.postgres.size_sql import telling
from dualstore.stores.semantics import Scanned, reads
from integration.postgres.conditions import predicates
from mapping_cases import MAPPINGS, ORDERS, READINGS, Base, items

EXAMPLES = int(os.environ.get("DUALSTORE_SQL_EXAMPLES", "8"))
"""Of each table; thousands say more."""
BY_LABEL = Index(
    "by_label",
    KeySchema(KeyAttribute("label", "S"), KeyAttribute("price", "N")),
    frozenset({"small", "open"}),
)
CASES = {
    **MAPPINGS,  # and an index whose keys do not all fit their columns
    "readings": replace(READINGS, shape=replace(READINGS.shape, indexes={BY_LABEL.name: BY_LABEL})),
}
SERVER = {"suppress_health_check": [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]}


@pytest.fixture(scope="module")
def engine(postgres_server) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url, pool_size=1)
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()
    postgres_server.drop_database(url)


@pytest.fixture(scope="module")
def store(engine) -> PostgresStore:
    return PostgresStore(engine, {mapping.shape.name: mapping for mapping in CASES.values()})


def fill(engine: sa.Engine, mapping: TableMapping, held: list[Item]) -> None:
    """Let a table hold these items, and no others."""
    names = ", ".join(map(quoted, mapping.column_names))
    insert = f"INSERT INTO {mapping.table.name} ({names}) SELECT {', '.join(mapping.placeholders)}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {mapping.table.name}")
        with psycopg.RawCursor(connection.connection.driver_connection) as cursor:
            for item in held:
                cursor.execute(insert, mapping.encode(item))


def walked(store: PostgresStore, operation: PagedRead) -> list[Scanned]:
    """All that an operation comes by, wherever its page ends."""
    planned = semantics.plan(operation, semantics.shape_of(store._catalog, operation))
    with patch.object(pages, "_FIRST_CHUNK_ROWS", 0), store._sessions.lease() as session:
        walk = Walk(store._catalog.statements(operation.table), planned, in_utf8=session.in_utf8)
        return list(walk.scanned(session, session.rows(*walk.first())))


@st.composite
def tables(draw: st.DrawFn, mapping: TableMapping) -> list[Item]:
    drawn = draw(st.lists(items(mapping), min_size=1, max_size=6))
    if draw(st.booleans()):  # an index, and a partition, of several items
        for name in {each.partition.name for each in (mapping.shape.keys, *_index_keys(mapping))}:
            value = drawn[0].get(name)
            drawn = [{**item, name: value} if value and name in item else item for item in drawn]
    keys = mapping.shape.keys
    sound = (_indexable(mapping, item) for item in map(normalized_item, drawn))
    return list({repr(keys.key_of(item)): item for item in sound}.values())


def _indexable(mapping: TableMapping, item: Item) -> Item:
    """An item without what DynamoDB refuses as the key of an index."""
    sound = dict(item)
    for index in mapping.shape.indexes.values():
        for key in index.keys.attributes:
            try:
                index.check_key(key, item.get(key.name, {}))
            except RequestRejected:
                if key.name not in mapping.shape.keys.names:
                    sound.pop(key.name, None)
    return sound


def _index_keys(mapping: TableMapping) -> list[Any]:
    return [index.keys for index in mapping.shape.indexes.values()]


@st.composite
def asked(
    draw: st.DrawFn, mapping: TableMapping, found: list[Item]
) -> tuple[type[PagedRead], dict[str, Any]]:
    """A Query or Scan of the table or of an index, with no page yet and no filter."""
    request: dict[str, Any] = {"TableName": mapping.shape.name}
    keys = mapping.shape.keys
    index = draw(st.sampled_from([None, *mapping.shape.indexes.values()]))
    if index is not None:
        request["IndexName"], keys = index.name, index.keys
    partitions = [
        item[keys.partition.name]
        for item in found
        if keys.partition.type in item.get(keys.partition.name, {})
        and any(item[keys.partition.name].values())
    ]
    if not partitions or draw(st.booleans()):
        if draw(st.booleans()):
            request |= {"Segment": draw(st.integers(0, 1)), "TotalSegments": 2}
        return Scan, request
    return Query, request | {
        "KeyConditionExpression": "#k = :k",
        "ExpressionAttributeNames": {"#k": keys.partition.name},
        "ExpressionAttributeValues": {":k": draw(st.sampled_from(partitions))},
        "ScanIndexForward": draw(st.booleans()),
    }


@st.composite
def filters(
    draw: st.DrawFn, kind: type[PagedRead], mapping: TableMapping, index: str | None, found: list[Item]
) -> Condition:
    names = {name for item in found for name in item} | set(mapping.column_of) | {"absent"}
    keys = mapping.shape.keys
    if index is not None:
        keys = mapping.shape.indexes[index].keys
        names &= mapping.shape.indexes[index].held_attributes(mapping.shape.keys) or names
    names -= {"_dsv", "_dsp"} | (set(keys.names) if kind is Query else set())
    if not names:
        names = {"absent"} if index is None else {mapping.shape.keys.names[-1]}
    predicate = draw(predicates(found, sorted(names)))
    if draw(st.integers(0, 3)) == 0:  # a term that has no SQL
        size = Size(Attribute((draw(st.sampled_from(sorted(names))),)))
        predicate = And((predicate, Comparison(">", size, Constant({"N": "1"}))))
    return Condition(predicate)


def operation(kind: type[PagedRead], request: dict[str, Any], condition: Condition | None) -> PagedRead:
    made = kind(request)
    made.filter = condition
    return made


def answers(store: PostgresStore, kind: type[PagedRead], request: Any, condition: Any) -> list[Any]:
    """The pages of an operation, each asked for from where the one before it ended."""
    found = [store.execute(operation(kind, request, condition))]
    while (start := found[-1].get("LastEvaluatedKey")) is not None:
        assert len(found) < 100
        found.append(store.execute(operation(kind, {**request, "ExclusiveStartKey": start}, condition)))
    return found


def expected(store: PostgresStore, whole: list[Item], kind: Any, request: Any, condition: Any) -> list[Any]:
    """The pages that the semantics make of the whole items, the evaluator deciding."""
    planned = semantics.plan(operation(kind, request, condition), store._catalog[request["TableName"]])
    found: list[Any] = []
    while not found or "LastEvaluatedKey" in found[-1]:
        found.append(semantics.page(planned, whole[sum(page["ScannedCount"] for page in found) :]))
    return found


@pytest.mark.parametrize("table", CASES)
@settings(max_examples=EXAMPLES, **SERVER)
@given(data=st.data())
def test_pages_are_those_that_the_evaluator_makes(engine, store, table, data):
    mapping = CASES[table]
    held = data.draw(tables(mapping))
    fill(engine, mapping, held)
    for _ in range(3):
        kind, request = data.draw(asked(mapping, held))
        whole = [item for page in answers(store, kind, request, None) for item in page["Items"]]
        condition = data.draw(st.none() | filters(kind, mapping, request.get("IndexName"), held))
        request |= data.draw(
            st.fixed_dictionaries(
                {"ReturnConsumedCapacity": st.just("INDEXES")},
                optional={"Limit": st.integers(1, 3), "Select": st.just("COUNT")},
            )
        )
        page_bytes = data.draw(st.sampled_from([1, 60, 150, 400, 1_048_576]))
        with (
            patch.object(reads, "MAX_PAGE_SIZE_BYTES", page_bytes),
            patch.object(pages, "_CHUNK_ROWS", (1, 2, 3)),
            patch.object(pages, "_FIRST_CHUNK_ROWS", data.draw(st.sampled_from([0, 0, 2]))),
        ):
            wanted = expected(store, whole, kind, request, condition)
            assert answers(store, kind, request, condition) == wanted, (request, condition)


@pytest.mark.parametrize("table", CASES)
@settings(max_examples=EXAMPLES, **SERVER)
@given(data=st.data())
def test_a_row_that_is_only_counted_counts_for_what_its_item_does(engine, store, table, data):
    mapping = CASES[table]
    held = data.draw(tables(mapping))
    fill(engine, mapping, held)
    for index in (None, *mapping.shape.indexes):
        request = {"TableName": mapping.shape.name, **({} if index is None else {"IndexName": index})}
        whole = walked(store, Scan(request))
        counted = walked(store, Scan({**request, "Select": "COUNT"}))
        assert [each.size_bytes for each in counted] == [item_size_bytes(each.entry) for each in whole]
        for each in counted:
            event(f"{table} {index}: {'weighed' if each.entry is None else 'asked'}")


USUAL: dict[str, list[Any]] = {
    "S": [
        "a",
        "é" * 3,
        "open",
        "gone away",
        "SMALL",
        "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "f47ac10b58cc4372a5670e02b2c3d479",
        "2024-05-06",
        "20240506",
        "2024-05-06T07:08+00:00",
        "2024-05-06T07:08:09.123000+0000",
    ],
    "N": ["0", "-1", "10", "100.25", "-0.07", "1000", "1700000000", "1234567890123456789"],
    "B": [b"\0\xff"],
    "BOOL": [True],
    "SS": [["a", "é"]],
    "NS": [["-10", "1000"]],
    "BS": [[b"", b"\xff"]],
    "L": [[], [{"S": "a"}], [{"N": "1"}, {"M": {"é": {"L": []}}}, {"BOOL": False}]],
    "M": [{}, {"a": {"S": 'b, {"c'}, "d": {"NULL": True}, "e": {"M": {"": {"N": "-10.50"}}}}],
}
COLUMNS = [
    pytest.param((mapping, column), id=f"{name}.{column.name}")
    for name, mapping in CASES.items()
    for column in mapping.columns
]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_counts_for_what_its_attribute_does(engine, store, column):
    mapping, mapped = column
    key = {key.name: {key.type: USUAL[key.type][0]} for key in mapping.shape.keys.attributes}
    values = [{mapped.type: each} for each in USUAL[mapped.type] if mapped.codec.encode(each) is not None]
    assert values
    spares_something = len(telling(mapping)) > len(mapping.key_columns)
    for value in values:
        item = normalized_item({**key, mapped.attribute: value})
        fill(engine, mapping, [item])
        (counted,) = walked(store, Scan({"TableName": mapping.shape.name, "Select": "COUNT"}))
        assert counted.size_bytes == item_size_bytes(item)
        assert (counted.entry is None) == spares_something


LEAVING_OUT = Condition(Comparison("=", Attribute(("n",)), Constant({"S": "other"})))
FULL = {
    "c": {"S": "c"},
    "number": {"N": "1"},
    "n": {"S": "note"},
    "total": {"N": "12.5"},
    "photo": {"B": b"photo"},
    "placed": {"S": "2024-05-06T07:08:09.123000+0000"},
    "address": {"M": {"street": {"S": "High Street"}}},
}
SCAN = {"TableName": ORDERS.shape.name}


def first_statement(store: PostgresStore, asked: PagedRead) -> tuple[str, Any]:
    with patch.object(pages, "_FIRST_CHUNK_ROWS", 0):
        planned = semantics.plan(asked, ORDERS.shape)
        return Walk(store._catalog.statements(ORDERS.shape.name), planned, in_utf8=True).first()


def test_of_a_row_that_is_left_out_only_its_place_is_fetched_and_what_does_not_tell_its_size(engine, store):
    fill(engine, ORDERS, [FULL])
    with store._sessions.lease() as session:
        ((*stored, weight),) = session.rows(*first_statement(store, operation(Scan, SCAN, LEAVING_OUT)))
    assert ORDERS.decode(stored) == {name: FULL[name] for name in ("c", "number", "address")}
    assert weight == item_size_bytes(FULL) - item_size_bytes({"address": FULL["address"]})


def test_of_an_and_the_terms_that_have_sql_leave_items_out_and_the_evaluator_decides_of_others(engine, store):
    fill(engine, ORDERS, [FULL])
    note = Comparison("=", Attribute(("n",)), Constant(FULL["n"]))
    longer = Comparison(">", Size(Attribute(("n",))), Constant({"N": "4"}))
    found = {
        (is_note, is_long): [
            (each.is_found, each.entry is None)
            for each in walked(store, operation(Scan, SCAN, Condition(And((first, second)))))
        ]
        for is_note, first in ((True, note), (False, Not(note)))
        for is_long, second in ((False, longer), (True, Not(longer)))
    }
    assert found == {
        (True, True): [(None, False)],
        (True, False): [(None, False)],
        (False, True): [(False, True)],
        (False, False): [(False, True)],
    }
    asked = operation(Scan, {**SCAN, "Limit": 100}, Condition(And((note, longer))))
    assert store.execute(asked)["Count"] == 0


def test_filters_that_differ_in_their_constants_are_one_statement(store):
    other = Condition(Comparison("=", Attribute(("n",)), Constant({"S": "one more"})))
    (text, values), (again, others) = (
        first_statement(store, operation(Scan, SCAN, each)) for each in (LEAVING_OUT, other)
    )
    assert text == again
    assert values != others


def test_lists_of_many_lengths_are_few_statements(store):
    def text_of(length: int) -> str:
        choices = tuple(Constant({"S": f"one of {length}"}) for _ in range(length))
        return first_statement(
            store, operation(Scan, SCAN, Condition(Membership(Attribute(("n",)), choices)))
        )[0]

    assert len({text_of(length) for length in range(1, 101)}) == 8


@pytest.mark.parametrize("function", ["contains", "begins_with"])
@pytest.mark.parametrize("first_rows", [0, 64], ids=["weighed", "whole"])
def test_no_text_is_found_in_half_of_a_character_of_another(engine, store, function, first_rows):
    """U+0001 is stored as two characters, the second of which is U+0002 as it is stored."""
    fill(engine, ORDERS, [{**FULL, "n": {"S": "\x01"}, "status": {"S": "\x02"}}])
    condition = Condition(Call(function, (Attribute(("n",)), Attribute(("status",)))))
    with patch.object(pages, "_FIRST_CHUNK_ROWS", first_rows):
        assert store.execute(operation(Scan, SCAN, condition))["Count"] == 0


BROKEN = {
    "a number that is none": "total = 'NaN'",
    "a moment that is none": "placed = 'infinity'",
    "an overflow that is none": "dualstore_overflow = '[]'",
}


@pytest.mark.parametrize("assignment", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("first_rows", [0, 64], ids=["weighed", "whole"])
def test_a_row_that_makes_no_item_is_not_left_out_unseen(engine, store, assignment, first_rows):
    fill(engine, ORDERS, [FULL])
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE orders SET {assignment}")
    with patch.object(pages, "_FIRST_CHUNK_ROWS", first_rows), pytest.raises((ClientError, DualStoreError)):
        store.execute(operation(Scan, SCAN, LEAVING_OUT))


def test_an_attribute_in_its_column_and_in_the_overflow_counts_once(engine, store):
    """Somebody has set the column since; the overflow is still there."""
    fill(engine, ORDERS, [FULL])
    with engine.begin() as connection:
        connection.exec_driver_sql("""UPDATE orders SET dualstore_overflow = '{"n": {"N": "1"}}'""")
    ((counted),) = walked(store, Scan({**SCAN, "Select": "COUNT"}))
    assert counted.size_bytes == item_size_bytes(FULL)


def test_weighing_changes_no_plan(engine, store):
    """What the planner believes to be dear it does in parallel, or compiles."""
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM orders")
        connection.exec_driver_sql(
            "INSERT INTO orders (customer_id, number) SELECT 'c', n FROM generate_series(1, 20000) n"
        )
        connection.exec_driver_sql("ANALYZE orders")
    with store._sessions.lease() as session:
        text, values = first_statement(store, operation(Scan, {**SCAN, "Limit": 1000}, LEAVING_OUT))
        plan = session.rows(f"EXPLAIN (FORMAT JSON) {text}", values)[0][0][0]["Plan"]
    kinds = []
    nodes = [plan]
    while nodes:
        kinds.append(nodes[-1]["Node Type"])
        nodes += nodes.pop().get("Plans", [])
    assert sorted(kinds) == ["Index Scan", "Limit", "Subquery Scan"]
    assert plan["Total Cost"] < 1000


def test_where_texts_have_other_bytes_than_in_dynamodb_the_items_are_asked(postgres_server):
    url = sa.make_url(postgres_server.create_database())
    name = f"{url.database}_latin1"
    with sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool).connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    latin = url.set(database=name)
    engine = sa.create_engine(latin, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA dualstore; CREATE SEQUENCE dualstore.revision")
    Base.metadata.create_all(engine)
    letters = {**FULL, "n": {"S": "é"}}
    fill(engine, ORDERS, [letters])
    ((counted),) = walked(
        PostgresStore(engine, {ORDERS.shape.name: ORDERS}), Scan({**SCAN, "Select": "COUNT"})
    )
    assert (counted.entry, counted.size_bytes) == (letters, item_size_bytes(letters))
    beyond = operation(
        Scan, {**SCAN, "Limit": 100}, Condition(Comparison("<>", Attribute(("n",)), Constant({"S": "日本"})))
    )
    assert PostgresStore(engine, {ORDERS.shape.name: ORDERS}).execute(beyond)["Count"] == 1
    for each in (latin, url):
        postgres_server.drop_database(each.render_as_string(hide_password=False))


OF_CUSTOMER = {
    "KeyConditionExpression": "c = :c",
    "ExpressionAttributeValues": {":c": {"S": "c"}},
}


@pytest.mark.parametrize(
    ("asked", "are_weighed"),
    [
        ({}, False),
        ({"Limit": 16}, False),
        ({"Limit": 100}, True),
    ],
    ids=["as many as there are", "few", "many"],
)
def test_rows_are_weighed_at_once_where_they_are_many(store, asked, are_weighed):
    request = {**SCAN, **OF_CUSTOMER, **asked}
    planned = semantics.plan(operation(Query, request, LEAVING_OUT), ORDERS.shape)
    text, _ = Walk(store._catalog.statements(ORDERS.shape.name), planned, in_utf8=True).first()
    assert ("dualstore_weight" in text) == are_weighed


def test_rows_that_python_sorts_come_whole(store):
    texts = [
        first_statement(store, operation(Query, {**SCAN, **OF_CUSTOMER, **index}, LEAVING_OUT))[0]
        for index in ({}, {"IndexName": "by_placed"})
    ]
    assert ["dualstore_weight" in text for text in texts] == [True, False]
