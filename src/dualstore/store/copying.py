"""The copy of a migrated table's history: what it works with, who copies it, and what becomes of reads."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy

from dualstore.backfill import (
    Admission,
    Backfill,
    BackfillProgress,
    BackfillResult,
    Crew,
    Equipment,
    Processes,
    Threads,
)
from dualstore.backfill.load_limits import LoadLimits, load_aware
from dualstore.backfill.progress import progress_of
from dualstore.backfill.quarantine import Retried, retry
from dualstore.backfill.run import KIND
from dualstore.backfill.scanning import StoreScan
from dualstore.backfill.sources import Source, SourceContext, source_of
from dualstore.errors import ConfigurationError
from dualstore.items import Key, TableShape
from dualstore.mapping import Mapped
from dualstore.replication.settle import settle, settle_many
from dualstore.stores.base import Mirror, Store
from dualstore.stores.ledger import Run, RunState, Wish
from dualstore.stores.postgres_load import PostgresLoad
from dualstore.stores.postgres_quarantine import PostgresQuarantine
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.stores.quarantine import Seal


@dataclass(frozen=True)
class CopyOrder:
    """How a history is to be copied.

    Attributes:
        source: where it is read from; None: by Scan, with the store's own client.
        segments: how many segments that Scan is read in.
        workers: how many work on it, each with a connection and a batch of its own.
        crew: makes those who they are, for the epoch at which they load; None: threads of this process.
        straight: whether batches are copied straight into the SQL table, which has to be empty, and its table
            not mirrored yet; an ordinary backfill has to follow once it is.
        settings: see `Backfill.settings`.
        resume: the run to resume; None resumes the table's unfinished run, if there is one.
        dual_writes_since: see `Backfill.dual_writes_since`.
        preflight: see `Backfill.preflight`.
        load_limits: what PostgreSQL has to bear at most; None: what is configured.
        closing_patience: how long to wait for transactions older than the copy.
        progress: called now and then.
    """

    source: Source | None = None
    segments: int = 8
    workers: int = 2
    crew: Callable[[int], Crew] | None = None
    straight: bool = False
    settings: dict[str, Any] | None = None
    resume: UUID | None = None
    dual_writes_since: datetime | None = None
    preflight: Callable[[], None] = lambda: None
    load_limits: LoadLimits | None = None
    closing_patience: timedelta = timedelta(minutes=10)
    progress: Callable[[BackfillProgress], None] = lambda _: None


@dataclass(frozen=True, kw_only=True)
class Copying:
    """The history of one table, and its way to PostgreSQL.

    Attributes:
        shape: the table; its name is the physical one.
        mapping: how its items become rows.
        engine: PostgreSQL.
        authority: DynamoDB.
        mirror: PostgreSQL, as a store.
        seal: what is kept of an item that cannot be loaded.
        load_limits: what PostgreSQL has to bear at most.
    """

    shape: TableShape
    mapping: Mapped
    engine: sqlalchemy.Engine
    authority: Store
    mirror: Mirror
    seal: Seal
    load_limits: LoadLimits = field(default_factory=LoadLimits)

    @property
    def runs(self) -> PostgresRuns:
        """The ledger of runs."""
        return PostgresRuns(self.engine)

    @property
    def quarantine(self) -> PostgresQuarantine:
        """The items that could not be loaded."""
        return PostgresQuarantine(self.engine, self.shape, seal=self.seal)

    def equipment(
        self, *, epoch: int, source: Source, straight: bool = False, admission: Admission | None = None
    ) -> Equipment:
        """What one process works with.

        Args:
            epoch: of the control record in force when dual writes were confirmed: nothing is written once
                PostgreSQL is not the mirror at this epoch any more.
            source: where the history is read from.
            straight: see `CopyOrder`.
            admission: asked before each batch; None: by the load limits.
        """
        return Equipment(
            source=source,
            shape=self.shape,
            authority=self.authority,
            load=PostgresLoad(self.engine, self.mapping, epoch=epoch),
            runs=self.runs,
            quarantine=self.quarantine,
            settle=partial(self._settle, epoch=epoch),
            settle_many=partial(settle_many, self.mirror, self.authority, self.shape, epoch=epoch),
            straight=straight,
            admission=admission or load_aware(self.engine, self.shape.name, self.load_limits),
        )

    def copy(
        self,
        order: CopyOrder,
        *,
        epoch: int,
        confirm_dualwrite: Callable[[], int],
        loaded: Callable[[int | None], None],
    ) -> BackfillResult:
        """Copy the history, or help with that.

        Args:
            order: how.
            epoch: see `equipment`.
            confirm_dualwrite: see `Backfill`.
            loaded: see `Backfill`.
        """
        source = order.source or StoreScan(self.authority, self.shape, segments=order.segments)
        copying = self if order.load_limits is None else replace(self, load_limits=order.load_limits)
        return Backfill(
            equipment=copying.equipment(epoch=epoch, source=source, straight=order.straight),
            mirror=self.mirror,
            confirm_dualwrite=confirm_dualwrite,
            crew=Threads(order.workers) if order.crew is None else order.crew(epoch),
            settings=order.settings,
            resume=order.resume,
            dual_writes_since=order.dual_writes_since,
            preflight=order.preflight,
            closing_patience=order.closing_patience,
            loaded=loaded,
            progress=order.progress,
        ).run()

    def _settle(self, key: Key, *, epoch: int) -> None:
        settle(self.mirror, self.authority, self.shape, key, epoch=epoch)

    # What is asked from another terminal

    def run(self) -> Run | None:
        """The run that is under way, else the latest, or None."""
        return self.runs.latest_unfinished(KIND, self.shape.name) or self.runs.latest(KIND, self.shape.name)

    def progress(self, run: Run) -> BackfillProgress:
        """How far a run has come, as the ledger tells."""
        return progress_of(self.runs.totals(run.id))

    def pause(self, *, by: str, reason: str = "") -> Run:
        """Have all workers of the run that is under way give their pieces back, and wait."""
        return self._ask(Wish.PAUSE, by=by, reason=reason)

    def resume(self, *, by: str) -> Run:
        """Have them go on."""
        return self._ask(Wish.GO, by=by)

    def cancel(self, *, by: str) -> Run:
        """End the run that is under way; what it has loaded stays, and is right as far as it goes."""
        run = self._ask(Wish.HALT, by=by, reason=f"cancelled by {by}")
        self.runs.finish(run, RunState.ABANDONED, {"reason": f"cancelled by {by}"})
        return run

    def retry_quarantine(self, settle_key: Callable[[Key], object]) -> Retried:
        """Settle what is in quarantine from the authority."""
        return retry(self.quarantine, settle_key)

    def _ask(self, wish: Wish, *, by: str, reason: str = "") -> Run:
        run = self.runs.latest_unfinished(KIND, self.shape.name)
        if run is None or not self.runs.ask(run.id, wish, by=by, reason=reason):
            raise ConfigurationError(
                f"no backfill of {self.shape.name} is under way: `dualstore backfill status` shows the latest"
            )
        return run


def processes(
    config: Path,
    table: str,
    *,
    workers: int,
    epoch: int,
    parameters: Mapping[str, Any],
    straight: bool,
    load_limits: LoadLimits | None = None,
) -> Processes:
    """Workers in processes of their own.

    Args:
        config: the configuration, which each of them reads.
        table: the logical name.
        workers: how many.
        epoch: of the control record in force when dual writes were confirmed.
        parameters: of the source, which each of them makes again.
        straight: see `CopyOrder`.
        load_limits: see `CopyOrder`.
    """
    opening = partial(
        opened_equipment,
        config.absolute(),
        table,
        epoch=epoch,
        parameters=dict(parameters),
        straight=straight,
        load_limits=load_limits,
    )
    return Processes(workers, opening)


@contextmanager
def opened_equipment(
    config: Path,
    table: str,
    *,
    epoch: int,
    parameters: Mapping[str, Any],
    straight: bool,
    load_limits: LoadLimits | None = None,
) -> Iterator[Equipment]:
    """What a worker's process works with; it serves no table, and is in no register.

    Arguments are those of `processes`.
    """
    from dualstore.store.assembly import DualStore  # noqa: PLC0415 - the assembly imports this module

    with DualStore.from_config(config, registers=False) as store, store.source_clients() as clients:
        copying = store.table(table).copying
        copying = copying if load_limits is None else replace(copying, load_limits=load_limits)
        source = source_of(parameters, SourceContext(copying.shape, clients))
        yield copying.equipment(epoch=epoch, source=source, straight=straight)
