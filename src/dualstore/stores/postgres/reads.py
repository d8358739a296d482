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
from dualstore.stores.postgres.authority_statements import ALL_MAY_BE_READ, AuthorityStatements
from dualstore.stores.postgres.catalog import Catalog
from dualstore.stores.postgres.pages import Walk
from dualstore.stores.postgres.sessions import COMMIT, Row, Session, Statement

_NONE_DIRTY = "SELECT NOT EXISTS (SELECT FROM dualstore.dirty WHERE table_name = ANY($1::text[]))"
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
    first row is read, in the same round trip. GetItem, the most frequent, looks in its own statement.

    Raises:
        MirrorDirty: one is.
        RequestRejected: as DynamoDB would.
    """
    if not isinstance(operation, GetItem):
        guard = _Guard((_NONE_DIRTY, (sorted(operation.tables),)), _in_doubt)
        return _READS[type(operation)](catalog, session, operation, (guard,))
    shape, statements, key = _located(catalog, operation)
    values = (*statements.mapping.encode_key(key), operation.table, key_bytes(shape.keys, key))
    ((*row, revision, dirty),) = session.rows(statements.get_undoubted, values)
    if dirty:
        raise _in_doubt(operation)
    item = None if revision is None else statements.mapping.decode(row)
    return semantics.get_response(operation, shape, item)


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


def _located(catalog: Catalog, operation: GetItem) -> tuple[TableShape, AuthorityStatements, Key]:
    shape = semantics.shape_named(catalog, operation.table)
    return shape, catalog.statements(operation.table), semantics.checked_key(operation, shape)


def _page(catalog: Catalog, session: Session, operation: Query | Scan, guards: Guards) -> Response:
    planned = semantics.plan(operation, semantics.shape_named(catalog, operation.table))
    walk = Walk(catalog.statements(operation.table), planned)
    (first,) = _fetch(session, operation, guards, walk.first())
    return semantics.page(planned, walk.items(session, first))


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
    statements = catalog.statements(get.table)
    return statements.get, statements.mapping.encode_key(get.key)


def _items(catalog: Catalog, gets: Sequence[GetItem], found: Sequence[list[Row]]) -> list[Item | None]:
    pairs = zip(gets, found, strict=True)
    return [_item(catalog.statements(get.table), rows) for get, rows in pairs]


def _item(statements: AuthorityStatements, rows: list[Row]) -> Item | None:
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
