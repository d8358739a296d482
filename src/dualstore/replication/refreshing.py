"""Keeps fresh what a process knows, and this process in the registers: what its grants rest on.

DESIGN, replication protocol, rules 6 and 8.
"""

import logging
import math
import threading
import time
from collections.abc import Mapping

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord
from dualstore.errors import Unavailable
from dualstore.replication.clocks import Clock
from dualstore.replication.failover_watch import FailoverWatch
from dualstore.replication.known import KnownTables
from dualstore.replication.registry import Registry
from dualstore.replication.search import Homes, Search
from dualstore.replication.views import GrantTimes, View
from dualstore.stages import Side

logger = logging.getLogger(__name__)

_LOCKED_SECONDS = 0.1
# A table that is found in the other database may be on its way back already.
_MOVES_AT_ONCE = 3


class Refreshing:
    """Reads the control records and beats the registers of one process, each database by itself.

    Args:
        known: takes what is read.
        homes: the control records and registers of both databases.
        registries: the same registers, as this process enters them.
        watch: tells of failovers, which DynamoDB alone may know of.
        times: the lives of grants.
        clock: measures them.
        registers: whether this process enters the register.
    """

    def __init__(
        self,
        known: KnownTables,
        homes: Homes,
        *,
        registries: Mapping[Side, Registry],
        watch: FailoverWatch,
        times: GrantTimes,
        clock: Clock,
        registers: bool,
    ) -> None:
        self._known = known
        self._homes = homes
        self._registries = registries
        self._watch = watch
        self._times = times
        self._clock = clock
        self._registers = registers
        # One for each database: one that hangs must not keep the other's tables without grants.
        self._locks = {side: threading.Lock() for side in Side}
        self._beat_at = dict.fromkeys(Side, -math.inf)
        self._granted_at: dict[Side, Mapping[str, float]] = {side: {} for side in Side}
        self._beaten: dict[Side, Mapping[str, int]] = {side: {} for side in Side}
        self._stays: set[Side] = set()
        self._failed: dict[Side, tuple[float, Mapping[str, Exception]]] = {}
        self._over: str | None = None

    def refresh(self, *, beat: bool = False, table: str | None = None) -> None:
        """Read the control records, and beat the register where that is due.

        Args:
            beat: beat in any case: a lapsed write grant is wanted back.
            table: the table whose record must have been found; None: all of them.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: it was not.
        """
        failures: dict[str, Exception] = {}
        names = list(self._known.tables) if table is None else [table]
        if table is None:
            self.heed_failovers()
            self._bear_witness()
        for _ in range(_MOVES_AT_ONCE):
            failures = {}
            sides = {name: self._known.side_of(name) for name in names}
            for side in Side:
                if side in sides.values():
                    failures |= self._refresh_side(side, beat=beat)
            if all(self._known.side_of(name) is side for name, side in sides.items()):
                break  # else a table has been found in the other database: its register is to know
        failure = next((failures[name] for name in names if name in failures), None)
        if failure is not None:
            raise failure

    def look(self, side: Side) -> None:
        """Refresh the tables whose records decide in one database.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: it could not be.
        """
        if side is Side.DYNAMODB:
            self._bear_witness()
        for failure in self._refresh_side(side).values():
            raise failure

    def _refresh_side(self, side: Side, *, beat: bool = False) -> Mapping[str, Exception]:
        """Refresh the tables whose records decide in one database; why some could not be.

        Who waited for somebody else's attempt, which failed, does not make all behind wait for another one.
        """
        came_at = self._clock.now()
        with self._locks[side]:
            failed_at, failures = self._failed.get(side, (-math.inf, {}))
            if failed_at > came_at and failures.keys() >= self._known.at(side).keys():
                return failures
            again, failures = self._refreshed(side, beat=beat)
            while again:
                again, failures = self._refreshed(side, beat=True)
            if failures:
                self._failed[side] = self._clock.now(), failures
            else:
                self._failed.pop(side, None)
            return failures

    def heed_failovers(self) -> None:
        """Have tables follow DynamoDB's record that were failed over to it, though PostgreSQL's decides."""
        of_postgres = self._of_postgres()
        if not of_postgres:
            return
        for table in self._watch.look().keys() & of_postgres:
            logger.warning("%s was failed over: DynamoDB's record decides", table)
            self._known.tables[table].side = Side.DYNAMODB

    def _bear_witness(self) -> None:
        """Leave word in DynamoDB that this process lives, while PostgreSQL is the authority of a table."""
        if of_postgres := self._of_postgres():
            self._watch.bear_witness(of_postgres)

    def _of_postgres(self) -> frozenset[str]:
        """The tables whose records were last found to decide in PostgreSQL, and that can be failed over."""
        views = self._known.views
        return frozenset(
            name
            for name, state in self._known.tables.items()
            if state.side is Side.POSTGRES and not (name in views and self._watch.is_over(views[name].record))
        )

    def _refreshed(self, side: Side, *, beat: bool) -> tuple[bool, dict[str, Exception]]:
        """Read once, and beat where that is due; True first where nobody could see this process before.

        Whoever waits for those that lag must find this process in the register *before* it reads what it
        acts on: a grant may not rest on a read that is older than its entry.
        """
        if self._over is not None:
            raise Unavailable(self._over)
        records, failures, asked_at = self._read(side)
        if not self._registers:
            self._granted_at[side] = asked_at
        self._install(records, asked_at)
        if not self._registers:
            return False, failures
        confirmed = self._confirmed_in(side)
        again = False
        try:
            if not confirmed:
                self._leave(side)
            elif beat or confirmed != self._beaten[side] or self._beat_is_due(side):
                again = not self._beat(side, confirmed, asked_at)
        except (ClientError, BotoCoreError, Unavailable) as error:
            failures |= dict.fromkeys(confirmed, error)
        self._install(records, asked_at)
        return again, failures

    def _read(
        self, side: Side
    ) -> tuple[Mapping[str, ControlRecord], dict[str, Exception], Mapping[str, float]]:
        """The records of a database's tables, why some could not be read, and when grants on each begin."""
        if side is Side.POSTGRES and self._lapsed(self._clock.now()):
            # It has slept, or was cut off, for as long as a failover takes.
            self.heed_failovers()
        asked_at = self._clock.now()  # after that look: one that hangs must not use up the grant
        tables = self._known.at(side)
        search = Search(self._homes)
        records, failures = search.locate(tables)
        if search.answered(Side.POSTGRES):
            self._watch.reached_postgres(asked_at)
        begin = dict.fromkeys(tables, asked_at)
        if side is Side.POSTGRES:
            begin |= {name: self._watch.granted_from(record, asked_at) for name, record in records.items()}
        return records, failures, begin

    def _lapsed(self, now: float) -> bool:
        """Whether this process may not act on PostgreSQL's record for some table of which it has the word."""
        granted, life = self._granted_at[Side.POSTGRES], self._times.write.total_seconds()
        return any(now - granted.get(table, -math.inf) >= life for table in self._of_postgres())

    def _confirmed_in(self, side: Side) -> dict[str, int]:
        return {
            name: self._known.confirmed(name)
            for name, state in self._known.tables.items()
            if state.side is side and name in self._known.views
        }

    def _beat(self, side: Side, confirmed: Mapping[str, int], asked_at: Mapping[str, float]) -> bool:
        """Beat; whether others could see this process, with these tables, before."""
        began = self._clock.now()
        deferring = frozenset(table for table in confirmed if self._known.tables[table].deferring)
        known = self._registries[side].beat(confirmed, deferring=deferring)
        seen = confirmed.keys() & self._beaten[side].keys() if known else frozenset()
        self._beaten[side], self._beat_at[side] = confirmed, began
        # A grant to write is good only after the beat that follows its read: a process whose beat stands
        # still for a grant's length is thereby known not to write. And only for tables that it named before.
        granted = {table: at for table, at in self._granted_at[side].items() if table in confirmed}
        self._granted_at[side] = granted | {table: asked_at[table] for table in seen & asked_at.keys()}
        return seen == confirmed.keys()

    def _install(self, records: Mapping[str, ControlRecord], asked_at: Mapping[str, float]) -> None:
        write_grant = self._times.write.total_seconds()
        fresh = {
            table: View(
                record=record,
                read_until=asked_at[table] + self._times.read.total_seconds(),
                write_until=self._granted_at[record.authority].get(table, -math.inf) + write_grant,
            )
            for table, record in records.items()
        }
        self._known.install(fresh, self._clock.now())

    def _beat_is_due(self, side: Side) -> bool:
        return self._clock.now() - self._beat_at[side] > self._times.write.total_seconds() / 4

    def end(self, reason: str) -> None:
        """Refuse to refresh from now on: who begins to does not come (back) into the register."""
        self._over = reason

    def leave(self, *, until: float) -> None:
        """Take this process out of the registers, after `end`.

        Args:
            until: of `time.monotonic`: the longest wait for whoever refreshes just now.
        """
        for side, lock in self._locks.items():  # none under way comes back into the register
            if lock.acquire(timeout=max(_LOCKED_SECONDS, until - time.monotonic())):
                try:
                    self._leave(side)
                finally:
                    lock.release()
            elif self._registries[side].entered:  # it could not be told either
                logger.warning("This process could not leave the register in %s, which does not answer", side)

    def _leave(self, side: Side) -> None:
        if not self._registries[side].entered:
            return
        try:
            self._registries[side].leave()
            self._beaten[side] = {}
            self._stays.discard(side)
        except (ClientError, BotoCoreError, Unavailable) as error:
            known = side in self._stays  # tried again at each poll: a lost PostgreSQL may stay away for days
            self._stays.add(side)
            logger.log(
                logging.DEBUG if known else logging.WARNING,
                "This process could not leave the register in %s, so that its tables become suspect: %s",
                side,
                type(error).__name__,
            )
