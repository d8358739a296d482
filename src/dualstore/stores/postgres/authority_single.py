"""A PutItem, UpdateItem or DeleteItem of an authority in one round trip: PostgreSQL itself decides.

Two statements of one pipeline, which are one transaction: the key's lock; and one that looks at the row,
decides, and writes over that row or not at all. The lock comes first, in a statement of its own, so the
other one sees all that was done under it (ADR 8). At stage `complete` one statement does both, where the lock
is free (ADR 32). Who takes no lock may come between its look and its write: then it does nothing, and the
write is made in the two round trips of `authority`, as is one whose condition or update has no SQL. What is
answered the evaluator says, of the row that was found.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from dualstore.control import PostgresRole
from dualstore.errors import RequestRejected
from dualstore.expressions import (
    SqlColumn,
    SqlCondition,
    SqlUpdate,
    apply_update,
    compile_condition,
    compile_update,
)
from dualstore.items import MAX_ITEM_SIZE_BYTES, STAMP, Item, Key, item_size_bytes, without_stamps
from dualstore.mapping import TableMapping, Unreadable, quoted
from dualstore.operations import ConditionalWrite, DeleteItem, Operation, PutItem, Response, UpdateItem
from dualstore.stores import semantics
from dualstore.stores.postgres.authority_statements import AuthorityStatements
from dualstore.stores.postgres.exchanges import Answer, Statement, text_array
from dualstore.stores.postgres.row_updates import row_updates, touched
from dualstore.stores.postgres.sent_sizes import most_bytes
from dualstore.stores.postgres.single_statements import (
    ABSENT,
    IDLE,
    REFUSED,
    UNDECIDED,
    SingleStatements,
    verdict,
)
from dualstore.stores.postgres.split_statements import Statements
from dualstore.stores.semantics.capacity import asks_for_capacity, write_units_of

_COMPARED = frozenset({"text", "varchar", "numeric", "int2", "int4", "int8", "bytea", "bool"})
_columns: WeakKeyDictionary[TableMapping, Mapping[str, SqlColumn]] = WeakKeyDictionary()

_Making: TypeAlias = Callable[[bytes], Statement]
"""The statement that carries a write out, under a fresh stamp."""

# An answer that shows what was there is not to be lost with a reply: these are made in two round trips.
_ANSWERED: Mapping[type[Operation], frozenset[str]] = {
    PutItem: frozenset({"NONE"}),
    DeleteItem: frozenset({"NONE"}),
    UpdateItem: frozenset({"NONE", "ALL_NEW", "UPDATED_NEW"}),
}


class Outcome(NamedTuple):
    """What became of a statement.

    Attributes:
        response: what is answered; None: it did nothing, and the write is to be made in another way.
        at_complete: whether the table is at stage `complete`.
    """

    response: Response | None
    at_complete: bool


@dataclass(frozen=True)
class SingleWrite:
    """One PutItem, UpdateItem or DeleteItem, and the statement that carries it out.

    Attributes:
        operation: the write.
        plan: of it.
        mapping: of its table.
        statement: what makes of the row what is asked for, under a fresh stamp, where that may be.
    """

    operation: ConditionalWrite
    plan: semantics.WritePlan
    mapping: TableMapping
    statement: _Making

    def expect(self) -> None:
        """Make the answer that most writes have, while PostgreSQL is at it."""
        tells_nothing_else = self.operation.return_values == "NONE"
        if tells_nothing_else and asks_for_capacity(self.operation.request) and self._may_cost_no_more:
            self._of_nothing  # noqa: B018 - is kept

    def outcome(self, answer: Answer) -> Outcome:
        """What was answered, or that the write must be made in another way: it has done nothing.

        Args:
            answer: of the statement.

        Raises:
            RequestRejected: the condition does not hold.
            Unreadable: no item can be made of the row that was found; the write may have been carried out.
        """
        revision, role, found, receipt, is_done = answer.texts(self._columns)
        if role != PostgresRole.AUTHORITY:
            return Outcome(None, at_complete=False)
        row = None if revision is None else answer
        response = None
        if is_done == "t" or found == IDLE:
            response = self._answered(row)
        elif found == REFUSED:
            self.plan.decide([self._old(row)])  # refuses, as every store does
        return Outcome(response, at_complete=receipt is not None)

    def _answered(self, row: Answer | None) -> Response:
        """The answer of a write that has been carried out, which no error of ours may make a refusal of."""
        operation, shape = self.operation, self.mapping.shape
        if operation.return_values == "NONE":
            if not asks_for_capacity(operation.request):
                return {}
            if self._costs_no_more_for(row):
                return self._of_nothing
        try:
            return semantics.answered(operation, shape, self._old(row))
        except RequestRejected:
            raise Unreadable("a row that was written over is none that an item is made of") from None

    def _costs_no_more_for(self, row: Answer | None) -> bool:
        """Whether a put or a deletion consumes what it would if nothing had been there.

        Most items are small: then the row need not be made an item of.
        """
        operation, mapping = self.operation, self.mapping
        if row is None or not self._may_cost_no_more:
            return False
        most = most_bytes(mapping, row.sizes_bytes(self._columns))
        new = operation.stored.size_bytes if isinstance(operation, PutItem) else 0
        return most is not None and write_units_of(most) <= write_units_of(new)

    @property
    def _may_cost_no_more(self) -> bool:
        # What an index consumes depends on what it held.
        return not (isinstance(self.operation, UpdateItem) or self.mapping.shape.indexes)

    @cached_property
    def _of_nothing(self) -> Response:
        """The answer where nothing was there."""
        return semantics.answered(self.operation, self.mapping.shape, None)

    def _old(self, row: Answer | None) -> Item | None:
        if row is None:
            return None
        ((*answer,),) = row.rows
        return without_stamps(self.mapping.decode(answer[: self._columns]))

    @property
    def _columns(self) -> int:
        return len(self.mapping.column_names)

    def repeated(self, item: Item | None) -> Response | None:
        """The answer where the reply was lost: that of a repetition, which is what AWS's own clients give.

        Args:
            item: what the write has made, where it is still there.

        Returns:
            None where the answer is lost with it.
        """
        shape, operation = self.mapping.shape, self.operation
        match operation:
            case PutItem():
                return semantics.repeated(operation, shape, operation.stored.item)
            case UpdateItem():
                if item is None and operation.return_values != "NONE":
                    return None
                return semantics.repeated(operation, shape, item or operation.key)
        return semantics.answered(operation, shape, None)


def single_write(
    operation: Operation,
    plan: semantics.WritePlan,
    statements: Statements,
    *,
    key: bytes,
    epoch: str,
    lock: Sequence[str] = (),
) -> SingleWrite | None:
    """How an operation is carried out in one round trip, or None where it cannot be.

    It can where one row of one SQL table decides and changes, and where its answer does not depend on what
    was there, should the reply be lost.

    Args:
        operation: the operation.
        plan: of it, of one write.
        statements: of its table.
        key: the key's bytes.
        epoch: of the table.
        lock: the key's advisory lock, and for how many ms to wait for the row, where the statement is to take
            the lock itself, as it can at stage `complete`; empty: a statement before does.
    """
    if not isinstance(operation, PutItem | UpdateItem | DeleteItem):
        return None
    if not isinstance(statements, AuthorityStatements):
        return None
    if plan.collections or operation.return_values not in _ANSWERED[type(operation)]:
        return None
    its = statements.locking if lock else statements.single
    write = _Write(operation, plan.keys[0], statements.mapping, its, (operation.table, epoch, key, *lock))
    making = _MAKING[type(operation)](write)
    return None if making is None else SingleWrite(operation, plan, statements.mapping, making)


class _Write(NamedTuple):
    """A write on its way to its statement.

    Attributes:
        operation: the write.
        key: its key, normalised.
        mapping: of its table.
        statements: of its table.
        fence: the values by which its statement finds the epoch and the key's bookkeeping, and the lock's.
    """

    operation: Any
    key: Key
    mapping: TableMapping
    statements: SingleStatements
    fence: Sequence[Any]

    def condition(self, *, first: int) -> SqlCondition | None:
        """Its condition as SQL; None where there is no such SQL."""
        if self.operation.condition is None:
            return _NO_CONDITION
        return compile_condition(self.operation.condition, sql_columns(self.mapping), first=first)

    def decided(
        self, where: Callable[[str], str], anyway: str, *, first: int, nothing: str
    ) -> tuple[str, Sequence[Any]] | None:
        """The statement that is carried out where the condition holds, and the condition's values.

        Args:
            where: makes it of a verdict.
            anyway: the statement without a condition.
            first: the number of the first placeholder of a condition.
            nothing: the verdict where there is no row and the condition holds of that.

        Returns:
            None where there is no such SQL.
        """
        if self.operation.condition is None:
            return anyway, ()
        condition = self.condition(first=first)
        if condition is None:
            return None
        attributes = f"${first + len(condition.values)}"
        nothing = nothing if condition.holds_of_nothing else REFUSED
        text = where(verdict(condition.holds, attributes, nothing=nothing))
        return text, (*condition.values, text_array(condition.attributes))


_NO_CONDITION = SqlCondition("true", (), (), holds_of_nothing=True)


def _putting(write: _Write) -> _Making | None:
    statements = write.statements
    decided = write.decided(
        statements.put_where, statements.put_anyway, first=statements.first_of_put, nothing=ABSENT
    )
    if decided is None:
        return None
    (text, values), encode, item = decided, write.mapping.encode, write.operation.stored.item
    return lambda stamp: (text, (*encode({**item, STAMP: {"B": stamp}}), *write.fence, *values))


def _removing(write: _Write) -> _Making | None:
    statements = write.statements
    decided = write.decided(
        statements.remove_where, statements.remove_anyway, first=statements.first_of_remove, nothing=IDLE
    )
    if decided is None:
        return None
    (text, values), key = decided, write.mapping.encode_key(write.key)
    return lambda stamp: (text, (*key, *write.fence, stamp.hex(), *values))


def _updating(write: _Write) -> _Making | None:
    statements, mapping, first = write.statements, write.mapping, write.statements.first_of_put
    rows = row_updates(mapping)
    condition = write.condition(first=first)
    if condition is None or write.operation.update is None:
        return None
    after = first + len(condition.values)
    update = compile_update(write.operation.update, mapping.column_of, rows.numbers, first=after)
    if update is None:
        return None
    item, nothing = _made(write, update)
    size = item_size_bytes(item)
    room, row = rows.room(size), mapping.encode(item)
    if room is None or size > MAX_ITEM_SIZE_BYTES or not _is_sound(mapping, item, row, update):
        return None
    attributes, names, most = (f"${after + len(update.values) + n}" for n in range(3))
    decided = verdict(
        condition.holds,
        attributes,
        nothing=nothing if condition.holds_of_nothing else REFUSED,
        decidable=f"{update.decidable} AND {rows.readable} AND {rows.sound} AND {room[0]} <= {most}::bigint",
    )
    text = statements.put_where(decided, rows.assignments(update, names))
    reads = text_array([*condition.attributes, *update.reads, *rows.watched])
    changed = text_array(touched(update))
    values = (*write.fence, *condition.values, *update.values, reads, changed, str(room[1]))
    return lambda stamp: (text, (*row[:-1], stamp, *values))


_MAKING: Mapping[type[Operation], Callable[[_Write], _Making | None]] = {
    PutItem: _putting,
    UpdateItem: _updating,
    DeleteItem: _removing,
}


def _made(write: _Write, update: SqlUpdate) -> tuple[Item, str]:
    """What an update makes of nothing, or what it sets at least; and the verdict where there is no row."""
    item = {**write.key, **update.defaults, **update.constants}
    if not update.computed:
        return item, ABSENT if update.defaults or update.constants else IDLE
    try:
        return {**item, **apply_update(write.operation.update, write.key, is_new=True)}, ABSENT
    except RequestRejected:  # it needs an item
        return item, UNDECIDED


def _is_sound(mapping: TableMapping, item: Item, row: Sequence[Any], update: SqlUpdate) -> bool:
    """Whether what an update sets may be in the table's indexes, and what is not constant in its column."""
    try:
        mapping.shape.check_keys(item)
    except RequestRejected:
        return False
    named = {*update.defaults, *update.computed} & item.keys()
    return all(
        stored is not None
        for column, stored in zip(mapping.columns, row, strict=False)
        if column.attribute in named
    )


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
