"""A PutItem or DeleteItem of an authority in one round trip: PostgreSQL itself decides the condition.

Two statements of one pipeline, which are one transaction: the key's lock; and one that looks at the row,
decides, and writes over that row or not at all. The lock comes first, in a statement of its own, so the
other one sees all that was done under it (ADR 8). Who takes no lock may come between its look and its write:
then it does nothing, and the write is made in the two round trips of `authority`, as is one whose condition
has no SQL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from dualstore.control import PostgresRole
from dualstore.expressions import SqlColumn, compile_condition
from dualstore.items import STAMP, without_stamps
from dualstore.mapping import TableMapping, quoted
from dualstore.operations import DeleteItem, Operation, PutItem, Response
from dualstore.stores import semantics
from dualstore.stores.postgres.authority_statements import (
    ABSENT,
    REFUSED,
    AuthorityStatements,
    verdict,
)
from dualstore.stores.postgres.exchanges import Row, Statement
from dualstore.stores.postgres.split_statements import Statements

_COMPARED = frozenset({"text", "varchar", "numeric", "int2", "int4", "int8", "bytea", "bool"})
_columns: WeakKeyDictionary[TableMapping, Mapping[str, SqlColumn]] = WeakKeyDictionary()


@dataclass(frozen=True)
class SingleWrite:
    """One PutItem or DeleteItem, and the statement that carries it out.

    Attributes:
        operation: the write.
        plan: of it.
        statements: of its table.
        text: the statement's.
        decisive: the values of its verdict.
        key_values: the key's columns.
        key: the key's bytes.
        epoch: of the table.
    """

    operation: PutItem | DeleteItem
    plan: semantics.WritePlan
    statements: AuthorityStatements
    text: str
    decisive: Sequence[Any]
    key_values: Sequence[Any]
    key: bytes
    epoch: str

    def statement(self, stamp: bytes) -> Statement:
        """What makes of the row what is asked for, under a fresh stamp, where that may be."""
        fence = (self.operation.table, self.epoch, self.key)
        if isinstance(self.operation, DeleteItem):
            return self.text, (*self.key_values, *fence, stamp.hex(), *self.decisive)
        item = {**(self._upon_nothing.new_item or {}), STAMP: {"B": stamp}}
        return self.text, (*self.statements.mapping.encode(item), *fence, *self.decisive)

    def response(self, answer: Row) -> Response | None:
        """What was answered, or None where the write must be made in another way: it has done nothing.

        Args:
            answer: of the statement.

        Raises:
            RequestRejected: the condition does not hold.
        """
        *stored, revision, role, found, is_done = answer
        if role != PostgresRole.AUTHORITY:
            return None
        if revision is None and (is_done or (found == ABSENT and isinstance(self.operation, DeleteItem))):
            return self._upon_nothing.response
        old = None if revision is None else without_stamps(self.statements.mapping.decode(stored))
        if is_done:
            return semantics.carried_out(self.operation, self.statements.mapping.shape, old).response
        if found == REFUSED:
            self.plan.decide([old])  # refuses, as every store does
        return None

    def repeated(self) -> Response:
        """The answer where the reply was lost: that of a repetition, which is what AWS's own clients give."""
        item = self._upon_nothing.new_item
        return semantics.carried_out(self.operation, self.statements.mapping.shape, item).response

    @cached_property
    def _upon_nothing(self) -> semantics.Written:
        """The outcome where there is no row."""
        return semantics.carried_out(self.operation, self.statements.mapping.shape, None)


def single_write(
    operation: Operation, plan: semantics.WritePlan, statements: Statements, *, key: bytes, epoch: str
) -> SingleWrite | None:
    """How an operation is carried out in one round trip, or None where it cannot be.

    It can where one row of one SQL table decides and changes, and where its answer, should the reply be lost,
    does not depend on what was there.

    Args:
        operation: the operation.
        plan: of it, of one write.
        statements: of its table.
        key: the key's bytes.
        epoch: of the table.
    """
    if not isinstance(operation, PutItem | DeleteItem) or not isinstance(statements, AuthorityStatements):
        return None
    if plan.collections or operation.return_values != "NONE":
        return None
    written = _statement(operation, statements)
    if written is None:
        return None
    text, decisive = written
    key_values = statements.mapping.encode_key(plan.keys[0])
    return SingleWrite(operation, plan, statements, text, decisive, key_values, key, epoch)


def _statement(
    operation: PutItem | DeleteItem, statements: AuthorityStatements
) -> tuple[str, Sequence[Any]] | None:
    """The statement of a write, and the values of its verdict; None where there is none."""
    is_put = isinstance(operation, PutItem)
    if operation.condition is None:
        return (statements.put_anyway if is_put else statements.remove_anyway), ()
    first = statements.first_of_put if is_put else statements.first_of_remove
    compiled = compile_condition(operation.condition, sql_columns(statements.mapping), first=first)
    if compiled is None:
        return None
    attributes = f"${first + len(compiled.values)}"
    decided = verdict(compiled.holds, attributes, holds_of_nothing=compiled.holds_of_nothing)
    text = statements.put_where(decided) if is_put else statements.remove_where(decided)
    return text, (*compiled.values, compiled.attributes)


def sql_columns(mapping: TableMapping) -> Mapping[str, SqlColumn]:
    """The columns of a table for `compile_condition`, of the row `t`."""
    found = _columns.get(mapping)
    if found is None:
        found = _columns[mapping] = {
            column.attribute: SqlColumn(
                f"t.{quoted(column.name)}",
                column.type,
                comparable=column.codec.pg_type in _COMPARED
                and not column.codec.cast
                and column.codec.read_as is None,
            )
            for column in mapping.columns
        }
    return found
