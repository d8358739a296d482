"""How far the streams of the tables have been followed, as rows of `dualstore.stream_shards`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, LiteralString

from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.stores.postgres_transaction import Cursor, transaction
from dualstore.stores.streams import NO_SHARD, RETENTION, RogueSeen, Shard, ShardLease, ShardRow

# One worker at a time takes shards of a table over; a statement of its own: the next sees what it did.
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('dualstore relay ' || %(table)s, 0))"

# The first shards of a stream may have been there since it was seen to list none: so long they are unread.
_REGISTER = """
    INSERT INTO dualstore.stream_shards
           (table_name, stream_arn, shard_id, parent_id, state, caught_up_at, updated_at)
    SELECT %(table)s, %(arn)s, shard.id, shard.parent, 'open', parent.caught_up_at,
           coalesce((SELECT min(updated_at) FROM dualstore.stream_shards
                      WHERE (table_name, stream_arn) = (%(table)s, %(arn)s)
                     HAVING bool_and(shard_id = %(none)s)), clock_timestamp())
      FROM unnest(%(ids)s::text[], %(parents)s::text[]) AS shard (id, parent)
      LEFT JOIN dualstore.stream_shards AS parent
        ON (parent.table_name, parent.stream_arn, parent.shard_id) = (%(table)s, %(arn)s, shard.parent)
    ON CONFLICT DO NOTHING
"""

# Of a stream that is followed, what was done days ago: it tells the shards after it that nothing is missing.
_PRUNE = """
    DELETE FROM dualstore.stream_shards AS old
     WHERE table_name = %(table)s AND state = 'done' AND updated_at < clock_timestamp() - %(kept_for)s
       AND EXISTS (SELECT FROM dualstore.stream_shards AS other
                    WHERE other.table_name = old.table_name AND other.state = 'open')
"""

_RENEW = """
    UPDATE dualstore.stream_shards SET until = clock_timestamp() + %(duration)s
     WHERE table_name = %(table)s AND stream_arn = %(arn)s AND state = 'open' AND holder = %(holder)s
"""

_READY = """
    table_name = %(table)s AND stream_arn = %(arn)s AND state = 'open'
    AND NOT EXISTS (SELECT FROM dualstore.stream_shards AS parent
                     WHERE parent.table_name = shard.table_name AND parent.stream_arn = shard.stream_arn
                       AND parent.shard_id = shard.parent_id AND parent.state = 'open')
"""

_TAKE: LiteralString = f"""
    UPDATE dualstore.stream_shards AS taken
       SET holder = %(holder)s, token = token + 1, until = clock_timestamp() + %(duration)s
     WHERE table_name = %(table)s AND stream_arn = %(arn)s AND shard_id IN (
           SELECT shard_id FROM dualstore.stream_shards AS shard
            WHERE {_READY} AND (holder IS NULL OR until < clock_timestamp())
            ORDER BY updated_at LIMIT %(room)s)
"""

# From whoever holds at least two more: taking one then never makes it worth while to take it back.
_TAKE_OVER = """
    WITH held AS (
        SELECT holder, count(*) AS shards, min(shard_id) AS one FROM dualstore.stream_shards
         WHERE table_name = %(table)s AND stream_arn = %(arn)s AND state = 'open' AND holder IS NOT NULL
         GROUP BY holder)
    UPDATE dualstore.stream_shards
       SET holder = %(holder)s, token = token + 1, until = clock_timestamp() + %(duration)s
     WHERE table_name = %(table)s AND stream_arn = %(arn)s AND shard_id = (
           SELECT one FROM held WHERE holder <> %(holder)s AND shards >= %(mine)s + 2
            ORDER BY shards DESC LIMIT 1)
"""

_LEASED = "shard_id, token, sequence, clock_timestamp() - coalesce(caught_up_at, updated_at), rogues"

_HELD: LiteralString = f"""
    SELECT clock_timestamp(), {_LEASED} FROM dualstore.stream_shards
     WHERE table_name = %(table)s AND stream_arn = %(arn)s AND state = 'open' AND holder = %(holder)s
     ORDER BY shard_id
"""

_CAUGHT_UP = "caught_up_at = greatest(caught_up_at, %(at)s::timestamptz)"

_MINE = """
     WHERE table_name = %(table)s AND stream_arn = %(arn)s AND shard_id = %(shard)s
       AND holder = %(holder)s AND token = %(token)s AND state = 'open'
"""

# An open shard is needed: of a stream that was switched off, nothing says what was written since.
_DRAINED = """
    SELECT coalesce(bool_and(coalesce(caught_up_at >= %s, false)), false)
      FROM dualstore.stream_shards WHERE table_name = %s AND state = 'open'
"""


class PostgresCheckpoints:
    """The checkpoints that the `dualstore` schema of a database holds (see `Checkpoints`).

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        """The server's clock."""
        with transaction(self._engine, "Asking PostgreSQL for the time") as cursor:
            cursor.execute("SELECT clock_timestamp()")
            return _moment(cursor)

    def rows(self, table: str) -> Sequence[ShardRow]:
        """Every shard of a table that is recorded."""
        with transaction(self._engine, f"Reading how far the stream of {table} was followed") as cursor:
            cursor.execute(
                "SELECT stream_arn, shard_id, parent_id, sequence, state = 'open', caught_up_at"
                " FROM dualstore.stream_shards WHERE table_name = %s ORDER BY stream_arn, shard_id",
                [table],
            )
            return [ShardRow(*row) for row in cursor]

    def register(self, table: str, stream_arn: str, shards: Sequence[Shard]) -> None:
        """Record shards that are to be followed (see `Checkpoints.register`)."""
        values = {
            "table": table,
            "arn": stream_arn,
            "ids": [shard.id for shard in shards],
            "parents": [shard.parent_id for shard in shards],
            "none": NO_SHARD,
            "kept_for": 2 * RETENTION,
        }
        with transaction(self._engine, f"Recording shards of the stream of {table}") as cursor:
            cursor.execute(_REGISTER, values)
            cursor.execute(_PRUNE, values)

    def note_unlisted(self, table: str, stream_arn: str) -> None:
        """Record that a stream was seen that lists no shard yet (see `Checkpoints.note_unlisted`)."""
        with transaction(self._engine, f"Recording the stream of {table}") as cursor:
            cursor.execute(
                "INSERT INTO dualstore.stream_shards (table_name, stream_arn, shard_id, state)"
                " VALUES (%s, %s, %s, 'done') ON CONFLICT DO NOTHING",
                [table, stream_arn, NO_SHARD],
            )

    def write_off(self, table: str, stream_arn: str, shard_ids: Sequence[str]) -> None:
        """Give shards up that nobody can read any more."""
        with transaction(self._engine, f"Giving up shards of the stream of {table}") as cursor:
            cursor.execute(
                "UPDATE dualstore.stream_shards SET state = 'done', holder = NULL,"
                " updated_at = clock_timestamp()"
                " WHERE table_name = %s AND stream_arn = %s AND shard_id = ANY(%s) AND state = 'open'",
                [table, stream_arn, list(shard_ids)],
            )

    def lease(
        self, table: str, stream_arn: str, holder: str, *, limit: int, duration: timedelta
    ) -> Sequence[ShardLease]:
        """Renew a worker's shards, and let it take over others (see `Checkpoints.lease`)."""
        values = {"table": table, "arn": stream_arn, "holder": holder, "duration": duration}
        with transaction(self._engine, f"Leasing shards of the stream of {table}") as cursor:
            cursor.execute(_ONE_AT_A_TIME, values)
            mine = cursor.execute(_RENEW, values).rowcount
            if mine < limit:
                taken = cursor.execute(_TAKE, {**values, "room": limit - mine}).rowcount
                if not taken:
                    cursor.execute(_TAKE_OVER, {**values, "mine": mine})
            cursor.execute(_HELD, values)
            return [
                ShardLease(
                    table,
                    stream_arn,
                    shard_id,
                    holder,
                    token,
                    duration,
                    sequence,
                    unread_for,
                    leased_at=now,
                    rogues=_rogues(rogues),
                )
                for now, shard_id, token, sequence, unread_for, rogues in cursor
            ]

    def advance(
        self, lease: ShardLease, sequence: str, rogues: Mapping[str, RogueSeen], *, caught_up_at: datetime
    ) -> ShardLease | None:
        """Record that all up to a record was dealt with (see `Checkpoints.advance`)."""
        return self._change(
            lease,
            f"sequence = %(sequence)s, rogues = %(rogues)s, {_CAUGHT_UP}",
            sequence=sequence,
            rogues=Jsonb({kind: _json_of(seen) for kind, seen in rogues.items()}),
            at=caught_up_at,
        )

    def mark_caught_up(self, lease: ShardLease, at: datetime) -> ShardLease | None:
        """Record that every change made before a moment was dealt with; never moves back."""
        return self._change(lease, _CAUGHT_UP, at=at)

    def restart(self, lease: ShardLease) -> ShardLease | None:
        """Forget the position in a shard, and what was known of the time before it."""
        return self._change(lease, "sequence = NULL, caught_up_at = NULL")

    def finish(self, lease: ShardLease) -> bool:
        """Record that a closed shard was followed to its end."""
        return self._change(lease, "state = 'done'") is not None

    def release(self, holder: str) -> None:
        """Give back whatever a worker holds."""
        with transaction(self._engine, "Giving back the shards of a relay") as cursor:
            cursor.execute("UPDATE dualstore.stream_shards SET holder = NULL WHERE holder = %s", [holder])

    def drained_since(self, table: str, moment: datetime) -> bool:
        """Whether every change that was made before a moment was dealt with."""
        with transaction(self._engine, f"Asking how far the stream of {table} was followed") as cursor:
            cursor.execute(_DRAINED, [moment, table])
            return cursor.fetchone() == (True,)

    def rogues(self, table: str) -> Mapping[str, RogueSeen]:
        """What was seen in the shards that are still recorded, by kind."""
        seen: dict[str, RogueSeen] = {}
        with transaction(self._engine, f"Reading the rogue changes of {table}") as cursor:
            cursor.execute("SELECT rogues FROM dualstore.stream_shards WHERE table_name = %s", [table])
            for (rogues,) in cursor:
                for kind, one in _rogues(rogues).items():
                    first, second = sorted((one, seen.get(kind, one)), key=lambda each: each.last_at)
                    seen[kind] = first.and_then(second) if kind in seen else one
        return seen

    def _change(self, lease: ShardLease, changes: LiteralString, **values: Any) -> ShardLease | None:
        """Change the row of a lease, and renew it, unless somebody else has taken the shard over."""
        statement: LiteralString = (
            f"UPDATE dualstore.stream_shards SET {changes}, updated_at = clock_timestamp(),"
            f" until = clock_timestamp() + %(duration)s {_MINE}"
            f" RETURNING clock_timestamp(), {_LEASED}"
        )
        with transaction(
            self._engine, f"Recording how far the stream of {lease.table} was followed"
        ) as cursor:
            cursor.execute(
                statement,
                {
                    "table": lease.table,
                    "arn": lease.stream_arn,
                    "shard": lease.shard_id,
                    "holder": lease.holder,
                    "token": lease.token,
                    "duration": lease.duration,
                    **values,
                },
            )
            row = cursor.fetchone()
        if row is None:
            return None
        now, _, _, sequence, unread_for, rogues = row
        return replace(lease, sequence=sequence, unread_for=unread_for, leased_at=now, rogues=_rogues(rogues))


def _moment(cursor: Cursor) -> datetime:
    (moment,) = cursor.fetchone() or (None,)
    assert isinstance(moment, datetime)  # noqa: S101 - a SELECT without FROM has one row
    return moment


def _json_of(seen: RogueSeen) -> dict[str, Any]:
    return {"count": seen.count, "key": seen.key_hash, "at": seen.last_at.isoformat()}


def _rogues(kept: Mapping[str, Any]) -> dict[str, RogueSeen]:
    return {
        kind: RogueSeen(seen["count"], seen["key"], datetime.fromisoformat(seen["at"]))
        for kind, seen in kept.items()
    }
