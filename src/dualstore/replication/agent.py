"""What one process knows of every table at this moment, and for how long it may act on it.

A thread reads the control records every fraction of a grant, beats the register, and carries the flags'
requests into the record. The hot path only looks at a `View`: a value in memory and two deadlines.
DESIGN, replication protocol, rules 6 and 8.
"""

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import IllegalTransition, Unavailable
from dualstore.flags import FlagSource, Requested
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.control import ControlRecord, ControlTable, Gate
from dualstore.replication.registry import ProcessEntry, Registry
from dualstore.replication.transitions import next_step

logger = logging.getLogger(__name__)

# A grant ends by this process's clock, a silence is measured by another's; clocks of one second's length
# differ by parts per million, and requests are in flight for some of the time.
_SILENCE_MARGIN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class View:
    """What this process may act on for one table.

    Attributes:
        record: the control record as last read.
        read_until: the mirror may be read, and its answer be given out, until then.
        write_until: a write may be sent until then; a reply after it is a reply too late.
    """

    record: ControlRecord
    read_until: float
    write_until: float

    def allows_mirror_reads(self, now: float) -> bool:
        """Whether the mirror may be read, and its answer be given out, at this time."""
        return self.record.mirror_readable and now < self.read_until


@dataclass(frozen=True, slots=True)
class GrantTimes:
    """How long a process may act on what it read.

    Attributes:
        poll: the pause between two reads of the control records.
        read: δ, the life of a grant to read the mirror.
        write: the life of a grant to write.
    """

    poll: timedelta = timedelta(seconds=0.4)
    read: timedelta = timedelta(seconds=1)
    write: timedelta = timedelta(seconds=10)


@dataclass
class _Table:
    """One table as this process serves it."""

    logical: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    unfinished: Counter[int] = field(default_factory=Counter)
    request: Requested | None = None
    settled_request: Requested | None = None
    refusal: str | None = None
    shut_since: tuple[int, float] | None = None
    unread_since: tuple[int, float] | None = None


class Agent:
    """Keeps the views of one process fresh.

    Args:
        control: the control records.
        registry: the register of processes.
        flags: where requests come from.
        times: the lives of grants.
        clock: measures them.
    """

    def __init__(
        self,
        control: ControlTable,
        registry: Registry,
        flags: FlagSource,
        *,
        times: GrantTimes | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.clock = clock
        self._control = control
        self._registry = registry
        self._flags = flags
        self._times = times or GrantTimes()
        self._tables: Mapping[str, _Table] = {}
        self._views: Mapping[str, View] = {}
        self._refreshing = threading.Lock()
        self._granted_at = -math.inf
        self._beaten: Mapping[str, int] = {}
        self._closed = False
        self._left = False
        self._looked_at = -math.inf
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def read_grant(self) -> timedelta:
        """δ: how long other processes may act on what they read before a change."""
        return self._times.read

    def serve(self, table: str, *, logical: str) -> None:
        """Begin to serve a table: its record is made where there is none, and this process registers.

        Args:
            table: the physical name.
            logical: the name by which flags speak of it.
        """
        self._control.create(table)
        with self._refreshing:
            if table not in self._tables:
                self._tables = {**self._tables, table: _Table(logical)}  # others go through it meanwhile
        self.refresh()

    def view(self, table: str) -> View:
        """What this process knows of a table."""
        return self._views[table]

    def views(self) -> Mapping[str, View]:
        """What this process knows of every table it serves."""
        return self._views

    @contextmanager
    def writing(self, table: str) -> Iterator[View]:
        """Count a write as unfinished under the view it begins with, and see that it may be sent.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the grant has lapsed, and the
                control record cannot be read: the authority is out of reach.
            Unavailable: this process has left the register.
        """
        state = self._tables[table]
        with state.lock:
            if self._closed:
                raise Unavailable(
                    f"a write of {table} was refused: its DualStore is closed. Finish the work first"
                )
            view = self._views[table]
            generation = view.record.generation
            state.unfinished[generation] += 1
        try:
            if self.clock.now() >= view.write_until:
                view = self.refreshed(table)
            yield view
        finally:
            with state.lock:
                state.unfinished[generation] -= 1
                if not state.unfinished[generation]:
                    del state.unfinished[generation]

    def refreshed(self, table: str) -> View:
        """A view read just now."""
        self.refresh(beat=True)
        return self._views[table]

    def refresh(self, *, beat: bool = False) -> None:
        """Read the control records, and beat the register where that is due.

        Args:
            beat: beat in any case: a lapsed write grant is wanted back.
        """
        with self._refreshing:
            while not self._refreshed(beat=beat):
                beat = True

    def _refreshed(self, *, beat: bool) -> bool:
        """Read once, and beat where that is due; False where nobody could see this process before.

        Whoever waits for those that lag must find this process in the register *before* it reads what it
        acts on: a grant may not rest on a read that is older than its entry.
        """
        if self._left:
            raise Unavailable("this process has left the register: its DualStore is closed")
        asked_at = self.clock.now()
        records = self._control.read_all()
        missing = self._tables.keys() - records.keys()
        if missing:
            raise Unavailable(f"the control record of {min(missing)} is gone; run `dualstore schema upgrade`")
        self._install(records, asked_at)
        confirmed = self.confirmed()
        if beat or confirmed != self._beaten or self._beat_is_due(asked_at):
            seen = self._registry.beat(confirmed) and confirmed.keys() <= self._beaten.keys()
            self._beaten = confirmed
            if not seen:
                return False
            # A grant to write is good only after the beat that follows its read: a process whose beat stands
            # still for a grant's length is thereby known not to write.
            self._granted_at = asked_at
            self._install(records, asked_at)
        return True

    def _install(self, records: Mapping[str, ControlRecord], asked_at: float) -> None:
        self._views = {
            table: View(
                record=records[table],
                read_until=asked_at + self._times.read.total_seconds(),
                write_until=self._granted_at + self._times.write.total_seconds(),
            )
            for table in self._tables
        }
        for table, state in self._tables.items():
            _note_gate(state, records[table], self.clock.now())

    def _beat_is_due(self, now: float) -> bool:
        return now - self._granted_at > self._times.write.total_seconds() / 4

    def confirmed(self) -> dict[str, int]:
        """For each table the generation under which all unfinished writes of this process began."""
        return {
            table: self._confirmed(table, state)
            for table, state in self._tables.items()
            if table in self._views
        }

    def wait_until_reads_stopped(self, table: str) -> None:
        """Shut the table's gate, and wait until no process can hold a grant from before.

        Costs nothing where this process has known the gate shut for that long: DESIGN, rule 6, "while it
        is shut nobody waits".
        """
        state = self._tables[table]
        view = self._views[table]  # once: the agent's thread may put another one in its place
        if view.record.gate is not Gate.SHUT or self.clock.now() >= view.read_until:
            self._control.shut_gate(table)
            self.refresh()
        while (shut_since := state.shut_since) is not None:
            remaining = shut_since[1] + self._times.read.total_seconds() - self.clock.now()
            if remaining <= 0:
                return
            self.clock.sleep(remaining)
        # Opened again: a repair has settled everything recorded before, this process's entry included.

    def start(self) -> None:
        """Keep the views fresh from now on, in a thread of its own."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dualstore-agent", daemon=True)
            self._thread.start()

    def close(
        self, *, finish: Callable[[], bool] = lambda: True, timeout: timedelta = timedelta(seconds=10)
    ) -> None:
        """Stop; take this process out of the register if it has finished all its writes.

        Args:
            finish: called when no write is unfinished any more; tells whether nothing is left to be recorded
                for the mirror. Otherwise this process stays registered until its silence makes its tables
                suspect.
            timeout: the longest wait for unfinished writes.
        """
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout.total_seconds())
            self._thread = None
        for state in self._tables.values():
            with state.lock:  # nothing begins from here on
                self._closed = True
        deadline = self.clock.now() + timeout.total_seconds()
        while any(state.unfinished for state in self._tables.values()) and self.clock.now() <= deadline:
            self.clock.sleep(0.01)
        finished = finish() and not any(state.unfinished for state in self._tables.values())
        with self._refreshing:  # one that is under way must not come back into the register
            self._left = True
            if finished:
                self._leave()
            else:
                logger.warning(
                    "Writes are still unfinished: this process stays registered until it is silent"
                )

    def _leave(self) -> None:
        try:
            self._registry.leave()
        except (ClientError, BotoCoreError) as error:
            logger.warning(
                "This process could not leave the register, so that its tables become suspect: %s",
                type(error).__name__,
            )

    def tick(self) -> None:
        """One round: read, beat, follow the flags, look for processes that fell silent."""
        self.refresh()
        self._follow_flags()
        self._find_silent_processes()

    def refusals(self) -> Mapping[str, str]:
        """Why the present request of a table is not followed, by physical name."""
        return {table: state.refusal for table, state in self._tables.items() if state.refusal}

    def _confirmed(self, table: str, state: _Table) -> int:
        with state.lock:
            return min(state.unfinished, default=self._views[table].record.generation)

    def _run(self) -> None:
        pause = self._times.poll.total_seconds()
        while not self._stop.wait(pause):
            try:
                self.tick()
            except Exception as error:  # noqa: BLE001 - grants lapse by themselves: reads go to the authority
                logger.warning("The control record could not be refreshed: %s", type(error).__name__)

    def _follow_flags(self) -> None:
        for table, state in self._tables.items():
            requested = self._flags.requested(state.logical)
            if requested != state.request:
                state.request, state.settled_request = requested, None
            if state.settled_request is not None:
                continue  # done once: a later change by somebody else is not fought over
            self._follow(table, state, requested)

    def _follow(self, table: str, state: _Table, requested: Requested) -> None:
        record = self._views[table].record
        try:
            step = next_step(record, requested, reads_stopped=self._reads_stopped(state))
        except IllegalTransition as refusal:
            if state.refusal != str(refusal):
                logger.warning("Flags are not followed: %s", refusal)
            state.refusal = str(refusal)
            return
        state.refusal = None
        if step.changes:
            changed = self._control.change(record, **step.changes)
            if changed is None:
                return
            self.refresh()
        if step.satisfied:
            state.settled_request = requested

    def _reads_stopped(self, state: _Table) -> bool:
        since = state.unread_since
        return since is not None and self.clock.now() - since[1] > self._times.read.total_seconds()

    def _find_silent_processes(self) -> None:
        now = self.clock.now()
        if now - self._looked_at < self._times.write.total_seconds() / 4:
            return
        self._looked_at = now
        limit = self._times.write.total_seconds() + _SILENCE_MARGIN_SECONDS
        for entry in self._registry.silent(self._registry.processes(), for_seconds=limit):
            suspected = [self._suspect(entry, table) for table in entry.confirmed]
            if all(suspected):
                logger.warning("Process %s ended without finishing: its tables are suspect", entry.label)
                self._registry.remove(entry)

    def _suspect(self, entry: ProcessEntry, table: str) -> bool:
        """Make a table suspect; True once that stands, or where the process owes the mirror nothing.

        Where nothing is mirrored, a process that had not confirmed that may yet write the mirror.
        """
        record = self._control.read_all().get(table)
        if record is None or entry.id in record.suspects:
            return True
        if not record.stage.rule.mirrored and entry.confirmed[table] >= record.generation:
            return True
        return self._control.change(record, suspects=record.suspects | {entry.id}) is not None


def _note_gate(state: _Table, record: ControlRecord, now: float) -> None:
    """Remember since when this process has known the gate shut, and reads not dialled."""
    if record.gate is Gate.OPEN:
        state.shut_since = None
    elif state.shut_since is None or record.gate_sequence > state.shut_since[0] + 1:
        state.shut_since = (record.gate_sequence, now)
    else:  # one movement leads from shut to reopening, or back; through open it takes two
        state.shut_since = (record.gate_sequence, state.shut_since[1])
    if record.dials.postgres_read_percent:
        state.unread_since = None
    elif state.unread_since is None or state.unread_since[0] != record.generation:
        # Any change counts anew: reads may have been dialled and undialled between two looks.
        state.unread_since = (record.generation, now)
