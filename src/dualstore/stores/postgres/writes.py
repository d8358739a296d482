"""PutItem, UpdateItem, DeleteItem, BatchWriteItem and TransactWriteItems on tables that nobody mirrors.

No stamp, no epoch, no outbox: the plain store, of which `authority` is the replicated form.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dualstore.errors import OutcomeUnknown
from dualstore.items import Item, Key, key_bytes
from dualstore.operations import ConditionalWrite, Operation, Response
from dualstore.stores import semantics
from dualstore.stores.postgres.authority_statements import KNOWN_TOKEN, REMEMBER_TOKEN
from dualstore.stores.postgres.catalog import Catalog, lock_key
from dualstore.stores.postgres.collections import size_statements, sizes_bytes
from dualstore.stores.postgres.deadlines import DeadlinePassed
from dualstore.stores.postgres.exchanges import Row, Statement
from dualstore.stores.postgres.faults import CAUGHT, Fault, fault_of, unavailable
from dualstore.stores.postgres.sessions import BEGIN, COMMIT, Session, Sessions
from dualstore.stores.postgres.split_statements import Statements


@dataclass(frozen=True)
class Writes:
    """The operations that write, each one transaction in two round trips.

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
        plan = semantics.plan_write(operation, self.catalog)
        targets = [self._target(write, key) for write, key in zip(plan.writes, plan.keys, strict=True)]
        known, sizes, found = self._read(session, plan, targets)
        olds = [
            target.statements.mapping.decode(rows[0]) if rows else None
            for target, rows in zip(targets, found, strict=True)
        ]
        if known:
            plan.check_repetition(known[0][0])
            return plan.respond_again(olds)
        outcomes = plan.decide(olds)
        changes = [
            target.change(outcome.new_item)
            for target, outcome, old in zip(targets, outcomes, olds, strict=True)
            if outcome.new_item is not old
        ]
        if plan.token is not None:
            changes.append((REMEMBER_TOKEN, (plan.token, plan.digest)))
        with _in_doubt_if_lost(operation.name):
            session.batch(*changes, COMMIT)
        response = plan.respond(outcomes)
        semantics.tell_collections(response, operation, plan.collections, sizes)
        return response

    def _read(
        self, session: Session, plan: semantics.WritePlan, targets: Sequence["_Target"]
    ) -> tuple[list[Row], list[int], list[list[Row]]]:
        """Lock and read: what is known of the token, the sizes that were asked for, what the keys hold."""
        locks = [target.lock_key for target in targets]
        asked: list[Statement] = []
        if plan.token is not None:
            locks.append(lock_key("", plan.token.encode()))
            asked.append((KNOWN_TOKEN, (plan.token,)))
        asked += size_statements(self.catalog, plan.collections)
        lock = self.sessions.lock(*locks, writer="plain")
        _, _, *answers = session.batch(BEGIN, lock, *asked, *(target.get for target in targets))
        told, found = answers[: len(asked)], answers[len(asked) :]
        known = told.pop(0) if plan.token is not None else []
        return known, sizes_bytes(self.catalog, plan.collections, told), found

    def _target(self, write: ConditionalWrite, key: Key) -> "_Target":
        statements = self.catalog.statements(write.table)
        keys = statements.mapping.shape.keys
        return _Target(statements, statements.mapping.encode_key(key), key_bytes(keys, key))


@dataclass(frozen=True, slots=True)
class _Target:
    """One key of one table."""

    statements: Statements
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
        writing = self.statements.writing(new)
        return writing.put, (*writing.mapping.encode(new), self.table, self.key)


@contextmanager
def _in_doubt_if_lost(doing: str) -> Iterator[None]:
    try:
        yield
    except CAUGHT as error:
        if fault_of(error) is Fault.LOST or isinstance(error, DeadlinePassed):
            raise unavailable(error, doing, OutcomeUnknown) from None
        raise
