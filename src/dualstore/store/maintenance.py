"""The repair that goes on in the background of every process that mirrors."""

import logging
import random
import threading
from collections.abc import Callable, Iterable
from datetime import timedelta

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import DualStoreError
from dualstore.replication.health import MirrorHealth
from dualstore.stages import Stage
from dualstore.store.table import MigratedTable
from dualstore.store.upkeep import prune
from dualstore.stores.postgres_upkeep import PostgresUpkeep
from dualstore.telemetry import DirtySeen, GateSeen, StageSeen, Telemetry

logger = logging.getLogger(__name__)

_JOIN_SECONDS = 10.0
_ROUNDS_BETWEEN_UPKEEP = 600


class Maintenance:
    """Probes a mirror that is down, and repairs the tables that mirror, again and again.

    Args:
        tables: gives the tables of this process.
        health: whether the mirror is worth asking.
        telemetry: told what is seen.
        upkeep: removes bookkeeping that nothing needs any more.
        pause: the time between two rounds, on average: processes must not fall into step.
    """

    def __init__(
        self,
        tables: Callable[[], Iterable[MigratedTable]],
        health: MirrorHealth,
        telemetry: Telemetry,
        *,
        upkeep: PostgresUpkeep,
        pause: timedelta = timedelta(seconds=1),
    ) -> None:
        self._tables = tables
        self._health = health
        self._telemetry = telemetry
        self._upkeep = upkeep
        self._rounds_until_upkeep = _ROUNDS_BETWEEN_UPKEEP
        self._pause_seconds = pause.total_seconds()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Go on in a thread of its own; harmless where it does already."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dualstore-repair", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop, after the round at hand."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
            self._thread = None

    def round(self) -> None:
        """One round over all tables."""
        mirror_up = self._health.probe()
        for table in list(self._tables()):
            try:
                self._attend(table, mirror_up=mirror_up)
            except (DualStoreError, ClientError, BotoCoreError) as error:
                logger.warning("Repair of %s ended early: %s", table.served.logical, type(error).__name__)
        self._rounds_until_upkeep -= 1
        if self._rounds_until_upkeep <= 0 and mirror_up:
            self._rounds_until_upkeep = _ROUNDS_BETWEEN_UPKEEP
            prune(self._upkeep, [table for table in self._tables() if table.control_is_copied])

    def _attend(self, table: MigratedTable, *, mirror_up: bool) -> None:
        record = table.view.record
        self._telemetry.record(StageSeen(table.served.logical, record.stage, record.effective_dials))
        self._telemetry.record(GateSeen(table.served.logical, is_open=record.mirror_readable))
        if not mirror_up:
            return
        if record.unreconciled:
            table.copy_control()  # at once: a PostgreSQL that comes back does not know yet, and takes writes
            return  # and takes none after it, so that nothing can be settled
        try:
            if record.stage.rule.mirrored:
                table.bring_stop_over()
                repaired = table.repair()
                self._telemetry.record(DirtySeen(table.served.logical, repaired.failed))
                self._telemetry.record(table.journal_seen())
        finally:
            if record.stage is not Stage.OFF or table.control_is_copied:
                table.copy_control()  # before anything is mirrored there need be no PostgreSQL at all

    def _run(self) -> None:
        while not self._stop.wait(self._pause_seconds * random.uniform(0.5, 1.5)):  # noqa: S311 - jitter
            try:
                self.round()
            except Exception:
                logger.exception("A round of repair failed; the next one follows")
