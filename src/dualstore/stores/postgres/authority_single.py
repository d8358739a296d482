"""A PutItem or DeleteItem of an authority in one round trip: PostgreSQL itself decides the condition.

Three statements of one pipeline, which are one transaction: the key's lock; a look at the row, which names
in a setting of the transaction the revision that may be written over; and a write that touches no other. The
lock comes first, in a statement of its own, so both others see all that was done under it (ADR 8). Who
takes no lock may come between them, and then the revision is another: the write does nothing, and is made in
the two round trips of `authority`, as is one whose condition has no SQL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from dualstore.control import PostgresRole
from dualstore.expressions import SqlColumn, compile_condition
from dualstore.items import STAMP, Item, without_stamps
from dualstore.mapping import TableMapping, quoted
from dualstore.operations import ConditionalWrite, DeleteItem, Operation, PutItem, Response
from dualstore.stores import semantics
from dualstore.stores.postgres.authority_statements import ABSENT, REFUSED, AuthorityStatements
from dualstore.stores.postgres.sessions import Row, Statement
from dualstore.stores.postgres.split_statements import Statements

_COMPARED = frozenset({"text", "varchar", "numeric", "int2", "int4", "int8", "bytea", "bool"})
_columns: WeakKeyDictionary[TableMapping, Mapping[str, SqlColumn]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class SingleWrite:
    """One PutItem or DeleteItem, and the statements that carry it out.

    Attributes:
        operation: the write.
        plan: of it.
        statements: of its table.
        look: reads what is there, and decides.
        key_values: the key's columns.
        key: the key's bytes.
        epoch: of the table.
    """

    operation: PutItem | DeleteItem
    plan: semantics.WritePlan
    statements: AuthorityStatements
    look: Statement
    key_values: Sequence[Any]
    key: bytes
    epoch: str

    def write(self, stamp: bytes) -> Statement:
        """What makes of the row what is asked for, under a fresh stamp."""
        statements, fence = self.statements, (self.operation.table, self.epoch, self.key)
        if isinstance(self.operation, DeleteItem):
            return statements.remove_seen, (*self.key_values, *fence, stamp.hex())
        item = {**self._written(None), STAMP: {"B": stamp}}
        return statements.put_seen, (*statements.mapping.encode(item), *fence)

    def response(self, looked: Row, written: Row) -> Response | None:
        """The answer, or None where the write must be made in another way: it has done nothing.

        Args:
            looked: what `look` answered.
            written: what `write` answered.

        Raises:
            RequestRejected: the condition does not hold.
        """
        *stored, revision, role, seen = looked
        if role != PostgresRole.AUTHORITY:
            return None
        old = None if revision is None else without_stamps(self.statements.mapping.decode(stored))
        if written[0] or (seen == ABSENT and isinstance(self.operation, DeleteItem)):
            return self._outcome(old).response
        if seen == REFUSED:
            self.plan.decide([old])  # refuses, as every store does
        return None

    def repeated(self) -> Response:
        """The answer where the reply was lost: that of a repetition, which is what AWS's own clients give."""
        return self._outcome(self._written(None) or None).response

    def _written(self, old: Item | None) -> Item:
        return self._outcome(old).new_item or {}

    def _outcome(self, old: Item | None) -> semantics.Written:
        return semantics.carried_out(self.operation, self.statements.mapping.shape, old)


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
    key_values = statements.mapping.encode_key(plan.keys[0])
    look = _look(operation, statements, (*key_values, operation.table, epoch))
    return None if look is None else SingleWrite(operation, plan, statements, look, key_values, key, epoch)


def _look(
    operation: ConditionalWrite, statements: AuthorityStatements, values: Sequence[Any]
) -> Statement | None:
    if operation.condition is None:
        return statements.look_at_any, values
    compiled = compile_condition(operation.condition, sql_columns(statements.mapping), first=len(values) + 1)
    if compiled is None:
        return None
    first = len(values) + len(compiled.values) + 1
    look = statements.look(compiled.holds, first, holds_of_nothing=compiled.holds_of_nothing)
    return look, (*values, *compiled.values, compiled.attributes)


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
