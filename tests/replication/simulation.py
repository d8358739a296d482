"""A deterministic simulation: actors that take turns at every call of a store, as a chooser says.

Actors are greenlets of one thread, so that a switch costs a microsecond and nothing happens by chance. Time
is simulated as well: it passes while actors sleep, and while a process is paused.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from greenlet import getcurrent, greenlet

from dualstore.errors import OutcomeUnknown, Unavailable

Choose = Callable[[int], int]
"""Gives a number from 0 up to, but without, its argument. 0 is the quietest choice: no fault, no switch."""

Thunk = Callable[[], Any]

# One step in so many lets another actor go on, pauses the process, or ends it: faults of interleaving need
# few switches, but in the right places.
_STEP_CHOICES = 36
_SWITCHES = 12
_PAUSES_SECONDS = (0.3, 0.7, 1.3, 3.0, 12.0, 40.0)


class Crash(BaseException):
    """The actor's process dies here: nothing that it does from now on has an effect."""


@dataclass(eq=False)
class Process:
    """A process: its actors share a clock, are paused together and die together.

    Attributes:
        name: for people.
        clock_offset: what its clocks show when the simulation begins, in seconds.
        crashable: whether the chooser may end it.
        pausable: whether the chooser may stop it for a while, and let time pass.
    """

    name: str
    clock_offset: float = 0.0
    crashable: bool = False
    pausable: bool = False
    crashed: bool = False
    resumes_at: float = 0.0


class Actor(greenlet):
    """One thread of a process."""

    def __init__(self, name: str, process: Process, act: Thunk, hub: greenlet, *, background: bool) -> None:
        super().__init__(_until_crash(act), hub)
        self.name = name
        self.process = process
        self.background = background
        self.wakes_at = 0.0
        self.waits_for: Callable[[], bool] | None = None

    @property
    def ready_at(self) -> float:
        if self.process.crashed:
            return 0.0
        if self.waits_for is not None and not self.waits_for():
            return math.inf
        return max(self.wakes_at, self.process.resumes_at)


@dataclass(eq=False)
class Scheduler:
    """Runs actors, one at a time; `choose` decides who goes on, who is stopped and who dies.

    Attributes:
        choose: makes every choice.
        now: simulated seconds.
        steps: how often an actor could have been overtaken.
        crashes: how many processes the chooser may still end.
        pauses: how many pauses of a process it may still order.
        lengths: of the pauses, in seconds.
        late: requests whose senders gave up; the network may yet deliver them.
    """

    choose: Choose
    now: float = 0.0
    steps: int = 0
    crashes: int = 0
    pauses: int = 0
    lengths: tuple[float, ...] = _PAUSES_SECONDS
    max_steps: int = 20_000
    late: list[Thunk] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)
    _hub: greenlet = field(default_factory=getcurrent)

    def spawn(
        self, name: str, act: Thunk, *, process: Process | None = None, background: bool = False
    ) -> Actor:
        """Add an actor; one in the background ends by itself once `busy` is false."""
        actor = Actor(name, process or Process(name), act, self._hub, background=background)
        self.actors.append(actor)
        return actor

    @property
    def busy(self) -> bool:
        """Whether any actor of the foreground has something left to do."""
        return any(not actor.background and not actor.dead for actor in self.actors)

    def step(self) -> None:
        """Let others go on; called by an actor wherever a real process could be overtaken, or die."""
        actor = getcurrent()
        if not isinstance(actor, Actor):
            return  # the test itself, before or after the simulation
        process = actor.process
        if process.crashed:
            raise Crash
        self.steps += 1
        choice = self.choose(_STEP_CHOICES)
        if choice < _STEP_CHOICES - _SWITCHES:
            return
        if choice == _STEP_CHOICES - 1 and self.crashes and process.crashable:
            self.crashes -= 1
            process.crashed = True
            raise Crash
        if choice == _STEP_CHOICES - 2 and self.pauses and process.pausable:
            self.pauses -= 1
            process.resumes_at = self.now + self.lengths[self.choose(len(self.lengths))]
        self._switch(actor)

    def sleep(self, seconds: float) -> None:
        """Let others go on while time passes."""
        actor = getcurrent()
        if not isinstance(actor, Actor):
            self.now += seconds
            return
        if actor.process.crashed:
            raise Crash
        actor.wakes_at = self.now + seconds
        self._switch(actor)

    def wait_until(self, holds: Callable[[], bool]) -> None:
        """Let others go on until something holds."""
        actor = getcurrent()
        if not isinstance(actor, Actor):
            assert holds(), "the test itself would wait for ever"
            return
        if actor.process.crashed:
            raise Crash
        if not holds():
            actor.waits_for = holds
            self._switch(actor)
            actor.waits_for = None

    def run(self) -> None:
        """Run all actors to their ends."""
        self._hub = getcurrent()
        for actor in self.actors:
            actor.parent = self._hub
        live = list(self.actors)
        while live:
            assert self.steps < self.max_steps, "the simulation does not end"
            ready = [actor for actor in live if actor.ready_at <= self.now]
            if not ready:
                self.now = min(actor.ready_at for actor in live)
                assert self.now < math.inf, "every actor waits for another"
                continue
            actor = ready[self.choose(len(ready))]
            self.steps += 1
            if actor.process.crashed:
                with suppress(Crash):  # where it has not even begun
                    actor.throw(Crash)
            else:
                actor.switch()
            live = [actor for actor in live if not actor.dead]

    def _switch(self, actor: Actor) -> None:
        self._hub.switch()
        if actor.process.crashed:
            raise Crash


def _until_crash(act: Thunk) -> Thunk:
    """What an actor does, ended without a trace where its process crashes."""

    def until_crash() -> None:
        with suppress(Crash):
            act()

    return until_crash


@dataclass(frozen=True)
class SimulatedClock:
    """A process's clock (`replication.clocks.Clock`): simulated time, from a start of its own."""

    scheduler: Scheduler
    offset: float = 0.0

    def now(self) -> float:
        return self.offset + self.scheduler.now

    def sleep(self, seconds: float) -> None:
        self.scheduler.sleep(seconds)


@dataclass(frozen=True)
class SleepyClock(SimulatedClock):
    """A clock whose process is now and then stopped for long, just before it looks at it."""

    naps_seconds: float = 90.0

    def now(self) -> float:
        if self.scheduler.choose(6) == 5:
            self.scheduler.sleep(self.naps_seconds)
        return super().now()


class CooperativeLock:
    """Takes the place of a `threading.Lock` that is held across calls of a store."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._holder: greenlet | None = None

    def __enter__(self) -> None:
        self._scheduler.wait_until(lambda: self._holder is None)
        self._holder = getcurrent()

    def __exit__(self, *_: object) -> None:
        self._holder = None


@dataclass
class Faults:
    """What goes wrong with calls of a store.

    Attributes:
        one_in: a call in so many meets a fault; 0 is never.
        kinds: the faults to choose from: `request` (lost on the way there), `reply` (carried out, its answer
            lost), `zombie` (given up by its sender, carried out at any later step), `duplicate` (carried out
            and answered, and once more at a later step), `slow` and `late` (the request, or the answer, is
            long on its way).
    """

    one_in: int = 0
    kinds: tuple[str, ...] = ("request", "reply")

    def chosen(self, choose: Choose) -> str | None:
        """The fault that a call meets, or None."""
        if not self.one_in or choose(self.one_in) != self.one_in - 1:
            return None
        return self.kinds[choose(len(self.kinds))]


_DELAYS_SECONDS = (0.2, 0.9, 1.2, 6.0, 11.0)


@dataclass(eq=False)
class Wire:
    """The way between actors and one database.

    Args:
        scheduler: lets others overtake before each call.
        faults: what goes wrong.
        lost: the error that a caller sees where no answer comes.
    """

    scheduler: Scheduler
    faults: Faults
    lost: Callable[[], Exception]

    def call(
        self,
        act: Thunk,
        *,
        writes: bool,
        never_sent: Callable[[], Exception] | None = None,
        unknown: Callable[[], Exception] | None = None,
        on_late: Callable[[], None] | None = None,
    ) -> Any:
        """Carry a call over.

        Args:
            act: carries it out.
            writes: whether it may come late; a read is repeated by its driver, or fails.
            never_sent: the error of a request that is lost, where the driver can tell.
            unknown: that of an answer that is lost; both as the wire's where they are not given.
            on_late: told that the request may yet be carried out.
        """
        never_sent, unknown = never_sent or self.lost, unknown or self.lost
        scheduler = self.scheduler
        if not isinstance(getcurrent(), Actor):
            return act()  # before and after the simulation nothing goes wrong
        scheduler.step()
        fault = self.faults.chosen(scheduler.choose)
        if fault is None:
            return act()
        if fault in _DELAYED:
            return self._delayed(act, before=fault == "slow")
        if fault == "request":
            raise never_sent()
        if fault != "zombie":
            result = act()
        if fault in {"zombie", "duplicate"} and writes:
            scheduler.late.append(act)
            if on_late is not None:
                on_late()
        if fault == "duplicate":
            return result
        raise unknown()

    def _delayed(self, act: Thunk, *, before: bool) -> Any:
        scheduler = self.scheduler
        delay = _DELAYS_SECONDS[scheduler.choose(len(_DELAYS_SECONDS))]
        if before:
            scheduler.sleep(delay)
            return act()
        result = act()
        scheduler.sleep(delay)
        return result


_DELAYED = frozenset({"slow", "late"})
_LATENESS_SECONDS = (0.0, 0.0, 0.8, 4.0, 14.0, 35.0)


def deliver_late(scheduler: Scheduler) -> None:
    """The network: delivers requests that their senders gave up on, at any step; some never."""
    while True:
        scheduler.wait_until(lambda: bool(scheduler.late) or not scheduler.busy)
        if not scheduler.late:
            return
        scheduler.sleep(_LATENESS_SECONDS[scheduler.choose(len(_LATENESS_SECONDS))])
        late = scheduler.late.pop(scheduler.choose(len(scheduler.late)))
        if scheduler.choose(4) != 3:
            _deliver(late)


def _deliver(late: Thunk) -> None:
    with suppress(Exception):  # refused; nobody listens to the answer
        late()


class Stepped:
    """A store, or any other thing of a database, whose methods are called over a wire.

    Args:
        target: carries the calls out.
        wire: between.
        reads: the names of methods that change nothing.
        local: those that are no calls of the database.
    """

    def __init__(
        self,
        target: Any,
        wire: Wire,
        *,
        reads: frozenset[str] = frozenset(),
        local: frozenset[str] = frozenset({"side"}),
    ) -> None:
        self._target = target
        self._wire = wire
        self._reads = reads
        self._local = local

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in self._local:
            return found
        wire, writes = self._wire, name not in self._reads

        def call(*args: Any, **options: Any) -> Any:
            return wire.call(lambda: found(*args, **options), writes=writes)

        self.__dict__[name] = call
        return call


class SteppedStore:
    """A store that answers DynamoDB operations over a wire.

    Args:
        store: carries them out.
        wire: between.
        attempts: how often the driver sends a request whose answer is lost, as botocore does.
        on_late: told that a write may yet be carried out, though its sender gave it up.
    """

    def __init__(
        self, store: Any, wire: Wire, *, attempts: int = 1, on_late: Callable[[], None] | None = None
    ) -> None:
        self._on_late = on_late
        self.side = store.side
        self._store = store
        self._wire = wire
        self._attempts = attempts

    def execute(self, operation: Any) -> Any:
        for left in range(self._attempts - 1, -1, -1):
            try:
                return self._wire.call(
                    lambda: self._store.execute(operation),
                    writes=not operation.reads,
                    on_late=self._on_late,
                )
            except type(self._wire.lost()):
                if not left:
                    raise
        raise AssertionError("attempts is positive")


class SteppedMirror(Stepped):
    """A mirror over a wire. Key locks are kept here: an actor that waits for one lets others go on."""

    _READS = frozenset({"state", "items_of", "states_as_authority", "dirty_keys", "execute_as_mirror"})

    def __init__(
        self,
        store: Any,
        wire: Wire,
        key_name: Callable[[str, Any], bytes],
        *,
        locks: dict[tuple[str, bytes], greenlet] | None = None,
        on_late: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(store, wire, reads=self._READS)
        self._on_late = on_late
        self._key_name = key_name
        self._locks = {} if locks is None else locks

    def write_direct(self, table: str, key: Any, image: Any, **options: Any) -> bool:
        return self._locking(table, key, lambda: self._target.write_direct(table, key, image, **options))

    def write_settled(self, table: str, key: Any, image: Any, **options: Any) -> bool:
        return self._locking(table, key, lambda: self._target.write_settled(table, key, image, **options))

    def execute_as_authority(self, operation: Any, **options: Any) -> Any:
        return self._wire.call(
            lambda: self._target.execute_as_authority(operation, **options),
            writes=not operation.reads,
            never_sent=_not_reached,
            unknown=_not_reached if operation.reads else _commit_unconfirmed,
            on_late=self._on_late,
        )

    def write_settled_together(self, writes: Any, **options: Any) -> bool:
        names = {(write.table, self._key_name(write.table, write.key)) for write in writes}
        self._wire.scheduler.wait_until(lambda: names.isdisjoint(self._locks))
        result: bool = self._wire.call(
            lambda: self._target.write_settled_together(writes, **options), writes=True
        )
        return result

    @contextmanager
    def locked(self, table: str, key: Any) -> Iterator[None]:
        name, me = (table, self._key_name(table, key)), getcurrent()
        self._wire.scheduler.wait_until(lambda: self._locks.get(name, me) is me)
        self._locks[name] = me
        try:
            yield
        finally:
            del self._locks[name]  # a crash ends the database session, and its locks with it

    def _locking(self, table: str, key: Any, act: Thunk) -> bool:
        if self._locks:
            name, me = (table, self._key_name(table, key)), getcurrent()
            self._wire.scheduler.wait_until(lambda: self._locks.get(name, me) is me)
        result: bool = self._wire.call(act, writes=True)
        return result


def _not_reached() -> Exception:
    return Unavailable("simulated: PostgreSQL could not be reached")


def _commit_unconfirmed() -> Exception:
    return OutcomeUnknown("simulated: COMMIT was not confirmed, and PostgreSQL failed over")


def tape(numbers: bytes) -> Choose:
    """A chooser that reads its choices from bytes, then chooses 0: Hypothesis can shrink it."""
    rest = iter(numbers)
    return lambda bound: next(rest, 0) % bound
