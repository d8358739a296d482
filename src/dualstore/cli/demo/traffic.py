"""The callers of the demo: threads that use the example's DAO as handlers would, and note every write."""

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from dualstore.cli.demo.ledger import LedgerWriter
from dualstore.cli.demo.measures import Meter
from dualstore.cli.demo.moments import Failure
from dualstore.cli.demo.writes import (
    Close,
    Outcome,
    Record,
    Rename,
    Reopen,
    Save,
    State,
    Visit,
    Write,
    record,
    states_after,
)

T = TypeVar("T")

logger = logging.getLogger(__name__)

READS = ("get", "own get", "list country", "find by IATA")
WRITES = ("save", "reopen", "close", "rename", "visit")
_FORGIVEN_LATENESS_SECONDS = 0.2
_PAGE_ITEMS = 25
_REST_SECONDS = 0.02
_NOTHING_WAS_DONE = "ServiceUnavailable"
RUSHED_KEYS = 2
"""How many airports of each kind a rush is about."""


class Tempo(StrEnum):
    """What all callers of a process do."""

    STEADY = "steady"
    """Everything, at their own pace."""
    RUSH = "rush"
    """Writes to the same two airports of each kind, as fast as they can: what two writers do to one airport
    within milliseconds is what goes wrong."""
    REST = "rest"
    """Nothing."""


@dataclass(slots=True)
class Dial:
    """Tells the callers of a process what to do."""

    tempo: Tempo = Tempo.STEADY


@dataclass(frozen=True, slots=True)
class Beat:
    """What one writer works on.

    Attributes:
        writer: its name, unique in the demo.
        owned: airports that only this writer writes to.
        shared: airports that all writers visit.
        contended: airports that all writers save, close and reopen.
        countries: whose airports are listed.
        iata_codes: that are looked up.
        calls_per_second: how many calls it aims at.
        seed: of its choices.
    """

    writer: str
    owned: tuple[str, ...]
    shared: tuple[str, ...]
    contended: tuple[str, ...]
    countries: tuple[str, ...]
    iata_codes: tuple[str, ...]
    calls_per_second: float
    seed: int


class Caller(threading.Thread):
    """One writer: picks calls at random, paces itself, and checks that it reads its own writes.

    Args:
        beat: what it works on.
        dao: the example's `AirportDao`.
        airport: the example's PynamoDB model.
        conflict: what the DAO raises where a condition refuses a write.
        not_found: what it raises where there is no airport.
        source: every airport as it was loaded.
        ledgers: folder of the ledgers.
        meter: takes counts and latencies.
        dial: what this caller does, and how fast; may be turned at any time.
        stop: ends the thread after its current call.

    Attributes:
        warm: set once its connection is open.
        resting: set whenever it finds itself at rest, its last call ended.
    """

    def __init__(
        self,
        beat: Beat,
        *,
        dao: Any,
        airport: Callable[..., Any],
        conflict: type[Exception],
        not_found: type[Exception],
        source: Mapping[str, Record],
        ledgers: Path,
        meter: Meter,
        dial: "Dial",
        stop: threading.Event,
    ) -> None:
        super().__init__(name=beat.writer, daemon=True)
        self._beat = beat
        self._dao = dao
        self._airport = airport
        self._conflict = conflict
        self._not_found = not_found
        self._source = source
        self._meter = meter
        self._dial = dial
        self._stopping = stop
        self.warm = threading.Event()
        self.resting = threading.Event()
        self._ledger = LedgerWriter(ledgers, beat.writer)
        self._random = random.Random(beat.seed)  # noqa: S311 - a reproducible choice, not a secret
        self._possible: dict[str, frozenset[State]] = {key: frozenset({source[key]}) for key in beat.owned}
        self._calls: dict[Callable[[], None], int] = {
            self._get_any: 12,
            self._get_hot: 10,
            self._get_own: 16,
            self._list_country: 6,
            self._find_by_iata: 8,
            self._save_own: 10,
            self._rename_own: 8,
            self._visit_own: 4,
            self._close_own: 5,
            self._reopen_own: 6,
            self._visit_shared: 7,
            self._save_contended: 4,
            self._close_contended: 3,
            self._reopen_contended: 3,
        }
        self._rush_calls: dict[Callable[[], None], int] = {
            self._visit_shared: 4,
            self._save_contended: 6,
            self._close_contended: 1,
            self._reopen_contended: 1,
        }

    def run(self) -> None:
        """Calls until told to stop."""
        interval = 1 / self._beat.calls_per_second
        self._warm_up()
        due = time.monotonic() + self._random.random() * interval
        with self._ledger:
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                if self._dial.tempo is Tempo.REST:
                    self.resting.set()
                    due = time.monotonic() + _REST_SECONDS
                    continue
                self._call(self._next_call())
                # What could not be done in time is not made up for: no burst after a slow stretch.
                due = max(due + interval, time.monotonic() - _FORGIVEN_LATENESS_SECONDS)
                if self._dial.tempo is Tempo.RUSH:
                    due = time.monotonic()

    def _next_call(self) -> Callable[[], None]:
        calls = self._rush_calls if self._dial.tempo is Tempo.RUSH else self._calls
        (call,) = self._random.choices(list(calls), list(calls.values()))
        return call

    def _call(self, call: Callable[[], None]) -> None:
        began_ns = time.monotonic_ns()
        try:
            call()
        except Exception as error:
            self._meter.failed(Failure.of(error, began_ns=began_ns))
            logger.warning("%s: %s failed", self.name, call.__name__, exc_info=error)

    def _warm_up(self) -> None:
        """Opens this thread's connection, as a service does before it takes callers."""
        try:
            self._dao.get(self._beat.shared[0])
        finally:
            self.warm.set()

    # Reads

    def _get_any(self) -> None:
        self._read("get", self._random.choice(list(self._source)), consistent=False)

    def _get_hot(self) -> None:
        beat = self._beat
        self._read("get", self._random.choice(beat.contended + beat.shared), consistent=False)

    def _get_own(self) -> None:
        self._check_own(self._random.choice(self._beat.owned))

    def _check_own(self, key: str) -> None:
        found = self._read("own get", key, consistent=True)
        self._meter.count("own reads")
        if found not in self._possible[key]:
            self._meter.count("stale reads")
            logger.error("%s: %s does not show this writer's last write", self.name, key)

    def _read(self, name: str, key: str, *, consistent: bool) -> State:
        try:
            return record(
                self._timed(name, lambda: self._dao.get(key, consistent=consistent)).attribute_values
            )
        except self._not_found:
            return None

    def _list_country(self) -> None:
        country = self._random.choice(self._beat.countries)
        page = self._timed("list country", lambda: self._dao.list_country(country, limit=_PAGE_ITEMS))
        cities = [airport.city.encode() for airport in page]
        in_order = cities == sorted(cities) and all(airport.country == country for airport in page)
        self._meter.count("wrong pages", int(not in_order))

    def _find_by_iata(self) -> None:
        code = self._random.choice(self._beat.iata_codes)
        airport = self._timed("find by IATA", lambda: self._dao.find_by_iata(code))
        self._meter.count("wrong pages", int(airport is not None and airport.iata != code))

    # Writes of this writer's own airports

    def _save_own(self) -> None:
        key = self._random.choice(self._beat.owned)
        self._write_own(key, Save(self._new_version(key)))

    def _rename_own(self) -> None:
        key = self._random.choice(self._beat.owned)
        name = next((dict(state)["name"] for state in self._possible[key] if state is not None), "no name")
        wrong = self._random.random() < 0.25  # noqa: PLR2004 - every fourth is to be refused
        old = "a name it never had" if wrong else str(name)
        self._write_own(key, Rename(old, f"{self._source_attribute(key, 'name')} {self._token()}"))

    def _visit_own(self) -> None:
        self._write_own(self._random.choice(self._beat.owned), Visit(self._token()))

    def _close_own(self) -> None:
        self._write_own(self._random.choice(self._beat.owned), Close())

    def _reopen_own(self) -> None:
        closed = [key for key in self._beat.owned if None in self._possible[key]]
        key = self._random.choice(closed or self._beat.owned)
        self._write_own(key, Reopen(self._new_version(key)))

    def _write_own(self, key: str, write: Write) -> None:
        try:
            self._write(key, write)
        finally:
            if self._random.random() < 0.5:  # noqa: PLR2004 - half of the writes are read back at once
                self._check_own(key)

    # Writes of airports that all write to

    def _visit_shared(self) -> None:
        self._write(self._hot(self._beat.shared), Visit(self._token()))

    def _save_contended(self) -> None:
        key = self._hot(self._beat.contended)
        self._write(key, Save(self._new_version(key)))

    def _close_contended(self) -> None:
        self._write(self._hot(self._beat.contended), Close())

    def _reopen_contended(self) -> None:
        key = self._hot(self._beat.contended)
        self._write(key, Reopen(self._new_version(key)))

    def _hot(self, keys: tuple[str, ...]) -> str:
        return self._random.choice(keys[:RUSHED_KEYS] if self._dial.tempo is Tempo.RUSH else keys)

    def _write(self, key: str, write: Write) -> None:
        """Notes the intent, writes, notes the outcome; a failure is passed on once its outcome is noted."""
        number = self._ledger.intend(key, write)
        outcome, failure = self._outcome(key, write)
        self._ledger.conclude(number, outcome, error=None if failure is None else type(failure).__name__)
        if key in self._possible:
            states = states_after(self._possible[key], write, outcome)
            # Empty: an impossible answer. The proof will say so; go on from what was asked for.
            self._possible[key] = states or states_after(self._possible[key], write, "unknown")
        if failure is not None:
            raise failure
        self._meter.count("refused", int(outcome == "refused"))

    def _outcome(self, key: str, write: Write) -> tuple[Outcome, Exception | None]:
        try:
            self._timed(write.do, lambda: self._send(key, write))
        except self._conflict:
            return "refused", None
        except Exception as failure:  # noqa: BLE001 - whatever it is, it goes into the ledger, and on
            undone = getattr(failure, "cause_response_code", None) == _NOTHING_WAS_DONE
            return "undone" if undone else "unknown", failure
        return "acknowledged", None

    def _send(self, key: str, write: Write) -> None:
        match write:
            case Save(airport):
                self._dao.save(self._airport(**_attributes(airport)))
            case Reopen(airport):
                self._dao.reopen(self._airport(**_attributes(airport)))
            case Close():
                self._dao.close(key)
            case Rename(old, new):
                self._dao.rename(key, old=old, new=new)
            case Visit(visitor):
                self._dao.count_visit(key, visitor=visitor)

    def _timed(self, name: str, call: Callable[[], T]) -> T:
        began = time.perf_counter()
        try:
            return call()
        finally:
            self._meter.call(name, time.perf_counter() - began)

    def _token(self) -> str:
        """A text that no other write has."""
        return f"{self.name}#{self._ledger.next_number}"

    def _new_version(self, key: str) -> Record:
        return record({**dict(self._source[key]), "note": self._token()})

    def _source_attribute(self, key: str, name: str) -> str:
        return str(dict(self._source[key])[name])


def _attributes(airport: Record) -> dict[str, Any]:
    """A record as the arguments of the PynamoDB model, whose numbers are floats."""
    return {name: value if isinstance(value, str | frozenset) else float(value) for name, value in airport}
