"""The relay: follows the streams of the served tables, so that nothing written to DynamoDB goes unnoticed.

Any number of relays may run, in any processes: they share the shards of a table. DESIGN, replication
protocol, rule 4.
"""

import logging
import random
import threading
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord
from dualstore.errors import ConfigurationError, DualStoreError, Unavailable
from dualstore.replication.carrier import Carried, Carrier, together
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.served import ServedTable
from dualstore.replication.shards import Position, RelayTimes, ShardFollower
from dualstore.replication.suspects import is_for_verification
from dualstore.stages import Side
from dualstore.stores.streams import (
    Checkpoints,
    Gap,
    RogueSeen,
    ShardLease,
    Stream,
    StreamRecord,
    Streams,
    reshaping,
)
from dualstore.telemetry import RelaySeen, Telemetry

__all__ = ["Relay", "RelayTimes"]

logger = logging.getLogger(__name__)

# A suspect that shows up so soon after the stream began may have written before it did.
_YOUNG = timedelta(minutes=10)
_SUSPECT_MARGIN = timedelta(seconds=1)
_LONGEST_PAUSE_SECONDS = 10.0
_FAILURES = (DualStoreError, ClientError, BotoCoreError)


@dataclass(slots=True)
class _Followed:
    """A table as this relay follows it."""

    stream: Stream | None = None
    described_at: float = float("-inf")
    positions: dict[str, Position] = field(default_factory=dict)
    suspects: dict[str, datetime] = field(default_factory=dict)
    rogues: dict[str, RogueSeen] = field(default_factory=dict)
    reported_at: float = float("-inf")
    off: bool = False


class Relay:
    """Follows the streams of tables; a context manager that gives its shards back.

    One thread does all; where it does not keep up, more relays do.

    Args:
        streams: where changes are read.
        checkpoints: how far they have been followed.
        tables: gives the tables to follow.
        carrier: deals with records.
        clear_suspects: takes names out of a table's suspects, by its physical name.
        telemetry: told how far behind this relay is.
        write_grant: how long a process may act on what it read: what a dead one did is over after that.
        times: how to pace itself.
        clock: measures this relay's own times.
        holder: names this relay among others.
    """

    def __init__(
        self,
        *,
        streams: Streams,
        checkpoints: Checkpoints,
        tables: Callable[[], Iterable[ServedTable]],
        carrier: Carrier,
        clear_suspects: Callable[[str, frozenset[str]], None],
        telemetry: Telemetry,
        write_grant: timedelta = timedelta(seconds=10),
        times: RelayTimes | None = None,
        clock: Clock = SYSTEM_CLOCK,
        holder: str | None = None,
    ) -> None:
        self._streams = streams
        self._checkpoints = checkpoints
        self._tables = tables
        self._carrier = carrier
        self._clear_suspects = clear_suspects
        self._telemetry = telemetry
        self._suspect_for = write_grant + _SUSPECT_MARGIN
        self._times = times or RelayTimes()
        self._clock = clock
        self._holder = holder or uuid.uuid4().hex
        self._followed: dict[str, _Followed] = {}
        self._follower = ShardFollower(
            streams=streams,
            checkpoints=checkpoints,
            carrier=carrier,
            describe=self._describe,
            noticed=self._report_rogues,
            times=self._times,
            clock=clock,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._checkpoints.release(self._holder)
        except Unavailable as error:
            logger.warning("A relay could not give its shards back, and keeps them a while: %s", error)

    def run(self, stop: threading.Event) -> None:
        """Follow the streams until told to stop."""
        poll = self._times.poll.total_seconds()
        pause = poll
        while not stop.wait(pause * random.uniform(0.8, 1.2)):  # noqa: S311 - jitter
            pause = poll if self.round() else min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def round(self) -> bool:
        """Read what there is to read of every table, a bounded share; False where something failed."""
        went_well = True
        for table in list(self._tables()):
            try:
                went_well &= self._attend(table)
            except _FAILURES as error:
                _log_failure(table, error)
                went_well = False
        return went_well

    def carry(self, physical: str, records: Sequence[StreamRecord]) -> Carried:
        """Deal with records that somebody else has read, in the order of their shard (see `Carrier.carry`).

        Raises:
            ConfigurationError: the table is not served here.
        """
        tables = {table.physical: table for table in self._tables()}
        if physical not in tables:
            raise ConfigurationError(
                f"a stream of table {physical} is delivered here, but the table is not served; known: "
                f"{', '.join(sorted(tables)) or 'none'}. Add it to [tables] in dualstore.toml, or remove the "
                "event source mapping"
            )
        carried = self._carrier.carry(tables[physical], records)
        self._report_rogues(tables[physical], carried.rogues)
        return carried

    def now(self) -> datetime:
        """The clock by which `drained_since` measures."""
        return self._checkpoints.now()

    def drained_since(self, physical: str, moment: datetime) -> bool:
        """Whether every change that was made to a table before a moment has been dealt with, by any relay."""
        return self._checkpoints.drained_since(physical, moment)

    def stream_is_off(self, physical: str) -> bool:
        """Whether the table was seen without a stream when it was last looked at."""
        followed = self._followed.get(physical)
        return followed is not None and followed.off

    def rogues(self, physical: str) -> Mapping[str, RogueSeen]:
        """The rogue changes of the last days, by kind, as all relays have seen them."""
        return self._checkpoints.rogues(physical)

    def _attend(self, table: ServedTable) -> bool:
        followed = self._of(table)
        if self._is_due(followed.described_at, self._times.describe):
            self._describe(table)
        stream = followed.stream
        if stream is None:
            return True
        leases = self._checkpoints.lease(
            table.physical,
            stream.arn,
            self._holder,
            limit=self._times.shards,
            duration=self._times.lease,
        )
        positions = followed.positions
        followed.positions = {lease.shard_id: _position(positions, lease) for lease in leases}
        went_well = True
        for position in followed.positions.values():
            try:
                self._follower.take_turn(table, position)
            except _FAILURES as error:  # the other shards have their turn all the same
                _log_failure(table, error)
                went_well = False
        lag = max((position.lag_seconds for position in followed.positions.values()), default=0.0)
        self._telemetry.record(RelaySeen(table.logical, lag, len(followed.positions)))
        self._attend_to_suspects(table, followed, stream)
        return went_well

    def _describe(self, table: ServedTable) -> Stream | None:
        """List the shards of a table's stream, and record what is new, once what is lost is known as such."""
        followed, physical = self._of(table), table.physical
        # In this order: a shard that another relay records meanwhile must not look as if it had vanished.
        rows = self._checkpoints.rows(physical)
        stream = self._streams.stream_of(physical)
        off = stream is None or not stream.enabled
        if off and not followed.off:
            logger.warning("The stream of %s is off: what others write goes unnoticed", table.logical)
        followed.off = off
        if stream is not None:
            seen = reshaping(rows, stream)
            for place, reason in seen.gaps.items():
                # Until a stream is on, or has shards, what is written may not go into it: that comes anew.
                once = reason is not Gap.REPLACED or (stream.enabling and not stream.shards)
                self._carrier.gap(table, f"{stream.arn} {place}", reason, once=once)
            if seen.begins:
                self._began_late(table, stream, _processes(self._carrier.decided(physical)))
            if stream.arn in seen.gaps and not stream.shards and not stream.enabling:
                self._checkpoints.note_unlisted(physical, stream.arn)
            for arn, shard_id in seen.lost:
                self._checkpoints.write_off(physical, arn, [shard_id])
            self._checkpoints.register(physical, stream.arn, seen.added)
        followed.stream, followed.described_at = stream, self._clock.now()
        return stream

    def _began_late(self, table: ServedTable, stream: Stream, processes: Iterable[str]) -> None:
        """Note that processes may have written before the stream told; once, whichever relays see it."""
        for name in sorted(processes):
            self._carrier.gap(table, f"{stream.arn} {name}", Gap.BEGAN_LATE, once=True)

    def _attend_to_suspects(self, table: ServedTable, followed: _Followed, stream: Stream) -> None:
        """Clear those that died before everything was dealt with that they can have written."""
        record = self._carrier.decided(table.physical)
        present = _processes(record)
        followed.suspects = {name: at for name, at in followed.suspects.items() if name in present}
        if news := present - followed.suspects.keys():
            now = self._checkpoints.now()
            if now - stream.created_at < _YOUNG:
                self._began_late(table, stream, news)
            followed.suspects |= dict.fromkeys(news, now)
        if not _deals_with_every_key(record):
            return
        over = frozenset(
            name
            for name, at in followed.suspects.items()
            if self._checkpoints.drained_since(table.physical, at + self._suspect_for)
        )
        if over:
            self._clear_suspects(table.physical, over)
            logger.info("%d dead processes of %s have left nothing undone", len(over), table.logical)

    def _report_rogues(self, table: ServedTable, seen: Mapping[str, RogueSeen]) -> None:
        followed = self._of(table)
        followed.rogues = together(followed.rogues, seen)
        if not followed.rogues or not self._is_due(followed.reported_at, self._times.report):
            return
        for kind, rogue in followed.rogues.items():
            logger.warning(
                "%d changes of %s in DynamoDB did not go through dualstore (%s); the latest is of key %s",
                rogue.count,
                table.logical,
                kind,
                rogue.key_hash,
            )
        followed.rogues = {}
        followed.reported_at = self._clock.now()

    def _of(self, table: ServedTable) -> _Followed:
        return self._followed.setdefault(table.physical, _Followed())

    def _is_due(self, since: float, pause: timedelta) -> bool:
        return self._clock.now() - since >= pause.total_seconds()


def _position(positions: Mapping[str, Position], lease: ShardLease) -> Position:
    """The position of a lease: the one from before, where nobody else has had the shard since."""
    position = positions.get(lease.shard_id)
    if position is None or position.lease.token != lease.token:
        return Position(lease)
    position.lease = lease
    return position


def _processes(record: ControlRecord) -> set[str]:
    """The suspects that are processes, dead most often."""
    return {name for name in record.suspects if not is_for_verification(name)}


def _deals_with_every_key(record: ControlRecord) -> bool:
    """Whether no record of the stream is passed over."""
    if record.authority is Side.POSTGRES:
        return record.stage.rule.mirrored
    return record.mirrors_every_key


def _log_failure(table: ServedTable, error: Exception) -> None:
    reason = error if isinstance(error, DualStoreError) else type(error).__name__
    logger.warning("The stream of %s is not followed further for now: %s", table.logical, reason)
