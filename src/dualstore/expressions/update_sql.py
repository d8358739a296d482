"""Updates as SQL over mapped columns: an optimisation that agrees with `update_application`, or is not made.

Whole attributes only: set to a constant, set where there is none, removed, or a number computed from numbers
of the row. What it computes holds of rows where `SqlUpdate.decidable` does and none of whose attributes that
are read is in the overflow; of others it says nothing: the evaluator decides.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal

from dualstore.errors import RequestRejected
from dualstore.expressions.conditions import Attribute, Constant
from dualstore.expressions.paths import Path
from dualstore.expressions.updates import Add, Arithmetic, IfNotExists, Remove, Set, Source, Update
from dualstore.items import PREDECESSOR, STAMP, Item, add_numbers, subtract_numbers

# Two such numbers have a sum of 37 digits at most, and DynamoDB's numbers have 38: it is surely exact there.
_WHOLE_DIGITS = _SCALE = 18
# A stored name or text has these characters otherwise (see `sql`).
_STORED_OTHERWISE = frozenset("\0\1\2")
_HIDDEN = frozenset({STAMP, PREDECESSOR})


@dataclass(frozen=True, slots=True)
class SqlNumber:
    """A column of numbers, each of which it holds as it is.

    Attributes:
        expression: the column of the row, quoted.
        holds: of an SQL number the condition that the column holds it exactly.
    """

    expression: str
    holds: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class SqlUpdate:
    """An update as SQL.

    Attributes:
        constants: what attributes are set to, whatever the row holds.
        defaults: what attributes are set to where the row has none.
        removed: the attributes that are taken away.
        computed: the SQL number that other attributes are set to, of a column at least.
        values: for its placeholders, in their order.
        decidable: the condition that SQL surely computes what the evaluator does; null: it does not.
        reads: the attributes that it reads; a row that has one of them in its overflow is for the evaluator.
    """

    constants: Item
    defaults: Item
    removed: Sequence[str]
    computed: Mapping[str, str]
    values: Sequence[str]
    decidable: str
    reads: Collection[str]


class _NotCompiled(Exception):  # noqa: N818 - control flow within this module
    """There is no SQL here that would surely do the same."""


def compile_update(
    update: Update, columns: Collection[str], numbers: Mapping[str, SqlNumber], *, first: int
) -> SqlUpdate | None:
    """An update as SQL.

    Args:
        update: the update, bound.
        columns: the attributes that have a column.
        numbers: the columns that can be computed with, by attribute.
        first: the number of the first placeholder.

    Returns:
        None where it does not compile: paths into documents, lists, sets, values of other attributes that
            are no numbers, and numbers that are large or fine.
    """
    compiler = _Compiler(columns, numbers, first)
    try:
        for action in update.actions:
            compiler.compile(action)
    except _NotCompiled:
        return None
    return SqlUpdate(
        compiler.constants,
        compiler.defaults,
        compiler.removed,
        compiler.computed,
        compiler.values,
        " AND ".join(compiler.decidable) or "true",
        compiler.reads,
    )


@dataclass(slots=True)
class _Compiler:
    columns: Collection[str]
    numbers: Mapping[str, SqlNumber]
    first: int
    constants: Item = field(default_factory=dict)
    defaults: Item = field(default_factory=dict)
    removed: list[str] = field(default_factory=list)
    computed: dict[str, str] = field(default_factory=dict)
    values: list[str] = field(default_factory=list)
    decidable: list[str] = field(default_factory=list)
    reads: set[str] = field(default_factory=set)

    def compile(self, action: object) -> None:
        match action:
            case Set(path, Constant(value)):
                self.constants[_name(path)] = value
            case Set(path, IfNotExists(Attribute(tested), Constant(value))) if tested == path:
                self.defaults[self._read(path)] = value
            case Set(path, Arithmetic(operator, Constant({"N": left}), Constant({"N": right}))):
                self.constants[_name(path)] = {"N": _result(operator, left, right)}
            case Set(path, Arithmetic() as source):
                self._compute(_name(path), self._number(source))
            case Remove(path):
                self.removed.append(_name(path))
            case Add(path, {"N": text}):
                name = self._read(path)
                self._compute(name, f"({self._or_else(name, '0')} + {self._bind(text)})")
            case _:
                raise _NotCompiled

    def _compute(self, name: str, number: str) -> None:
        column = self.numbers.get(name)
        if column is None:
            raise _NotCompiled
        self.computed[name] = number
        self.decidable.append(column.holds(number))

    def _number(self, source: Source) -> str:
        match source:
            case Constant({"N": text}):
                return self._bind(text)
            case Attribute(path):
                name = self._read(path)
                self.decidable.append(f"{self._column(name)} IS NOT NULL")
                return self._bounded(name)
            case IfNotExists(Attribute(path), Constant({"N": text})):
                return self._or_else(self._read(path), text)
            case Arithmetic(operator, left, right):
                return f"({self._number(left)} {operator} {self._number(right)})"
            case _:
                raise _NotCompiled

    def _or_else(self, name: str, number: str) -> str:
        return f"coalesce({self._bounded(name)}, {self._bind(number)})"

    def _bounded(self, name: str) -> str:
        """A number of the row, known not to be too large or too fine to be computed with."""
        number = f"{self._column(name)}::numeric"
        self.decidable.append(
            f"coalesce(abs({number}) < 1e{_WHOLE_DIGITS} AND scale({number}) <= {_SCALE}, true)"
        )
        return number

    def _column(self, name: str) -> str:
        column = self.numbers.get(name)
        if column is None:
            raise _NotCompiled
        return column.expression

    def _bind(self, number: str) -> str:
        value = Decimal(number)
        exponent = value.as_tuple().exponent  # of a number's one text: it has no zeros behind the point
        if value.adjusted() >= _WHOLE_DIGITS or int(exponent) < -_SCALE:
            raise _NotCompiled
        self.values.append(number)
        return f"${self.first + len(self.values) - 1}::numeric"

    def _read(self, path: Path) -> str:
        name = _name(path)
        if name not in self.columns:
            raise _NotCompiled
        self.reads.add(name)
        return name


def _result(operator: str, left: str, right: str) -> str:
    """What two constants make: PostgreSQL would compute it while it plans, whatever it finds then."""
    try:
        return add_numbers(left, right) if operator == "+" else subtract_numbers(left, right)
    except RequestRejected:
        raise _NotCompiled from None


def _name(path: Path) -> str:
    """The attribute of a path that leads nowhere else."""
    match path:
        case (str(name),) if name and name not in _HIDDEN and _STORED_OTHERWISE.isdisjoint(name):
            with suppress(UnicodeEncodeError):
                name.encode()
                return name
    raise _NotCompiled
