"""The control record and the register of processes, in a bookkeeping table of their own."""

import pytest

from dualstore.control import ControlRecord, Gate
from dualstore.errors import Unavailable
from dualstore.replication.control import DynamoControl
from dualstore.replication.registry import Registry
from dualstore.stages import Dials, Stage
from dualstore.stores.memory import MemoryStore
from unit.replication.processes import BOOKKEEPING, SteppedClock, World

SILENCE = 11.0


@pytest.fixture
def control(world: World) -> DynamoControl:
    world.control.create("items")
    return world.control


def only(control: DynamoControl) -> ControlRecord:
    return control.read_all()["items"]


def test_a_table_begins_at_off_and_is_created_once(control: DynamoControl) -> None:
    assert only(control) == ControlRecord("items")
    changed = control.change(only(control), stage=Stage.DUALWRITE)
    control.create("items")
    assert only(control) == changed


def test_a_bookkeeping_table_knows_of_postgresql_what_was_noted_in_it(control: DynamoControl) -> None:
    assert not control.postgres_is_known()
    for _ in range(2):
        control.note_postgres_known()
        assert control.postgres_is_known()
    assert list(control.read_all()) == ["items"]


def test_every_field_of_a_record_survives_the_table(control: DynamoControl) -> None:
    wanted = {
        "stage": Stage.SHADOW,
        "dials": Dials(postgres_read_percent=12.5, mirror_percent=99.9, shadow_percent=0.1),
        "gate": Gate.REOPENING,
        "loaded": True,
        "mirrored_since": 3,
        "suspects": frozenset({"a", "b"}),
        "epoch": 2,
    }
    changed = control.change(only(control), **wanted)
    assert changed == only(control)
    assert {name: getattr(only(control), name) for name in wanted} == wanted
    assert control.change(only(control), suspects=frozenset()) == only(control)


def test_a_change_that_was_decided_on_an_older_record_is_not_made(control: DynamoControl) -> None:
    seen = only(control)
    first = control.change(seen, stage=Stage.DUALWRITE)
    assert control.change(seen, loaded=True) is None
    assert only(control) == first


def test_the_sequence_counts_movements_of_the_gate_and_the_generation_counts_everything(
    control: DynamoControl,
) -> None:
    moves: list[tuple[Gate, int, int]] = []

    def note() -> None:
        now = only(control)
        moves.append((now.gate, now.gate_sequence, now.generation))

    control.change(only(control), loaded=True)
    note()
    control.shut_gate("items")
    note()
    control.shut_gate("items")
    note()
    control.change(only(control), gate=Gate.REOPENING)
    note()
    control.shut_gate("items")
    note()
    control.change(only(control), gate=Gate.OPEN)
    note()
    assert moves == [
        (Gate.OPEN, 0, 1),
        (Gate.SHUT, 1, 2),
        (Gate.SHUT, 1, 2),
        (Gate.REOPENING, 2, 3),
        (Gate.SHUT, 3, 4),
        (Gate.OPEN, 4, 5),
    ]


def test_whoever_decided_before_the_gate_was_shut_cannot_open_it(control: DynamoControl) -> None:
    seen = only(control)
    control.shut_gate("items")
    assert control.change(seen, gate=Gate.OPEN) is None
    assert only(control).gate is Gate.SHUT


def test_shutting_the_gate_of_a_table_without_a_record_makes_none(control: DynamoControl) -> None:
    control.shut_gate("unknown")
    assert control.read_all().keys() == {"items"}


@pytest.mark.parametrize(
    ("changes", "readable"),
    [
        ({}, True),
        ({"loaded": False}, False),
        ({"gate": Gate.SHUT}, False),
        ({"gate": Gate.REOPENING}, False),
        ({"suspects": frozenset({"x"})}, False),
        ({"stage": Stage.OFF}, False),
        ({"dials": Dials(mirror_percent=99.0)}, False),
    ],
)
def test_a_mirror_is_readable_only_where_nothing_speaks_against_it(
    control: DynamoControl, changes: dict[str, object], readable
) -> None:
    record = control.change(only(control), **{"stage": Stage.DUALWRITE, "loaded": True, **changes})
    assert record is not None
    assert record.mirror_readable is readable


def test_a_missing_bookkeeping_table_is_reported_with_what_creates_it() -> None:
    with pytest.raises(Unavailable, match="prepare"):
        DynamoControl(MemoryStore({}), "dualstore").read_all()


# The register


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore({"dualstore": BOOKKEEPING})


def registry(store: MemoryStore, clock: SteppedClock) -> Registry:
    return Registry(DynamoControl(store, "dualstore"), clock=clock)


def test_a_process_is_silent_once_its_beat_has_been_seen_standing_still(
    store: MemoryStore, clock: SteppedClock
) -> None:
    watcher, watched = registry(store, clock), registry(store, clock)
    watcher.beat({})
    watched.beat({"items": 4})

    def silent() -> list[str]:
        return [entry.id for entry in watcher.silent(watcher.processes(), for_seconds=SILENCE)]

    assert silent() == []
    clock.advance(SILENCE)
    assert silent() == []
    clock.advance(0.1)
    assert silent() == [watched.id]
    watched.beat({"items": 4})
    assert silent() == []
    clock.advance(SILENCE + 0.1)
    assert silent() == [watched.id]


def test_a_watcher_that_has_just_begun_takes_nobody_for_dead(store: MemoryStore, clock: SteppedClock) -> None:
    registry(store, clock).beat({})
    clock.advance(1000)
    watcher = registry(store, clock)
    assert watcher.silent(watcher.processes(), for_seconds=SILENCE) == []


def test_a_process_that_was_taken_for_dead_goes_on_under_a_new_name(
    store: MemoryStore, clock: SteppedClock
) -> None:
    process = registry(store, clock)
    process.beat({"items": 1})
    before = process.id
    registry(store, clock).remove(process.processes()[0])
    process.beat({"items": 2})
    assert process.id != before
    (entry,) = process.processes()
    assert (entry.id, entry.beat, entry.confirmed) == (process.id, 1, {"items": 2})


def test_an_entry_that_has_beaten_again_is_not_removed(store: MemoryStore, clock: SteppedClock) -> None:
    process = registry(store, clock)
    process.beat({})
    seen = process.processes()[0]
    process.beat({})
    registry(store, clock).remove(seen)
    assert [entry.id for entry in process.processes()] == [process.id]


def test_a_process_that_leaves_is_gone_and_one_that_never_came_leaves_in_silence(
    store: MemoryStore, clock: SteppedClock
) -> None:
    process = registry(store, clock)
    process.leave()
    process.beat({})
    process.leave()
    assert process.processes() == []
