"""Items that could not be loaded, kept in `dualstore.quarantine` until they can be."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine

from dualstore.items import TableShape, key_bytes, key_hash
from dualstore.mapping import typed_json
from dualstore.mapping.transcoding import Rejected
from dualstore.stores.key_bytes import key_from_bytes
from dualstore.stores.ledger import PieceRow
from dualstore.stores.postgres_transaction import Cursor, transaction
from dualstore.stores.quarantine import Form, Quarantined, Seal, seal_of

_PAGE = 1000

# What was closed is open again: it has come back.
_PUT = """
INSERT INTO dualstore.quarantine
    (table_name, key_hash, run_id, piece, key, reason, detail, form, item, state)
VALUES (%(table)s, %(hash)s, %(run)s, %(piece)s, %(key)s, %(reason)s, %(detail)s, %(form)s, %(item)s, 'open')
ON CONFLICT (table_name, key_hash) DO UPDATE SET run_id = EXCLUDED.run_id, piece = EXCLUDED.piece,
    reason = EXCLUDED.reason, detail = EXCLUDED.detail, form = EXCLUDED.form, item = EXCLUDED.item,
    state = 'open', last_seen = clock_timestamp()
"""
# As `Mirror.mark_dirty`, in the transaction that passes the item by.
_MARK = """
INSERT INTO dualstore.dirty (table_name, key, item_key, nonce, reason)
VALUES (%(table)s, %(key)s, %(item_key)s::jsonb, %(nonce)s, %(reason)s)
ON CONFLICT (table_name, sha256(key)) DO UPDATE SET item_key = EXCLUDED.item_key,
    nonce = EXCLUDED.nonce, reason = EXCLUDED.reason, since = clock_timestamp()
"""


class PostgresQuarantine:
    """The items of one table that could not be loaded.

    Args:
        engine: an engine with the psycopg driver.
        shape: the table; `shape.name` is its physical DynamoDB name.
        seal: makes of an item what is kept of it.
    """

    def __init__(self, engine: Engine, shape: TableShape, *, seal: Seal | None = None) -> None:
        self._engine = engine
        self._shape = shape
        self._seal = seal or seal_of(Form.PLAIN)

    def put(
        self,
        cursor: Cursor,
        rejected: Sequence[Rejected],
        *,
        piece: PieceRow,
        mark: bool = True,
        place_of: Callable[[Rejected], str | None] = lambda _: None,
    ) -> None:
        """Put items aside, in the transaction that passes them by.

        Args:
            cursor: the transaction's.
            rejected: the items.
            piece: the piece that they belong to.
            mark: whether to mark their keys dirty, so that no read of the mirror misses them.
            place_of: where an item stands in its source, for a person.
        """
        values = sorted(
            (self._values(each, piece, place_of(each)) for each in rejected), key=lambda each: each["hash"]
        )
        cursor.executemany(_PUT, values)
        keyed = [each for each in rejected if each.key is not None]
        if mark and keyed:
            cursor.executemany(_MARK, [self._doubt(each, piece) for each in keyed])

    def entries(self) -> Iterator[Sequence[Quarantined]]:
        """What is put aside now, in pages, in the order in which it was first."""
        after = 0
        while True:
            with transaction(self._engine, f"Reading the quarantine of {self._shape.name}") as cursor:
                cursor.execute(
                    "SELECT id, key_hash, key, reason, detail, run_id, piece, first_seen, last_seen"
                    " FROM dualstore.quarantine WHERE table_name = %s AND state = 'open' AND id > %s"
                    " ORDER BY id LIMIT %s",
                    [self._shape.name, after, _PAGE],
                )
                page = [self._entry(row) for row in cursor]
            if not page:
                return
            yield page
            after = page[-1].id

    def reasons(self) -> Mapping[str, int]:
        """How many items are put aside now, by the class of the reason."""
        with transaction(self._engine, f"Counting the quarantine of {self._shape.name}") as cursor:
            cursor.execute(
                "SELECT reason, count(*) FROM dualstore.quarantine WHERE table_name = %s AND state = 'open'"
                " GROUP BY reason ORDER BY reason",
                [self._shape.name],
            )
            return dict(cursor.fetchall())

    def without_key(self, run_id: UUID) -> int:
        """How many items of a run were put aside whose keys nobody knows: no read can be kept off them."""
        with transaction(self._engine, f"Counting the quarantine of {self._shape.name}") as cursor:
            cursor.execute(
                "SELECT count(*) FROM dualstore.quarantine"
                " WHERE table_name = %s AND run_id = %s AND state = 'open' AND key IS NULL",
                [self._shape.name, run_id],
            )
            (count,) = cursor.fetchone() or (0,)
        return int(count)

    def close(self, entries: Sequence[Quarantined]) -> None:
        """Take entries out: both sides hold the same for their keys. What has come back meanwhile stays."""
        with transaction(self._engine, f"Closing entries of the quarantine of {self._shape.name}") as cursor:
            cursor.executemany(
                "UPDATE dualstore.quarantine SET state = 'closed', item = NULL"
                " WHERE id = %s AND last_seen = %s",
                [(each.id, each.last_seen) for each in entries],
            )

    def _values(self, rejected: Rejected, piece: PieceRow, place: str | None) -> dict[str, Any]:
        key = rejected.key
        return {
            "table": self._shape.name,
            "hash": _hash(rejected.line) if key is None else key_hash(self._shape.keys, key),
            "run": piece.run_id,
            "piece": piece.number,
            "key": None if key is None else key_bytes(self._shape.keys, key),
            "reason": rejected.reason,
            "detail": rejected.detail if place is None else f"{rejected.detail} ({place})",
            "form": self._seal.form,
            "item": self._seal.apply(rejected.line) if rejected.line else None,
        }

    def _doubt(self, rejected: Rejected, piece: PieceRow) -> dict[str, Any]:
        key = rejected.key or {}
        return {
            "table": self._shape.name,
            "key": key_bytes(self._shape.keys, key),
            "item_key": typed_json(key),
            "nonce": uuid4().hex,
            "reason": f"backfill {piece.run_id}: {rejected.detail}",
        }

    def _entry(self, row: Sequence[Any]) -> Quarantined:
        number, hashed, key, *rest = row
        return Quarantined(
            number, hashed, None if key is None else key_from_bytes(self._shape.keys, bytes(key)), *rest
        )


def _hash(line: bytes) -> str:
    return blake2b(line, digest_size=8).hexdigest()
