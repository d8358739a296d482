"""Where control records and the register are kept: the same rules in both databases."""

from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from dualstore.control import ControlRecord, FailedOver, Gate, Phase, ProcessEntry, Stop
from dualstore.items import KeyAttribute, KeySchema, TableShape
from dualstore.replication.control import DynamoControl
from dualstore.stages import Dials, Side, Stage
from dualstore.stores import MemoryStore
from dualstore.stores.control_homes import ControlHome
from dualstore.stores.memory.control import MemoryControl
from dualstore.stores.postgres_control import PostgresControl

BOOKKEEPING = TableShape("dualstore", KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "S")))


@pytest.fixture(params=["dynamodb", "memory", "postgres"])
def home(request: pytest.FixtureRequest) -> ControlHome:
    if request.param == "dynamodb":
        return DynamoControl(MemoryStore({"dualstore": BOOKKEEPING}), "dualstore")
    if request.param == "memory":
        return MemoryControl(MemoryStore({}, side=Side.POSTGRES))
    return PostgresControl(request.getfixturevalue("postgres_engine"))


@pytest.fixture
def table() -> str:
    return f"orders-{uuid4().hex[:12]}"


@pytest.fixture
def first(home: ControlHome, table: str) -> ControlRecord:
    """A first record, at stage off."""
    home.create(table)
    return home.read_all()[table]


def full(table: str, **fields: Any) -> ControlRecord:
    """A record with nothing left as it is by default."""
    return ControlRecord(
        table,
        **{
            "stage": Stage.LIVE,
            "dials": Dials(12.5, 33.3, 0.1),
            "gate": Gate.REOPENING,
            "gate_sequence": 5,
            "generation": 40,
            "loaded": True,
            "mirrored_since": 11,
            "verified": True,
            "suspects": frozenset({"b", "a"}),
            "epoch": 3,
            "phase": Phase.CLOSED,
            "target": Stage.SHADOW,
            "deferred": True,
            "streamed": True,
            "stopped": Stop("kim", 1_000.125, "p99 doubled"),
            "failed_over": FailedOver("kim", 2_000.5, "it burnt", 1_990.25, 7, 1_995.125, 3_000.5),
        }
        | fields,
    )


def test_a_first_record_is_of_a_table_at_stage_off(table, first):
    assert first == ControlRecord(table)


def test_a_first_record_is_made_only_once(home, table, first):
    changed = home.change(first, stage=Stage.DUALWRITE)
    home.create(table)
    assert home.read_all()[table] == changed


def test_a_record_comes_back_as_it_was_written(home, table):
    assert home.install(full(table))
    assert home.read_all()[table] == full(table)


def test_a_change_counts_the_generation_and_the_movements_of_the_gate(home, table, first):
    second = home.change(first, gate=Gate.SHUT)
    assert second == replace(first, gate=Gate.SHUT, generation=1, gate_sequence=1)
    third = home.change(second, loaded=True)
    assert third == replace(second, loaded=True, generation=2)
    assert home.read_all()[table] == third


def test_of_two_changes_of_one_record_the_second_is_not_made(home, table, first):
    made = home.change(first, stage=Stage.DUALWRITE)
    assert home.change(first, stage=Stage.SHADOW) is None
    assert home.read_all()[table] == made


def test_a_change_of_a_record_in_another_phase_is_not_made(home, table, first):
    assert home.change(replace(first, phase=Phase.CLOSED), stage=Stage.DUALWRITE) is None
    assert home.read_all()[table] == first


def test_a_record_that_is_not_there_is_not_changed(home, table):
    assert home.change(ControlRecord(table), loaded=True) is None
    assert table not in home.read_all()


def test_of_the_decision_to_move_and_the_decision_to_stay_one_is_made(home, table, first):
    closed = home.change(first, phase=Phase.CLOSED, target=Stage.LIVE)
    moved = home.change(closed, phase=Phase.MOVED, stage=Stage.LIVE, epoch=1, target=None)
    assert moved is not None
    assert home.change(closed, phase=Phase.OPEN, target=None) is None
    assert home.read_all()[table] == moved


def test_a_gate_is_shut_whatever_else_is_decided(home, table, first):
    second = home.change(first, loaded=True)
    home.shut_gate(table)
    shut = home.read_all()[table]
    assert shut == replace(second, gate=Gate.SHUT, gate_sequence=1, generation=2)
    home.shut_gate(table)
    assert home.read_all()[table] == shut


def test_no_gate_is_shut_where_there_is_no_record(home, table):
    home.shut_gate(table)
    assert table not in home.read_all()


def test_a_copy_gives_way_to_a_later_record(home, table):
    assert home.install(full(table, phase=Phase.MOVED))
    for later in (
        full(table, phase=Phase.MOVED, generation=41),
        full(table, phase=Phase.OPEN, generation=42),
    ):
        assert home.install(later)
        assert home.read_all()[table] == later


@pytest.mark.parametrize("generation", [40, 39])
def test_a_copy_does_not_give_way_to_a_record_that_is_not_later(home, table, generation):
    copy = full(table, phase=Phase.MOVED)
    home.install(copy)
    assert not home.install(full(table, phase=Phase.OPEN, generation=generation))
    assert home.read_all()[table] == copy


@pytest.mark.parametrize("phase", [Phase.OPEN, Phase.CLOSED])
def test_a_record_that_decides_does_not_give_way(home, table, phase):
    home.install(full(table, phase=phase))
    assert not home.install(full(table, phase=Phase.MOVED, generation=100))
    assert home.read_all()[table] == full(table, phase=phase)


def entry(**fields: Any) -> ProcessEntry:
    return ProcessEntry(
        **{
            "id": uuid4().hex,
            "beat": 1,
            "confirmed": {"orders": 4, "notes": 0},
            "label": "host:1",
            "seen_at": 1_700_000_000.125,
            "version": "1.2",
            "deferring": frozenset({"orders", "notes"}),
        }
        | fields
    )


def known(home: ControlHome, id_: str) -> ProcessEntry | None:
    return next((each for each in home.processes() if each.id == id_), None)


def test_an_entry_comes_back_as_it_was_written(home):
    for written in (entry(), entry(deferring=frozenset(), confirmed={})):
        assert home.write_process(written, is_new=True)
        assert known(home, written.id) == written


def test_a_beat_replaces_the_entry(home):
    before = entry()
    home.write_process(before, is_new=True)
    after = replace(before, beat=2, confirmed={"orders": 5}, seen_at=before.seen_at + 1)
    assert home.write_process(after, is_new=False)
    assert known(home, before.id) == after


def test_a_beat_does_not_bring_an_entry_back(home):
    gone = entry()
    assert not home.write_process(gone, is_new=False)
    assert known(home, gone.id) is None


def test_an_entry_is_written_again_after_its_reply_was_lost(home):
    new = entry()
    assert home.write_process(new, is_new=True)
    assert home.write_process(new, is_new=True)
    assert known(home, new.id) == new


def test_an_entry_that_has_beaten_since_is_not_taken_out(home):
    seen = entry()
    home.write_process(seen, is_new=True)
    home.write_process(replace(seen, beat=2), is_new=False)
    home.remove_process(seen, if_beat=True)
    assert known(home, seen.id) is not None
    home.remove_process(replace(seen, beat=2), if_beat=True)
    assert known(home, seen.id) is None


def test_a_process_takes_its_own_entry_out_whatever_its_beat(home):
    own = entry(beat=7)
    home.write_process(own, is_new=True)
    home.remove_process(replace(own, beat=8), if_beat=False)
    assert known(home, own.id) is None


# A failover


def test_a_failover_of_which_little_is_known_comes_back_as_it_was_written(home, table):
    little = full(table, failed_over=FailedOver("kim", 2_000.5))
    assert home.install(little)
    assert home.read_all()[table] == little


def test_a_copy_gives_way_to_the_record_of_a_failover_but_only_the_copy_that_was_seen():
    home = DynamoControl(MemoryStore({"dualstore": BOOKKEEPING}), "dualstore")
    copy = full("orders", phase=Phase.MOVED, failed_over=None)
    home.install(copy)
    wanted = replace(copy, phase=Phase.CLOSED, epoch=99, failed_over=FailedOver("kim", 1.0))
    assert not home.take_over(replace(copy, generation=39), wanted)
    assert home.read_all()["orders"] == copy
    assert home.take_over(copy, wanted)
    assert home.read_all()["orders"] == wanted
    assert not home.take_over(wanted, wanted)  # it decides: no copy
    assert not home.install(replace(copy, generation=1_000))


@pytest.fixture(params=["memory", "postgres"])
def fence(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return MemoryControl(MemoryStore({}, side=Side.POSTGRES))
    return PostgresControl(request.getfixturevalue("postgres_engine"))


@pytest.mark.parametrize("phase", list(Phase))
def test_whatever_a_fence_shows_is_overruled_by_a_later_epoch_only(fence, table, phase):
    stood = full(table, phase=phase, epoch=3, generation=2_000, failed_over=None)
    assert fence.install(stood)
    later = full(table, phase=Phase.OPEN, stage=Stage.SHADOW, epoch=9, generation=50)
    assert not fence.overrule(replace(later, epoch=3))
    assert fence.read_all()[table] == stood
    assert fence.overrule(later)
    # All of it, its lower generation too: the next copy must not look older.
    assert fence.read_all()[table] == replace(later, phase=Phase.MOVED)
    assert not fence.overrule(later)
    assert fence.install(replace(later, phase=Phase.MOVED, generation=51))


def test_a_database_that_knows_nothing_of_a_table_is_told_of_its_failover(fence, table):
    record = full(table, phase=Phase.OPEN, stage=Stage.SHADOW)
    assert fence.overrule(record)
    assert fence.read_all()[table] == replace(record, phase=Phase.MOVED)
