"""One migrated table, as operators see it: where it stands, and the work of moving its history."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cached_property, partial
from typing import Any

import sqlalchemy
from botocore.exceptions import BotoCoreError, ClientError

from dualstore.backfill import BackfillProgress, BackfillResult
from dualstore.backfill.indexes import IndexesAside
from dualstore.backfill.quarantine import Retried
from dualstore.backfill.refusals import mirrored_since, recorded, refuse
from dualstore.backfill.run import KIND as BACKFILL
from dualstore.backfill.scanning import StoreScan
from dualstore.backfill.sources import Source
from dualstore.backfill.worker import PACE
from dualstore.control import ControlRecord, Gate, Phase, ProcessEntry, Stop
from dualstore.errors import IllegalTransition, Unavailable
from dualstore.items import Item, Key
from dualstore.mapping import Mapped
from dualstore.mapping.expiry import has_expired
from dualstore.replication.agent import Agent
from dualstore.replication.deciding import Change
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.repair import Repair, Repaired
from dualstore.replication.served import ServedTable
from dualstore.replication.stopping import Stopping, bring_over, release_reads, stop_reads
from dualstore.replication.suspects import (
    is_for_verification,
    is_noted,
    is_numbered,
    is_unmirrored,
    renewed,
)
from dualstore.replication.views import View
from dualstore.stages import Dials, Side, Stage
from dualstore.store.control_copy import ControlCopy
from dualstore.store.copying import Copying, CopyOrder
from dualstore.store.discrepancies import TableDiscrepancies
from dualstore.store.guarding import BackfillGuard
from dualstore.store.proving import ProofOrder, Proving
from dualstore.store.reconciling import Reconciled, Reconciling
from dualstore.store.settling import Settling
from dualstore.store.status import ProcessStatus, TableStatus, stream_lag
from dualstore.stores.discrepancies import PostgresDiscrepancies
from dualstore.stores.postgres.trigger_functions import sql_table
from dualstore.stores.postgres_indexes import PostgresIndexes
from dualstore.stores.postgres_keys import PostgresKeys
from dualstore.stores.postgres_lost_writes import PostgresLostWrites
from dualstore.stores.postgres_outbox import PostgresOutbox
from dualstore.stores.postgres_runs import PostgresRuns, Run
from dualstore.stores.postgres_waiting import outlast_writers
from dualstore.stores.quarantine import Form, Seal, seal_of
from dualstore.stores.streams import Checkpoints
from dualstore.telemetry import JournalSeen
from dualstore.verify import Judge, PastJudge, Verification, VerifyProgress
from dualstore.verify.recheck import Sides

_COUNTED_DIRTY_KEYS = 10_000
_PAUSE_SECONDS = 0.05
_BEATEN_LATELY_SECONDS = 15.0
# A refusal may be of an earlier request: a flag that was just set takes this long to be seen.
_REFUSAL_STANDS_SECONDS = 1.5
_WRITERS_PATIENCE = timedelta(seconds=60)
_UNKNOWN_GENERATION = -1  # of a run that the version before began


class MigratedTable:
    """One table of a `DualStore`.

    Args:
        served: the table by its names.
        mapping: how its items become rows.
        engine: PostgreSQL.
        mirroring: both sides.
        agent: what this process may act on.
        checkpoints: how far the table's stream has been followed.
        ttl_attribute: finds out by which attribute the table's items expire, if they do.
        discrepancies: where differences are recorded.
        obstacles: finds what stands in the way of a stage (see `obstacles`).
        seal: makes what is kept of an item that cannot be loaded.
        guard: what keeps a backfill from doing harm.
    """

    stream_lag_tolerated = timedelta(minutes=1)
    """A relay that lags by more is none for those who would leave something to it."""

    def __init__(
        self,
        served: ServedTable,
        mapping: Mapped,
        *,
        engine: sqlalchemy.Engine,
        mirroring: Mirroring,
        agent: Agent,
        checkpoints: Checkpoints | None = None,
        ttl_attribute: Callable[[], str | None] = lambda: None,
        discrepancies: PostgresDiscrepancies | None = None,
        obstacles: Callable[[ControlRecord, Stage], Sequence[str]] = lambda _record, _target: (),
        seal: Seal | None = None,
        guard: BackfillGuard | None = None,
    ) -> None:
        self.served = served
        self.mapping = mapping
        self._engine = engine
        self._mirroring = mirroring
        self._checkpoints = checkpoints
        self._agent = agent
        self._find_ttl_attribute = ttl_attribute
        self._discrepancies = discrepancies or PostgresDiscrepancies(engine)
        self._obstacles = obstacles
        self._seal = seal or seal_of(Form.PLAIN)
        self._guard = guard or BackfillGuard()
        self._repair = Repair(mirroring, agent.homes[Side.DYNAMODB], checkpoints)
        self._settling = Settling(served, mirroring, agent)
        self._control_copy = ControlCopy(agent, served.physical)

    @property
    def physical(self) -> str:
        """The DynamoDB table's name."""
        return self.served.physical

    @property
    def view(self) -> View:
        """What this process may act on now."""
        return self._agent.view(self.physical)

    @cached_property
    def ttl_attribute(self) -> str | None:
        """The attribute by which the table's items expire, or None."""
        return self._find_ttl_attribute()

    @property
    def stage(self) -> Stage:
        """The stage, as this process knows it."""
        return self.view.record.stage

    @property
    def dials(self) -> Dials:
        """The dials, as this process knows them."""
        return self.view.record.dials

    def status(self) -> TableStatus:
        """Where the table stands, read now from both sides; from PostgreSQL alone where it is the authority.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: DynamoDB does not answer.
            Unavailable: PostgreSQL, the authority, does not answer.
        """
        record = self._record()
        status = TableStatus(
            logical=self.served.logical,
            record=record,
            processes=[self._process(entry, record) for entry in self._serving()],
            dirty_keys=None,
            journal_keys=self._journal_keys(record),
            mirror_up=self._mirroring.health.up,
            refusal=self._agent.refusal_of(self.physical),
        )
        followed = self._checkpoints
        try:
            status = replace(
                status,
                dirty_keys=len(self._mirroring.mirror.dirty_keys(self.physical, limit=_COUNTED_DIRTY_KEYS)),
                outbox=self._mirroring.outbox.depth(self.physical),
            )
            if followed is not None:
                lag = stream_lag(followed, self.physical)
                status = replace(status, stream_lag=lag, rogues=followed.rogues(self.physical))
        except Unavailable:
            return replace(status, dirty_keys=None)
        return status

    def obstacles(self, target: Stage) -> Sequence[str]:
        """Why the table may not go to a stage next to its own now, a sentence each; empty where it may.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: the database that
                decides does not answer.
        """
        return self._obstacles(self._record(), target)

    def _process(self, entry: ProcessEntry, record: ControlRecord) -> ProcessStatus:
        return ProcessStatus(
            label=f"{entry.label}:{entry.id[:8]}",
            version=entry.version,
            seen_at=entry.seen_at,
            confirmed=entry.confirmed[self.physical] >= record.generation,
        )

    def _journal_keys(self, record: ControlRecord) -> int:
        if record.authority is Side.POSTGRES:
            return 0
        return sum(len(entries) for entries in self._mirroring.journal.entries(self.served.shape))

    def wait_until(
        self, reached: Callable[[ControlRecord], bool], *, timeout: timedelta = timedelta(seconds=30)
    ) -> ControlRecord:
        """Wait until the control record is so, and every live process has taken it.

        Args:
            reached: tells whether a record is the one waited for.
            timeout: the longest wait.

        Raises:
            IllegalTransition: the flags ask for something that may not follow.
            Unavailable: it has not come so far in time; the message names the processes that lag.
        """
        started = time.monotonic()
        while True:
            record = self._record()
            late = [e.label for e in self._serving() if e.confirmed[self.physical] < record.generation]
            there = reached(record)
            if there and not late:
                self._agent.refresh()
                self._note_mirrored(record)
                return record
            refusal = self._agent.refusals().get(self.physical)
            waited = time.monotonic() - started
            if refusal is not None and not there and waited > _REFUSAL_STANDS_SECONDS:
                raise IllegalTransition(refusal)
            if waited > timeout.total_seconds():
                raise Unavailable(
                    f"{self.served.logical} is at stage {record.stage}; "
                    f"not yet confirmed by: {', '.join(sorted(late)) or 'nobody is late'}. Try again"
                )
            time.sleep(_PAUSE_SECONDS)

    def stop(self, *, by: str, reason: str = "") -> Stopping:
        """Have the authority serve all reads, whatever the flags ask for, until `resume`.

        No evidence is asked for. Before `live` one reachable database is enough; from `live` on it must be
        PostgreSQL, and without it what DynamoDB answers meanwhile (`stale_reads`) cannot be stopped. Harmless
        where reads are stopped already, and where PostgreSQL is the authority: there only comparisons end.

        Args:
            by: who stops them, for those who find them stopped.
            reason: why, in a few words; no item's value.

        Raises:
            Unavailable: neither database took it.
        """
        stopped = stop_reads(self._agent.homes, self.physical, Stop(by, time.time(), reason))
        with suppress(ClientError, BotoCoreError, Unavailable):
            self._agent.refresh(table=self.physical)
        return stopped

    def resume(self) -> ControlRecord:
        """Let reads go where the dials say again, at once.

        Raises:
            Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: PostgreSQL, or
                the database that decides, does not answer; reads stay stopped.
        """
        released = release_reads(self._agent.homes, self.physical)
        self._agent.refresh(table=self.physical)
        return released

    def bring_stop_over(self) -> None:
        """Take a stop that only PostgreSQL could be told of into the control record.

        Raises:
            Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: a database does
                not answer.
        """
        bring_over(self._agent, self.physical)

    def reconcile(self, progress: Callable[[int], None] = lambda _: None) -> Reconciled:
        """After a failover, with PostgreSQL back: list what was lost, and have it follow DynamoDB again.

        The keys of what was lost are in doubt then, and are settled from DynamoDB by whoever repairs. The
        table stays suspect until a verification has proved both sides equal.

        Args:
            progress: told how many outbox rows have been looked at, now and then.

        Raises:
            IllegalTransition: the table was not failed over, or not to the end.
            Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: a database does
                not answer; run it again.
        """
        return Reconciling(
            self.served.shape,
            self.mapping,
            engine=self._engine,
            agent=self._agent,
            dynamodb=self._mirroring.authority,
            postgres=self._mirroring.mirror,
            outbox=PostgresOutbox(self._engine, {self.physical: self.mapping}),
            lost=self.lost_writes,
        ).run(progress)

    @property
    def lost_writes(self) -> PostgresLostWrites:
        """What is kept of the changes that failovers lost."""
        return PostgresLostWrites(self._engine, self.served.shape, seal=self._seal)

    def _note_mirrored(self, record: ControlRecord) -> None:
        """Record that every process mirrors every write by now: exports taken from here on can be copied."""
        if record.mirrors_every_key and record.authority is Side.DYNAMODB:
            with suppress(Unavailable):
                mirrored_since(self.copying.runs, self.physical, record.mirrored_since)

    def confirm_dualwrite(self) -> int:
        """See that every live process mirrors every write, with no earlier one unfinished.

        Returns:
            The generation since which this has been decided without a break.

        Raises:
            IllegalTransition: it is not decided: the stage, or the mirror dial, says otherwise.
            Unavailable: some process has not confirmed it in time.
        """
        if not self._record().mirrors_every_key:
            raise IllegalTransition(
                f"{self.served.logical} does not mirror every write; ask for stage dualwrite and "
                "mirror-percent 100 first"
            )
        return self.wait_until(lambda record: record.mirrors_every_key).mirrored_since

    def backfill(
        self,
        *,
        segments: int = 8,
        workers: int = 2,
        max_rows_per_second: float | None = None,
        progress: Callable[[BackfillProgress], None] = lambda _: None,
        order: CopyOrder | None = None,
    ) -> BackfillResult:
        """Copy the history; where it is copied whole, reads may be dialled to PostgreSQL afterwards.

        Where a backfill of the table is under way already, in whatever process, this one helps with it.

        Args:
            segments: how many segments the table is scanned in.
            workers: how many threads.
            max_rows_per_second: the most of all workers of the run, or None for what it has been so far.
            progress: called now and then.
            order: all of it in detail, in place of the others.

        Raises:
            ConfigurationError: a backfill is under way that copies from something else.
            RunHalted: it was cancelled, or more was put aside than may be.
            IllegalTransition: PostgreSQL is the authority.
            IllegalTransition, Unavailable: not every live process mirrors every write.
            BackfillRefused: a new one would be unsafe: its source is too old, the schema has drifted, or
                there is no room.
            SchemaError: the `dualstore` schema or the SQL table is missing.
        """
        if self._record().authority is Side.POSTGRES:
            raise IllegalTransition(
                f"PostgreSQL is the authority of {self.served.logical}: there is nothing to copy. `dualstore "
                "verify --repair` brings DynamoDB after it"
            )
        order = order or CopyOrder(
            segments=segments,
            workers=workers,
            settings={} if max_rows_per_second is None else {PACE: max_rows_per_second},
            progress=progress,
        )
        return self.copying.copy(
            replace(
                order,
                preflight=partial(self._refuse_backfill, order),
                dual_writes_since=order.dual_writes_since or self._known_mirrored_since(),
            ),
            epoch=self._record().epoch,
            confirm_dualwrite=self._stop_reads_and_confirm_dualwrite,
            loaded=self._declare_loaded,
        )

    @property
    def copying(self) -> Copying:
        """The copy of the history: its runs, and what is in quarantine."""
        return Copying(
            shape=self.served.shape,
            mapping=self.mapping,
            engine=self._engine,
            authority=self._mirroring.authority,
            mirror=self._mirroring.mirror,
            seal=self._seal,
            load_limits=self._guard.limits,
        )

    def _refuse_backfill(self, order: CopyOrder) -> None:
        """See that a new backfill is safe, once dual writes are confirmed."""
        reasons = self._guard.reasons(self._engine, self.mapping, workers=order.workers)
        refuse(self.served.logical, reasons)
        order.preflight()

    def _known_mirrored_since(self) -> datetime | None:
        """When it was first known that every process mirrors every write, since that last began."""
        runs, record = self.copying.runs, self._record()
        runs.check()
        known = recorded(runs, self.physical, record.mirrored_since) if record.mirrors_every_key else None
        return None if known is None else known.started_at

    def backfill_obstacles(self, source: Source, *, workers: int = 1) -> Sequence[str]:
        """Why a new backfill would be refused now, a sentence each, as far as that can be told before.

        Args:
            source: what would be copied.
            workers: how many would copy.

        Raises:
            SchemaError: the `dualstore` schema is missing, or not of this version.
        """
        since = self._known_mirrored_since()
        reasons = self._guard.reasons(self._engine, self.mapping, source=source, since=since, workers=workers)
        if self._record().mirrors_every_key:
            return list(reasons)
        unmirrored = "not every write is mirrored: ask for stage dualwrite and mirror-percent 100 first"
        return [unmirrored, *reasons]

    @property
    def indexes_aside(self) -> IndexesAside:
        """The indexes and foreign keys of the SQL tables that a copy can do without."""
        return IndexesAside(PostgresIndexes(self._engine), self.copying.runs, self.mapping)

    def retry_quarantine(self) -> Retried:
        """Settle the keys in quarantine from the authority; those of items that fit by now come out of it.

        Raises:
            MirrorUnavailable: PostgreSQL does not answer, or is not the mirror.
        """
        return self.copying.retry_quarantine(self._settling.settle_on_postgres)

    def _stop_reads_and_confirm_dualwrite(self) -> int:
        """As `confirm_dualwrite`, with nobody reading the mirror from then on.

        A page that is being loaded may bring a row back that was deleted meanwhile, until the run's end.
        """
        if self._record().mirrors_every_key:
            self._decide(lambda _: {"loaded": False, "verified": False})
        return self.confirm_dualwrite()

    def _declare_loaded(self, since: int | None) -> None:
        """The mirror holds the history, unless writes have passed it by since the copy began.

        An item that SQL refuses is marked dirty, so that no read of the mirror misses it.
        """
        self._decide(lambda record: {"loaded": record.mirrored_since == since and record.mirrors_every_key})

    def verify(
        self,
        *,
        repair: bool = False,
        segments: int = 4,
        workers: int = 2,
        progress: Callable[[VerifyProgress], None] = lambda _: None,
    ) -> Verification:
        """Compare both sides whole; where that proves them equal, earlier suspicions end.

        As `prove` with a Scan: whatever a verification can find, this one looks for.

        Args:
            repair: settle what differs.
            segments: how many segments DynamoDB is scanned in.
            workers: how many threads.
            progress: called after each page.

        Raises:
            Unavailable: a side was away for too long, or another verification of the table is at work; run
                it again to go on.
            SchemaError: the `dualstore` schema is missing.
        """
        source = StoreScan(self._mirroring.authority, self.served.shape, segments=segments)
        return self.prove(ProofOrder(source=source, repair=repair, workers=workers, progress=progress))

    def prove(self, order: ProofOrder) -> Verification:
        """Compare what an order asks for; where that proves both sides equal, earlier suspicions end.

        What came into doubt meanwhile is told with the result, which then proves nothing.

        Args:
            order: which keys to compare, and from where.

        Raises:
            ConfigurationError: the source cannot be read as a whole.
            Unavailable: a side was away for too long; a full comparison can be gone on with.
            SchemaError: the `dualstore` schema is missing.
        """
        # One look for both: a suspicion that arises behind it is none that this verification may clear.
        record = self._record()
        if order.proves_the_present:
            self._outlast_unmirrored_writers(record)
        clears = order.proves_the_present
        verification = self._proving(record, repair=order.repair, clears=clears).run(order)
        if not clears:
            return verification
        context, undisturbed = verification.context, self._is_undisturbed(verification)
        if verification.proven:
            now = self._declare_proven(verification, undisturbed=undisturbed)
        else:
            now = self._record()
        holds = undisturbed and now.loaded and now.mirrored_since == context["mirrored_since"]
        return replace(verification, suspects=now.suspects, disturbed=context["loaded"] and not holds)

    def _outlast_unmirrored_writers(self, record: ControlRecord) -> None:
        """After this, all that was written at `complete`, and reaches DynamoDB by no other way, can be seen.

        A transaction that wrote before the table came back from there may be committed much later.

        Args:
            record: whose suspects are to be cleared.
        """
        if not any(map(is_unmirrored, record.suspects)):
            return
        doing = f"Waiting for transactions that began to write to {self.served.logical} at stage complete"
        for part in self.mapping.parts:
            outlast_writers(self._engine, sql_table(part), doing, _WRITERS_PATIENCE, lambda _: None)

    def _declare_proven(self, verification: Verification, *, undisturbed: bool) -> ControlRecord:
        """Note that both sides were found equal; a copy that began meanwhile may have changed that since.

        A comparison that was gone on with has proved what was true when it began.

        Returns:
            The record after that.
        """
        context = verification.context
        decided = self._decide(
            lambda record: _proven(record, _seen_before(record, context), undisturbed=undisturbed)
        )
        self._discrepancies.mark_all_repaired(self.physical, before=verification.started)
        return decided

    def _is_undisturbed(self, verification: Verification) -> bool:
        """Whether no copy has begun since a verification began."""
        runs = PostgresRuns(self._engine)
        mine, copied = runs.find(verification.run_id), runs.latest(BACKFILL, self.physical)
        return copied is None or (mine is not None and _began_before(copied, mine))

    def proving(self, *, repair: bool = False) -> Proving:
        """What compares both sides of the table.

        Args:
            repair: settle what differs.
        """
        return self._proving(self._record(), repair=repair)

    def _proving(self, record: ControlRecord, *, repair: bool, clears: bool = False) -> Proving:
        judging: dict[str, Any] = {
            "shape": self.served.shape,
            "dynamodb": self._mirroring.authority,
            "postgres": self._mirroring.mirror,
            "settle": self.settle,
            "repair": repair,
            "record": self._discrepancies,
            "ttl_attribute": self.ttl_attribute,
        }

        def past(moment: datetime) -> PastJudge:
            deleted_at = PostgresKeys(self._engine, self.mapping).deleted_at
            follows = record.stage.rule.mirrored
            return PastJudge(**judging, taken_at=moment, follows=follows, deleted_at=deleted_at)

        return Proving(
            logical=self.served.logical,
            mapping=self.mapping,
            engine=self._engine,
            judge=Judge(**judging),
            past=past if record.authority is Side.POSTGRES else None,
            context={
                "suspects": sorted(record.suspects),
                "loaded": record.loaded,
                "mirrored_since": record.mirrored_since,
                "generation": record.generation,
            },
            goes_on=partial(_still_proves, record, clears=clears),
        )

    @property
    def discrepancies(self) -> TableDiscrepancies:
        """The table's recorded discrepancies."""
        sides = Sides(self.served.shape, self._mirroring.authority, self._mirroring.mirror, self._has_expired)
        return TableDiscrepancies(self._discrepancies, sides, self.settle)

    def _has_expired(self, item: Item) -> bool:
        return self.ttl_attribute is not None and has_expired(item, self.ttl_attribute, now=time.time())

    @property
    def control_is_copied(self) -> bool:
        """Whether this process has copied the control record to PostgreSQL, at this stage or another."""
        return self._control_copy.is_made

    def copy_control(self) -> None:
        """Copy the control record to the database where it does not decide, if this process has not yet.

        Raises:
            Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: that database
                could not be reached in time.
        """
        self._control_copy.make()

    def journal_seen(self) -> JournalSeen:
        """What waits in the journal; asked for only where it can be anything: while the gate is not open."""
        if self.view.record.gate is Gate.OPEN:
            return JournalSeen(self.served.logical, 0)
        now = time.time()
        keys, oldest = 0, now
        for entries in self._mirroring.journal.entries(self.served.shape):
            keys += len(entries)
            oldest = min(oldest, *(entry.since for entry in entries))
        return JournalSeen(self.served.logical, keys, now - oldest)

    def oldest_in_journal(self) -> float | None:
        """When the journal's oldest entry was made, in seconds since the epoch; None where there is none."""
        pages = self._mirroring.journal.entries(self.served.shape)
        return min((entry.since for entries in pages for entry in entries), default=None)

    def note_streamed(self, *, streamed: bool) -> None:
        """Record whether the table's stream is its journal: a relay follows it."""
        record = self.view.record
        if record.streamed is not streamed and record.phase is Phase.OPEN:  # a move goes by the generation
            self._decide(lambda _: {"streamed": streamed})

    def suspect(self, kind: str, *, once: bool = False) -> bool:
        """Make the table suspect, until a verification, or whoever knows better, clears it.

        Args:
            kind: of what has happened; the record tells each time from the one before (see `suspects`).
            once: nothing is noted where that kind is among the suspects.

        Returns:
            Whether it was noted.
        """
        noted = True

        def change(record: ControlRecord) -> Mapping[str, object]:
            nonlocal noted
            noted = not (once and is_noted(record.suspects, kind))
            if not noted:
                return {}
            suspects = renewed(record.suspects, kind, record.generation + 1)
            return {"suspects": suspects, "verified": False}

        self._decide(change)
        return noted

    def clear(self, suspects: frozenset[str]) -> None:
        """Take names out of the table's suspects."""
        self._decide(lambda record: {"suspects": record.suspects - suspects})

    def repair(self) -> Repaired:
        """Settle every key that is recorded as doubtful, once.

        Raises:
            MirrorUnavailable: PostgreSQL does not answer.
        """
        self._agent.refresh(table=self.physical)
        return self._repair.run(self.served)

    def settle(self, keys: Sequence[Key]) -> None:
        """Make both sides hold the same for some keys: what the authority holds.

        Args:
            keys: different keys; up to some thousands.

        Raises:
            MirrorUnavailable: some could not be settled; the others are.
            Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the authority
                does not answer.
        """
        self._settling.settle(keys)

    def _record(self) -> ControlRecord:
        """The control record that decides, read now."""
        return self._agent.decided(self.physical)

    def _decide(self, change: Change) -> ControlRecord:
        """Change the control record, again where somebody else was faster; as it is then."""
        return self._agent.decide(self.physical, change)

    def _serving(self) -> list[ProcessEntry]:
        """The processes that serve the table.

        After a move some may still be in the register they were in: they have not seen it yet, or are dead,
        which nobody notices there any more. So these count for as long as they have beaten lately.
        """
        here = self._agent.registry_of(self.physical)
        entries = here.processes()
        with suppress(ClientError, BotoCoreError, Unavailable):
            lately = time.time() - _BEATEN_LATELY_SECONDS
            entries += [e for e in self._agent.homes[here.home.side.other].processes() if e.seen_at > lately]
        return [entry for entry in entries if self.physical in entry.confirmed]


def _began_before(one: Run, other: Run) -> bool:
    assert one.started_at is not None  # noqa: S101 - a run of the ledger has been started
    assert other.started_at is not None  # noqa: S101
    return one.started_at < other.started_at


def _seen_before(record: ControlRecord, context: Mapping[str, Any]) -> ControlRecord:
    """The record as a verification saw it when it began, as far as `_proven` asks for it."""
    return replace(
        record,
        suspects=frozenset(context["suspects"]),
        loaded=context["loaded"],
        mirrored_since=context["mirrored_since"],
        generation=context.get("generation", _UNKNOWN_GENERATION),
    )


def _still_proves(record: ControlRecord, context: Mapping[str, Any], *, clears: bool) -> bool:
    """Whether a verification that began in this context, gone on with, can prove what is asked for now.

    What it has compared already it does not read again. So nothing that writes passed by may have happened
    since, and nothing that only a verification can clear, where it `clears` that.
    """
    if not context:
        return False
    before = _seen_before(record, context)
    if (record.loaded, record.mirrored_since) != (before.loaded, before.mirrored_since):
        return False
    if not clears:
        return True  # what it says holds as if it had never been interrupted
    asked = set(filter(is_for_verification, record.suspects))
    return asked <= before.suspects and all(map(is_numbered, asked))


def _proven(record: ControlRecord, before: ControlRecord, *, undisturbed: bool) -> dict[str, object]:
    """What a verification that began under the record `before` has proved: later suspicions are left.

    The version before gives the next of a kind the same name. So one without a number is cleared only where
    the record has not been changed at all since.
    """
    untouched = record.generation == before.generation
    cleared = {
        name for name in before.suspects if untouched or is_numbered(name) or not is_for_verification(name)
    }
    later = record.suspects - cleared
    holds = (
        undisturbed
        and before.loaded
        and record.loaded
        and record.mirrored_since == before.mirrored_since
        and not any(map(is_for_verification, later))
    )
    return {"suspects": later, "verified": record.verified or holds}
