"""What one process knows of every table at this moment, and for how long it may act on it.

A thread reads the control records every fraction of a grant, beats the register, and carries the flags'
requests into the record. The hot path only looks at a `View`: a value in memory and two deadlines.
DESIGN, replication protocol, rules 6 and 8.
"""

import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from dualstore.replication.known import KnownTable, KnownTables
from dualstore.replication.refreshing import Refreshing
from dualstore.replication.registry import Registry
from dualstore.replication.search import Homes
from dualstore.replication.suspects import renewed
from dualstore.replication.views import GrantTimes, View
from dualstore.stages import Side
from dualstore.stores.control_homes import ControlHome

logger = logging.getLogger(__name__)

# While writes pause, the records are looked at so often.
_PAUSED_POLL_SECONDS = 0.05
_PAUSED_LOOK_SECONDS = 0.02
_TRIES = 3

_CLOSED = "its DualStore is closed. Finish the work first"
_LEFT = "this process has left the register: its DualStore is closed"
_FORKED = "this DualStore was made before a fork: make one in the child, where its threads run"


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
        self._known = KnownTables()
        self._following = Following(self, flags, refused=refused)
        self._watch = FailoverWatch(
            watched or homes[Side.DYNAMODB],
            notes if registers else None,
            process=self.registries[Side.POSTGRES].id,
            clock=clock,
            write_grant=self.times.write,
        )
        self._refreshing = Refreshing(
            self._known,
            homes,
            registries=self.registries,
            watch=self._watch,
            times=self.times,
            clock=clock,
            registers=registers,
        )
        self._closed: str | None = None
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
        if self._known.add(table, deferring=deferring):
            self._following.add(table, logical=logical, passage=passage or Unobstructed())
        try:
            self.refresh(table=table)
        except BaseException:
            if self._known.drop(table):
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
        return self._known.views[table]

    def views(self) -> Mapping[str, View]:
        """What this process knows of every table it serves."""
        return self._known.views

    def home_of(self, table: str) -> ControlHome:
        """The home of the record that decided when it was last looked for."""
        return self.homes[self._known.side_of(table)]

    def registry_of(self, table: str) -> Registry:
        """The register in the same database."""
        return self.registries[self._known.side_of(table)]

    def is_granted(self, table: str, epoch: int) -> bool:
        """Whether this process may act on what it knew of a table at an epoch, without asking anybody."""
        view = self._known.views[table]
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
        state = self._known.tables[table]
        for _ in range(_TRIES):
            view = self._begun(table, state)
            if self.clock.now() < view.write_until:
                return view
            state.ended(view.record.generation)
            # Anew: what is read now may say that the authority has moved, or is about to.
            self.refreshed(table)
        raise Unavailable(f"a write of {table} was refused: its grants lapse as they are read; try again")

    def end(self, table: str, view: View) -> None:
        """End a write that was begun under a view."""
        self._known.tables[table].ended(view.record.generation)

    def _begun(self, table: str, state: KnownTable) -> View:
        """The view under which a write begins, once writes do not pause; the write is counted under it."""
        give_up: float | None = None
        while True:
            with state.lock:
                if not self._registers:
                    raise Unavailable(
                        f"a write of {table} was refused: this process relays, and is not registered to write"
                    )
                if self._closed is not None:
                    raise Unavailable(f"a write of {table} was refused: {self._closed}")
                view = self._known.views[table]
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
        state = self._known.tables[table]
        with state.lock:
            state.unfinished[generation] += 1
        try:
            yield
        finally:
            state.ended(generation)

    def may_defer(self, table: str) -> bool:
        """Whether callers need not wait for the mirror: nobody can be reading it, now or within a grant."""
        state = self._known.tables[table]
        if not state.deferring:
            return False
        view, since, now = self._known.views[table], state.deferred_since, self.clock.now()
        if not view.record.deferred or since is None or now >= view.read_until:
            return False
        return now - since >= self.times.read.total_seconds()

    @property
    def deferring(self) -> frozenset[str]:
        """The tables that this process may mirror after it has answered its callers."""
        return frozenset(table for table, state in self._known.tables.items() if state.deferring)

    def located(self, table: str) -> View:
        """A view whose record decides; waits while the authority is on its way between the databases.

        Raises:
            WritesPaused: that takes too long.
        """
        view = self._known.views[table]
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
        while not holds((view := self._known.views[table]).record):
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
        return self._known.views[table]

    def refresh(self, *, beat: bool = False, table: str | None = None) -> None:
        """Read the control records, and beat the register where that is due (see `Refreshing.refresh`)."""
        self._refreshing.refresh(beat=beat, table=table)

    def confirmed(self) -> dict[str, int]:
        """For each table the generation under which all unfinished writes of this process began."""
        return {table: self._known.confirmed(table) for table in self._known.views}

    def wait_until_reads_stopped(self, table: str) -> None:
        """Shut the table's gate, and wait until no process can hold a grant from before.

        Costs nothing where this process has known the gate shut for that long: DESIGN, rule 6, "while it
        is shut nobody waits".
        """
        state = self._known.tables[table]
        view = self._known.views[table]  # once: the agent's thread may put another one in its place
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
        process = self.registry_of(table).id

        def change(record: ControlRecord) -> Mapping[str, object]:
            suspects = renewed(record.suspects, process, record.generation + 1)
            return {"suspects": suspects, "verified": False}

        self.decide(table, change)

    def reads_are_stopped(self, table: str) -> bool:
        """Whether no process can be reading a table's mirror, as far as this one knows without asking."""
        view, shut_since = self._known.views[table], self._known.tables[table].shut_since
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
                f"dualstore-agent-{side}": partial(self._refreshing.look, side) for side in Side
            }
            rounds["dualstore-flags"] = self._following.round
            # By itself: where DynamoDB hangs, nothing else may keep a look from finding that out in time.
            rounds["dualstore-failovers"] = self._refreshing.heed_failovers
            self._threads = tuple(
                threading.Thread(target=self._run, args=(act,), name=name, daemon=True)
                for name, act in rounds.items()
            )
            for thread in self._threads:
                thread.start()

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
        for state in self._known.tables.values():
            with state.lock:  # nothing begins from here on
                self._closed = self._closed or _CLOSED
        deadline = self.clock.now() + timeout.total_seconds()
        while any(state.unfinished for state in self._known.tables.values()) and self.clock.now() <= deadline:
            self.clock.sleep(0.01)
        finished = finish() and not any(state.unfinished for state in self._known.tables.values())
        self._refreshing.end(_LEFT)
        self._watch.leave()
        if finished:
            self._refreshing.leave(until=ends)
        else:
            logger.warning("Writes are still unfinished: this process stays registered until it is silent")

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
        pausing = any(view.record.phase is not Phase.OPEN for view in self._known.views.values())
        poll = self.times.poll.total_seconds()
        return min(poll, _PAUSED_POLL_SECONDS) if pausing else poll

    def forget_parent(self) -> None:
        """In a child after a fork: neither the register's entry nor the threads are this process's."""
        self._closed = _FORKED
        self._refreshing.end(_FORKED)


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
