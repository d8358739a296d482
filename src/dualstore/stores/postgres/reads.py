"""GetItem, Query, Scan, BatchGetItem and TransactGetItems on PostgreSQL."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dualstore.errors import MirrorDirty
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
from dualstore.stores.postgres.catalog import Catalog
from dualstore.stores.postgres.pages import Walk
from dualstore.stores.postgres.sessions import COMMIT, Row, Session, Statement
from dualstore.stores.postgres.statements import TableStatements

_ANY_DIRTY = "SELECT EXISTS (SELECT FROM dualstore.dirty WHERE table_name = ANY($1::text[]))"
_SNAPSHOT: Statement = ("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())

Guards = tuple[Statement, ...]
"""Statements that answer whether the read must not be trusted."""


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
        guard: Statement = (_ANY_DIRTY, (sorted(operation.tables),))
        return _READS[type(operation)](catalog, session, operation, (guard,))
    shape, statements, key = _located(catalog, operation)
    values = (*statements.mapping.encode_key(key), operation.table, key_bytes(shape.keys, key))
    ((*row, revision, dirty),) = session.rows(statements.get_undoubted, values)
    if dirty:
        raise _in_doubt(operation)
    item = None if revision is None else statements.mapping.decode(row)
    return semantics.get_response(operation, shape, item)


def _located(catalog: Catalog, operation: GetItem) -> tuple[TableShape, TableStatements, Key]:
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
    results = session.batch(*statements[:first], *guards, *statements[first:])
    answers = results[first : first + len(guards)]
    if any(dirty for ((dirty,),) in answers):
        raise _in_doubt(operation)
    return results[:first] + results[first + len(guards) :]


def _get(catalog: Catalog, get: GetItem) -> Statement:
    statements = catalog.statements(get.table)
    return statements.get, statements.mapping.encode_key(get.key)


def _items(catalog: Catalog, gets: Sequence[GetItem], found: Sequence[list[Row]]) -> list[Item | None]:
    pairs = zip(gets, found, strict=True)
    return [_item(catalog.statements(get.table), rows) for get, rows in pairs]


def _item(statements: TableStatements, rows: list[Row]) -> Item | None:
    return statements.mapping.decode(rows[0]) if rows else None


def _in_doubt(operation: Operation) -> MirrorDirty:
    return MirrorDirty(
        f"{operation.name} on {', '.join(sorted(operation.tables))} covers keys in doubt: ask the authority"
    )
