"""Changes in PostgreSQL that had not reached DynamoDB when it took over: kept in `dualstore.lost_writes`."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from operator import itemgetter
from typing import Any
from uuid import uuid4

from sqlalchemy import Engine

from dualstore.items import Item, Key, TableShape, key_bytes, key_hash
from dualstore.mapping import typed_json
from dualstore.stores.key_bytes import key_from_bytes
from dualstore.stores.postgres_transaction import transaction
from dualstore.stores.quarantine import Form, Seal, seal_of

_PAGE = 1000

_PUT = """
INSERT INTO dualstore.lost_writes
    (table_name, epoch, outbox_id, key_hash, key, kind, written_at, stamp, reason, form, item)
VALUES (%(table)s, %(epoch)s, %(id)s, %(hash)s, %(key)s, %(kind)s, %(written_at)s, %(stamp)s, %(reason)s,
        %(form)s, %(item)s)
ON CONFLICT (table_name, epoch, outbox_id) DO NOTHING
"""
# As `Mirror.mark_dirty`: whoever repairs settles the key from DynamoDB.
_MARK = """
INSERT INTO dualstore.dirty (table_name, key, item_key, nonce, reason)
VALUES (%s, %s, %s::jsonb, %s, 'lost by a failover')
ON CONFLICT (table_name, sha256(key)) DO UPDATE SET nonce = EXCLUDED.nonce, reason = EXCLUDED.reason,
    since = clock_timestamp()
"""
_FINISH = """
UPDATE dualstore.outbox SET done_at = clock_timestamp(), sent_image = NULL, sent_token = NULL, sent_at = NULL
 WHERE id = ANY (%s) AND done_at IS NULL
"""


class Loss(StrEnum):
    """What became of a change that DynamoDB was not known to have."""

    WRITTEN = "written"
    """Lost: PostgreSQL held the item so until DynamoDB's took its place."""
    DELETED = "deleted"
    """Lost: PostgreSQL had the item no more."""
    WRITTEN_OVER = "written over"
    """Lost, and a later change of the same key too, which took the item's place."""
    ARRIVED = "arrived"
    """Not lost: DynamoDB shows what it left, or has been written onto that; only this was not known."""


@dataclass(frozen=True, slots=True)
class LostWrite:
    """One change.

    Attributes:
        outbox_id: of its outbox row.
        key: the primary key.
        kind: what became of it.
        written_at: when it was made, in seconds since the epoch, by the server's clock.
        stamp: of the write; None where it was no write of its own.
        reason: why it was in the outbox, where that is not simply a write; names no value.
        item: the item, as DynamoDB-JSON and by the seal; None for other kinds than `WRITTEN`.
        form: which seal that is.
    """

    outbox_id: int
    key: Key = field(repr=False)
    kind: Loss
    written_at: float
    stamp: bytes | None = None
    reason: str | None = None
    item: bytes | None = field(default=None, repr=False)
    form: Form = Form.PLAIN


class PostgresLostWrites:
    """The lost changes of one table.

    Args:
        engine: an engine with the psycopg driver.
        shape: the table; `shape.name` is its physical DynamoDB name.
        seal: makes of an item what is kept of it.
    """

    def __init__(self, engine: Engine, shape: TableShape, *, seal: Seal | None = None) -> None:
        self._engine = engine
        self._shape = shape
        self._seal = seal or seal_of(Form.PLAIN)

    def sealed(self, item: Item) -> bytes | None:
        """What is kept of an item."""
        return self._seal.apply(typed_json(item).encode())

    @property
    def form(self) -> Form:
        """How items are kept."""
        return self._seal.form

    def keep(
        self, lost: Sequence[LostWrite], *, epoch: int, doubtful: Sequence[Key], finished: Sequence[int]
    ) -> None:
        """Keep changes, and take them out of the outbox, at one moment; harmless where that is done.

        Args:
            lost: the changes.
            epoch: of the failover.
            doubtful: keys to be settled from DynamoDB.
            finished: ids of the outbox rows that are dealt with by that.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        name, keys = self._shape.name, self._shape.keys
        by_name = sorted({key_bytes(keys, key): key for key in doubtful}.items(), key=itemgetter(0))
        marks = [(name, named, typed_json(key), uuid4().hex) for named, key in by_name]
        with transaction(self._engine, f"Keeping the lost writes of {name}") as cursor:
            cursor.executemany(_PUT, [self._values(each, epoch) for each in lost])
            cursor.executemany(_MARK, marks)
            cursor.execute(_FINISH, [list(finished)])

    def entries(self, *, after_epoch: int) -> Iterator[Sequence[LostWrite]]:
        """What is kept of failovers later than an epoch, in pages, in the order of the outbox."""
        after = 0
        while True:
            with transaction(self._engine, f"Reading the lost writes of {self._shape.name}") as cursor:
                cursor.execute(
                    "SELECT id, outbox_id, key, kind, extract(epoch FROM written_at)::float8, stamp, reason,"
                    " item, form FROM dualstore.lost_writes"
                    " WHERE table_name = %s AND epoch > %s AND id > %s ORDER BY id LIMIT %s",
                    [self._shape.name, after_epoch, after, _PAGE],
                )
                rows = cursor.fetchall()
            if not rows:
                return
            after = rows[-1][0]
            yield [self._entry(row) for row in rows]

    def counts(self, *, after_epoch: int) -> Mapping[Loss, int]:
        """How many changes of each kind are kept of failovers later than an epoch."""
        with transaction(self._engine, f"Counting the lost writes of {self._shape.name}") as cursor:
            cursor.execute(
                "SELECT kind, count(*) FROM dualstore.lost_writes WHERE table_name = %s AND epoch > %s"
                " GROUP BY kind",
                [self._shape.name, after_epoch],
            )
            return Counter({Loss(kind): count for kind, count in cursor.fetchall()})

    def _values(self, lost: LostWrite, epoch: int) -> dict[str, Any]:
        return {
            "table": self._shape.name,
            "epoch": epoch,
            "id": lost.outbox_id,
            "hash": key_hash(self._shape.keys, lost.key),
            "key": key_bytes(self._shape.keys, lost.key),
            "kind": lost.kind,
            "written_at": datetime.fromtimestamp(lost.written_at, UTC),
            "stamp": lost.stamp,
            "reason": lost.reason,
            "form": lost.form,
            "item": lost.item,
        }

    def _entry(self, row: Sequence[Any]) -> LostWrite:
        _, outbox_id, key, kind, written_at, stamp, reason, item, form = row
        return LostWrite(
            outbox_id=outbox_id,
            key=key_from_bytes(self._shape.keys, bytes(key)),
            kind=Loss(kind),
            written_at=written_at,
            stamp=None if stamp is None else bytes(stamp),
            reason=reason,
            item=None if item is None else bytes(item),
            form=Form(form),
        )
