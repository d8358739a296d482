"""GetItem, Query, Scan, BatchGetItem and TransactGetItems on PostgreSQL."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dualstore.control import PostgresRole
from dualstore.errors import AuthorityMoved, MirrorDirty, Unavailable
from dualstore.items import Item, Key, TableShape, key_bytes
from dualstore.operations import (
    BatchGetItem,
    GetItem,
    Operation,
    Query,
    Response,
    Scan,
    TransactGetItems,
)
from dualstore.stores import semantics
from dualstore.stores.postgres.authority_statements import ALL_MAY_BE_READ
from dualstore.stores.postgres.catalog import Catalog
from dualstore.stores.postgres.exchanges import Row, Statement
from dualstore.stores.postgres.pages import Walk
from dualstore.stores.postgres.sessions import COMMIT, Session
from dualstore.stores.postgres.split_statements import Statements

_NONE_DIRTY = (
    "SELECT NOT EXISTS (SELECT FROM dualstore.dirty WHERE table_name = ANY($1::text[])) "
    "AND NOT EXISTS (SELECT FROM dualstore.stops WHERE table_name = ANY($1::text[]))"
)
_NONE_DIRTY_IN_PARTITION = (
    "SELECT NOT EXISTS (SELECT FROM dualstore.dirty "
    "WHERE table_name = $1 AND substring(key FROM 1 FOR length($2::bytea)) = $2::bytea) "
    "AND NOT EXISTS (SELECT FROM dualstore.stops WHERE table_name = $1)"
)
_SNAPSHOT: Statement = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())

_MAY_BE_READ = frozenset({PostgresRole.AUTHORITY, PostgresRole.PAUSED})


@dataclass(frozen=True, slots=True)
class _Guard:
    """What must hold before the first row is read.

    Attributes:
        statement: answers whether it does.
        refusal: what is raised where it does not.
    """

    statement: Statement
    refusal: Callable[[Operation], Unavailable]


Guards = tuple[_Guard, ...]


def read(catalog: Catalog, session: Session, operation: Operation) -> Response:
    """Carry out an operation that reads.

    Raises:
        RequestRejected: as DynamoDB would.
    """
    if isinstance(operation, GetItem):
        shape, statements, key = _located(catalog, operation)
        rows = session.rows(statements.get, statements.mapping.encode_key(key))
        return semantics.get_response(operation, shape, _item(statements, rows))
    return _READS[type(operation)](catalog, session, operation, ())


def read_undoubted(catalog: Catalog, session: Session, operation: Operation) -> Response:
    """Carry out an operation that reads, where no key that it covers is in doubt.

    Whoever fails to mirror a write records the doubt before the write is acknowledged. So a doubt that is not
    there when the read begins belongs to a write that the read need not show: it is enough to look before the
    first row is read, in the same round trip. GetItem, the most frequent, looks in its own statement; so does
    each key of a BatchGetItem, which leaves those in doubt unprocessed.

    Raises:
        MirrorDirty: one is. Of a Query it is one of the partition; of Scan, TransactGetItems and indexes with
            another partition key it is one of the table: an item in doubt may be missing where it belongs.
        RequestRejected: as DynamoDB would.
    """
    if isinstance(operation, BatchGetItem):
        return _batch_get_undoubted(catalog, session, operation)
    if not isinstance(operation, GetItem):
        guard = _Guard(_none_dirty(catalog, operation), _in_doubt)
        return _READS[type(operation)](catalog, session, operation, (guard,))
    shape, statements, key = _located(catalog, operation)
    item, dirty = _undoubted(statements, session.rows(*_get_undoubted(statements, shape, key)))
    if dirty:
        raise _in_doubt(operation)
    return semantics.get_response(operation, shape, item)


def _none_dirty(catalog: Catalog, operation: Operation) -> Statement:
    """Answers whether no key is in doubt of those that a read of several covers."""
    if isinstance(operation, Query):
        partition = semantics.plan(operation, semantics.shape_of(catalog, operation)).partition
        if partition is not None:
            return _NONE_DIRTY_IN_PARTITION, (operation.table, partition)
    return _NONE_DIRTY, (sorted(operation.tables),)


def _batch_get_undoubted(catalog: Catalog, session: Session, operation: BatchGetItem) -> Response:
    gets = semantics.batch_gets(operation, catalog)
    statements = [catalog.statements(get.table).reading(get.key) for get in gets]
    found = session.batch(
        *(
            _get_undoubted(each, semantics.shape_named(catalog, get.table), get.key)
            for each, get in zip(statements, gets, strict=True)
        )
    )
    read = list(map(_undoubted, statements, found))
    return semantics.batch_get_response(
        operation, gets, [item for item, _ in read], in_doubt=[dirty for _, dirty in read]
    )


def _get_undoubted(statements: Statements, shape: TableShape, key: Key) -> Statement:
    values = (*statements.mapping.encode_key(key), shape.name, key_bytes(shape.keys, key))
    return statements.get_undoubted, values


def _undoubted(statements: Statements, rows: Sequence[Row]) -> tuple[Item | None, bool]:
    """What a row says, and whether its key is in doubt."""
    ((*row, revision, dirty),) = rows
    return (None if revision is None else statements.mapping.decode(row)), dirty


def read_as_authority(
    catalog: Catalog, session: Session, operation: Operation, epochs: Mapping[str, int]
) -> Response:
    """Carry out an operation that reads, where PostgreSQL is the authority of its tables.

    A mirror never goes back to an earlier state, so what is read a moment after the authority has moved is no
    older than what it would have told the moment before: looking first, in the same round trip, is enough.

    Raises:
        AuthorityMoved: it is not, at these epochs.
        RequestRejected: as DynamoDB would.
    """
    if not isinstance(operation, GetItem):
        tables = sorted(operation.tables)
        asked = (tables, [epochs[table] for table in tables])
        guard = _Guard((ALL_MAY_BE_READ, asked), _moved)
        return _READS[type(operation)](catalog, session, operation, (guard,))
    shape, statements, key = _located(catalog, operation)
    values = (*statements.mapping.encode_key(key), operation.table, str(epochs[operation.table]))
    ((*row, revision, role),) = session.rows(statements.get_as_authority, values)
    if role not in _MAY_BE_READ:
        raise _moved(operation)
    item = None if revision is None else statements.mapping.decode(row)
    return semantics.get_response(operation, shape, item)


def _located(catalog: Catalog, operation: GetItem) -> tuple[TableShape, Statements, Key]:
    shape = semantics.shape_of(catalog, operation)
    key = semantics.checked_key(operation, shape)
    return shape, catalog.statements(operation.table).reading(key), key


def _page(catalog: Catalog, session: Session, operation: Query | Scan, guards: Guards) -> Response:
    planned = semantics.plan(operation, semantics.shape_of(catalog, operation))
    walk = Walk(catalog.statements(operation.table), planned, in_utf8=session.in_utf8)
    (first,) = _fetch(session, operation, guards, walk.first())
    return semantics.page_of(planned, walk.scanned(session, first))


def _batch_get(catalog: Catalog, session: Session, operation: BatchGetItem, guards: Guards) -> Response:
    gets = semantics.batch_gets(operation, catalog)
    found = _fetch(session, operation, guards, *(_get(catalog, get) for get in gets))
    return semantics.batch_get_response(operation, gets, _items(catalog, gets, found))


def _transact_get(
    catalog: Catalog, session: Session, operation: TransactGetItems, guards: Guards
) -> Response:
    gets = semantics.transact_gets(operation, catalog)
    statements = (_get(catalog, get) for get in gets)
    _, *found, _ = _fetch(session, operation, guards, _SNAPSHOT, *statements, COMMIT)
    return semantics.transact_get_response(operation, gets, _items(catalog, gets, found))


_READS: Mapping[type[Operation], Callable[[Catalog, Session, Any, Guards], Response]] = {
    Query: _page,
    Scan: _page,
    BatchGetItem: _batch_get,
    TransactGetItems: _transact_get,
}


def _fetch(session: Session, operation: Operation, guards: Guards, *statements: Statement) -> list[list[Row]]:
    """The rows of each statement, all in one round trip, once the guards have let them pass."""
    # A transaction's isolation can only be chosen before its first query: there the guards come second.
    first = 1 if statements[0] is _SNAPSHOT else 0
    looks = (guard.statement for guard in guards)
    results = session.batch(*statements[:first], *looks, *statements[first:])
    for guard, ((holds,),) in zip(guards, results[first : first + len(guards)], strict=True):
        if not holds:
            raise guard.refusal(operation)
    return results[:first] + results[first + len(guards) :]


def _get(catalog: Catalog, get: GetItem) -> Statement:
    statements = catalog.statements(get.table).reading(get.key)
    return statements.get, statements.mapping.encode_key(get.key)


def _items(catalog: Catalog, gets: Sequence[GetItem], found: Sequence[list[Row]]) -> list[Item | None]:
    pairs = zip(gets, found, strict=True)
    return [_item(catalog.statements(get.table).reading(get.key), rows) for get, rows in pairs]


def _item(statements: Statements, rows: list[Row]) -> Item | None:
    return statements.mapping.decode(rows[0]) if rows else None


def _in_doubt(operation: Operation) -> MirrorDirty:
    return MirrorDirty(
        f"{operation.name} on {', '.join(sorted(operation.tables))} covers keys in doubt: ask the authority"
    )


def _moved(operation: Operation) -> AuthorityMoved:
    return AuthorityMoved(
        f"{operation.name} on {', '.join(sorted(operation.tables))} was decided under an epoch that has "
        "ended: read the control record, and decide again"
    )
