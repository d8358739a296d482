"""PutItem, UpdateItem, DeleteItem, BatchWriteItem and TransactWriteItems, where PostgreSQL is the authority.

Each write is one transaction in two round trips: lock and read; then, conditions having been evaluated by the
one evaluator that all stores share, write and commit.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dualstore.errors import OutcomeUnknown
from dualstore.items import Item, key_bytes
from dualstore.operations import (
    BatchWriteItem,
    ConditionalWrite,
    DeleteItem,
    Operation,
    PutItem,
    Response,
    TransactWriteItems,
    UpdateItem,
)
from dualstore.stores import semantics
from dualstore.stores.postgres.catalog import Catalog, lock_key
from dualstore.stores.postgres.deadlines import DeadlinePassed
from dualstore.stores.postgres.faults import CAUGHT, Fault, fault_of, unavailable
from dualstore.stores.postgres.sessions import BEGIN, COMMIT, Session, Sessions, Statement
from dualstore.stores.postgres.statements import TableStatements

Written = semantics.Written
Decide = Callable[[Sequence[Item | None]], Sequence[Written]]


@dataclass(frozen=True)
class Writes:
    """The operations that write.

    Args:
        catalog: the tables.
        sessions: makes the statements that take locks.
    """

    catalog: Catalog
    sessions: Sessions

    def write(self, session: Session, operation: Operation) -> Response:
        """Carry out an operation that writes.

        Raises:
            RequestRejected: as DynamoDB would.
            OutcomeUnknown: the connection broke while the write was being committed.
        """
        return _WRITES[type(operation)](self, session, operation)

    def _one(self, session: Session, operation: ConditionalWrite) -> Response:
        shape = semantics.shape_named(self.catalog, operation.table)
        target = self._target(operation)

        def decide(olds: Sequence[Item | None]) -> tuple[Written]:
            return (semantics.write(operation, shape, olds[0]),)

        return self._transaction(session, [target], decide, operation.name)[0].response

    def _batch(self, session: Session, operation: BatchWriteItem) -> Response:
        writes = semantics.batch_writes(operation, self.catalog)
        outcomes = []
        for write in writes:
            shape = self.catalog[write.table]
            target = self._target(write)
            (outcome,) = self._transaction(
                session,
                [target],
                lambda olds, write=write, shape=shape: (semantics.write(write, shape, olds[0]),),  # type: ignore[misc]
                operation.name,
            )
            outcomes.append((write.table, outcome))
        return semantics.batch_write_response(operation, outcomes)

    def _transact(self, session: Session, operation: TransactWriteItems) -> Response:
        writes = semantics.transact_writes(operation, self.catalog)
        outcomes = self._transaction(
            session,
            [self._target(write) for write in writes],
            lambda olds: semantics.transact_write(writes, self.catalog, olds),
            operation.name,
        )
        return semantics.transact_write_response(operation, writes, outcomes)

    def _target(self, write: ConditionalWrite) -> "_Target":
        shape = semantics.shape_named(self.catalog, write.table)
        key = semantics.checked_key(write, shape)
        statements = self.catalog.statements(write.table)
        return _Target(statements, statements.mapping.encode_key(key), key_bytes(shape.keys, key))

    def _transaction(
        self, session: Session, targets: Sequence["_Target"], decide: Decide, doing: str
    ) -> Sequence[Written]:
        """Lock and read the items, let `decide` say what becomes of them, write that."""
        lock = self.sessions.lock(*(target.lock_key for target in targets))
        _, _, *found = session.batch(BEGIN, lock, *(target.get for target in targets))
        olds = [
            target.statements.mapping.decode(rows[0]) if rows else None
            for target, rows in zip(targets, found, strict=True)
        ]
        outcomes = decide(olds)
        changes = [
            target.change(outcome.new_item)
            for target, outcome, old in zip(targets, outcomes, olds, strict=True)
            if outcome.new_item is not old
        ]
        with _in_doubt_if_lost(doing):
            session.batch(*changes, COMMIT)
        return outcomes


_WRITES: Mapping[type[Operation], Callable[[Writes, Session, Any], Response]] = {
    PutItem: Writes._one,  # noqa: SLF001 - same class
    UpdateItem: Writes._one,  # noqa: SLF001
    DeleteItem: Writes._one,  # noqa: SLF001
    BatchWriteItem: Writes._batch,  # noqa: SLF001
    TransactWriteItems: Writes._transact,  # noqa: SLF001
}


@dataclass(frozen=True, slots=True)
class _Target:
    """One key of one table."""

    statements: TableStatements
    key_values: tuple[Any, ...]
    key: bytes

    @property
    def table(self) -> str:
        return self.statements.mapping.shape.name

    @property
    def lock_key(self) -> int:
        return lock_key(self.table, self.key)

    @property
    def get(self) -> Statement:
        return self.statements.get, self.key_values

    def change(self, new: Item | None) -> Statement:
        if new is None:
            return self.statements.delete, (*self.key_values, self.table, self.key)
        return self.statements.put, (*self.statements.mapping.encode(new), self.table, self.key)


@contextmanager
def _in_doubt_if_lost(doing: str) -> Iterator[None]:
    try:
        yield
    except CAUGHT as error:
        if fault_of(error) is Fault.LOST or isinstance(error, DeadlinePassed):
            raise unavailable(error, doing, OutcomeUnknown) from None
        raise
