"""The fast comparison of a DynamoDB table in several SQL tables: duplicates, and items of no entity."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.items import Item, Key, key_hash
from dualstore.mapping import SplitMapping
from dualstore.mapping.transcoding import transcoder_of
from dualstore.operations import PutItem
from dualstore.replication.settle import settle
from dualstore.stores.base import NOTHING
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres_comparison import PostgresComparison
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_findings import PostgresFindings
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.verify import BulkVerify, Finding, Judge, Threads, Verification
from equivalence.entities import mapping as mapping_of

TABLE = "things"


@dataclass(frozen=True)
class Lines:
    blocks: Sequence[bytes]
    position_after: None = None


@dataclass(frozen=True)
class Items:
    items: Sequence[Item]

    def parameters(self) -> dict[str, Any]:
        return {"kind": "test"}

    def pieces(self) -> list[dict[str, Any]]:
        return [{}]

    def read_raw(self, _description: object, _position: object, _limits: object) -> Iterator[Lines]:
        yield Lines([b"".join(json.dumps({"Item": item}).encode() + b"\n" for item in self.items)])


@dataclass(frozen=True)
class Entities:
    """A split table on both sides."""

    mapping: SplitMapping
    engine: sa.Engine
    dynamodb: MemoryStore
    postgres: PostgresStore

    def put(self, item: Item, *, postgres: Item | None) -> None:
        self.dynamodb.execute(PutItem({"TableName": TABLE, "Item": item}))
        if postgres is not None:
            key = self.mapping.shape.keys.key_of(item)
            assert self.postgres.write_settled(TABLE, key, postgres, seen=NOTHING, epoch=1)

    def settle(self, keys: Sequence[Key]) -> None:
        for key in keys:
            settle(self.postgres, self.dynamodb, self.mapping.shape, key, epoch=1)

    def stray(self, item: Item, place: int) -> None:
        """Put an item's row into the SQL table of an entity, whatever its own is."""
        part = self.mapping.parts[place]
        columns = ", ".join(f'"{name}"' for name in part.column_names)
        copying = f'COPY "{part.table.name}" ({columns}) FROM STDIN'
        with self.engine.begin() as connection:
            driver = connection.connection.driver_connection
            with driver.cursor() as cursor, cursor.copy(copying) as copy:
                copy.set_types(part.pg_types)
                copy.write_row(part.encode(item))

    def places_of(self, item: Item) -> list[int]:
        """The SQL tables that hold a row of an item's key."""
        key = self.mapping.shape.keys.key_of(item)
        with self.engine.connect() as connection:
            return [
                place
                for place, part in enumerate(self.mapping.parts)
                if connection.execute(
                    sa.select(sa.true())
                    .select_from(part.table)
                    .where(
                        *(
                            part.table.columns[column.name] == value
                            for column, value in zip(part.key_columns, part.encode_key(key), strict=True)
                        )
                    )
                ).first()
            ]

    def verify(self, items: Sequence[Item], *, at_once: bool, repair: bool = False) -> Verification:
        return BulkVerify(
            mapping=self.mapping,
            source=Items(items),
            transcoder=transcoder_of(self.mapping),
            comparison=PostgresComparison(self.engine, self.mapping),
            findings=PostgresFindings(self.engine, self.mapping.shape.keys),
            runs=PostgresRuns(self.engine),
            judge=Judge(
                shape=self.mapping.shape,
                dynamodb=self.dynamodb,
                postgres=self.postgres,
                settle=self.settle,
                repair=repair,
                pause=timedelta(milliseconds=1),
            ),
            at_once=at_once,
            crew=Threads(1),
        ).run()


@pytest.fixture
def entities(postgres_url) -> Iterator[Entities]:
    mapping = mapping_of(TABLE)
    engine = sa.create_engine(postgres_url)
    schema.upgrade(engine)
    for part in mapping.parts:
        part.table.create(engine)
    PostgresControl(engine).raise_fence(TABLE, epoch=1, role=PostgresRole.MIRROR)
    yield Entities(
        mapping, engine, MemoryStore({TABLE: mapping.shape}), PostgresStore(engine, {TABLE: mapping})
    )
    engine.dispose()


def thing(sort: str, **attributes: Any) -> Item:
    return {"pk": {"S": "acme"}, "sk": {"S": sort}} | attributes


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "by hashes"])
def test_each_entity_is_compared_with_its_own_table(entities: Entities, at_once):
    items = [
        *(thing(f"CRED#{n}", owner={"S": "o"}, rank={"N": str(n)}) for n in range(5)),
        *(thing(f"USER#{n}", kind={"S": "user"}, rank={"N": f"{n}.5"}) for n in range(5)),
        *(thing(f"z{n}", kind={"S": "event"}, owner={"S": "o"}) for n in range(5)),
        *(thing(f"rest{n}", label={"S": "l"}) for n in range(3)),
    ]
    damaged, lost, twice = items[1], items[6], items[11]
    for item in items:
        there = {**item, "rank": {"N": "77"}} if item is damaged else item
        entities.put(item, postgres=None if item is lost else there)
    credentials = entities.mapping.parts[0]
    with entities.engine.begin() as connection:
        connection.execute(credentials.table.insert().values(pk="acme", sk=twice["sk"]["S"]))

    verification = entities.verify(items, at_once=at_once)

    keys = entities.mapping.shape.keys
    assert {(each.key_hash, each.finding) for each in verification.differences} == {
        (key_hash(keys, damaged), Finding.VALUE),
        (key_hash(keys, lost), Finding.MISSING_ON_POSTGRES),
        (key_hash(keys, twice), Finding.DUPLICATE),
    }
    assert (verification.items_dynamodb, verification.unmapped) == (18, 3)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "by hashes"])
def test_a_row_in_the_table_of_another_entity_is_told_as_that(entities: Entities, at_once):
    items = [
        *(thing(f"CRED#{n}", owner={"S": "o"}, rank={"N": str(n)}) for n in range(3)),
        *(thing(f"USER#{n}", kind={"S": "user"}, rank={"N": f"{n}.5"}) for n in range(3)),
        *(thing(f"rest{n}", label={"S": "l"}) for n in range(3)),
    ]
    astray = {0: 1, 4: 0, 8: 0}  # items that stand in the table of another entity, and which
    for number, item in enumerate(items):
        entities.put(item, postgres=None if number in astray else item)
    for number, place in astray.items():
        entities.stray(items[number], place)

    verification = entities.verify(items, at_once=at_once)

    keys = entities.mapping.shape.keys
    assert {(each.key_hash, each.finding) for each in verification.differences} == {
        (key_hash(keys, items[number]), Finding.MISPLACED) for number in astray
    }
    assert (verification.equal, verification.repaired, verification.items_dynamodb) == (6, 0, 9)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "by hashes"])
def test_a_key_with_rows_in_several_tables_explains_more_rows_than_one(entities: Entities, at_once):
    items = [thing(f"CRED#{n}", owner={"S": "o"}) for n in range(5)]
    for item in items:
        entities.put(item, postgres=item)
    gone = thing("d", label={"S": "l"})
    for place in range(len(entities.mapping.parts)):
        entities.stray(gone, place)

    verification = entities.verify(items, at_once=at_once)

    keys = entities.mapping.shape.keys
    assert [(each.key_hash, each.finding) for each in verification.differences] == [
        (key_hash(keys, gone), Finding.MISSING_ON_DYNAMODB)
    ]
    assert verification.rows_postgres == 5 + len(entities.mapping.parts)


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "by hashes"])
def test_repair_leaves_each_key_one_row_where_it_belongs(entities: Entities, at_once):
    credential, user = (thing("CRED#1", owner={"S": "o"}), thing("USER#1", kind={"S": "user"}))
    rest, doubled, damaged, gone = (thing(sort, label={"S": "l"}) for sort in ("a", "b", "c", "d"))
    items = [credential, user, rest, doubled, damaged]
    last = len(entities.mapping.parts) - 1
    for item in (credential, doubled, damaged):
        entities.put(item, postgres=item)
    for item in (user, rest):
        entities.put(item, postgres=None)
        entities.stray(item, 0)
    entities.stray(doubled, 1)
    entities.stray(damaged | {"label": {"S": "other"}}, 1)
    entities.stray(gone, last)
    entities.stray(gone, 0)

    verification = entities.verify(items, at_once=at_once, repair=True)

    keys = entities.mapping.shape.keys
    told = {each.key_hash: each.finding for each in verification.differences}
    assert told[key_hash(keys, user)] == told[key_hash(keys, rest)] == Finding.MISPLACED
    assert told[key_hash(keys, doubled)] == Finding.DUPLICATE
    assert told[key_hash(keys, gone)] == Finding.MISSING_ON_DYNAMODB
    assert (verification.proven, verification.rows_postgres) == (True, len(items))
    assert [entities.places_of(item) for item in (*items, gone)] == [
        *([entities.mapping.place_of(item)] for item in items),
        [],
    ]
    assert entities.verify(items, at_once=at_once).difference_count == 0
