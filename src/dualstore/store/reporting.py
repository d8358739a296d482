"""What a process tells of itself: its share of the fleet's figures, and lines for CloudWatch."""

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from uuid import uuid4

import sqlalchemy

from dualstore.config import TelemetrySettings
from dualstore.control import ControlRecord
from dualstore.stages import Stage
from dualstore.store.evidence import Evidence, Fleet, evidence, fleet
from dualstore.store.table import MigratedTable
from dualstore.stores.postgres_rollup import PostgresRollup, step_of
from dualstore.telemetry import Telemetry
from dualstore.telemetry.emf import EmfWriter, to_stream
from dualstore.telemetry.rollup import Rollup, Tracked, Window


class Reporting:
    """Reports in the background, and reads what all processes reported.

    Args:
        engine: PostgreSQL.
        telemetry: what is counted.
        tables: gives the tables of this process.
        settings: how often, and what besides.
    """

    def __init__(
        self,
        engine: sqlalchemy.Engine,
        telemetry: Telemetry,
        tables: Callable[[], Iterable[MigratedTable]],
        settings: TelemetrySettings,
    ) -> None:
        self._tables = tables
        self._process = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        self._kept = PostgresRollup(engine)
        pause = timedelta(seconds=settings.rollup_seconds)
        self._rollup = Rollup(telemetry, self._tracked, self._keep, pause=pause)
        self._started = False
        self._emf: EmfWriter | None = None
        if settings.emf != "none":
            pause = timedelta(seconds=settings.emf_seconds)
            self._emf = EmfWriter(telemetry, to_stream(settings.emf), pause=pause)

    def start(self) -> None:
        """Begin to report."""
        self._started = True
        self._rollup.start()
        if self._emf is not None:
            self._emf.start()

    def flush(self) -> None:
        """Report now; for a process that is frozen between two calls."""
        self._rollup.round(finish=True)
        if self._emf is not None:
            self._emf.flush()

    def close(self) -> None:
        """Report what is left, and stop; nothing where it never began."""
        if not self._started:
            return
        self._rollup.close()
        if self._emf is not None:
            self._emf.close()

    def evidence(self, logical: str, record: ControlRecord, *, since: datetime | None = None) -> Evidence:
        """See `evidence.evidence`."""
        return evidence(self._kept, logical, record, since=since)

    def fleet(self, table: MigratedTable) -> Fleet:
        """See `evidence.fleet`."""
        return fleet(self._kept, table.served.logical, table.physical)

    def _keep(self, windows: Sequence[Window]) -> None:
        self._kept.add(windows, process=self._process)

    def _tracked(self) -> Mapping[str, Tracked]:
        return {table.physical: _tracked(table) for table in list(self._tables())}


def _tracked(table: MigratedTable) -> Tracked:
    record = table.view.record
    # Before anything is mirrored there need be no PostgreSQL at all.
    is_shared = record.stage is not Stage.OFF or table.control_is_copied
    return Tracked(table.served.logical, step_of(record), is_shared)
