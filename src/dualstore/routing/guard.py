"""A guard in every process: it leaves the mirror alone at once where this process's own figures are bad.

It asks no database, so that it acts while the fleet's dial is still on its way back. What it has stopped
stays stopped for as long as stage and dial stand as they did: going forward again takes a decision.
"""

import logging
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from dualstore.control import ControlRecord
from dualstore.routing.breaker import Breakers
from dualstore.stages import Side
from dualstore.telemetry import Role, Telemetry, Verdict, names
from dualstore.telemetry.figures import Work, work_of
from dualstore.telemetry.names import ANSWERS
from dualstore.telemetry.ticking import Ticker

logger = logging.getLogger(__name__)

_READS = frozenset({Work.READ, Work.LISTING})
_Position = tuple[object, ...]
_COMPARED = (Verdict.EQUAL, Verdict.LAG, Verdict.MISMATCH)


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """When the mirror is left alone.

    Attributes:
        error_percent: the share of dialled reads that fail.
        mismatch_percent: the share of compared reads that differ, and go on to.
        samples: of fewer, a window says nothing.
        window: what is looked at.
        look: how often.
    """

    error_percent: float = 20.0
    mismatch_percent: float = 5.0
    samples: int = 50
    window: timedelta = timedelta(seconds=10)
    look: timedelta = timedelta(seconds=1)


class Counted(NamedTuple):
    """What a process has counted of one table."""

    reads: int = 0
    errors: int = 0
    compared: int = 0
    mismatches: int = 0

    def since(self, earlier: "Counted") -> "Counted":
        """What was counted since then."""
        return Counted(*(now - then for now, then in zip(self, earlier, strict=True)))


def judged(counted: Counted, limits: GuardLimits) -> str | None:
    """Why the mirror is to be left alone, in words; None where it is not."""
    for events, trials, percent, what in (
        (counted.errors, counted.reads, limits.error_percent, "reads failed"),
        (counted.mismatches, counted.compared, limits.mismatch_percent, "compared reads differ"),
    ):
        if trials >= limits.samples and events * 100 >= percent * trials:
            return f"{events} of {trials} {what}"
    return None


class Guard:
    """Looks at one process's own figures, table by table.

    Args:
        telemetry: what was counted.
        breakers: of reads of the mirror; what is held there asks it nothing.
        records: the control records of this process's tables, by logical name.
        limits: when the mirror is left alone.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        breakers: Breakers,
        records: Callable[[], Mapping[str, ControlRecord]],
        *,
        limits: GuardLimits,
    ) -> None:
        self._telemetry = telemetry
        self._breakers = breakers
        self._records = records
        self._limits = limits
        looks = max(1, round(limits.window / limits.look))
        self._counted: deque[tuple[Mapping[str, Counted], Mapping[str, tuple[object, ...]]]] = deque(
            maxlen=looks
        )
        self._held: dict[str, tuple[object, ...]] = {}
        self._ticker = Ticker("dualstore-guard", self.look, pause=limits.look)

    def start(self) -> None:
        """Look again and again, in a thread of its own."""
        self._ticker.start()

    def close(self) -> None:
        """Stop looking; what is held stays held."""
        self._ticker.close()

    def look(self) -> None:
        """Look once."""
        records = self._records()
        positions = {name: _position(record) for name, record in records.items()}
        counted = self._count(records)
        for name, position in positions.items():
            breaker = self._breakers.of(name)
            if name in self._held:
                if self._held[name] != position:
                    del self._held[name]
                    breaker.let_go()
                continue
            # What was counted under other dials says nothing of these.
            earlier = next((known for known, then in self._counted if then.get(name) == position), None)
            if earlier is None or not records[name].mirror_readable:
                continue
            why = judged(counted[name].since(earlier.get(name, Counted())), self._limits)
            if why is not None:
                self._held[name] = position
                logger.error("PostgreSQL answers no more reads of %s from this process: %s", name, why)
                breaker.hold()
        self._counted.append((counted, positions))

    def _count(self, records: Mapping[str, ControlRecord]) -> dict[str, Counted]:
        snapshot = self._telemetry.snapshot()
        reads, errors = dict.fromkeys(records, 0), dict.fromkeys(records, 0)
        for key, latencies in snapshot.operations.items():
            is_dialled = key.side is Side.POSTGRES and key.role is Role.MIRROR
            if key.table in reads and is_dialled and work_of(key.operation) in _READS:
                count = latencies.count
                reads[key.table] += count
                errors[key.table] += 0 if key.outcome in ANSWERS else count
        return {
            name: Counted(
                reads[name],
                errors[name],
                sum(snapshot.count(names.SHADOW_COMPARED, table=name, verdict=each) for each in _COMPARED),
                snapshot.count(names.SHADOW_COMPARED, table=name, verdict=Verdict.MISMATCH),
            )
            for name in records
        }


def _position(record: ControlRecord) -> _Position:
    return record.stage, record.dials.postgres_read_percent, record.stopped
