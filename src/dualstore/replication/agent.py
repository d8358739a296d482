"""What one process knows of every table at this moment, and for how long it may act on it.

A thread reads the control records every fraction of a grant, beats the register, and carries the flags'
requests into the record. The hot path only looks at a `View`: a value in memory and two deadlines.
DESIGN, replication protocol, rules 6 and 8.
"""

import logging
import math
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord, Gate, Phase
from dualstore.errors import Unavailable, WritesPaused
from dualstore.flags import FlagSource
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.deciding import Change, decide
from dualstore.replication.failover_notes import FailoverNotes
from dualstore.replication.failover_watch import FailoverWatch
from dualstore.replication.first_record import make_first_record
from dualstore.replication.following import Following, Passage, Refused, Unobstructed
from dualstore.replication.registry import Registry
from dualstore.replication.search import Homes, Search
from dualstore.replication.views import GrantTimes, View
from dualstore.stages import Side
from dualstore.stores.control_homes import ControlHome

logger = logging.getLogger(__name__)

# While writes pause, the records are looked at so often.
_PAUSED_POLL_SECONDS = 0.05
_PAUSED_LOOK_SECONDS = 0.02
_TRIES = 3
_LOCKED_SECONDS = 0.1
# A table that is found in the other database may be on its way back already.
_MOVES_AT_ONCE = 3

_FORKED = "this DualStore was made before a fork: make one in the child, where its threads run"


@dataclass
class _Table:
    """One table as this process serves it."""

    side: Side | None = None
    deferring: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    unfinished: Counter[int] = field(default_factory=Counter)
    shut_since: tuple[int, float] | None = None
    deferred_since: float | None = None


class Agent:
    """Keeps the views of one process fresh.

    Args:
        homes: the control records and registers of both databases.
        flags: where requests come from.
        times: the lives of grants.
        clock: measures them.
        registers: whether this process enters the register, so that it may write. One that does not may still
            settle and enqueue, which PostgreSQL lets pass or not by itself: a function that is frozen
            between two calls would else be taken for dead.
        refused: told each time that what the flags ask for may not be done.
        watched: the records of DynamoDB, read without retries (see `FailoverWatch`); those of `homes` if not
            given.
        notes: takes the word of this process while PostgreSQL is the authority; None: it gives none.
    """

    def __init__(
        self,
        homes: Homes,
        flags: FlagSource,
        *,
        times: GrantTimes | None = None,
        clock: Clock = SYSTEM_CLOCK,
        registers: bool = True,
        refused: Refused = lambda _table, _reason: None,
        watched: ControlHome | None = None,
        notes: FailoverNotes | None = None,
    ) -> None:
        self.clock = clock
        self._registers = registers
        self.homes = homes
        self.times = times or GrantTimes()
        self.registries = {side: Registry(home, clock=clock) for side, home in homes.items()}
        self._tables: Mapping[str, _Table] = {}
        self._views: Mapping[str, View] = {}
        # One for each database: one that hangs must not keep the other's tables without grants.
        self._refreshing = {side: threading.Lock() for side in Side}
        self._installing = threading.Lock()
        self._beat_at = dict.fromkeys(Side, -math.inf)
        self._granted_at: dict[Side, Mapping[str, float]] = {side: {} for side in Side}
        self._beaten: dict[Side, Mapping[str, int]] = {side: {} for side in Side}
        self._following = Following(self, flags, refused=refused)
        self._watch = FailoverWatch(
            watched or homes[Side.DYNAMODB],
            notes if registers else None,
            process=self.registries[Side.POSTGRES].id,
            clock=clock,
            write_grant=self.times.write,
        )
        self._stays: set[Side] = set()
        self._failed: dict[Side, tuple[float, Mapping[str, Exception]]] = {}
        self._closed = False
        self._left = False
        self._forked = False
        _forked_with.add(self)
        self._stop = threading.Event()
        self._threads: tuple[threading.Thread, ...] = ()

    @property
    def read_grant(self) -> timedelta:
        """δ: how long other processes may act on what they read before a change."""
        return self.times.read

    def serve(
        self,
        table: str,
        *,
        logical: str,
        passage: Passage | None = None,
        deferring: bool = False,
    ) -> None:
        """Begin to serve a table: its record is made where there is none, and this process registers.

        Args:
            table: the physical name.
            logical: the name by which flags speak of it.
            passage: knows what stands in the way of another stage.
            deferring: whether this process may mirror after it has answered its callers.
        """
        self._create(table)
        with self._installing:
            if table not in self._tables:
                # A new dictionary: others go through the old one meanwhile.
                self._tables = {**self._tables, table: _Table(deferring=deferring)}
                self._following.add(table, logical=logical, passage=passage or Unobstructed())
        try:
            self.refresh(table=table)
        except BaseException:
            if table not in self._views:
                with self._installing:
                    self._tables = {name: state for name, state in self._tables.items() if name != table}
                    self._following.drop(table)
            raise

    def _create(self, table: str) -> None:
        """Make the first record of a table, unless there is one in either database."""
        try:
            make_first_record(self.homes, table)
        except (ClientError, BotoCoreError, Unavailable) as error:
            # PostgreSQL may be the authority: then DynamoDB is not needed for a start.
            logger.warning(
                "DynamoDB has not been asked for the record of %s: %s", table, type(error).__name__
            )

    def view(self, table: str) -> View:
        """What this process knows of a table."""
        return self._views[table]

    def views(self) -> Mapping[str, View]:
        """What this process knows of every table it serves."""
        return self._views

    def home_of(self, table: str) -> ControlHome:
        """The home of the record that decided when it was last looked for."""
        return self.homes[self._tables[table].side or Side.DYNAMODB]

    def registry_of(self, table: str) -> Registry:
        """The register in the same database."""
        return self.registries[self._tables[table].side or Side.DYNAMODB]

    def is_granted(self, table: str, epoch: int) -> bool:
        """Whether this process may act on what it knew of a table at an epoch, without asking anybody."""
        view = self._views[table]
        return view.record.epoch == epoch and self.clock.now() < view.write_until

    def writing(self, table: str) -> "Writing":
        """Count a write as unfinished under the view it begins with, and see that it may be sent.

        Waits while writes pause because the authority moves.

        Returns:
            A context manager, which gives the view and ends the write.

        Raises:
            WritesPaused: (as it is entered) that takes too long; nothing was written.
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the grant has lapsed, and the
                control record cannot be read: the authority is out of reach.
            Unavailable: this process has left the register.
        """
        return Writing(self, table)

    def begin(self, table: str) -> View:
        """Begin a write that `end` will be called for; see `writing`, which calls both."""
        state = self._tables[table]
        for _ in range(_TRIES):
            view = self._begun(table, state)
            if self.clock.now() < view.write_until:
                return view
            self._ended(state, view.record.generation)
            # Anew: what is read now may say that the authority has moved, or is about to.
            self.refreshed(table)
        raise Unavailable(f"a write of {table} was refused: its grants lapse as they are read; try again")

    def end(self, table: str, view: View) -> None:
        """End a write that was begun under a view."""
        self._ended(self._tables[table], view.record.generation)

    def _begun(self, table: str, state: _Table) -> View:
        """The view under which a write begins, once writes do not pause; the write is counted under it."""
        give_up: float | None = None
        while True:
            with state.lock:
                if not self._registers:
                    raise Unavailable(
                        f"a write of {table} was refused: this process relays, and is not registered to write"
                    )
                if self._forked:
                    raise Unavailable(_FORKED)
                if self._closed:
                    raise Unavailable(
                        f"a write of {table} was refused: its DualStore is closed. Finish the work first"
                    )
                view = self._views[table]
                if view.record.phase is Phase.OPEN:
                    state.unfinished[view.record.generation] += 1
                    return view
            now = self.clock.now()
            give_up = now + self.times.patience.total_seconds() if give_up is None else give_up
            if now >= give_up:
                raise WritesPaused(
                    f"writes of {table} pause while their authority moves to the other database; try again"
                )
            self.clock.sleep(_PAUSED_LOOK_SECONDS)

    @contextmanager
    def unfinished(self, table: str, generation: int) -> Iterator[None]:
        """Count a write as unfinished under the generation that it began under; neither waits nor fails."""
        state = self._tables[table]
        with state.lock:
            state.unfinished[generation] += 1
        try:
            yield
        finally:
            self._ended(state, generation)

    def may_defer(self, table: str) -> bool:
        """Whether callers need not wait for the mirror: nobody can be reading it, now or within a grant."""
        if not self._tables[table].deferring:
            return False
        view, since, now = self._views[table], self._tables[table].deferred_since, self.clock.now()
        if not view.record.deferred or since is None or now >= view.read_until:
            return False
        return now - since >= self.times.read.total_seconds()

    @property
    def deferring(self) -> frozenset[str]:
        """The tables that this process may mirror after it has answered its callers."""
        return frozenset(table for table, state in self._tables.items() if state.deferring)

    @staticmethod
    def _ended(state: _Table, generation: int) -> None:
        with state.lock:
            state.unfinished[generation] -= 1
            if not state.unfinished[generation]:
                del state.unfinished[generation]

    def located(self, table: str) -> View:
        """A view whose record decides; waits while the authority is on its way between the databases.

        Raises:
            WritesPaused: that takes too long.
        """
        view = self._views[table]
        if view.record.decides:
            return view
        moving = f"the authority of {table} is moving to the other database; try again"
        return self._view_once(table, lambda record: record.decides, otherwise=moving)

    def wait_until_taken_over(self, table: str) -> None:
        """Wait while a failover of a table is announced: PostgreSQL may yet be written.

        Raises:
            WritesPaused: that takes too long.
        """
        taken = f"DynamoDB is taking {table} over from PostgreSQL; try again"
        self._view_once(table, lambda record: not record.takes_over, otherwise=taken)

    def _view_once(self, table: str, holds: Callable[[ControlRecord], bool], *, otherwise: str) -> View:
        """The view of a table once something holds of its record; WritesPaused where that takes too long."""
        give_up = self.clock.now() + self.times.patience.total_seconds()
        while not holds((view := self._views[table]).record):
            if self.clock.now() >= give_up:
                raise WritesPaused(otherwise)
            self.clock.sleep(_PAUSED_LOOK_SECONDS)
        return view

    def decided(self, table: str) -> ControlRecord:
        """The control record that decides, read now.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: it cannot be.
        """
        record = self.home_of(table).read_all().get(table)
        if record is not None and record.decides:
            return record
        self.refresh(table=table)
        return self.located(table).record

    def decide(self, table: str, change: Change) -> ControlRecord:
        """Change the control record that decides (see `deciding.decide`); this process then knows of it."""

        def find() -> tuple[ControlHome, ControlRecord]:
            record = self.decided(table)
            return self.home_of(table), record

        decided = decide(find, change)
        self.refresh(table=table)
        return decided

    def refreshed(self, table: str) -> View:
        """A view read just now."""
        self.refresh(beat=True, table=table)
        return self._views[table]

    def refresh(self, *, beat: bool = False, table: str | None = None) -> None:
        """Read the control records, and beat the register where that is due.

        Args:
            beat: beat in any case: a lapsed write grant is wanted back.
            table: the table whose record must have been found; None: all of them.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: it was not.
        """
        failures: dict[str, Exception] = {}
        names = list(self._tables) if table is None else [table]
        if table is None:
            self._heed_failovers()
            self._bear_witness()
        for _ in range(_MOVES_AT_ONCE):
            failures = {}
            sides = {name: self._side_of(name) for name in names}
            for side in Side:
                if side in sides.values():
                    failures |= self._refresh_side(side, beat=beat)
            if all(self._side_of(name) is side for name, side in sides.items()):
                break  # else a table has been found in the other database: its register is to know
        failure = next((failures[name] for name in names if name in failures), None)
        if failure is not None:
            raise failure

    def _side_of(self, table: str) -> Side:
        """Where a table's record was last found to decide; DynamoDB is looked at first."""
        return self._tables[table].side or Side.DYNAMODB

    def _refresh_side(self, side: Side, *, beat: bool = False) -> Mapping[str, Exception]:
        """Refresh the tables whose records decide in one database; why some could not be.

        Who waited for somebody else's attempt, which failed, does not make all behind wait for another one.
        """
        came_at = self.clock.now()
        with self._refreshing[side]:
            failed_at, failures = self._failed.get(side, (-math.inf, {}))
            if failed_at > came_at and all(
                name in failures for name in self._tables if self._side_of(name) is side
            ):
                return failures
            again, failures = self._refreshed(side, beat=beat)
            while again:
                again, failures = self._refreshed(side, beat=True)
            if failures:
                self._failed[side] = self.clock.now(), failures
            else:
                self._failed.pop(side, None)
            return failures

    def _heed_failovers(self) -> None:
        """Have tables follow DynamoDB's record that were failed over to it, though PostgreSQL's decides."""
        of_postgres = self._of_postgres()
        if not of_postgres:
            return
        for table in self._watch.look().keys() & of_postgres:
            logger.warning("%s was failed over: DynamoDB's record decides", table)
            self._tables[table].side = Side.DYNAMODB

    def _bear_witness(self) -> None:
        """Leave word in DynamoDB that this process lives, while PostgreSQL is the authority of a table."""
        if of_postgres := self._of_postgres():
            self._watch.bear_witness(of_postgres)

    def _of_postgres(self) -> frozenset[str]:
        """The tables whose records were last found to decide in PostgreSQL, and that can be failed over."""
        views = self._views
        return frozenset(
            name
            for name, state in self._tables.items()
            if state.side is Side.POSTGRES and not (name in views and self._watch.is_over(views[name].record))
        )

    def _refreshed(self, side: Side, *, beat: bool) -> tuple[bool, dict[str, Exception]]:
        """Read once, and beat where that is due; True first where nobody could see this process before.

        Whoever waits for those that lag must find this process in the register *before* it reads what it
        acts on: a grant may not rest on a read that is older than its entry.
        """
        if self._forked:
            raise Unavailable(_FORKED)
        if self._left:
            raise Unavailable("this process has left the register: its DualStore is closed")
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
        if side is Side.POSTGRES and self._lapsed(self.clock.now()):
            # It has slept, or was cut off, for as long as a failover takes.
            self._heed_failovers()
        asked_at = self.clock.now()  # after that look: one that hangs must not use up the grant
        tables = {name: state for name, state in self._tables.items() if self._side_of(name) is side}
        search = Search(self.homes)
        records, failures = search.locate(tables)
        if search.answered(Side.POSTGRES):
            self._watch.reached_postgres(asked_at)
        begin = dict.fromkeys(tables, asked_at)
        if side is Side.POSTGRES:
            begin |= {name: self._watch.granted_from(record, asked_at) for name, record in records.items()}
        return records, failures, begin

    def _lapsed(self, now: float) -> bool:
        """Whether this process may not act on PostgreSQL's record for some table of which it has the word."""
        granted, life = self._granted_at[Side.POSTGRES], self.times.write.total_seconds()
        return any(now - granted.get(table, -math.inf) >= life for table in self._of_postgres())

    def _confirmed_in(self, side: Side) -> dict[str, int]:
        return {
            name: self._confirmed(name, state)
            for name, state in self._tables.items()
            if state.side is side and name in self._views
        }

    def _beat(self, side: Side, confirmed: Mapping[str, int], asked_at: Mapping[str, float]) -> bool:
        """Beat; whether others could see this process, with these tables, before."""
        began = self.clock.now()
        deferring = frozenset(table for table in confirmed if self._tables[table].deferring)
        known = self.registries[side].beat(confirmed, deferring=deferring)
        seen = confirmed.keys() & self._beaten[side].keys() if known else frozenset()
        self._beaten[side], self._beat_at[side] = confirmed, began
        # A grant to write is good only after the beat that follows its read: a process whose beat stands
        # still for a grant's length is thereby known not to write. And only for tables that it named before.
        granted = {table: at for table, at in self._granted_at[side].items() if table in confirmed}
        self._granted_at[side] = granted | {table: asked_at[table] for table in seen & asked_at.keys()}
        return seen == confirmed.keys()

    def _install(self, records: Mapping[str, ControlRecord], asked_at: Mapping[str, float]) -> None:
        write_grant = self.times.write.total_seconds()
        fresh = {
            table: View(
                record=record,
                read_until=asked_at[table] + self.times.read.total_seconds(),
                write_until=self._granted_at[record.authority].get(table, -math.inf) + write_grant,
            )
            for table, record in records.items()
        }
        now = self.clock.now()
        with self._installing:
            known = self._views
            # The other database's thread may have heard of a failover while this one read.
            later = {table: view for table, view in fresh.items() if not _outranked(view, known.get(table))}
            self._views = {**known, **later}
            for table, record in ((table, view.record) for table, view in later.items()):
                _note_gate(self._tables[table], record, now)
                _note_deferred(self._tables[table], record, known.get(table), now)

    def _beat_is_due(self, side: Side) -> bool:
        return self.clock.now() - self._beat_at[side] > self.times.write.total_seconds() / 4

    def confirmed(self) -> dict[str, int]:
        """For each table the generation under which all unfinished writes of this process began."""
        return {
            table: self._confirmed(table, state)
            for table, state in self._tables.items()
            if table in self._views
        }

    def _confirmed(self, table: str, state: _Table) -> int:
        with state.lock:
            return min(state.unfinished, default=self._views[table].record.generation)

    def wait_until_reads_stopped(self, table: str) -> None:
        """Shut the table's gate, and wait until no process can hold a grant from before.

        Costs nothing where this process has known the gate shut for that long: DESIGN, rule 6, "while it
        is shut nobody waits".
        """
        state = self._tables[table]
        view = self._views[table]  # once: the agent's thread may put another one in its place
        if view.record.gate is not Gate.SHUT or self.clock.now() >= view.read_until:
            self.homes[Side.DYNAMODB].shut_gate(table)
            self.refresh(table=table)
        while (shut_since := state.shut_since) is not None:
            remaining = shut_since[1] + self.times.read.total_seconds() - self.clock.now()
            if remaining <= 0:
                return
            self.clock.sleep(remaining)
        # Opened again: a repair has settled everything recorded before, this process's entry included.

    def suspect(self, table: str) -> None:
        """Make a table suspect of this process: it has written what the other side may never hear of.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: it could not be.
        """
        name = self.registry_of(table).id

        def change(record: ControlRecord) -> Mapping[str, object]:
            known = name in record.suspects
            return {} if known else {"suspects": record.suspects | {name}, "verified": False}

        self.decide(table, change)

    def reads_are_stopped(self, table: str) -> bool:
        """Whether no process can be reading a table's mirror, as far as this one knows without asking."""
        view, shut_since = self._views[table], self._tables[table].shut_since
        now = self.clock.now()
        if view.record.gate is not Gate.SHUT or shut_since is None or now >= view.read_until:
            return False
        return now - shut_since[1] >= self.times.read.total_seconds()

    def start(self) -> None:
        """Keep the views fresh from now on, for each database in a thread of its own, and follow the flags.

        What stands in the way of a stage may take its time to be looked up; grants must not lapse meanwhile.
        """
        if not self._threads and self._registers:
            rounds: dict[str, Callable[[], object]] = {
                f"dualstore-agent-{side}": partial(self._look, side) for side in Side
            }
            rounds["dualstore-flags"] = self._following.round
            # By itself: where DynamoDB hangs, nothing else may keep a look from finding that out in time.
            rounds["dualstore-failovers"] = self._heed_failovers
            self._threads = tuple(
                threading.Thread(target=self._run, args=(act,), name=name, daemon=True)
                for name, act in rounds.items()
            )
            for thread in self._threads:
                thread.start()

    def _look(self, side: Side) -> None:
        if side is Side.DYNAMODB:
            self._bear_witness()
        for failure in self._refresh_side(side).values():
            raise failure

    def close(
        self, *, finish: Callable[[], bool] = lambda: True, timeout: timedelta = timedelta(seconds=10)
    ) -> None:
        """Stop; take this process out of the register if it has finished all its writes.

        Args:
            finish: called when no write is unfinished any more; tells whether nothing is left to be recorded
                for the mirror. Otherwise this process stays registered until its silence makes its tables
                suspect.
            timeout: the longest wait for unfinished writes; and for a database that does not answer.
        """
        self._stop.set()
        ends = time.monotonic() + timeout.total_seconds()
        for thread in self._threads:
            thread.join(max(0.0, ends - time.monotonic()))
        self._threads = ()
        for state in self._tables.values():
            with state.lock:  # nothing begins from here on
                self._closed = True
        deadline = self.clock.now() + timeout.total_seconds()
        while any(state.unfinished for state in self._tables.values()) and self.clock.now() <= deadline:
            self.clock.sleep(0.01)
        finished = finish() and not any(state.unfinished for state in self._tables.values())
        self._left = True  # whoever begins to refresh from here on does not come back into the register
        self._watch.leave()
        if not finished:
            logger.warning("Writes are still unfinished: this process stays registered until it is silent")
            return
        for side, lock in self._refreshing.items():  # none under way comes back into the register
            if lock.acquire(timeout=max(_LOCKED_SECONDS, ends - time.monotonic())):
                try:
                    self._leave(side)
                finally:
                    lock.release()
            elif self.registries[
                side
            ].entered:  # somebody waits for that database: it could not be told either
                logger.warning("This process could not leave the register in %s, which does not answer", side)

    def _leave(self, side: Side) -> None:
        if not self.registries[side].entered:
            return
        try:
            self.registries[side].leave()
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

    def tick(self) -> None:
        """One round: read, beat, follow the flags, look for processes that fell silent."""
        try:
            self.refresh()
        finally:  # one database out of reach must not keep the tables of the other where they are
            self._following.round()

    def refusal_of(self, table: str) -> str | None:
        """Why the present request of a table may not be followed, looked up now; None where it may."""
        return self._following.refusal_of(table)

    def refusals(self) -> Mapping[str, str]:
        """Why the present request of a table is not followed, by physical name."""
        return self._following.refusals()

    def _run(self, act: Callable[[], object]) -> None:
        failed: type[Exception] | None = None
        while not self._stop.wait(self._pause_seconds()):
            try:
                act()
            except Exception as error:
                if failed is not type(error):  # once, not at every poll
                    expected = isinstance(error, (ClientError, BotoCoreError, Unavailable))
                    text = "Control records or flags cannot be followed for now: %s"
                    logger.warning(text, type(error).__name__, exc_info=not expected)
                failed = type(error)
            else:
                failed = None

    def _pause_seconds(self) -> float:
        pausing = any(view.record.phase is not Phase.OPEN for view in self._views.values())
        poll = self.times.poll.total_seconds()
        return min(poll, _PAUSED_POLL_SECONDS) if pausing else poll

    def forget_parent(self) -> None:
        """In a child after a fork: neither the register's entry nor the threads are this process's."""
        self._forked = True


class Writing:
    """One write of a process, from before it is sent until nothing is left to do for it.

    A class: a generator would take three times as long to enter and leave, and every write pays for it.
    """

    __slots__ = ("_agent", "_table", "_view")

    def __init__(self, agent: Agent, table: str) -> None:
        self._agent = agent
        self._table = table

    def __enter__(self) -> View:
        self._view = self._agent.begin(self._table)
        return self._view

    def __exit__(self, *_: object) -> None:
        self._agent.end(self._table, self._view)


_forked_with: "weakref.WeakSet[Agent]" = weakref.WeakSet()


def _after_fork() -> None:
    for agent in list(_forked_with):
        agent.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _outranked(view: View, known: View | None) -> bool:
    """Whether a view is of PostgreSQL's record, where a failover is known that it does not know of."""
    if known is None or known.record.failed_over is None:
        return False
    return view.record.epoch < known.record.epoch


def _note_gate(state: _Table, record: ControlRecord, now: float) -> None:
    """Remember since when this process has known the gate shut."""
    if record.gate is Gate.OPEN:
        state.shut_since = None
    elif state.shut_since is None or record.gate_sequence > state.shut_since[0] + 1:
        state.shut_since = (record.gate_sequence, now)
    else:  # one movement leads from shut to reopening, or back; through open it takes two
        state.shut_since = (record.gate_sequence, state.shut_since[1])


def _note_deferred(state: _Table, record: ControlRecord, known: View | None, now: float) -> None:
    """Remember since when this process has known, without a break, that some process defers."""
    if not record.deferred:
        state.deferred_since = None
    elif state.deferred_since is None or known is None or now >= known.read_until:
        state.deferred_since = now
