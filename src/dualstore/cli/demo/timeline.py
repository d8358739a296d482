"""Everything that happens in one demonstration, in order: what the screen shows and the report plots."""

import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum

from dualstore.cli.demo.measures import Tally

SAMPLE_SECONDS = 1.0


class Tone(StrEnum):
    """What a note means to whoever watches."""

    PLAIN = "plain"
    GOOD = "good"
    FAULT = "fault"
    """Something was broken on purpose."""
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Note:
    """One sentence about what happened."""

    at: float
    text: str
    tone: Tone


@dataclass(slots=True)
class Step:
    """One step of the migration.

    Attributes:
        name: a word or two, such as `read 10 %`.
        what: one sentence of what it is for.
        began: seconds since the start.
        ended: the same, or None while it lasts.
        tally: what callers and sides did in it.
    """

    name: str
    what: str
    began: float
    ended: float | None = None
    tally: Tally = field(default_factory=Tally)

    def seconds(self, now: float) -> float:
        """How long it has lasted."""
        return (now if self.ended is None else self.ended) - self.began


@dataclass(frozen=True, slots=True)
class Standing:
    """Where the migration of the table stands, as the control record and the bookkeeping say.

    Attributes:
        stage: its stage.
        authority: whose word is final for writes.
        postgres_read_percent: the dial.
        gate: whether PostgreSQL may be read.
        dirty_keys: keys in doubt, or None where PostgreSQL could not be asked.
        journal_entries: keys in doubt that are noted in DynamoDB.
        suspects: processes that ended without having finished their writes.
        lag_seconds: the age of the oldest doubt.
        outbox_entries: changes that wait for DynamoDB, or None where PostgreSQL could not be asked.
        outbox_seconds: the age of the oldest of them.
    """

    stage: str = "off"
    authority: str = "DynamoDB"
    postgres_read_percent: float = 0.0
    gate: str = "open"
    dirty_keys: int | None = 0
    journal_entries: int = 0
    suspects: int = 0
    lag_seconds: float = 0.0
    outbox_entries: int | None = 0
    outbox_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One second of the demonstration."""

    at: float
    seconds: float
    tally: Tally
    standing: Standing
    postgres_up: bool
    dynamodb_up: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a copy or a comparison has come."""

    what: str
    items: int
    total: int
    seconds: float


class Timeline:
    """Collects notes, steps, samples and progress; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._began = time.monotonic()
        self._pending = Tally()
        self._sampled = 0.0
        self.notes: list[Note] = []
        self.steps: list[Step] = []
        self.samples: list[Sample] = []
        self.progress: list[tuple[float, Progress]] = []
        self.total = Tally()
        self.standing = Standing()
        self.postgres_up = True
        self.dynamodb_up = True
        # Told of each note, and of each step as it begins and as it ends.
        self.listeners: list[Callable[[Note | Step], None]] = []

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._began

    @property
    def step_now(self) -> Step | None:
        """The step that lasts."""
        return self.steps[-1] if self.steps and self.steps[-1].ended is None else None

    def note(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        """Says what happened."""
        with self._lock:
            note = Note(self.now, text, tone)
            self.notes.append(note)
        self._tell(note)

    @contextmanager
    def step(self, name: str, what: str) -> Iterator[Step]:
        """Everything inside belongs to this step."""
        step = Step(name, what, self.now)
        with self._lock:
            self.steps.append(step)
        self._tell(step)
        try:
            yield step
        finally:
            with self._lock:
                step.ended = self.now
            self._tell(step)

    def _tell(self, event: Note | Step) -> None:
        for listener in self.listeners:
            listener(event)

    def sum_of_steps(self, *, without: Collection[str] = ()) -> Tally:
        """What callers and sides did in all steps but those of these names."""
        total = Tally()
        for step in self.steps:
            if step.name not in without:
                total += step.tally
        return total

    def add(self, tally: Tally) -> None:
        """Takes what a process did since it last said so."""
        with self._lock:
            self._pending += tally
            self.total += tally
            if self.step_now is not None:
                self.step_now.tally += tally

    def advance(self, what: str, items: int, total: int, seconds: float) -> None:
        """Takes how far a copy or comparison has come."""
        with self._lock:
            self.progress.append((self.now, Progress(what, items, total, seconds)))

    def sample(self) -> Sample:
        """Closes one second: what has come since the last, and where the migration stands."""
        with self._lock:
            now = self.now
            taken, self._pending = self._pending, Tally()
            sample = Sample(
                at=now,
                seconds=now - self._sampled,
                tally=taken,
                standing=self.standing,
                postgres_up=self.postgres_up,
                dynamodb_up=self.dynamodb_up,
            )
            self._sampled = now
            self.samples.append(sample)
            return sample
