"""The lanes of an outbox that a worker holds, each with its lease by the worker's own clock."""

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from threading import Lock

from dualstore.errors import Unavailable
from dualstore.replication.clocks import Clock
from dualstore.replication.health import GrowingPause
from dualstore.stores.outbox import Lease, Outbox

logger = logging.getLogger(__name__)


class HeldLane:
    """A lane, for as long as its lease lasts.

    The lease is measured from before it was asked for: it never outlasts the outbox's own reckoning. Whoever
    looks at it renews it, once a third of it has passed.

    Args:
        outbox: where it is leased.
        lease: the lease.
        asked_at: the moment before it was asked for, by `clock`.
        duration: of the lease.
        clock: must go on while the machine is suspended.
    """

    def __init__(
        self, outbox: Outbox, lease: Lease, *, asked_at: float, duration: timedelta, clock: Clock
    ) -> None:
        self.lease = lease
        self.pause = GrowingPause(clock=clock)
        self.working = Lock()
        self.idle_until = 0.0
        self.failure: str | None = None
        self._outbox = outbox
        self._duration = duration
        self._clock = clock
        self._renewing = Lock()
        self._asked_at = asked_at
        self._lost = False

    def holds(self) -> bool:
        """Whether the lane is still this worker's, renewed where that is due. Asked before each sending."""
        if not self._lost and self._age > self._duration.total_seconds() / 3:
            self._renew()
        return self.certain

    @property
    def certain(self) -> bool:
        """Whether nobody else can have taken the lane over."""
        return not self._lost and self._age < self._duration.total_seconds()

    def lost(self) -> None:
        """The outbox has said that the lane is another worker's."""
        self._lost = True

    def renewed(self, lease: Lease, asked_at: float) -> None:
        """It has been leased once more."""
        if lease.token != self.lease.token:
            self._lost = True  # it was another worker's in between: what is going on must end first
        else:
            self._asked_at = asked_at

    @property
    def _age(self) -> float:
        return self._clock.now() - self._asked_at

    def _renew(self) -> None:
        if not self._renewing.acquire(blocking=False):
            return
        try:
            asked_at = self._clock.now()
            if self._outbox.renew(self.lease, duration=self._duration):
                self._asked_at = asked_at
            else:
                self._lost = True
        except Unavailable as failure:
            logger.info("A lane's lease could not be renewed: %s", failure)
        finally:
            self._renewing.release()


class HeldLanes:
    """All lanes that a worker holds; safe across threads.

    Args:
        outbox: where they are leased.
        holder: names the worker; no other worker, of any time, has this name.
        lanes: the most to hold of each table.
        duration: of a lease.
        clock: by which leases are measured.
    """

    def __init__(self, outbox: Outbox, holder: str, *, lanes: int, duration: timedelta, clock: Clock) -> None:
        self._outbox = outbox
        self._holder = holder
        self._most = lanes
        self._duration = duration
        self._clock = clock
        self._lock = Lock()
        self._held: dict[tuple[str, int], HeldLane] = {}
        self._asked_at: dict[str, float] = {}

    def of(self, table: str) -> Sequence[HeldLane]:
        """The lanes held of a table, as far as is known."""
        with self._lock:
            return [lane for (name, _), lane in self._held.items() if name == table and lane.certain]

    def take(self, table: str, *, every: timedelta = timedelta(0)) -> Sequence[HeldLane]:
        """Renew the lanes held of a table, and take over what is free.

        Args:
            table: the physical DynamoDB name.
            every: do not ask again sooner; own lanes are renewed by their users meanwhile.

        Raises:
            Unavailable: the outbox could not be asked.
        """
        asked_at = self._clock.now()
        if asked_at - self._asked_at.get(table, float("-inf")) < every.total_seconds():
            return self.of(table)
        leases = self._outbox.lease(table, self._holder, lanes=self._most, duration=self._duration)
        with self._lock:
            for lease in leases:
                self._keep(lease, asked_at)
            self._asked_at[table] = asked_at
        return self.of(table)

    def release(self, tables: Iterable[str] | None = None) -> None:
        """Give back all lanes, or those of some tables, that nobody works any more."""
        with self._lock:
            given = [name for name in self._held if tables is None or name[0] in tables]
            lanes = [self._held.pop(name) for name in given]
            for table, _ in given:
                self._asked_at.pop(table, None)
        for lane in lanes:
            with lane.working:  # a round that is going on ends first
                lane.lost()
            try:
                self._outbox.release(lane.lease)
            except Unavailable:
                logger.info("A lane's lease could not be given back; it ends by itself")

    def tables(self) -> frozenset[str]:
        """The tables of which lanes are held."""
        with self._lock:
            return frozenset(table for table, _ in self._held)

    def _keep(self, lease: Lease, asked_at: float) -> None:
        name = (lease.table, lease.lane)
        known = self._held.get(name)
        if known is not None:
            known.renewed(lease, asked_at)
            if known.certain:
                return
            if known.working.locked():
                return  # its last round has not come to an end
        self._held[name] = HeldLane(
            self._outbox, lease, asked_at=asked_at, duration=self._duration, clock=self._clock
        )
