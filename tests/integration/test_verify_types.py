"""Comparing columns of types whose texts, or whose order of members, are no content."""

import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from pynamodb.attributes import UnicodeAttribute, UnicodeSetAttribute, UTCDateTimeAttribute
from pynamodb.models import Model
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.items import Item, key_hash
from dualstore.mapping import Mirrored, TableMapping, map_table
from dualstore.mapping.transcoding import transcoder_of
from dualstore.operations import PutItem
from dualstore.stores.base import NOTHING
from dualstore.stores.fingerprint_ways import OutsidePostgres
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres_comparison import PostgresComparison
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_findings import PostgresFindings
from dualstore.stores.postgres_fingerprints import fingerprints_of, hashes_of
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.verify import BulkVerify, Finding, Judge, Threads, Verification
from integration.test_bulk_verify import EACH_WAY, Export, line
from mapping_cases import WARES
from mapping_cases import Base as CaseBase

TABLE = "typed-prod"


class Base(DeclarativeBase):
    pass


class TypedRow(Mirrored, Base):
    __tablename__ = "typed"

    id: Mapped[str] = mapped_column(sa.Text(collation="C"), primary_key=True)
    parent: Mapped[sa.UUID[Any] | None] = mapped_column(sa.Uuid)
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(sa.Text))
    seen: Mapped[datetime | None] = mapped_column(sa.DateTime(timezone=True))


class Typed(Model):
    class Meta:
        table_name = TABLE

    id = UnicodeAttribute(hash_key=True)
    parent = UnicodeAttribute(null=True)
    tags = UnicodeSetAttribute(null=True)
    seen = UTCDateTimeAttribute(null=True)


@pytest.fixture(scope="module")
def typed(postgres_server: Any) -> Iterator[tuple[sa.Engine, TableMapping]]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    schema.upgrade(engine)
    Base.metadata.create_all(engine)
    CaseBase.metadata.create_all(engine)
    for table in (TABLE, WARES.shape.name):
        PostgresControl(engine).raise_fence(table, epoch=1, role=PostgresRole.MIRROR)
    yield engine, map_table("typed", Typed, TypedRow)
    engine.dispose()
    postgres_server.drop_database(url)


def item(n: int, **attributes: Any) -> Item:
    text = f"{n:08x}-0000-4000-8000-00000000000a"
    return {"id": {"S": text}, "parent": {"S": text}} | attributes


@EACH_WAY
def test_an_empty_array_is_no_missing_set_and_uuids_are_compared(
    typed: tuple[sa.Engine, TableMapping], way: dict[str, Any]
) -> None:
    engine, mapping = typed
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE typed, dualstore.runs CASCADE")
    items = [
        item(0, tags={"SS": ["a", "b"]}),
        item(1),
        item(2, tags={"SS": ["x"]}),
        item(3, parent={"S": "0000000A-0000-4000-8000-00000000000A"}),  # no UUID as PostgreSQL writes them
        item(4),
    ]
    there = [{**items[0], "tags": {"SS": ["b", "a"]}}, *items[1:4], item(4, parent=item(9)["id"])]
    memory, postgres = MemoryStore({TABLE: mapping.shape}), PostgresStore(engine, {TABLE: mapping})
    for here, mirrored in zip(items, there, strict=True):
        memory.execute(PutItem({"TableName": TABLE, "Item": here}))
        key = mapping.shape.keys.key_of(here)
        assert postgres.write_settled(TABLE, key, mirrored, seen=NOTHING, epoch=1)
    with engine.begin() as connection:
        connection.execute(sa.update(TypedRow).where(TypedRow.id == items[1]["id"]["S"]).values(tags=[]))

    found = verify(engine, mapping, memory, Export(list(map(line, items)), batch=1), way)

    keys = mapping.shape.keys
    assert {(each.key_hash, each.finding, each.paths) for each in found.differences} == {
        (key_hash(keys, items[1]), Finding.VALUE, ("tags",)),
        (key_hash(keys, items[4]), Finding.VALUE, ("parent",)),
    }
    with engine.connect() as connection:  # nothing else was even looked at twice
        assert connection.exec_driver_sql("SELECT count(*) FROM dualstore.verify_findings").scalar() == 2


@EACH_WAY
def test_sets_are_equal_where_their_members_are_in_any_order(
    typed: tuple[sa.Engine, TableMapping], way: dict[str, Any]
) -> None:
    engine, mapping = typed
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE typed, dualstore.runs CASCADE")
    chance, keys = random.Random(7), mapping.shape.keys
    memory, postgres = MemoryStore({TABLE: mapping.shape}), PostgresStore(engine, {TABLE: mapping})
    items, different = [], set()
    for n in range(80):
        here, there = (chance.sample(["a", "b", "B", "", "ä", "a,b"], chance.randint(1, 3)) for _ in "ab")
        if n % 2:
            there = chance.sample(here, len(here))
        items.append(item(n, tags={"SS": here}))
        memory.execute(PutItem({"TableName": TABLE, "Item": items[-1]}))
        key = keys.key_of(items[-1])
        assert postgres.write_settled(TABLE, key, item(n, tags={"SS": there}), seen=NOTHING, epoch=1)
        with engine.begin() as connection:  # in the order that was drawn
            statement = sa.update(TypedRow).where(TypedRow.id == items[-1]["id"]["S"]).values(tags=there)
            connection.execute(statement)
        if set(here) != set(there):
            different.add(key_hash(keys, items[-1]))

    found = verify(engine, mapping, memory, Export(list(map(line, items))), way)

    assert {each.key_hash for each in found.differences} == different
    with engine.connect() as connection:  # nothing else was even looked at twice
        looked_at = connection.exec_driver_sql("SELECT count(*) FROM dualstore.verify_findings").scalar()
    assert looked_at == len(different) > 20


@EACH_WAY
def test_rows_that_make_no_item_are_told_by_their_keys(
    typed: tuple[sa.Engine, TableMapping], way: dict[str, Any]
) -> None:
    """An array of two dimensions is no set, one with NULL none, and `infinity` no moment that can be read."""
    engine, mapping = typed
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE typed, dualstore.runs CASCADE")
    four, moment = {"SS": ["a", "b", "c", "d"]}, {"S": "2024-05-06T07:08:09.000000+0000"}
    items = [item(n, tags=four, seen=moment) for n in range(8)]
    memory, postgres = MemoryStore({TABLE: mapping.shape}), PostgresStore(engine, {TABLE: mapping})
    for each in items:
        memory.execute(PutItem({"TableName": TABLE, "Item": each}))
        key = mapping.shape.keys.key_of(each)
        assert postgres.write_settled(TABLE, key, each, seen=NOTHING, epoch=1)
    damage = {1: "tags = '{{a,b},{c,d}}'", 3: "tags = '{a,NULL}'", 6: "seen = 'infinity'"}
    with engine.begin() as connection:
        for n, change in damage.items():
            connection.exec_driver_sql(f"UPDATE typed SET {change} WHERE id = '{items[n]['id']['S']}'")

    found = verify(engine, mapping, memory, Export(list(map(line, items))), way)

    assert {(each.key_hash, each.finding) for each in found.differences} == {
        (key_hash(mapping.shape.keys, items[n]), Finding.VALUE) for n in damage
    }
    assert (found.difference_count, found.equal) == (3, 5)


WARE: Item = {
    "price": {"N": "12.5"},
    "share": {"N": "0.125"},
    "fill": {"S": ""},
    "token": {"S": "f47ac10b58cc4372a5670e02b2c3d479"},
    "since": {"S": "20200229"},
    "seen": {"S": "2024-05-06T07:08+00:00"},
    "sold": {"S": "open"},
    "motto": {"S": "a\\b"},
    "seal": {"B": b"\0\xff\\"},
    "tags": {"SS": ["b", "a"]},
}
"""Values that the converters of all its columns take."""
NARROW: Item = {name: {"S": "no such thing"} for name in WARE}


@EACH_WAY
def test_live_traffic_and_verification_agree_on_converted_columns(
    typed: tuple[sa.Engine, TableMapping], way: dict[str, Any]
) -> None:
    """What the writes of live put into the columns, the copies of an export find there."""
    engine, _ = typed
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE wares, dualstore.runs CASCADE")
    items = [
        {"name": {"S": name}, **rest} for name, rest in zip("abcd", (WARE, NARROW, WARE, {}), strict=True)
    ]
    name = WARES.shape.name
    memory, postgres = MemoryStore({name: WARES.shape}), PostgresStore(engine, {name: WARES})
    for each in items:
        memory.execute(PutItem({"TableName": name, "Item": each}))
        key = WARES.shape.keys.key_of(each)
        assert postgres.write_settled(name, key, each, seen=NOTHING, epoch=1)
    with engine.begin() as connection:
        row = connection.exec_driver_sql("SELECT * FROM wares WHERE name = 'a'").mappings().one()
        assert all(row[column.name] is not None for column in WARES.columns)
        assert row["dualstore_overflow"] is None
        connection.exec_driver_sql("UPDATE wares SET price = 1251, sold = false WHERE name = 'c'")

    found = verify(engine, WARES, memory, Export(list(map(line, items)), batch=1), way)

    keys = WARES.shape.keys
    assert [(each.key_hash, each.finding, set(each.paths)) for each in found.differences] == [
        (key_hash(keys, items[2]), Finding.VALUE, {"price", "sold"})
    ]
    with engine.connect() as connection:  # nothing else was even looked at twice
        assert connection.exec_driver_sql("SELECT count(*) FROM dualstore.verify_findings").scalar() == 1


def verify(
    engine: sa.Engine, mapping: TableMapping, memory: MemoryStore, export: Export, way: dict[str, Any]
) -> Verification:
    taking = fingerprints_of if way.get("way") is OutsidePostgres else hashes_of
    return BulkVerify(
        mapping=mapping,
        source=export,
        transcoder=transcoder_of(mapping),
        comparison=PostgresComparison(engine, mapping),
        fingerprints=taking(engine, mapping),
        findings=PostgresFindings(engine, mapping.shape.keys),
        runs=PostgresRuns(engine),
        judge=Judge(
            shape=mapping.shape,
            dynamodb=memory,
            postgres=PostgresStore(engine, {mapping.shape.name: mapping}),
            pause=timedelta(milliseconds=1),
        ),
        at_once=way["at_once"],
        crew=Threads(1),
    ).run()
