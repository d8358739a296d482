"""What a copy and a verification may declare of a table: loaded, verified, nothing suspect."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dualstore import Stage
from dualstore.backfill.sources import SourceContext, source_from
from dualstore.control import ControlRecord
from dualstore.errors import ConfigurationError, UnusableSource
from dualstore.flags import StaticFlags
from dualstore.replication.suspects import FAILED_OVER, UNMIRRORED
from dualstore.rollout.actions.data import VERIFY_DATA_INTEGRITY
from dualstore.store.copying import CopyOrder
from dualstore.store.proving import ProofOrder
from dualstore.store.table import MigratedTable
from dualstore.stores.postgres_plans import PostgresPlans
from dualstore.stores.postgres_runs import Run, RunState
from dualstore.stores.source_clients import SourceClients
from dualstore.verify import Finding, Verification, VerifyProgress
from exports import incremental_export
from integration.deployment import Deployment

ITEMS = 12
GAP = "stream gap planted"


def item(number: int) -> dict[str, Any]:
    return {"pk": {"S": f"p{number}"}, "sk": {"N": "1"}, "name": {"S": f"n{number}"}}


def source_of(
    table: MigratedTable, *places: Path | str, taken_at: datetime | None = None, client: Any = None
) -> Any:
    clients = SourceClients() if client is None else SourceClients.like(client)
    context = SourceContext(table.copying.shape, clients)
    return source_from(tuple(map(str, places)), context, taken_at=taken_at)


@pytest.fixture
def flags() -> StaticFlags:
    return StaticFlags()


@pytest.fixture
def table(deployment: Deployment, flags: StaticFlags) -> Any:
    """A table with a history, at `dualwrite`."""
    model, row = deployment.table()
    name = model.Meta.table_name
    for number in range(ITEMS):
        deployment.dynamodb.put_item(TableName=name, Item=item(number))
    with deployment.store(flags) as store:
        store.bind(model, row)
        flags.set(name, stage=Stage.DUALWRITE)
        migrated = store.table(name)
        migrated.wait_until(lambda record: record.stage is Stage.DUALWRITE)
        yield migrated


def test_increments_alone_are_no_history(table: MigratedTable, tmp_path: Path) -> None:
    begin = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)
    change = ({"pk": {"S": "p1"}, "sk": {"N": "1"}}, None, item(1))
    export = incremental_export(
        table.physical, [[change]], begin=begin, end=begin + timedelta(hours=2), number=1
    )
    source = source_of(table, export.write(tmp_path))
    with pytest.raises(ConfigurationError, match="give the full export"):
        table.backfill(order=CopyOrder(source=source))
    assert not table.status().record.loaded


def test_a_copy_that_begins_takes_back_what_was_proven_before(table: MigratedTable) -> None:
    table.backfill(segments=1, workers=1)
    assert table.verify().proven
    assert table.status().record.verified
    table.backfill(segments=1, workers=1)
    record = table.status().record
    assert (record.loaded, record.verified) == (True, False)


def break_a_rule(table: MigratedTable, deployment: Deployment) -> None:
    """Give one row a revision that was never drawn."""
    part = table.mapping.parts[0].table
    with deployment.engine.begin() as connection:
        connection.execute(part.update().where(part.c.pk == "p1").values(dualstore_revision=10**9))


def verified_beside_a_copy(table: MigratedTable) -> Verification:
    """A verification within which the history is copied anew."""
    copies = []

    def copy_again(_: object) -> None:
        if not copies:
            copies.append(table.backfill(segments=1, workers=1))

    found = table.verify(segments=1, workers=1, progress=copy_again)
    assert copies[0].succeeded
    return found


def test_a_row_that_breaks_a_rule_is_in_the_way_of_a_proof(
    table: MigratedTable, deployment: Deployment
) -> None:
    table.backfill(segments=1, workers=1)
    break_a_rule(table, deployment)

    found = table.verify()

    assert [each.finding for each in found.differences] == [Finding.VERSION]
    assert not table.status().record.verified


def test_a_copy_that_began_within_a_verification_takes_its_proof(table: MigratedTable) -> None:
    table.backfill(segments=1, workers=1)

    found = verified_beside_a_copy(table)

    assert (found.all_equal, found.disturbed, found.proven) == (True, True, False)
    assert not found.passes(0.5)
    assert not table.status().record.verified


def test_a_copy_that_began_within_a_verification_leaves_no_share_to_pass(
    table: MigratedTable, deployment: Deployment
) -> None:
    """Not all were found equal, and of those that were nobody knows whether they are."""
    table.backfill(segments=1, workers=1)
    break_a_rule(table, deployment)

    found = verified_beside_a_copy(table)

    assert (found.all_equal, found.disturbed) == (False, True)
    assert not found.passes(0.5)


def test_lines_of_a_time_to_come_are_refused(table: MigratedTable, tmp_path: Path) -> None:
    lines = tmp_path / "items.jsonl"
    lines.write_text('{"Item": {"pk": {"S": "gone"}, "sk": {"N": "1"}}}\n')
    source = source_of(table, lines, taken_at=datetime.now(UTC) + timedelta(hours=2))
    with pytest.raises(UnusableSource, match="which is to come"):
        table.backfill(order=CopyOrder(source=source))


def test_some_keys_prove_nothing_of_the_others(table: MigratedTable) -> None:
    table.backfill(segments=1, workers=1)
    found = table.prove(ProofOrder(keys=[{"pk": {"S": "p1"}, "sk": {"N": "1"}}]))
    assert found.proven
    assert not table.status().record.verified


def test_equal_to_what_was_is_not_equal_to_what_is(
    table: MigratedTable, deployment: Deployment, tmp_path: Path
) -> None:
    table.backfill(segments=1, workers=1)
    table.suspect("a-process-that-died")
    lines = tmp_path / "items.jsonl"
    scanned = table.prove(ProofOrder(source=source_of(table, "scan", client=deployment.dynamodb)))
    assert scanned.proven
    assert not table.status().record.suspects
    table.suspect("another")
    another = table.status().record.suspects
    written = [f'{{"Item": {each}}}' for each in map(_json, map(item, range(ITEMS)))]
    lines.write_text("\n".join(written) + "\n")
    found = table.prove(ProofOrder(source=source_of(table, lines)))
    assert found.difference_count == 0
    record = table.status().record
    assert (record.verified, record.suspects) == (False, another)
    assert another


def compared(done: VerifyProgress) -> bool:
    return done.segments_done == done.segments_total


@pytest.mark.parametrize("kind", [GAP, UNMIRRORED])
def test_what_becomes_suspect_again_within_a_verification_stays_suspect(
    table: MigratedTable, kind: str
) -> None:
    table.backfill(segments=1, workers=1)
    table.suspect(kind)
    later: list[frozenset[str]] = []

    def meanwhile(done: VerifyProgress) -> None:
        if compared(done) and not later:
            table.suspect(kind)
            later.append(table.status().record.suspects)

    found = table.verify(segments=1, workers=1, progress=meanwhile)
    assert (found.all_equal, [found.suspects], found.proven) == (True, later, False)
    assert not found.passes(0.5)
    record = table.status().record
    assert (record.verified, [record.suspects]) == (False, later)
    assert table.verify(segments=1, workers=1).proven
    record = table.status().record
    assert (record.verified, record.suspects) == (True, frozenset())


def test_what_becomes_suspect_once_the_record_was_read_stays_suspect(
    table: MigratedTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has waited for the transactions that wrote at `complete`: they may be committed much later."""
    table.backfill(segments=1, workers=1)
    read, left = MigratedTable._record, [UNMIRRORED]

    def read_and_leave(self: MigratedTable) -> ControlRecord:
        record = read(self)
        while left:
            self.suspect(left.pop())
        return record

    monkeypatch.setattr(MigratedTable, "_record", read_and_leave)
    assert table.verify(segments=1, workers=1).all_equal
    record = table.status().record
    assert (record.verified, len(record.suspects)) == (False, 1)


def test_a_suspicion_of_the_version_before_is_cleared_as_well(table: MigratedTable) -> None:
    table.backfill(segments=1, workers=1)
    table._decide(lambda record: {"suspects": record.suspects | {UNMIRRORED, FAILED_OVER}, "verified": False})
    assert table.verify(segments=1, workers=1).proven
    record = table.status().record
    assert (record.verified, record.suspects) == (True, frozenset())


@pytest.mark.parametrize("kind", [GAP, UNMIRRORED])
def test_what_the_version_before_notes_again_meanwhile_stays_suspect(table: MigratedTable, kind: str) -> None:
    """It gives the next one the same name, which tells nothing of when it arose."""
    table.backfill(segments=1, workers=1)

    def note(*_: object) -> None:
        table._decide(lambda record: {"suspects": record.suspects | {kind}, "verified": False})

    note()
    found = table.verify(segments=1, workers=1, progress=note)
    assert (found.all_equal, found.suspects) == (True, {kind})
    record = table.status().record
    assert (record.verified, record.suspects) == (False, {kind})
    assert table.verify(segments=1, workers=1).proven
    record = table.status().record
    assert (record.verified, record.suspects) == (True, frozenset())


def test_what_differs_leaves_what_was_suspect_and_says_so(
    table: MigratedTable, deployment: Deployment
) -> None:
    table.backfill(segments=1, workers=1)
    table.suspect(GAP)
    deployment.dynamodb.put_item(TableName=table.physical, Item=item(ITEMS))  # past dualstore
    found = table.verify(segments=1, workers=1)
    assert found.suspects == table.status().record.suspects
    assert not found.passes(0.5)


class Killed(Exception):  # noqa: N818 - no error: the end of a process
    pass


def interrupted(table: MigratedTable) -> Run:
    """A verification that has compared everything, and ends before it says so."""

    def die(done: VerifyProgress) -> None:
        if compared(done):
            raise Killed

    with pytest.raises(Killed):
        table.verify(segments=1, workers=1, progress=die)
    run = table.copying.runs.latest("verify", table.physical)
    assert run is not None
    return run


def test_a_verification_that_was_interrupted_is_gone_on_with(table: MigratedTable) -> None:
    """A process that died is suspect, and may be the one that verified: a relay clears that."""
    table.backfill(segments=1, workers=1)
    run = interrupted(table)
    table.suspect("a-process-that-died")
    assert table.verify(segments=1, workers=1).run_id == run.id


@pytest.mark.parametrize("kind", [GAP, UNMIRRORED])
def test_a_verification_is_not_gone_on_with_past_what_only_another_one_can_clear(
    table: MigratedTable, deployment: Deployment, kind: str
) -> None:
    table.backfill(segments=1, workers=1)
    table.suspect(kind)
    run = interrupted(table)
    table.suspect(kind)
    deployment.dynamodb.put_item(TableName=table.physical, Item=item(ITEMS))  # past dualstore
    found = table.verify(segments=1, workers=1)
    assert found.run_id != run.id
    assert found.difference_count == 1
    assert table.status().record.suspects
    abandoned = table.copying.runs.find(run.id)
    assert abandoned is not None
    assert abandoned.state is RunState.ABANDONED


def test_a_verification_of_a_suspicion_without_a_number_is_not_gone_on_with(table: MigratedTable) -> None:
    """The version before gave the next one the same name: nothing tells which it is."""
    table.backfill(segments=1, workers=1)
    table._decide(lambda record: {"suspects": record.suspects | {UNMIRRORED}, "verified": False})
    run = interrupted(table)
    assert table.verify(segments=1, workers=1).run_id != run.id


def test_a_verification_is_not_gone_on_with_once_writes_have_passed_the_mirror_by(
    table: MigratedTable, flags: StaticFlags
) -> None:
    table.backfill(segments=1, workers=1)
    run = interrupted(table)
    for percent in (50.0, 100.0):
        flags.set(table.physical, mirror_percent=percent)
        table.wait_until(lambda record, percent=percent: record.dials.mirror_percent == percent)
    assert table.verify(segments=1, workers=1).run_id != run.id


def test_an_order_without_keys_and_source_is_refused(table: MigratedTable) -> None:
    with pytest.raises(ConfigurationError, match="which keys"):
        table.prove(ProofOrder())


def _json(value: dict[str, Any]) -> str:
    return str(value).replace("'", '"')


def test_a_plan_compares_again_where_a_process_fell_silent_within_its_comparison(
    table: MigratedTable, deployment: Deployment
) -> None:
    """The comparison before proved what it saw, and cannot clear what came meanwhile."""
    table.backfill(segments=1, workers=1)
    began = SimpleNamespace(at=datetime.now(UTC) - timedelta(seconds=5))

    def fall_silent(_: object) -> None:
        table._decide(lambda record: {"suspects": record.suspects | {"silent"}, "verified": False})

    assert table.verify(segments=1, workers=1, progress=fall_silent).all_equal
    assert (table.status().record.verified, table.status().record.suspects) == (True, {"silent"})
    step = SimpleNamespace(id="proof", options={}, patience=timedelta(seconds=20))
    context = SimpleNamespace(
        mark=lambda *_: began.at,
        marks=lambda _: {"comparing": began},
        tables=lambda _: [("items", table)],
        store=SimpleNamespace(table=lambda _: table),
        tools=SimpleNamespace(plans=PostgresPlans(deployment.engine), announce=print),
        progress_of=lambda *_: lambda _: None,
    )

    VERIFY_DATA_INTEGRITY.act(step, context)

    assert [check.problem for check in VERIFY_DATA_INTEGRITY.holds(step, context)] == [None]
