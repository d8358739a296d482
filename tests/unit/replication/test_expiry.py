"""Sweeping expired rows: who deletes, who settles, how much at once, how often."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from dualstore.control import ControlRecord, Phase
from dualstore.errors import AuthorityMoved
from dualstore.items import Key, KeyAttribute, KeySchema, TableShape
from dualstore.operations import PutItem
from dualstore.replication.expiry import Expiry, SweepLimits, Swept, ttl_attribute
from dualstore.replication.served import ServedTable
from dualstore.stages import Stage
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres_expiry import Cursor, Deleted, ExpiredPage, ExpiredRow

TABLE = ServedTable("orders", TableShape("orders-prod", KeySchema(KeyAttribute("id", "S"))))
LIVE = ControlRecord("orders-prod", stage=Stage.LIVE, epoch=4)
MIRRORED = ControlRecord("orders-prod", stage=Stage.SHADOW, epoch=3)
LIMITS = SweepLimits(batch_rows=2, batches=3, walk_rows=2, walk_pages=2)
LONGEST = 1.5  # times a pause


def row(name: str) -> ExpiredRow:
    return ExpiredRow({"id": {"S": name}}, revision=1)


@dataclass
class Rows:
    """Expired rows in memory: some by their column, some in the overflow of a table of `size` rows."""

    column: list[str] = field(default_factory=list)
    overflow: dict[int, str] = field(default_factory=dict)
    size: int = 0
    start: int | None = None
    kept: frozenset[str] = frozenset()
    moved: bool = False
    deleted: list[tuple[int, tuple[str, ...]]] = field(default_factory=list)
    walked: list[int] = field(default_factory=list)

    def by_column(self, table: str, attribute: str, *, after: Cursor | None, rows: int) -> ExpiredPage:
        assert (table, attribute) == ("orders-prod", "ttl")
        names = [name for name in sorted(self.column) if after is None or name > after[0]][:rows]
        return ExpiredPage(tuple(map(row, names)), (names[-1],) if len(names) == rows else None)

    def in_overflow(self, table: str, attribute: str, *, after: Cursor | None, rows: int) -> ExpiredPage:
        begin = 0 if after is None else after[0]
        self.walked.append(begin)
        found = [self.overflow[n] for n in range(begin, begin + rows) if n in self.overflow]
        return ExpiredPage(tuple(map(row, found)), (begin + rows,) if begin + rows <= self.size else None)

    def anywhere(self, table: str, attribute: str) -> Cursor | None:
        return None if self.start is None else (self.start,)

    def delete(self, table: str, rows: Sequence[ExpiredRow], *, epoch: int) -> Deleted:
        if self.moved:
            raise AuthorityMoved("elsewhere")
        names = tuple(each.key["id"]["S"] for each in rows)
        self.deleted.append((epoch, names))
        gone = set(names) - self.kept
        self.column = [name for name in self.column if name not in gone]
        self.overflow = {n: name for n, name in self.overflow.items() if name not in gone}
        return Deleted(len(gone), len(names) - len(gone))


class Hands:
    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@dataclass
class Sweeping:
    """A sweeper with everything around it."""

    rows: Rows
    clock: Hands = field(default_factory=Hands)
    dynamodb: MemoryStore = field(default_factory=lambda: MemoryStore({"orders-prod": TABLE.shape}))
    settled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.expiry = Expiry(self.rows, self.dynamodb, self._settle, limits=LIMITS, clock=self.clock)

    def _settle(self, table: ServedTable, keys: Sequence[Key]) -> None:
        assert table is TABLE
        self.settled += [each["id"]["S"] for each in keys]

    def __call__(self, record: ControlRecord = LIVE, *, streamed: bool = False) -> Swept:
        return self.expiry.sweep(TABLE, "ttl", record, streamed=streamed)


def test_the_authority_deletes_under_its_epoch_in_bounded_batches():
    sweep = Sweeping(Rows(column=list("abcde")))
    assert sweep() == Swept(found=5, deleted=5)
    assert sweep.rows.deleted[:3] == [(4, ("a", "b")), (4, ("c", "d")), (4, ("e",))]
    assert not sweep.settled


def test_what_the_sql_table_keeps_is_counted_and_keeps_no_other_row():
    sweep = Sweeping(Rows(column=list("abcde"), kept=frozenset("ab")))
    assert sweep() == Swept(found=5, deleted=3, refused=2)


def test_a_sweep_is_bounded_and_the_next_one_goes_on_at_once():
    sweep = Sweeping(Rows(column=list("abcdefghij"), kept=frozenset("abcdefghij")))
    assert (sweep().found, sweep().found) == (6, 4)
    assert [names for _, names in sweep.rows.deleted] == [
        tuple(t) for t in ("ab", "cd", "ef", "gh", "ij", "")
    ]


def test_after_the_end_a_sweep_pauses_and_then_begins_anew():
    sweep = Sweeping(Rows(column=["a"], kept=frozenset("a")))
    assert sweep().found == 1
    sweep.clock.time += 60 * 0.49
    assert sweep().found == 0
    sweep.clock.time += 60 * 1.1
    assert sweep().found == 1


def test_the_overflow_is_walked_from_anywhere_in_bounded_pages_and_then_around():
    sweep = Sweeping(Rows(overflow={n: f"n{n}" for n in range(8)}, size=8, start=4))
    found = []
    for _ in range(3):
        found.append(sweep().deleted)
        sweep.clock.time += 120
    assert sweep.rows.walked == [4, 6, 8, 0, 2]
    assert found == [4, 0, 4]


def test_the_mirror_settles_only_what_dynamodb_holds_no_more():
    sweep = Sweeping(Rows(column=["gone", "held"], overflow={0: "lost", 1: "kept"}, size=2))
    for name in ("held", "kept"):
        sweep.dynamodb.execute(PutItem({"TableName": "orders-prod", "Item": {"id": {"S": name}}}))
    assert sweep(MIRRORED) == Swept(found=4, settled=2)
    assert sweep.settled == ["gone", "lost"]
    assert not sweep.rows.deleted


def test_a_mirror_whose_stream_is_followed_leaves_expiry_to_the_relay():
    sweep = Sweeping(Rows(column=["gone"]))
    assert sweep(MIRRORED, streamed=True) == Swept()
    assert not sweep.settled


def test_the_authority_deletes_whether_or_not_a_stream_is_followed():
    assert Sweeping(Rows(column=["a"]))(LIVE, streamed=True).deleted == 1


def test_dynamodb_is_asked_less_often_than_postgresql():
    sweep = Sweeping(Rows(column=["gone"]))
    sweep(MIRRORED)
    sweep.clock.time += 60 * LONGEST
    assert sweep(MIRRORED).found == 0
    sweep.clock.time += 600 * LONGEST
    assert sweep(MIRRORED).found == 1


@pytest.mark.parametrize(
    "record",
    [
        ControlRecord("orders-prod", stage=Stage.OFF),
        replace(LIVE, phase=Phase.CLOSED),
        replace(LIVE, phase=Phase.MOVED),
        replace(MIRRORED, phase=Phase.CLOSED),
        replace(MIRRORED, phase=Phase.MOVED),
    ],
)
def test_nothing_is_swept_where_postgresql_is_nothing_or_writes_pause(record):
    sweep = Sweeping(Rows(column=["a"]))
    assert sweep(record) == Swept()
    assert not sweep.rows.deleted
    assert not sweep.settled


def test_a_sweep_that_fails_pauses_too():
    sweep = Sweeping(Rows(column=["a"], moved=True))
    with pytest.raises(AuthorityMoved):
        sweep()
    assert sweep() == Swept()
    sweep.clock.time += 120
    with pytest.raises(AuthorityMoved):
        sweep()


def test_a_page_whose_deletion_failed_comes_again():
    sweep = Sweeping(Rows(column=["a", "b"], moved=True))
    with pytest.raises(AuthorityMoved):
        sweep()
    sweep.rows.moved = False
    sweep.clock.time += 120
    assert sweep().deleted == 2


def test_sweeps_of_processes_do_not_fall_into_step():
    dues = set()
    for _ in range(20):
        sweep = Sweeping(Rows())
        sweep()
        dues.add(round(sweep.expiry._progress["orders-prod"].due_at, 3))
    assert len(dues) > 10
    assert all(100 + 30 <= due <= 100 + 90 for due in dues)


def refusing(error: Exception):
    def ask() -> str | None:
        raise error

    return ask


def test_a_configured_attribute_holds_and_nobody_is_asked():
    asked = refusing(AssertionError("asked"))
    assert ttl_attribute(configured="ttl", described=asked, declared="expires") == "ttl"


@pytest.mark.parametrize("described", ["ttl", None])
def test_dynamodb_s_word_comes_before_the_model_s(described):
    """An attribute that DynamoDB does not expire items by must not delete rows either."""
    assert ttl_attribute(configured=None, described=lambda: described, declared="expires") == described


@pytest.mark.parametrize(
    "error",
    [
        ClientError({"Error": {"Code": "ResourceNotFoundException"}}, "DescribeTimeToLive"),
        EndpointConnectionError(endpoint_url="http://nowhere"),
    ],
)
def test_where_dynamodb_does_not_say_the_model_does(error):
    assert ttl_attribute(configured=None, described=refusing(error), declared="expires") == "expires"
