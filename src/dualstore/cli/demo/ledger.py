"""The ledger of the demo's traffic: one append-only file per writer, independent of dualstore.

A line goes down before a write is sent, another after it was answered. What has only the first line may
or may not have happened; what has both happened, or was refused, as the second line says.
"""

import json
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self, cast

from dualstore.cli.demo.writes import Close, Outcome, Record, Rename, Reopen, Save, Visit, Write, record


@dataclass(frozen=True, slots=True)
class Entry:
    """One write and what became of it.

    Attributes:
        writer: who sent it; each writer sends one write at a time.
        number: its place among the writer's.
        key: the airport's ICAO code.
        began_ns: when it was about to be sent, on the clock that all processes of the machine share.
        ended_ns: when it had been answered; None if it never was.
    """

    writer: str
    number: int
    key: str
    write: Write
    outcome: Outcome
    began_ns: int
    ended_ns: int | None


class LedgerWriter:
    """The ledger file of one writer; a context manager, used by one thread.

    Each line is one `write` to a file opened for appending: it outlives a SIGKILL of the process.

    Args:
        folder: where the ledgers are.
        writer: whose ledger it is.
    """

    def __init__(self, folder: Path, writer: str) -> None:
        self._path = folder / f"{writer}.jsonl"
        self._file = -1
        self._number = 0

    def __enter__(self) -> Self:
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @property
    def next_number(self) -> int:
        """The number that the next write will have."""
        return self._number + 1

    def intend(self, key: str, write: Write) -> int:
        """Notes that a write is about to be sent, and returns its number."""
        self._number += 1
        self._put({"n": self._number, "at": time.monotonic_ns(), "key": key, **_to_json(write)})
        return self._number

    def conclude(self, number: int, outcome: Outcome, *, error: str | None = None) -> None:
        """Notes how a write was answered."""
        line = {"n": number, "at": time.monotonic_ns(), "outcome": outcome}
        self._put(line if error is None else {**line, "error": error})

    def _put(self, line: dict[str, Any]) -> None:
        os.write(self._file, (json.dumps(line, default=_plain, ensure_ascii=False) + "\n").encode())


def read_ledgers(folder: Path) -> list[Entry]:
    """Every entry of every writer, each writer's in the order they were sent."""
    return [entry for path in sorted(folder.glob("*.jsonl")) for entry in _entries(path)]


def _entries(path: Path) -> Iterator[Entry]:
    intents: dict[int, dict[str, Any]] = {}
    answers: dict[int, dict[str, Any]] = {}
    for line in _lines(path):
        (answers if "outcome" in line else intents)[int(line["n"])] = line
    for number, intent in intents.items():
        answer = answers.get(number, {"outcome": "unknown"})
        ended = answer.get("at")
        yield Entry(
            writer=path.stem,
            number=number,
            key=intent["key"],
            write=_from_json(intent),
            outcome=cast("Outcome", answer["outcome"]),
            began_ns=int(intent["at"]),
            ended_ns=None if ended is None else int(ended),
        )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines(keepends=True):
        # Killed inside a line: an intent cut short was never sent, an outcome cut short is unknown.
        if line.endswith(b"\n"):
            yield json.loads(line, parse_float=Decimal, parse_int=Decimal)


def _to_json(write: Write) -> dict[str, Any]:
    match write:
        case Save() | Reopen():
            return {"do": write.do, "airport": dict(write.airport)}
        case Rename():
            return {"do": write.do, "old": write.old, "new": write.new}
        case Visit():
            return {"do": write.do, "visitor": write.visitor}
        case Close():
            return {"do": write.do}


def _from_json(line: dict[str, Any]) -> Write:
    match line["do"]:
        case "save":
            return Save(record(line["airport"]))
        case "reopen":
            return Reopen(record(line["airport"]))
        case "rename":
            return Rename(line["old"], line["new"])
        case "visit":
            return Visit(line["visitor"])
        case "close":
            return Close()
    raise ValueError(f"the ledger has a write of unknown kind {line['do']!r}")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else float(value)


def by_key(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    """The entries of each key, each writer's in the order they were sent."""
    keys: dict[str, list[Entry]] = {}
    for entry in entries:
        keys.setdefault(entry.key, []).append(entry)
    return keys


def source_records(rows: Iterable[dict[str, Any]]) -> dict[str, Record]:
    """The source data as records by ICAO code."""
    return {row["icao"]: record(row) for row in rows}
