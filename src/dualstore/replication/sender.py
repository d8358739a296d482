"""Mirror-out: DynamoDB is brought after PostgreSQL, the authority, by whoever holds a lane of the outbox.

DESIGN, replication protocol, rule 7. Nothing else writes DynamoDB's items then. For each key of a lane: read
DynamoDB, then PostgreSQL, then write DynamoDB on condition that it still holds what was read.

Why a worker that is stale, slow or dead does no harm:

- *Writes whose condition names a stamp.* Every state of a row has a stamp of its own, and PostgreSQL never
  returns to one. A request "j onto i" was made when DynamoDB held state i and PostgreSQL, read after that, j.
  While it is under way DynamoDB holds i, or a later state: since PostgreSQL has come to j, nobody writes i
  again, also not after the item was deleted, or was lost to a stranger. So either it is carried out while
  DynamoDB holds i, and takes it forward to j, whoever sent it; or its condition fails for ever. A new stamp
  ends such requests, so it is written over equal content, too (`sending.step`).
- *Writes whose condition names none* (onto nothing: creations; onto an item without a stamp) could find it
  met again: a creation that is carried out after the item was created by somebody else and deleted would
  bring it back, and no entry would wait to take it away. They are transactions under a token, committed to
  the outbox *before* they are sent, by a statement that checks the lane. So the next worker knows of each
  that may be under way, and sends it again under its token before anything else for the key: then copies of
  it are not carried out any more. As tokens are forgotten after ten minutes, the key is settled once more
  after fifteen, when no copy can be under way; the statement that forgets the write notes that second look.
- *A worker that has not heard that DynamoDB has taken over* from a lost PostgreSQL sends nothing without a
  grant, which is looked at last, too, and none is left when DynamoDB takes its first write (ADR 24).
- *A worker that stands still between its look at the lease and the sending* is caught twice: the last look is
  taken after the request was signed (`stores.dynamo_sending`), and AWS refuses a signature older than five
  minutes; and where the lease is over when the answer comes, the worker enqueues the key again.
"""

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import Unavailable
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.lane_round import Granted, LaneRound, SendingLimits
from dualstore.replication.lanes import HeldLane, HeldLanes
from dualstore.replication.served import ServedTable
from dualstore.stores.base import Authority, Store
from dualstore.stores.outbox import LANES, Outbox, OutboxDepth
from dualstore.telemetry import LanesSeen, OutboxSeen, Telemetry

logger = logging.getLogger(__name__)

_LONGEST_IDLE_SECONDS = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderOptions:
    """How a sender works.

    Attributes:
        lease: how long a lane is held without being renewed; a worker that dies is replaced after so long.
        lanes: the most lanes of each table to hold; the rest is left to other processes.
        lanes_at_once: how many lanes are worked off at the same time.
        keys_at_once: how many requests are under way at the same time, over all lanes.
        idle: how long to wait where nothing was due.
        watch: how often the depth of the outbox is measured.
        limits: how a lane's keys are sent.
    """

    lease: timedelta = timedelta(seconds=15)
    lanes: int = LANES
    lanes_at_once: int = 4
    keys_at_once: int = 16
    idle: timedelta = timedelta(milliseconds=100)
    watch: timedelta = timedelta(seconds=5)
    limits: SendingLimits = field(default_factory=SendingLimits)


@dataclass(frozen=True, slots=True)
class SenderStatus:
    """What a sender knows of one table.

    Attributes:
        lanes: how many it holds.
        paused: those of them that DynamoDB or PostgreSQL has made it pause.
        depth: what waits, as last measured, or None.
        failure: why the last look at one of them failed, or None.
    """

    lanes: int
    paused: int
    depth: OutboxDepth | None
    failure: str | None


class Sender:
    """Works off lanes of the outboxes of the tables it is given.

    Any number of senders may run, in any number of processes.

    Args:
        outbox: what waits.
        source: PostgreSQL, whose present states are sent.
        mirror: DynamoDB; sends each write once (`DynamoStore` on `dynamo_clients`).
        tables: those whose authority is PostgreSQL, by physical name; may change while it runs.
        epoch_of: at which epoch PostgreSQL is the authority of a table, as far as this process knows.
        granted: whether this process may still act on that; nothing is sent otherwise.
        noted: told every `watch` how far DynamoDB is behind a table: the table, the moment before that was
            asked in seconds since the epoch, and the answer. What it raises is logged.
        holder: names this sender; no other, of any time, has this name. A fresh name if not given.
        clock: by which leases are measured; must go on while the machine is suspended.
        telemetry: counts what comes of the keys.
        options: how it works.
    """

    def __init__(
        self,
        outbox: Outbox,
        source: Authority,
        mirror: Store,
        tables: Mapping[str, ServedTable],
        *,
        epoch_of: Callable[[str], int],
        granted: Granted = lambda _table, _epoch: True,
        noted: Callable[[str, float, OutboxDepth], None] = lambda _table, _at, _depth: None,
        holder: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        telemetry: Telemetry | None = None,
        options: SenderOptions | None = None,
    ) -> None:
        self._outbox = outbox
        self._source = source
        self._mirror = mirror
        self._tables = tables
        self._epoch_of = epoch_of
        self._granted = granted
        self._noted = noted
        self._clock = clock
        self._telemetry = telemetry or Telemetry()
        self._options = options or SenderOptions()
        self._lanes = HeldLanes(
            outbox,
            holder or uuid.uuid4().hex,
            lanes=self._options.lanes,
            duration=self._options.lease,
            clock=clock,
        )
        self._depths: dict[str, OutboxDepth] = {}
        self._watched_at = float("-inf")

    def work(self, table: str) -> int:
        """Look once at each lane of a table that can be had, one after the other in this thread.

        Args:
            table: the physical DynamoDB name.

        Returns:
            How many entries were finished.

        Raises:
            Unavailable: the outbox could not be asked for lanes.
        """
        return sum(self._look(lane, map) for lane in self._lanes.take(table))

    def drain(self, table: str, timeout: timedelta) -> bool:
        """Work off all that waits for a table, together with other senders.

        Entries that are not due yet (refused ones, second looks) are waited for as long as the time lasts.

        Args:
            table: the physical DynamoDB name.
            timeout: no look begins later than this.

        Returns:
            Whether nothing waits any more.

        Raises:
            Unavailable: the outbox could not be asked.
        """
        ends = self._clock.now() + timeout.total_seconds()
        with self._threads() as (in_lanes, in_keys):
            while self.watch(table).entries:
                if self._clock.now() >= ends:
                    return False
                lanes = self._lanes.take(table, every=self._options.lease / 3)
                looks = [in_lanes.submit(self._look, lane, in_keys.map) for lane in lanes]
                if not sum(look.result() for look in looks):
                    self._clock.sleep(self._options.idle.total_seconds())
        return True

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop, then give the lanes back."""
        under_way: dict[HeldLane, Future[int]] = {}
        try:
            with self._threads() as (in_lanes, in_keys):
                while not stop.is_set():
                    for lane in self._all_lanes():
                        if lane not in under_way and lane.idle_until <= self._clock.now():
                            under_way[lane] = in_lanes.submit(self._look, lane, in_keys.map)
                    self._wait(stop, under_way)
                    for lane in [lane for lane, look in under_way.items() if look.done()]:
                        finished = under_way.pop(lane).result()
                        pause = 0.0 if finished else self._options.idle.total_seconds()
                        lane.idle_until = self._clock.now() + pause
        finally:
            self._lanes.release()

    def close(self) -> None:
        """Give the lanes back; `run` does it by itself."""
        self._lanes.release()

    def watch(self, table: str) -> OutboxDepth:
        """Measure what waits for a table, and tell telemetry.

        Raises:
            Unavailable: the outbox could not be asked.
        """
        depth = self._depths[table] = self._outbox.depth(table)
        logical = self._tables[table].logical
        self._telemetry.record(
            OutboxSeen(logical, depth.entries, depth.oldest_age.total_seconds(), depth.refused)
        )
        self._telemetry.record(LanesSeen(logical, len(self._lanes.of(table))))
        return depth

    def status(self) -> Mapping[str, SenderStatus]:
        """What this sender knows, by physical table name; asks nobody."""
        return {
            table: SenderStatus(
                lanes=len(lanes),
                paused=sum(lane.pause.lasts for lane in lanes),
                depth=self._depths.get(table),
                failure=next((lane.failure for lane in lanes if lane.failure), None),
            )
            for table, lanes in ((table, self._lanes.of(table)) for table in list(self._tables))
        }

    def _look(self, lane: HeldLane, map_all: Callable[..., Any]) -> int:
        """One round of a lane; how many entries it finished. What fails makes the lane pause."""
        table = self._tables.get(lane.lease.table)
        if table is None or lane.pause.lasts or not lane.working.acquire(blocking=False):
            return 0
        try:
            return self._round(lane, table, map_all) if lane.holds() else 0
        finally:
            lane.working.release()

    def _round(self, lane: HeldLane, table: ServedTable, map_all: Callable[..., Any]) -> int:
        try:
            finished, strained = LaneRound(
                lane,
                table,
                outbox=self._outbox,
                source=self._source,
                epoch=self._epoch_of(table.physical),
                granted=self._granted,
                mirror=self._mirror,
                telemetry=self._telemetry,
                limits=self._options.limits,
                map_all=map_all,
            ).work()
        except (Unavailable, BotoCoreError, ClientError) as failure:
            self._failed(lane, table, f"{type(failure).__name__} while looking at a lane")
            return 0
        except Exception:
            logger.exception("A lane of %s could not be worked off", table.logical)
            self._failed(lane, table, "an error of dualstore's own; see the log")
            return 0
        if strained:
            self._failed(lane, table, "DynamoDB throttles, denies or does not answer")
        else:
            lane.pause.relieved()
            lane.failure = None
        return finished

    def _failed(self, lane: HeldLane, table: ServedTable, why: str) -> None:
        lane.pause.failed()
        if lane.failure is None:
            logger.warning("Mirror-out of lane %s of %s is held up: %s", lane.lease.lane, table.logical, why)
        lane.failure = why

    def _all_lanes(self) -> Iterator[HeldLane]:
        """The lanes of all tables, renewed and taken over where that is due; of tables gone, given back."""
        tables = list(self._tables)
        if gone := self._lanes.tables().difference(tables):
            self._lanes.release(gone)
        every = self._options.lease / 3
        watching = self._clock.now() - self._watched_at >= self._options.watch.total_seconds()
        if watching:
            self._watched_at = self._clock.now()
        for table in tables:
            try:
                yield from self._lanes.take(table, every=every)
                if watching:
                    self._note(table)
            except (Unavailable, KeyError) as failure:  # or the table was taken out meanwhile
                logger.info("No lanes of a table could be had: %s", type(failure).__name__)

    def _note(self, table: str) -> None:
        """Measure what waits, and tell those who are left with DynamoDB alone should PostgreSQL be lost."""
        at = time.time()
        depth = self.watch(table)
        try:
            self._noted(table, at, depth)
        except (Unavailable, BotoCoreError, ClientError) as failure:
            logger.info("How far DynamoDB is behind could not be noted there: %s", type(failure).__name__)

    def _wait(self, stop: threading.Event, under_way: Mapping[HeldLane, Future[int]]) -> None:
        """Until a lane is done, or has been idle for long enough."""
        seconds = min(self._options.idle.total_seconds(), _LONGEST_IDLE_SECONDS)
        if under_way:
            wait(under_way.values(), timeout=seconds, return_when=FIRST_COMPLETED)
        else:
            stop.wait(seconds)

    @contextmanager
    def _threads(self) -> Iterator[tuple[ThreadPoolExecutor, ThreadPoolExecutor]]:
        options = self._options
        with (
            ThreadPoolExecutor(options.keys_at_once, thread_name_prefix="dualstore-send") as in_keys,
            ThreadPoolExecutor(options.lanes_at_once, thread_name_prefix="dualstore-lane") as in_lanes,
        ):
            yield in_lanes, in_keys
