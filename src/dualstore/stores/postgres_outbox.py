"""The outbox in PostgreSQL: what triggers wrote in the transactions of the changes, lane by lane.

Leases are kept by the server's clock. Each statement that changes something locks the lane's row first (`FOR
SHARE`) and looks at its token, so that a worker whose lane has passed to another changes nothing: the
takeover either comes after the statement, or is seen by it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

import sqlalchemy

from dualstore.errors import AuthorityMoved, Unavailable
from dualstore.items import Item, Key
from dualstore.mapping import Mapped, typed_item, typed_json
from dualstore.stores.outbox import LANES, SECOND_LOOK, Lease, Onto, OutboxDepth, OutboxEntry, Sending
from dualstore.stores.postgres.exchanges import Row
from dualstore.stores.postgres.faults import unavailable
from dualstore.stores.postgres.key_texts import key_texts_of_values, lane_of
from dualstore.stores.postgres.sessions import Sessions

_REFUSED = "refused: "

_MAKE_LANES = (
    "INSERT INTO dualstore.lanes (table_name, lane) "
    f"SELECT $1, lane FROM generate_series(0, {LANES - 1}) AS lane ON CONFLICT DO NOTHING"
)
_LEASE = """
WITH free AS MATERIALIZED (
    SELECT lane FROM dualstore.lanes
    WHERE table_name = $1 AND (holder = $2 OR until IS NULL OR until < clock_timestamp())
    ORDER BY holder IS DISTINCT FROM $2, lane LIMIT $3::bigint FOR UPDATE SKIP LOCKED
)
UPDATE dualstore.lanes AS held
   SET token = held.token + (held.holder IS DISTINCT FROM $2)::int, holder = $2,
       until = clock_timestamp() + $4::interval
  FROM free WHERE held.table_name = $1 AND held.lane = free.lane
RETURNING held.lane, held.token
"""
_IS_MINE = "table_name = $1 AND lane = $2::int2 AND holder = $3 AND token = $4::bigint"
_RENEW = (
    f"UPDATE dualstore.lanes SET until = clock_timestamp() + $5::interval WHERE {_IS_MINE} RETURNING true"
)
_RELEASE = f"UPDATE dualstore.lanes SET holder = NULL, until = NULL WHERE {_IS_MINE}"

_MINE = f"mine AS MATERIALIZED (SELECT FROM dualstore.lanes WHERE {_IS_MINE} FOR SHARE)"
_HELD = "EXISTS (SELECT FROM mine)"
_LANE = "table_name = $1 AND lane = $2::int2 AND done_at IS NULL"

_MARK = f"""
WITH {_MINE}, marked AS (
    UPDATE dualstore.outbox AS entry
       SET sent_image = sent.image, sent_token = sent.token, sent_at = clock_timestamp()
      FROM unnest($5::bigint[], $6::text[], $7::text[]) AS sent (id, image, token)
     WHERE entry.id = sent.id AND entry.done_at IS NULL AND {_HELD}
    RETURNING 1
)
SELECT {_HELD} AND (SELECT count(*) FROM marked) = cardinality($5::bigint[])
"""
_RESOLVE = f"""
WITH {_MINE}, answered AS (
    UPDATE dualstore.outbox SET sent_image = NULL, sent_token = NULL, sent_at = NULL
     WHERE {_LANE} AND sent_token = ANY ($5::text[]) AND {_HELD}
    RETURNING key
), looks AS (
    INSERT INTO dualstore.outbox (table_name, lane, key, reason, due_at)
    SELECT $1, $2::int2, key, '{SECOND_LOOK}', clock_timestamp() + $6::interval
    FROM answered WHERE $6::interval IS NOT NULL
)
SELECT {_HELD}
"""
_FINISH = f"""
WITH {_MINE}, finished AS (
    UPDATE dualstore.outbox
       SET done_at = clock_timestamp(), sent_image = NULL, sent_token = NULL, sent_at = NULL
     WHERE id = ANY ($5::bigint[]) AND done_at IS NULL AND {_HELD}
)
SELECT {_HELD}
"""
_POSTPONE = f"""
WITH {_MINE}, postponed AS (
    UPDATE dualstore.outbox
       SET reason = $6, sent_image = NULL, sent_token = NULL, sent_at = NULL,
           due_at = clock_timestamp()
                  + least(greatest(clock_timestamp() - created_at, $7::interval), $8::interval)
     WHERE id = ANY ($5::bigint[]) AND done_at IS NULL AND {_HELD}
)
SELECT {_HELD}
"""
_DEPTH = f"""
SELECT count(*),
       count(*) FILTER (WHERE reason = '{SECOND_LOOK}'),
       count(*) FILTER (WHERE starts_with(reason, '{_REFUSED}')),
       coalesce(extract(epoch FROM clock_timestamp() - min(created_at)
                FILTER (WHERE reason IS DISTINCT FROM '{SECOND_LOOK}')), 0)::float8
  FROM dualstore.outbox WHERE table_name = $1 AND done_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class LeftOver:
    """An entry that waits in the outbox of a PostgreSQL that is the authority no more.

    Attributes:
        id: names the entry; of one key's, the later has the greater.
        key: the primary key.
        reason: why it is here, where that is not simply a write.
        stamp: of the write; None where it is no write of its own.
        written_at: when it was made, in seconds since the epoch, by the server's clock.
    """

    id: int
    key: Key
    reason: str | None
    stamp: bytes | None
    written_at: float


@dataclass(frozen=True)
class _KeyStatements:
    """The statements that speak of one table's keys."""

    mapping: Mapped

    @cached_property
    def pending(self) -> str:
        """Due entries, and what of their keys is in doubt. Values: the lease's, the most entries."""
        return (
            f"WITH mine AS MATERIALIZED (SELECT FROM dualstore.lanes WHERE {_IS_MINE}), "
            "marks AS MATERIALIZED ("
            "SELECT key, sent_image, sent_token, "
            "extract(epoch FROM clock_timestamp() - sent_at)::float8 AS age "
            f"FROM dualstore.outbox WHERE {_LANE} AND sent_token IS NOT NULL AND {_HELD}), "
            "due AS MATERIALIZED ("
            f"SELECT id, key, reason FROM dualstore.outbox WHERE {_LANE} AND due_at <= clock_timestamp() "
            f"AND {_HELD} ORDER BY id LIMIT $5::bigint) "
            "SELECT due.id, due.reason, marks.sent_image, marks.sent_token, marks.age, "
            f"{', '.join(self._read_key)} FROM due LEFT JOIN marks ON marks.key = due.key ORDER BY due.id"
        )

    @cached_property
    def left_over(self) -> str:
        """All that waits in a lane, key by key. Values: table, lane, the most entries."""
        return (
            "SELECT due.id, due.key, due.reason, due.stamp, "
            f"extract(epoch FROM due.created_at)::float8, {', '.join(self._read_key)} "
            "FROM dualstore.outbox AS due WHERE due.table_name = $1 AND due.lane = $2::int2 "
            "AND due.done_at IS NULL ORDER BY due.key, due.id LIMIT $3::bigint"
        )

    @cached_property
    def enqueue(self) -> str:
        """Answers whether it passed. Values: table, reason, delay, epoch, an array for each key column."""
        columns = self.mapping.key_columns
        names = tuple(f"k{number}" for number in range(len(columns)))
        arrays = ", ".join(f"${number}::{column.cast}[]" for number, column in enumerate(columns, 5))
        return (
            "WITH fence AS MATERIALIZED (SELECT FROM dualstore.control WHERE table_name = $1 "
            "AND epoch = $4::bigint AND role = 'authority'), "
            "noted AS (INSERT INTO dualstore.outbox (table_name, lane, key, reason, due_at) "
            f"SELECT $1, {lane_of('key')}, key, $2, clock_timestamp() + $3::interval "
            f"FROM (SELECT {key_texts_of_values(self.mapping, names)} AS key "
            f"FROM unnest({arrays}) AS asked ({', '.join(names)})) AS keys WHERE EXISTS (SELECT FROM fence)) "
            "SELECT EXISTS (SELECT FROM fence)"
        )

    def key_of(self, stored: Sequence[Any]) -> Key:
        """The DynamoDB key behind the key columns as `pending` reads them."""
        columns = self.mapping.key_columns
        return {column.attribute: column.decode(value) for column, value in zip(columns, stored, strict=True)}

    @property
    def _read_key(self) -> Sequence[str]:
        return [
            column.read(f"(due.key[{place}])::{column.cast}")
            for place, column in enumerate(self.mapping.key_columns, 1)
        ]


class PostgresOutbox:
    """An `Outbox` in the `dualstore` schema of the authority.

    Args:
        engine: the team's own; its driver must be psycopg 3.
        mappings: by the physical names of the DynamoDB tables; tables may be added later.
        statement_timeout: the most time that one call may take.
    """

    def __init__(
        self,
        engine: sqlalchemy.Engine,
        mappings: Mapping[str, Mapped],
        *,
        statement_timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        self._sessions = Sessions(engine, statement_timeout=statement_timeout)
        self._mappings = mappings
        self._statements: dict[str, _KeyStatements] = {}

    def lease(self, table: str, holder: str, *, lanes: int, duration: timedelta) -> Sequence[Lease]:
        """Take lanes of a table (see `Outbox.lease`)."""
        asked = (_LEASE, (table, holder, lanes, duration))
        doing = f"leasing lanes of {table!r}"
        taken = self._rows(*asked, doing=doing)
        if not taken and lanes > 0:  # nothing free, or the table has no lanes yet
            self._rows(_MAKE_LANES, (table,), doing=doing)
            taken = self._rows(*asked, doing=doing)
        return [Lease(table, lane, holder, token) for lane, token in sorted(taken)]

    def renew(self, lease: Lease, *, duration: timedelta) -> bool:
        """Hold a lane for longer (see `Outbox.renew`)."""
        return bool(self._rows(_RENEW, (*_named(lease), duration), doing=_doing("renewing", lease)))

    def release(self, lease: Lease) -> None:
        """Give a lane back before its lease ends."""
        self._rows(_RELEASE, _named(lease), doing=_doing("releasing", lease))

    def pending(self, lease: Lease, *, limit: int) -> Sequence[OutboxEntry]:
        """Some entries of a lane that are due (see `Outbox.pending`)."""
        statements = self._keys(lease.table)
        rows = self._rows(statements.pending, (*_named(lease), limit), doing=_doing("reading", lease))
        return [
            OutboxEntry(id_, lease.table, statements.key_of(key), reason, _sending(image, token, age))
            for id_, reason, image, token, age, *key in rows
        ]

    def mark_sent(self, lease: Lease, entries: Sequence[OutboxEntry]) -> bool:
        """Note writes before they are sent (see `Outbox.mark_sent`)."""
        marks = [(entry.id, _document(entry.sent), entry.sent.token) for entry in entries if entry.sent]
        columns = [list(column) for column in zip(*marks, strict=True)]
        return self._change(_MARK, lease, *columns)

    def resolve(
        self, lease: Lease, entries: Sequence[OutboxEntry], *, again_in: timedelta | None = None
    ) -> bool:
        """Forget writes in doubt (see `Outbox.resolve`)."""
        tokens = [entry.sent.token for entry in entries if entry.sent is not None]
        return self._change(_RESOLVE, lease, tokens, again_in)

    def finish(self, lease: Lease, entries: Sequence[OutboxEntry]) -> bool:
        """The mirror has been brought after these entries."""
        return self._change(_FINISH, lease, [entry.id for entry in entries])

    def postpone(
        self,
        lease: Lease,
        entries: Sequence[OutboxEntry],
        *,
        reason: str,
        at_least: timedelta,
        at_most: timedelta,
    ) -> bool:
        """Let entries wait that the mirror refuses (see `Outbox.postpone`)."""
        ids = [entry.id for entry in entries]
        return self._change(_POSTPONE, lease, ids, _REFUSED + reason, at_least, at_most)

    def enqueue(
        self, table: str, keys: Sequence[Key], *, epoch: int, reason: str, due_in: timedelta = timedelta(0)
    ) -> None:
        """Have the mirror brought after keys (see `Outbox.enqueue`)."""
        if not keys:
            return
        statements = self._keys(table)
        columns = zip(*map(statements.mapping.encode_key, keys), strict=True)
        values = (table, reason, due_in, str(epoch), *map(list, columns))
        ((noted,),) = self._rows(statements.enqueue, values, doing=f"enqueuing keys of {table!r}")
        if not noted:
            raise AuthorityMoved(f"PostgreSQL is not the authority of {table!r} at epoch {epoch}: look again")

    def left_over(self, table: str, lane: int, *, limit: int) -> Sequence[LeftOver]:
        """Some of the entries that wait in a lane, with all entries of each of their keys, in their order.

        For who alone works on the outbox: nobody sends any more, and nothing is added.

        Args:
            table: the physical DynamoDB name.
            lane: the lane.
            limit: about how many.

        Raises:
            Unavailable: the outbox could not be reached in time.
        """
        statements = self._keys(table)
        doing = f"reading what is left over in lane {lane} of {table!r}"
        while True:
            rows = self._rows(statements.left_over, (table, lane, limit), doing=doing)
            if len(rows) == limit:  # of the last key there may be more
                whole = [row for row in rows if row[1] != rows[-1][1]]
                if not whole:
                    limit *= 2
                    continue
                rows = whole
            return [
                LeftOver(id_, statements.key_of(key), reason, None if stamp is None else bytes(stamp), at)
                for id_, _, reason, stamp, at, *key in rows
            ]

    def depth(self, table: str) -> OutboxDepth:
        """How many entries of a table wait, and for how long."""
        ((entries, looks, refused, age),) = self._rows(
            _DEPTH, (table,), doing=f"counting what waits of {table!r}"
        )
        return OutboxDepth(entries, looks, refused, timedelta(seconds=age))

    def _change(self, statement: str, lease: Lease, *values: Any) -> bool:
        ((held,),) = self._rows(statement, (*_named(lease), *values), doing=_doing("working off", lease))
        return bool(held)

    def _rows(self, statement: str, values: Sequence[Any], *, doing: str) -> list[Row]:
        """Run one statement, again after a lost connection: done twice, none of them does harm."""
        return self._sessions.run(
            lambda session: session.batch((statement, values))[0],
            doing=doing,
            explain=lambda error, what: unavailable(error, what, Unavailable),
        )

    def _keys(self, table: str) -> _KeyStatements:
        mapping = self._mappings[table]
        statements = self._statements.get(table)
        if statements is None or statements.mapping is not mapping:
            statements = self._statements[table] = _KeyStatements(mapping)
        return statements


def _named(lease: Lease) -> tuple[str, int, str, int]:
    return lease.table, lease.lane, lease.holder, lease.token


def _doing(what: str, lease: Lease) -> str:
    return f"{what} lane {lease.lane} of {lease.table!r}"


def _document(sending: Sending) -> str:
    image = {"NULL": True} if sending.image is None else {"M": sending.image}
    return typed_json({"image": image, "onto": {"S": sending.onto}})


def _sending(document: str | None, token: str | None, age: float | None) -> Sending | None:
    if document is None or token is None:
        return None
    sent = typed_item(document)
    image: Item | None = sent["image"].get("M")
    return Sending(image, Onto(sent["onto"]["S"]), token, timedelta(seconds=age or 0.0))
