"""What PostgreSQL does as a mirror (DESIGN, replication protocol, rules 2 to 4)."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from dualstore.errors import AuthorityMoved, MirrorFenced, MirrorUnavailable
from dualstore.items import Item, Key, canonical, key_bytes
from dualstore.mapping import typed_item, typed_json
from dualstore.stores.base import UNREADABLE, DirtyKey, MirrorState, Revision, SettledWrite
from dualstore.stores.postgres.authority_statements import ALL_MAY_BE_READ
from dualstore.stores.postgres.catalog import Catalog, lock_key
from dualstore.stores.postgres.exchanges import Row, Statement
from dualstore.stores.postgres.faults import as_mirror
from dualstore.stores.postgres.sessions import BEGIN, COMMIT, Session, Sessions
from dualstore.stores.postgres.split_statements import Statements

_MARK = (
    "INSERT INTO dualstore.dirty (table_name, key, item_key, nonce, reason) "
    "VALUES ($1, $2, $3::jsonb, $4, $5) "
    "ON CONFLICT (table_name, sha256(key)) DO UPDATE SET item_key = EXCLUDED.item_key, "
    "nonce = EXCLUDED.nonce, reason = EXCLUDED.reason, since = clock_timestamp()"
)
_CLEAR = (
    "DELETE FROM dualstore.dirty "
    "WHERE table_name = $1 AND sha256(key) = sha256($2::bytea) AND nonce = $3 RETURNING 1"
)
_DIRTY = (
    "SELECT item_key::text, nonce, extract(epoch FROM since)::float8 FROM dualstore.dirty "
    "WHERE table_name = $1 ORDER BY since, key LIMIT $2::bigint"
)
# DynamoDB, "TransactWriteItems": a token is good for ten minutes, and stands for another transaction later.
_REMEMBER = (
    "INSERT INTO dualstore.tokens AS known (token) VALUES ($1) "
    "ON CONFLICT (token) DO UPDATE SET digest = NULL, created_at = clock_timestamp() "
    "WHERE known.created_at < clock_timestamp() - interval '10 minutes'"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Target:
    """One key of one table, in the forms in which it is needed."""

    statements: Statements
    table: str
    key: bytes
    key_values: tuple[Any, ...]

    @property
    def lock_key(self) -> int:
        return lock_key(self.table, self.key)

    def settle(self, image: Item | None, seen: Revision, epoch: int) -> Statement:
        """The statement of a settled write."""
        statements = self.statements
        known = (self.table, str(epoch), self.key, *map(_numeral, (seen.row, seen.tombstone)))
        if image is None:
            return statements.settle_absent, (*self.key_values, *known)
        writing = statements.writing(image)
        return writing.settle_present, (*writing.mapping.encode(image), *known)


class PostgresMirror:
    """The operations of a mirror.

    Args:
        catalog: the tables.
        sessions: where connections come from.
    """

    def __init__(self, catalog: Catalog, sessions: Sessions) -> None:
        self._catalog = catalog
        self._sessions = sessions
        self._held = threading.local()

    def write_direct(
        self, table: str, key: Key, image: Item | None, *, stamp: bytes, predecessor: bytes | None, epoch: int
    ) -> bool:
        """See `Mirror.write_direct`."""
        target = self._target(table, key)
        statements = target.statements
        named = (table, str(epoch), target.key)
        if image is not None:
            writing = statements.writing(image)
            over, new = writing.put_over, writing.put_new
            values = (*writing.mapping.encode(image), *named, stamp)
        else:
            over, new = statements.delete_over, statements.delete_nothing
            values = (*target.key_values, *named)
        write = (new, values) if predecessor is None else (over, (*values, predecessor))
        return self._locked_write(target, write, epoch, f"a direct write to {table!r}")

    def write_settled(self, table: str, key: Key, image: Item | None, *, seen: Revision, epoch: int) -> bool:
        """See `Mirror.write_settled`."""
        target = self._target(table, key)
        write = target.settle(image, seen, epoch)
        return self._locked_write(target, write, epoch, f"a settled write to {table!r}")

    def write_settled_together(self, writes: Sequence[SettledWrite], *, token: str | None = None) -> bool:
        """See `Mirror.write_settled_together`."""
        if not writes:
            if token is not None:
                doing = "remembering a transaction's token"
                self._run(lambda session: session.batch((_REMEMBER, (token,))), doing)
            return True
        targets = [self._target(write.table, write.key) for write in writes]
        tables = ", ".join(sorted({write.table for write in writes}))
        doing = f"settled writes together, to {tables}"
        lock = self._sessions.lock(*(target.lock_key for target in targets), writer="mirror")
        before = [BEGIN, lock, *([] if token is None else [(_REMEMBER, (token,))])]
        settles = [
            target.settle(write.image, write.seen, write.epoch)
            for target, write in zip(targets, writes, strict=True)
        ]

        def write_all(session: Session) -> bool:
            answers = session.batch(*before, *settles)[len(before) :]
            held = [
                _held(answer, write.table, write.epoch, doing)
                for answer, write in zip(answers, writes, strict=True)
            ]
            if all(held):
                session.batch(COMMIT)
            return all(held)  # where not, nothing is committed: the end of the session rolls back

        return self._run(write_all, doing)

    def state(self, table: str, key: Key) -> MirrorState:
        """See `Mirror.state`."""
        target = self._target(table, key)
        values = (*target.key_values, table, target.key)
        (row,) = self._run(
            lambda session: session.rows(target.statements.state, values),
            f"reading the state of a key of {table!r}",
            on=self._session_of(target),
        )
        return _state(row, _readable(target.statements, key))

    @contextmanager
    def locked(self, table: str, key: Key) -> Iterator[None]:
        """See `Mirror.locked`.

        The lock is a transaction's, so that it goes with the connection, and also works behind a pooler. What
        is written inside is therefore committed where the block ends.
        """
        target = self._target(table, key)
        doing = f"holding the lock of a key of {table!r}"
        with self._sessions.hold(doing=doing, explain=as_mirror) as session:
            lock = self._sessions.lock(target.lock_key, writer="mirror")
            self._run(lambda s: s.batch(BEGIN, lock), doing, on=session)
            self._held_sessions[target.lock_key] = session
            try:
                yield
            finally:
                del self._held_sessions[target.lock_key]
            if session.failed:  # COMMIT would then roll back, and report success
                raise MirrorUnavailable(f"PostgreSQL gave up the transaction of {doing}")
            self._run(lambda s: s.batch(COMMIT), doing, on=session)

    def mark_dirty(self, table: str, key: Key, *, nonce: str, reason: str) -> None:
        """See `Mirror.mark_dirty`."""
        values = (table, self._target(table, key).key, typed_json(key), nonce, reason)
        self._run(lambda session: session.batch((_MARK, values)), f"marking a key of {table!r} as dirty")

    def clear_dirty(self, table: str, key: Key, *, nonce: str) -> bool:
        """See `Mirror.clear_dirty`."""
        values = (table, self._target(table, key).key, nonce)
        cleared = self._run(lambda session: session.rows(_CLEAR, values), f"clearing a key of {table!r}")
        return bool(cleared)

    def dirty_keys(self, table: str, *, limit: int = 1000) -> Sequence[DirtyKey]:
        """See `Mirror.dirty_keys`."""
        rows = self._run(
            lambda session: session.rows(_DIRTY, (table, limit)), f"listing dirty keys of {table!r}"
        )
        return [DirtyKey(table, typed_item(key), nonce, since) for key, nonce, since in rows]

    def items_of(self, table: str, keys: Iterable[Key]) -> Mapping[bytes, MirrorState]:
        """See `Mirror.items_of`."""
        statements = self._statements(table)
        schema = statements.mapping.shape.keys
        named = {key_bytes(schema, key): key for key in keys}
        if not named:
            return {}
        columns = zip(*map(statements.mapping.encode_key, named.values()), strict=True)
        values = (table, list(named), *map(list, columns))
        rows = self._run(
            lambda session: session.rows(statements.states, values), f"reading keys of {table!r}"
        )
        return {bytes(name): _state(row, _readable(statements, named[bytes(name)])) for *row, name in rows}

    def items_in_order(self, table: str, keys: Iterable[Key]) -> Iterator[Item | None]:
        """The items of keys as they are committed now, in the keys' order; None where there is no item.

        Takes no note of doubts, nor of tombstones. The rows are read before this returns. Each is made an
        item when its turn comes: one that cannot be raises then, and the next is there.

        Args:
            table: the physical DynamoDB name.
            keys: which, each as often as wanted.

        Raises:
            MirrorUnavailable: PostgreSQL does not answer in time.
        """
        statements = self._statements(table)
        columns = list(zip(*map(statements.mapping.encode_key, keys), strict=True))
        if not columns:
            return iter(())
        values = tuple(map(list, columns))
        rows = self._run(
            lambda session: session.rows(statements.in_order, values), f"reading keys of {table!r}"
        )
        decode = statements.mapping.decode
        return map(lambda row: None if row[-1] is None else decode(row[:-1]), rows)  # noqa: C417 - goes on after an error

    def states_as_authority(
        self, table: str, keys: Iterable[Key], *, epoch: int
    ) -> Mapping[bytes, MirrorState]:
        """See `Authority.states_as_authority`. The fence is looked at after the rows: it never comes back."""
        asked = list(keys)
        targets = [self._target(table, key) for key in asked]
        if not targets:
            return {}
        statements = targets[0].statements
        columns = zip(*(target.key_values for target in targets), strict=True)
        values = (table, [target.key for target in targets], *map(list, columns))
        rows, ((still,),) = self._run(
            lambda session: session.batch((statements.states, values), (ALL_MAY_BE_READ, ([table], [epoch]))),
            f"reading keys of {table!r}",
        )
        if not still:
            raise AuthorityMoved(f"PostgreSQL is not the authority of {table!r} at epoch {epoch}: look again")
        named = {target.key: key for target, key in zip(targets, asked, strict=True)}
        return {bytes(name): _state(row, _readable(statements, named[bytes(name)])) for *row, name in rows}

    def all_items(self, table: str, *, page_items: int = 1000) -> Iterator[Sequence[Item]]:
        """See `Mirror.all_items`."""
        statements = self._statements(table)
        after: tuple[Any, ...] = ()
        while True:
            statement = statements.page(page_items, after=bool(after))
            rows = self._run(lambda s: s.rows(statement, after), f"reading all of {table!r}")  # noqa: B023 - run at once
            if rows:
                items = [statements.mapping.decode(row) for row in rows]
                after = statements.mapping.encode_key(items[-1])
                yield items
            if len(rows) < page_items:
                return

    def _locked_write(self, target: _Target, write: Statement, epoch: int, doing: str) -> bool:
        """Run a statement that writes one key under its lock; what it answers, unless the fence stopped it.

        Done twice, because the connection broke the first time, a write does no harm: it finds its own stamp,
        or a revision other than the one that was seen.
        """
        if (held := self._session_of(target)) is not None:
            answer = self._run(lambda session: session.rows(*write), doing, on=held)
        else:
            lock = self._sessions.lock(target.lock_key, writer="mirror")
            answer = self._run(lambda session: session.under_lock(lock, write).rows, doing)
        return _held(answer, target.table, epoch, doing)

    def _run(self, work: Callable[[Session], T], doing: str, *, on: Session | None = None) -> T:
        return self._sessions.run(work, doing=doing, explain=as_mirror, on=on)

    def _target(self, table: str, key: Key) -> _Target:
        statements = self._statements(table)
        keys = statements.mapping.shape.keys
        return _Target(statements, table, key_bytes(keys, key), statements.mapping.encode_key(key))

    def _statements(self, table: str) -> Statements:
        if table not in self._catalog:
            raise MirrorUnavailable(
                f"no SQL table is mapped for DynamoDB table {table!r}: bind its model first"
            )
        return self._catalog.statements(table)

    def _session_of(self, target: _Target) -> Session | None:
        """The session on which this thread holds the key's lock, if it does."""
        held = self._held_sessions
        return held.get(target.lock_key) if held else None

    @property
    def _held_sessions(self) -> dict[int, Session]:
        try:
            sessions: dict[int, Session] = self._held.sessions
        except AttributeError:
            sessions = self._held.sessions = {}
        return sessions


def _held(answer: Sequence[Row], table: str, epoch: int, doing: str) -> bool:
    """Whether a mirror's write found its key as it wanted it.

    Raises:
        MirrorFenced: the fence stopped it.
    """
    ((done, passed),) = answer
    if not passed:
        raise MirrorFenced(
            f"PostgreSQL did not carry out {doing}: it is not the mirror of {table!r} at epoch {epoch}, "
            "by its control record; read the control record of the authority, and decide again"
        )
    return bool(done)


def _numeral(number: int | None) -> str | None:
    """A number as text: psycopg would send it, and so prepare its statement, as one of four SQL types."""
    return None if number is None else str(number)


def _readable(statements: Statements, key: Key) -> Callable[[Sequence[Any]], Item]:
    """Decodes a row of this key; of one that makes no item the key alone is shown, and that it is so.

    So it differs from whatever the other side holds, and whoever settles it can; one such row must not keep
    those that are read with it from being followed.
    """

    def decode(stored: Sequence[Any]) -> Item:
        try:
            item = statements.mapping.decode(stored)
            canonical({"M": item})  # what no attribute value is has no such form
        except Exception:  # noqa: BLE001 - whatever a team's converter raises; its text may hold the value
            return {**statements.mapping.shape.keys.key_of(key), **UNREADABLE}
        return item

    return decode


def _state(row: Sequence[Any], decode: Callable[[Sequence[Any]], Item]) -> MirrorState:
    *stored, revision, tombstone_stamp, tombstone_revision = row
    return MirrorState(
        item=None if revision is None else decode(stored),
        tombstone_stamp=tombstone_stamp,
        revision=Revision(row=revision, tombstone=tombstone_revision),
    )
