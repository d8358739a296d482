"""A mirror whose reads a person has stopped answers none, of whatever kind, and is a mirror all the same."""

from typing import Any

import pytest

from contract.tables import N, S, TableUnderTest
from dualstore.control import PostgresRole, Stop
from dualstore.errors import MirrorDirty
from dualstore.operations import Operation, parse
from dualstore.stores import NOTHING
from dualstore.stores.control_homes import StopMarks
from dualstore.stores.memory.control import MemoryControl
from dualstore.stores.postgres_control import PostgresControl

KEY = {"pk": S("p"), "sk": N(1)}
STOP = Stop("kim", 1_000.125, "p99 doubled")


@pytest.fixture
def marks(subject) -> StopMarks:
    """Where the subject's reads are stopped."""
    return subject.fence if isinstance(subject.fence, PostgresControl) else MemoryControl(subject.store)


@pytest.fixture
def mirror(things: TableUnderTest, subject) -> TableUnderTest:
    """A mirror of one item."""
    subject.fence.raise_fence(things.name, epoch=1, role=PostgresRole.MIRROR)
    assert things.store.write_settled(things.name, KEY, dict(KEY), seen=NOTHING, epoch=1)
    return things


def reads(table: str) -> dict[str, dict[str, Any]]:
    return {
        "GetItem": {"TableName": table, "Key": KEY},
        "Query": {
            "TableName": table,
            "KeyConditionExpression": "pk = :p",
            "ExpressionAttributeValues": {":p": S("p")},
        },
        "Scan": {"TableName": table},
        "BatchGetItem": {"RequestItems": {table: {"Keys": [KEY]}}},
        "TransactGetItems": {"TransactItems": [{"Get": {"TableName": table, "Key": KEY}}]},
    }


def tells_nothing(mirror: TableUnderTest, asked: Operation) -> bool:
    """Whether a read is left to the authority: refused, or for a batch none of its keys answered."""
    try:
        answer = mirror.store.execute_as_mirror(asked)
    except MirrorDirty:
        return True
    unprocessed = answer.get("UnprocessedKeys", {}).get(mirror.name, {}).get("Keys")
    return unprocessed == [KEY] and not any(answer["Responses"].values())


@pytest.mark.parametrize("operation", reads(""))
def test_a_stopped_mirror_answers_no_read_until_it_is_released(mirror, marks, operation):
    asked = parse(operation, reads(mirror.name)[operation])
    before = mirror.store.execute_as_mirror(asked)
    marks.mark_stopped(mirror.name, STOP)
    assert tells_nothing(mirror, asked)
    marks.unmark_stopped(mirror.name)
    assert mirror.store.execute_as_mirror(asked) == before


def test_a_stopped_mirror_is_written_and_repaired_as_before(mirror, marks):
    marks.mark_stopped(mirror.name, STOP)
    seen = mirror.store.state(mirror.name, KEY).revision
    assert mirror.store.write_settled(mirror.name, KEY, None, seen=seen, epoch=1)
    assert list(mirror.store.dirty_keys(mirror.name)) == []
    marks.unmark_stopped(mirror.name)


def test_other_tables_answer_while_one_is_stopped(mirror, marks):
    marks.mark_stopped(f"{mirror.name}-other", STOP)
    answered = mirror.store.execute_as_mirror(parse("GetItem", reads(mirror.name)["GetItem"]))
    assert answered["Item"] == KEY
    marks.unmark_stopped(f"{mirror.name}-other")


def test_a_mark_comes_back_as_the_first_who_stopped_left_it(mirror, marks):
    marks.mark_stopped(mirror.name, STOP)
    marks.mark_stopped(mirror.name, Stop("lee", 2_000.0))
    assert marks.stop_marks()[mirror.name] == STOP
    for _ in range(2):
        marks.unmark_stopped(mirror.name)
        assert mirror.name not in marks.stop_marks()
