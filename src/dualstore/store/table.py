"""One migrated table, as operators see it: where it stands, and the work of moving its history."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import sqlalchemy

from dualstore.backfill import Backfill, BackfillProgress, BackfillResult
from dualstore.errors import IllegalTransition, MirrorUnavailable, Unavailable
from dualstore.items import Key
from dualstore.mapping import TableMapping
from dualstore.replication.agent import Agent, View
from dualstore.replication.control import ControlRecord, ControlTable, Gate
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.registry import ProcessEntry, Registry
from dualstore.replication.repair import Repair, Repaired
from dualstore.replication.served import ServedTable
from dualstore.replication.settle import settle
from dualstore.stages import Dials, Stage
from dualstore.stores.postgres_control import ControlRow, PostgresControlCopy
from dualstore.stores.postgres_load import PostgresLoad
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.stores.postgres_verify import PostgresSeenKeys
from dualstore.telemetry import JournalSeen
from dualstore.verify import Verification, Verify, VerifyProgress

_COUNTED_DIRTY_KEYS = 10_000
_PAUSE_SECONDS = 0.05
# A refusal may be of an earlier request: a flag that was just set takes this long to be seen.
_REFUSAL_STANDS_SECONDS = 1.5


@dataclass(frozen=True, slots=True)
class TableStatus:
    """Where a table stands at one moment.

    Attributes:
        logical: the name in flags and metrics.
        record: what is decided for it.
        confirmed: the live processes, by their label, and whether each has taken every decision.
        dirty_keys: keys in doubt by PostgreSQL's own notes, or None where it does not answer.
        journal_keys: keys waiting in the journal.
        mirror_up: whether this process can reach the mirror.
        refusal: why the flags' request is not followed, or None.
    """

    logical: str
    record: ControlRecord
    confirmed: Mapping[str, bool]
    dirty_keys: int | None
    journal_keys: int
    mirror_up: bool
    refusal: str | None

    @property
    def pending(self) -> bool:
        """Whether something is still to be brought after: doubts, a shut gate, a suspect process."""
        return bool(
            self.dirty_keys or self.journal_keys or self.record.suspects or self.record.gate is not Gate.OPEN
        )


class MigratedTable:
    """One table of a `DualStore`.

    Args:
        served: the table by its names.
        mapping: how its items become rows.
        engine: PostgreSQL.
        mirroring: both sides.
        agent: what this process may act on.
        control: the control records.
        registry: the register of processes.
    """

    def __init__(
        self,
        served: ServedTable,
        mapping: TableMapping,
        *,
        engine: sqlalchemy.Engine,
        mirroring: Mirroring,
        agent: Agent,
        control: ControlTable,
        registry: Registry,
    ) -> None:
        self.served = served
        self.mapping = mapping
        self._engine = engine
        self._mirroring = mirroring
        self._agent = agent
        self._control = control
        self._registry = registry
        self._repair = Repair(mirroring, control)
        self._control_copy = PostgresControlCopy(engine)
        self._copied_generation: int | None = None

    @property
    def physical(self) -> str:
        """The DynamoDB table's name."""
        return self.served.physical

    @property
    def view(self) -> View:
        """What this process may act on now."""
        return self._agent.view(self.physical)

    @property
    def stage(self) -> Stage:
        """The stage, as this process knows it."""
        return self.view.record.stage

    @property
    def dials(self) -> Dials:
        """The dials, as this process knows them."""
        return self.view.record.dials

    def status(self) -> TableStatus:
        """Where the table stands, read now from both sides.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: DynamoDB does not answer.
        """
        record = self._record()
        journal = self._mirroring.journal
        try:
            dirty = len(self._mirroring.mirror.dirty_keys(self.physical, limit=_COUNTED_DIRTY_KEYS))
        except MirrorUnavailable:
            dirty = None
        return TableStatus(
            logical=self.served.logical,
            record=record,
            confirmed={
                f"{entry.label}:{entry.id[:8]}": entry.confirmed[self.physical] >= record.generation
                for entry in self._serving()
            },
            dirty_keys=dirty,
            journal_keys=sum(len(entries) for entries in journal.entries(self.served.shape)),
            mirror_up=self._mirroring.health.up,
            refusal=self._agent.refusals().get(self.physical),
        )

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
            if reached(record) and not late:
                self._agent.refresh()
                return record
            refusal = self._agent.refusals().get(self.physical)
            waited = time.monotonic() - started
            if refusal is not None and waited > _REFUSAL_STANDS_SECONDS:
                raise IllegalTransition(refusal)
            if waited > timeout.total_seconds():
                raise Unavailable(
                    f"{self.served.logical} is at stage {record.stage}; "
                    f"not yet confirmed by: {', '.join(sorted(late)) or 'nobody is late'}. Try again"
                )
            time.sleep(_PAUSE_SECONDS)

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
        items_per_second: float | None = None,
        progress: Callable[[BackfillProgress], None] = lambda _: None,
    ) -> BackfillResult:
        """Copy the history; where it is copied whole, reads may be dialled to PostgreSQL afterwards.

        Args:
            segments: how many segments the table is scanned in.
            workers: how many threads.
            items_per_second: the most items to read per second, or None for no limit.
            progress: called after each page.

        Raises:
            IllegalTransition, Unavailable: not every live process mirrors every write.
            SchemaError: the `dualstore` schema or the SQL table is missing.
        """
        return Backfill(
            shape=self.served.shape,
            source=self._mirroring.authority,
            mirror=self._mirroring.mirror,
            load=PostgresLoad(self._engine, self.mapping),
            runs=PostgresRuns(self._engine),
            settle=self._settle,
            confirm_dualwrite=self._stop_reads_and_confirm_dualwrite,
            loaded=self._declare_loaded,
            segments=segments,
            workers=workers,
            items_per_second=items_per_second,
            progress=progress,
        ).run()

    def _stop_reads_and_confirm_dualwrite(self) -> int:
        """As `confirm_dualwrite`, with nobody reading the mirror from then on.

        A page that is being loaded may bring a row back that was deleted meanwhile, until the run's end.
        """
        if self._record().mirrors_every_key:
            self._decide(lambda _: {"loaded": False})
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

        Args:
            repair: settle what differs.
            segments: how many segments DynamoDB is scanned in.
            workers: how many threads.
            progress: called after each page.

        Raises:
            Unavailable: a side was away for too long.
            SchemaError: the `dualstore` schema is missing.
        """
        suspects = self._record().suspects
        verification = Verify(
            shape=self.served.shape,
            dynamodb=self._mirroring.authority,
            postgres=self._mirroring.mirror,
            seen=partial(PostgresSeenKeys, self._engine, self.mapping),
            runs=PostgresRuns(self._engine),
            settle=self._settle,
            repair=repair,
            segments=segments,
            workers=workers,
            progress=progress,
        ).run()
        if verification.proven and suspects:
            self._decide(lambda record: {"suspects": record.suspects - suspects})
        return verification

    @property
    def control_is_copied(self) -> bool:
        """Whether this process has copied the control record to PostgreSQL, at this stage or another."""
        return self._copied_generation is not None

    def copy_control(self) -> None:
        """Copy the control record to PostgreSQL, if this process has not copied it yet.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        record = self.view.record
        if record.generation == self._copied_generation:
            return
        self._control_copy.write(
            ControlRow(
                table=record.table,
                epoch=record.epoch,
                stage=record.stage,
                dials=record.dials,
                gate=record.gate,
                gate_sequence=record.gate_sequence,
                generation=record.generation,
                loaded=record.loaded,
                mirrored_since=record.mirrored_since,
                suspects=sorted(record.suspects),
            )
        )
        self._copied_generation = record.generation

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

    def repair(self) -> Repaired:
        """Settle every key that is recorded as doubtful, once.

        Raises:
            MirrorUnavailable: PostgreSQL does not answer.
        """
        self._agent.refresh()
        return self._repair.run(self.served)

    def _settle(self, key: Key) -> None:
        with self._agent.writing(self.physical):  # so that a change of stage waits for it
            settle(self._mirroring.mirror, self._mirroring.authority, self.served.shape, key)

    def _record(self) -> ControlRecord:
        return self._control.read_all()[self.physical]

    def _serving(self) -> list[ProcessEntry]:
        return [entry for entry in self._registry.processes() if self.physical in entry.confirmed]

    def _decide(self, change: Callable[[ControlRecord], dict[str, object]]) -> None:
        """Change the control record, again where somebody else was faster."""
        while True:
            record = self._record()
            if self._control.change(record, **change(record)) is not None:
                self._agent.refresh()
                return
