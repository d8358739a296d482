"""A deterministic simulation: actors that take turns at every call of a store, as a chooser says.

Actors are greenlets of one thread, so that a switch costs a microsecond and nothing happens by chance. Time
is simulated as well: it passes while actors sleep, and while a process is paused.
"""

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self

from greenlet import getcurrent, greenlet

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

    def ready_at(self) -> float:
        """When it can go on; infinite where it waits for another."""
        process = self.process
        if process.crashed:
            return 0.0
        if self.waits_for is not None and not self.waits_for():
            return math.inf
        wakes_at, resumes_at = self.wakes_at, process.resumes_at
        return wakes_at if wakes_at > resumes_at else resumes_at  # noqa: FURB136 - half of the cost of max


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
        actors: all that there ever were.
        meanwhile: what goes on while the test itself, after the simulation, lets time pass.
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
    meanwhile: Thunk = lambda: None
    _live: list[Actor] = field(default_factory=list)
    _foreground: int = 0
    _hub: greenlet = field(default_factory=getcurrent)

    def __post_init__(self) -> None:
        SIMULATED_TIME.scheduler = self

    def spawn(
        self, name: str, act: Thunk, *, process: Process | None = None, background: bool = False
    ) -> Actor:
        """Add an actor; one in the background ends by itself once `busy` is false."""
        actor = Actor(name, process or Process(name), act, self._hub, background=background)
        self.actors.append(actor)
        self._live.append(actor)
        self._foreground += not background
        return actor

    @property
    def busy(self) -> bool:
        """Whether any actor of the foreground has something left to do."""
        return self._foreground > 0

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
            self.meanwhile()
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
        """Run all actors to their ends, and those that they add."""
        self._hub = getcurrent()
        for actor in self._live:
            actor.parent = self._hub
        choose, live = self.choose, self._live
        while live:
            assert self.steps < self.max_steps, "the simulation does not end"
            ready = self._ready()
            actor = ready[choose(len(ready))]
            self.steps += 1
            if actor.process.crashed:
                with suppress(Crash):  # where it has not even begun
                    actor.throw(Crash)
            else:
                actor.switch()
            if actor.dead:
                live.remove(actor)
                self._foreground -= not actor.background

    def _ready(self) -> list[Actor]:
        """The actors that can go on: now, or else when the first of them can."""
        now, soonest = self.now, math.inf
        ready: list[Actor] = []
        later: list[Actor] = []
        for actor in self._live:
            at = actor.ready_at()
            if at <= now:
                ready.append(actor)
            elif at < soonest:
                soonest, later = at, [actor]
            elif at == soonest:
                later.append(actor)
        if ready:
            return ready
        assert soonest < math.inf, "every actor waits for another"
        self.now = soonest
        return later

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


class SimulatedTime:
    """Takes the place of the module `time` where nothing else is given; of the latest simulation."""

    scheduler: Scheduler

    def time(self) -> float:
        return self.scheduler.now

    monotonic = perf_counter = time

    def sleep(self, seconds: float) -> None:
        self.scheduler.sleep(seconds)


SIMULATED_TIME = SimulatedTime()


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


class CooperativeThread:
    """Takes the place of a `threading.Thread`: an actor in the background, of the process that starts it."""

    def __init__(self, *, target: Thunk, name: str, daemon: bool) -> None:
        assert daemon, "it ends with its process"
        self._target = target
        self._name = name

    def start(self) -> None:
        starter = getcurrent()
        assert isinstance(starter, Actor)
        SIMULATED_TIME.scheduler.spawn(self._name, self._target, process=starter.process, background=True)


class CooperativeCondition:
    """Takes the place of a `threading.Condition` under which no store is called.

    A thread in the background waits no longer than there is anything to do for anybody.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def notify_all(self) -> None:
        """Nobody need be told: who waits looks again by himself."""

    def wait_for(self, holds: Callable[[], Any]) -> bool:
        actor, scheduler = getcurrent(), SIMULATED_TIME.scheduler
        assert isinstance(actor, Actor)
        scheduler.wait_until(lambda: bool(holds()) or (actor.background and not scheduler.busy))
        return bool(holds())


def tape(numbers: bytes) -> Choose:
    """A chooser that reads its choices from bytes, then chooses 0: Hypothesis can shrink it."""
    rest = iter(numbers)
    return lambda bound: next(rest, 0) % bound
