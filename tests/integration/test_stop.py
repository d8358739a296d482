"""`dualstore stop` on a fleet of real processes, from whichever database the operator can reach."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from dualstore import DualStore, Stage
from dualstore.errors import IllegalTransition
from dualstore.flags import Requested, StaticFlags
from dualstore.stages import Side
from dualstore.store import MigratedTable
from integration.commands import CommandLine
from integration.deployment import QUICK, Deployment, bring_to, eventually
from integration.reading import Reads, reading
from integration.writing import NAME, item_of

DELTA = QUICK.grants.read.total_seconds()


@pytest.fixture
def migrated(deployment: Deployment) -> Iterator[tuple[DualStore, MigratedTable]]:
    """A table whose reads PostgreSQL answers, all of them."""
    model, row = deployment.table()
    with deployment.store() as store:
        store.bind(model, row, name=NAME)
        table = bring_to(store, NAME, Requested(stage=Stage.SHADOW, postgres_read_percent=100.0))
        store.client().put_item(TableName=table.physical, Item=item_of(1, 1))
        yield store, table
        store.unbind(model)


@pytest.fixture
def fleet(deployment: Deployment, migrated: tuple[DualStore, MigratedTable]) -> Iterator[list[Reads]]:
    """Two other processes that read; PostgreSQL answers them."""
    _, table = migrated
    with ExitStack() as stack:
        readers = [stack.enter_context(reading(deployment, table.physical)) for _ in range(2)]
        eventually(lambda: all(Side.POSTGRES in reader.since(0) for reader in readers), seconds=60)
        yield readers


@pytest.fixture
def dualstore(
    deployment: Deployment, migrated: tuple[DualStore, MigratedTable], tmp_path: Path
) -> CommandLine:
    """The command line, beside the fleet."""
    return CommandLine(deployment, migrated[1].physical, tmp_path)


@pytest.mark.parametrize("lost", [Side.DYNAMODB, Side.POSTGRES])
def test_one_reachable_database_is_enough_to_stop_a_fleet_for_good(
    migrated: tuple[DualStore, MigratedTable], fleet: list[Reads], dualstore: CommandLine, lost: Side
) -> None:
    store, table = migrated
    outcome = dualstore("stop", "--reason", "p99 doubled", "--by", "kim", lost=(lost,))
    stopped_at = time.monotonic()
    assert outcome.exit_code == 0, outcome.output
    assert ("DynamoDB" if lost is Side.DYNAMODB else "PostgreSQL") + " did not take it" in outcome.output
    # Both come to know of it, and it wins over what the flags go on asking for.
    eventually(lambda: (record := table.view.record).stopped is not None and record.stopped.by == "kim")
    eventually(lambda: all(table.status().confirmed.values()))
    assert table.dials.postgres_read_percent == 100.0
    time.sleep(DELTA)
    # A mark in PostgreSQL holds for the very next read; the record, once every grant has ended.
    since = stopped_at + (0.0 if lost is Side.DYNAMODB else DELTA)
    for reader in fleet:
        eventually(lambda reader=reader: len(reader.since(since)) > 20)
        assert set(reader.since(since)) == {Side.DYNAMODB}

    flags = store.flags
    assert isinstance(flags, StaticFlags)
    flags.set(NAME, postgres_read_percent=0.0)
    table.wait_until(lambda record: record.dials.postgres_read_percent == 0.0)
    flags.set(NAME, postgres_read_percent=50.0)
    with pytest.raises(IllegalTransition, match="p99 doubled"):
        table.wait_until(lambda record: record.dials.postgres_read_percent == 50.0)
    flags.set(NAME, postgres_read_percent=100.0)

    refused = dualstore("stop", "--release", lost=(lost,))
    assert refused.exit_code == 3, refused.output
    assert table.view.record.stopped is not None
    released = dualstore("stop", "--release")
    assert released.exit_code == 0, released.output
    table.wait_until(lambda record: record.stopped is None and record.dials.postgres_read_percent == 100.0)
    released_at = time.monotonic()
    for reader in fleet:
        eventually(lambda reader=reader: Side.POSTGRES in reader.since(released_at))
        assert reader.errors == []


def test_to_stop_twice_is_harmless_and_says_who_was_first(dualstore: CommandLine) -> None:
    first = dualstore("stop", "--by", "kim")
    second = dualstore("stop", "--by", "lee")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "stopped by kim" in second.output
    assert "confirmed" in second.output


def test_where_neither_database_answers_it_says_so(dualstore: CommandLine) -> None:
    outcome = dualstore("stop", lost=(Side.DYNAMODB, Side.POSTGRES))
    assert outcome.exit_code == 3
    assert "neither database took it" in outcome.stderr
