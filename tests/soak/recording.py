"""The ledger: one append-only file for each process, written before a request is sent and after its answer.

Each line is one `write` to a file opened for appending: it outlives a SIGKILL of the process. Times are
CLOCK_BOOTTIME, which all processes of a machine share and which goes on while a process is stopped.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from soak.tables import Place

Outcome = Literal["acknowledged", "refused", "undone", "unknown", "unanswered"]
Expected = Literal["absent", "present"]


def now_ns() -> int:
    """The moment, on the clock of all ledgers."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Effect:
    """What a write does to one key.

    Attributes:
        place: the key.
        token: what it leaves there; None deletes. Counters: the member that is added.
        expects: what its condition asks for.
    """

    place: Place
    token: str | None
    expects: Expected | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """One write as its caller saw it.

    Attributes:
        writer: the process.
        kind: such as `put` or `batch`.
        stage: of the first table it touches, as its process knew it.
        effects: one for each key.
        outcome: what the caller was told.
        began_ns: before it was sent.
        ended_ns: after it was answered; None where it never was.
        late: how many of its requests DynamoDB may have carried out after they were given up.
        lost: how many replies were taken away after DynamoDB had carried the request out.
        error: the code or class of the error that ended it.
    """

    writer: str
    kind: str
    stage: str
    effects: tuple[Effect, ...]
    outcome: Outcome
    began_ns: int
    ended_ns: int | None
    late: int = 0
    lost: int = 0
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """One key as a read showed it: a register's token or a counter's number; None for no item."""

    place: Place
    token: str | int | None
    began_ns: int
    ended_ns: int
    how: str
    stage: str


@dataclass
class Ledger:
    """All that was written and read, and what else happened."""

    writes: list[Written] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)


class Pen:
    """Writes one process's ledger; its threads share it. A context manager.

    Args:
        folder: where the ledgers are.
        writer: the process's name, used once.
    """

    def __init__(self, folder: Path, writer: str) -> None:
        self._path = folder / f"{writer}.jsonl"
        self._file = -1
        self._numbers = iter(range(1, 1 << 62))
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    def intend(self, kind: str, stage: str, effects: Sequence[Effect]) -> int:
        """Note a write that is about to be sent; returns its number."""
        with self._lock:
            number = next(self._numbers)
        plain = [[str(effect.place), effect.token, effect.expects] for effect in effects]
        self._put({"n": number, "at": now_ns(), "kind": kind, "stage": stage, "effects": plain})
        return number

    def conclude(
        self,
        number: int,
        outcome: Outcome,
        *,
        late: int = 0,
        lost: int = 0,
        error: str | None = None,
        undone: Sequence[int] = (),
    ) -> None:
        """Note how a write was answered.

        Args:
            number: of the write.
            outcome: what its caller was told.
            late: see `Written`.
            lost: see `Written`.
            error: see `Written`.
            undone: the places, among its effects, of those that a batch left unprocessed.
        """
        line = {"n": number, "at": now_ns(), "outcome": outcome, "late": late, "lost": lost}
        self._put({**line, "error": error, "undone": list(undone)})

    def saw(self, how: str, stage: str, began_ns: int, seen: Mapping[Place, str | int | None]) -> None:
        """Note the answer to a read."""
        plain = {str(place): token for place, token in seen.items()}
        self._put({"saw": plain, "how": how, "stage": stage, "began": began_ns, "at": now_ns()})

    def event(self, event: str, /, **what: Any) -> None:
        """Note something else that happened."""
        self._put({"event": event, "at": now_ns(), **what})

    def _put(self, line: Mapping[str, Any]) -> None:
        os.write(self._file, (json.dumps(line) + "\n").encode())


def read_ledger(folder: Path) -> Ledger:
    """Everything that all processes noted."""
    ledger = Ledger()
    for path in sorted(folder.glob("*.jsonl")):
        _read(path, ledger)
    return ledger


def _read(path: Path, ledger: Ledger) -> None:
    intents: dict[int, dict[str, Any]] = {}
    answers: dict[int, dict[str, Any]] = {}
    for line in _lines(path):
        if "event" in line:
            ledger.events.append({"by": path.stem, **line})
        elif "saw" in line:
            ledger.seen.extend(
                Seen(Place.parse(at), token, line["began"], line["at"], line["how"], line["stage"])
                for at, token in line["saw"].items()
            )
        else:
            (answers if "outcome" in line else intents)[line["n"]] = line
    for number, intent in intents.items():
        ledger.writes.extend(_written(path.stem, intent, answers.get(number)))


def _written(writer: str, intent: dict[str, Any], answer: dict[str, Any] | None) -> Iterator[Written]:
    """A write; where a batch left some of its keys unprocessed, two."""
    effects = [Effect(Place.parse(at), token, expects) for at, token, expects in intent["effects"]]
    common = (writer, intent["kind"], intent["stage"])
    if answer is None:
        yield Written(*common, tuple(effects), "unanswered", intent["at"], None)
        return
    rest = (intent["at"], answer["at"], answer["late"], answer["lost"], answer["error"])
    undone = set(answer["undone"])
    if done := tuple(effect for place, effect in enumerate(effects) if place not in undone):
        yield Written(*common, done, answer["outcome"], *rest)
    if undone:
        left = tuple(effects[place] for place in sorted(undone))
        yield Written(*common, left, "unknown" if answer["lost"] or answer["late"] else "undone", *rest)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines(keepends=True):
        # Killed inside a line: an intent cut short was never sent, an answer cut short was never given.
        if line.endswith(b"\n"):
            yield json.loads(line)
