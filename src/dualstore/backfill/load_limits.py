"""What PostgreSQL has to bear at most while a backfill goes on: it pauses beyond, and goes on well below."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

import psycopg
from sqlalchemy import Engine

from dualstore.errors import Unavailable
from dualstore.stages import Side
from dualstore.stores.postgres_pressure import PostgresPressure
from dualstore.stores.postgres_rollup import PostgresRollup
from dualstore.telemetry.figures import Work

logger = logging.getLogger(__name__)

LOOK = timedelta(seconds=1)
"""How often PostgreSQL is looked at, however many batches there are."""
CALM_SHARE = 0.5
"""Of its limit: what has gone beyond has to come down to this before anything goes on."""
CALM_LOOKS = 3
"""So many times in a row."""
OUR_SHARE = 0.2
"""Of the limit of lock waits: so long anybody may wait for a lock of the backfill's own."""

_LATELY = timedelta(seconds=30)
_ENOUGH = 100
"""A 99th percentile of fewer durations is one of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadLimits:
    """How much may be asked of PostgreSQL; None: without a limit.

    Attributes:
        replication_lag: of the replica that is furthest behind.
        lock_wait: how long any session waits for a lock; a fifth of it where the backfill holds that lock.
        latency_p99: of the application's operations on PostgreSQL, as its processes report them.
    """

    replication_lag: timedelta | None = timedelta(seconds=10)
    lock_wait: timedelta | None = timedelta(seconds=1)
    latency_p99: timedelta | None = None


class Reading(NamedTuple):
    """What a gauge shows.

    Attributes:
        share: of its limit; more than 1 is beyond.
        text: the same for a person.
    """

    share: float
    text: str


@dataclass
class Gauge:
    """One limit, with hysteresis.

    Attributes:
        read: what is measured now; None: nothing is.
        holds: the reason for which it holds the backfill back; None where it does not.
    """

    read: Callable[[], Reading | None]
    holds: str | None = None
    _calm: int = field(default=0, init=False)

    def look(self) -> str | None:
        """Read it, and say why the backfill has to wait, if it has."""
        reading = self.read() or Reading(0.0, "")
        if reading.share > 1:
            self.holds, self._calm = reading.text, 0
        elif self.holds is not None:
            self._calm = self._calm + 1 if reading.share <= CALM_SHARE else 0
            if self._calm >= CALM_LOOKS:
                self.holds = None
        return self.holds


class LoadAware:
    """An `Admission` that holds batches back while a gauge is beyond its limit; threads may share it.

    Args:
        gauges: all are looked at; the first that holds gives the reason.
        look: how often at most; in between the answer stays.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        gauges: Sequence[Gauge],
        *,
        look: timedelta = LOOK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gauges = list(gauges)
        self._look_seconds = look.total_seconds()
        self._clock = clock
        self._lock = threading.Lock()
        self._next_look = clock()
        self._reason: str | None = None

    def __call__(self) -> str | None:
        """See `Admission`."""
        with self._lock:
            if self._gauges and self._clock() >= self._next_look:
                self._reason = self._looked()
                self._next_look = self._clock() + self._look_seconds
            return self._reason

    def _looked(self) -> str | None:
        reasons = []
        for gauge in list(self._gauges):
            try:
                reasons.append(gauge.look())
            except Unavailable:
                return "PostgreSQL does not say how it bears the load"
            except psycopg.errors.InsufficientPrivilege:
                logger.warning("a load limit is left out: grant pg_monitor to the role of the backfill")
                self._gauges.remove(gauge)
        return next(filter(None, reasons), None)


def load_aware(engine: Engine, table: str, limits: LoadLimits, *, look: timedelta = LOOK) -> LoadAware:
    """The admission of one process.

    Args:
        engine: PostgreSQL.
        table: the physical name of the table that is copied.
        limits: beyond which nothing is loaded.
        look: how often PostgreSQL is looked at.
    """
    pressure, rollup = PostgresPressure(engine), PostgresRollup(engine)
    gauges = (
        (limits.replication_lag, lambda limit: _lag(pressure, limit)),
        (limits.lock_wait, lambda limit: _lock_wait(pressure, limit)),
        (limits.latency_p99, lambda limit: _latency(rollup, table, limit)),
    )
    return LoadAware([Gauge(_bound(read, limit)) for limit, read in gauges if limit is not None], look=look)


def _bound(read: Callable[[timedelta], Reading | None], limit: timedelta) -> Callable[[], Reading | None]:
    return lambda: read(limit)


def _lag(pressure: PostgresPressure, limit: timedelta) -> Reading | None:
    lag = pressure.lag()
    if lag is None:
        return None
    text = f"{lag.replica} lags {lag.seconds:.1f} s behind; the limit is {limit.total_seconds():g} s"
    return Reading(lag.seconds / limit.total_seconds(), text)


def _lock_wait(pressure: PostgresPressure, limit: timedelta) -> Reading | None:
    readings = []
    for wait in pressure.lock_waits():
        allowed = limit.total_seconds() * (OUR_SHARE if wait.ours else 1)
        whose = "of the backfill's" if wait.ours else "of somebody else's"
        text = f"a session waits {wait.seconds:.1f} s for a lock {whose}; the limit is {allowed:g} s"
        readings.append(Reading(wait.seconds / allowed, text))
    return max(readings, default=None)


def _latency(rollup: PostgresRollup, table: str, limit: timedelta) -> Reading | None:
    done = rollup.lately(table, within=_LATELY).figures.by(side=Side.POSTGRES, works=tuple(Work))
    p99_ms, limit_ms = done.latencies.p99_ms, limit.total_seconds() * 1000
    if p99_ms is None or done.latencies.count < _ENOUGH:
        return None
    text = f"the application's p99 on PostgreSQL is {p99_ms:.0f} ms; the limit is {limit_ms:g} ms"
    return Reading(p99_ms / limit_ms, text)
