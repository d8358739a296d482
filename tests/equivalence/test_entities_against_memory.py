"""A table in several SQL tables gives MemoryStore's answers, and keeps one row for each key."""

import copy
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contract.tables import comparable
from dualstore.control import ControlRecord, PostgresRole
from dualstore.items import STAMP, Item, without_stamps
from dualstore.mapping import SplitMapping, unescape
from dualstore.operations import parse
from dualstore.schema import create_unmapped, upgrade
from dualstore.stages import Stage
from dualstore.stores import MemoryStore, Store
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.postgres_control import PostgresControl
from equivalence.entities import EVERYTHING, Call, histories, mapping, mirrored_items, mirrored_keys

EPOCH = 3
EXAMPLES = int(os.environ.get("DUALSTORE_ENTITY_EXAMPLES", "25"))
# A machine with other work to do draws the first history slowly; that says nothing of the store.
RULES = settings(suppress_health_check=[HealthCheck.too_slow])


@dataclass(frozen=True, repr=False)
class Split:
    """A split table in PostgreSQL."""

    engine: sa.Engine
    mapping: SplitMapping
    store: PostgresStore

    @property
    def name(self) -> str:
        return self.mapping.shape.name

    def empty(self, role: PostgresRole) -> None:
        """Without items, and in this role; as if nothing had ever been there."""
        with self.engine.begin() as connection:
            for statement in (
                "SELECT set_config('dualstore.writer', 'mirror', true)",
                *(f'DELETE FROM "{part.table.name}"' for part in self.mapping.parts),
                "DELETE FROM dualstore.tombstones",
                "DELETE FROM dualstore.outbox",
                f"UPDATE dualstore.control SET role = '{role}'",
            ):
                connection.exec_driver_sql(statement)

    def check_places(self, expected: Sequence[Item]) -> None:
        """Each item has one row, in the SQL table of its entity."""
        found = []
        with self.engine.connect() as connection:
            for place, part in enumerate(self.mapping.parts):
                read = f'SELECT {", ".join(part.read_expressions())} FROM "{part.table.name}"'
                for row in connection.exec_driver_sql(read):
                    item = part.decode(tuple(row))
                    assert self.mapping.place_of(item) == place, "a row is in the table of another entity"
                    found.append(without_stamps(item))
        assert _sorted(found) == _sorted(map(without_stamps, expected))

    def noted(self) -> dict[tuple[str, ...], tuple[bytes, bytes | None]]:
        """What was noted for the other side since the last look: stamp and predecessor of each key.

        A key that was noted twice fails: a move between tables is one change of the key.
        """
        with self.engine.begin() as connection:
            rows = connection.execute(
                sa.text("DELETE FROM dualstore.outbox RETURNING key, stamp, predecessor")
            )
            found = [(tuple(map(unescape, row.key)), (row.stamp, row.predecessor)) for row in rows]
        assert len(found) == len(dict(found)), "one change of a key was noted twice"
        return dict(found)


@pytest.fixture(scope="module")
def split(postgres_server: Any) -> Iterator[Split]:
    url = postgres_server.create_database()
    engine = sa.create_engine(url)
    upgrade(engine)
    made = mapping(f"entities-{uuid.uuid4().hex[:8]}")
    create_unmapped(engine, made)
    triggers.install(engine, made)
    PostgresControl(engine).install(ControlRecord(made.shape.name, stage=Stage.LIVE, epoch=EPOCH))
    yield Split(engine, made, PostgresStore(engine, {made.shape.name: made}))
    engine.dispose()
    postgres_server.drop_database(url)


def _sorted(answers: Any) -> list[Any]:
    return sorted((comparable(each) for each in answers), key=partial(json.dumps, sort_keys=True))


def named(request: Any, table: str) -> Any:
    """The request with the table's name wherever `?` stands for it."""
    if isinstance(request, dict):
        return {table if name == "?" else name: named(inner, table) for name, inner in request.items()}
    if isinstance(request, list):
        return [named(each, table) for each in request]
    return table if request == "?" else request


def answer(store: Store, call: Call, table: str, *, as_authority: bool = False) -> Any:
    """The response, of Query and Scan all pages, or the code of the refusal."""
    name, request = call
    request = named(copy.deepcopy(request), table)
    if "RequestItems" not in request and "TransactItems" not in request:
        request["TableName"] = table

    def ask(request: dict[str, Any]) -> Any:
        operation = parse(name, request)
        if as_authority:
            found = store.execute_as_authority(operation, epochs={table: EPOCH})  # type: ignore[attr-defined]
        else:
            found = store.execute(operation)
        return _unstamped({part: value for part, value in found.items() if part != "ResponseMetadata"})

    segments = range(request.get("TotalSegments", 1))
    pages: list[Any] = []
    try:
        for segment in segments:
            part = request if len(segments) == 1 else {**request, "Segment": segment}
            pages.append(ask(part))
            while "LastEvaluatedKey" in pages[-1]:
                pages.append(ask({**part, "ExclusiveStartKey": pages[-1]["LastEvaluatedKey"]}))
    except ClientError as refused:
        return refused.response["Error"]["Code"]
    if name == "Scan":  # whose order, and what is in which segment, is each store's own
        return _sorted(item for page in pages for item in page["Items"])
    if name == "BatchGetItem":
        return _sorted(pages[0]["Responses"][table])
    if request.get("IndexName"):  # as is the order of index entries with equal keys
        found = [item for page in pages for item in page["Items"]]
        by = "rank" if request["IndexName"] == "by-owner" else "label"
        return [item[by] for item in found], _sorted(found)
    return comparable(pages)


def _unstamped(answered: Any) -> Any:
    if isinstance(answered, list):
        return [_unstamped(each) for each in answered]
    if not isinstance(answered, dict):
        return answered
    return {name: _unstamped(inner) for name, inner in without_stamps(answered).items()}


def everything(memory: MemoryStore, table: str) -> list[Item]:
    return list(memory.execute(parse("Scan", {"TableName": table}))["Items"])


@settings(RULES, max_examples=EXAMPLES)
@given(history=histories)
def test_any_history_gets_the_answers_of_one_table(split: Split, history: list[Call]):
    split.empty(PostgresRole.NONE)
    memory = MemoryStore({split.name: split.mapping.shape})
    for call in (*history, *EVERYTHING):
        expected = answer(memory, call, split.name)
        assert answer(split.store, call, split.name) == expected, call
    split.check_places(everything(memory, split.name))


@settings(RULES, max_examples=EXAMPLES)
@given(history=histories)
def test_any_history_of_an_authority_notes_each_change_of_a_key_once(split: Split, history: list[Call]):
    split.empty(PostgresRole.AUTHORITY)
    memory = MemoryStore({split.name: split.mapping.shape})
    stamps_by_key: dict[tuple[str, ...], bytes] = {}
    for call in history:
        before = by_key(memory, split.name)
        expected = answer(memory, call, split.name)
        assert answer(split.store, call, split.name, as_authority=True) == expected, call
        after = by_key(memory, split.name)
        noted = split.noted()
        assert noted.keys() >= {key for key in before | after if before.get(key) != after.get(key)}
        for key, (stamp, predecessor) in noted.items():
            assert predecessor == stamps_by_key.pop(key, None), "the change was noted after another one"
            if key in after:
                stamps_by_key[key] = stamp
    split.check_places(everything(memory, split.name))


def by_key(memory: MemoryStore, table: str) -> dict[tuple[str, ...], Any]:
    return {(item["pk"]["S"], item["sk"]["S"]): comparable(item) for item in everything(memory, table)}


# What a write replaced, by its word: nothing, what the mirror holds, or the write of another step.
predecessors = st.one_of(st.none(), st.just("present"), st.just("present"), st.integers(1, 20))
mirrored = st.lists(
    st.one_of(
        st.tuples(st.just("direct"), mirrored_items, predecessors),
        st.tuples(st.just("remove"), mirrored_keys, predecessors),
        st.tuples(st.just("settle"), mirrored_items, st.none()),
        st.tuples(st.just("absent"), mirrored_keys, st.none()),
    ),
    min_size=3,
    max_size=20,
)


@settings(RULES, max_examples=2 * EXAMPLES)
@given(history=mirrored)
def test_any_history_of_a_mirror_leaves_what_one_table_holds(split: Split, history: list[Any]):
    split.empty(PostgresRole.MIRROR)
    memory = MemoryStore({split.name: split.mapping.shape})
    memory.raise_fence(split.name, epoch=EPOCH, role=PostgresRole.MIRROR)
    for number, (kind, item, replaced) in enumerate(history, 1):
        key = {name: item[name] for name in ("pk", "sk")}
        stamp = number.to_bytes(16, "big")  # names one write, and so one image
        image = {**item, STAMP: {"B": stamp}} if kind in {"direct", "settle"} else None
        predecessor = _stamp_of(memory, split.name, key, replaced)
        told = [
            _mirror(store, split.name, kind, key, image, stamp, predecessor)
            for store in (memory, split.store)
        ]
        assert told[0] == told[1], (kind, item)
    split.check_places([item for page in memory.all_items(split.name) for item in page])


def _stamp_of(memory: MemoryStore, table: str, key: Item, replaced: int | str | None) -> bytes | None:
    if replaced != "present":
        return None if replaced is None else int(replaced).to_bytes(16, "big")
    item = memory.state(table, key).item
    return None if item is None else item[STAMP]["B"]


def _mirror(  # noqa: PLR0917 - what a history's step is made of
    store: Any, table: str, kind: str, key: Item, image: Item | None, stamp: bytes, predecessor: bytes | None
) -> Any:
    """Do it; whether it was done, and what is there now."""
    if kind in {"direct", "remove"}:
        done = store.write_direct(table, key, image, stamp=stamp, predecessor=predecessor, epoch=EPOCH)
    else:
        seen = store.state(table, key).revision
        done = store.write_settled(table, key, image, seen=seen, epoch=EPOCH)
    state = store.state(table, key)
    revision = (state.revision.row is None, state.revision.tombstone is None)
    return done, None if state.item is None else comparable(state.item), state.tombstone_stamp, revision
