"""How large an item is at most, by the lengths in which PostgreSQL has sent its row."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul
from weakref import WeakKeyDictionary

from dualstore.mapping import MappedColumn, TableMapping
from dualstore.stores.postgres.row_updates import largest_bytes

# What was sent of a text and of bytes is never shorter: U+0000 to U+0002 are escaped, bytes are hexadecimal.
# Nor is that of a set: a number counts for a byte more than it says at most, which the comma makes up for.
# In a list each element counts for one more, and the list for three.
_ONCE = ("text", "varchar", "bytea", "numeric", "int2", "int4", "int8", "float4", "float8")
# A document counts for at most twice its text, since an element counts for a byte more than it says.
_TWICE = ("json", "jsonb")
_TIMES = {
    **dict.fromkeys(_TWICE, 2),
    **dict.fromkeys(_ONCE, 1),
    **dict.fromkeys((f"{member}[]" for member in _ONCE), 1),
}
_OVERFLOW_AND_STAMP = (2, 0)


@dataclass(frozen=True, slots=True)
class _Bound:
    """What the rows of one table count for at most.

    Attributes:
        shared_bytes: each of them, for names and for values that are short.
        times: how often the length of each column counts, in the order of `TableMapping.column_names`.
    """

    shared_bytes: int
    times: Sequence[int]


def most_bytes(mapping: TableMapping, sent_bytes: Sequence[int] | None) -> int | None:
    """The bytes that a row's item counts for at most, its stamp aside.

    Args:
        mapping: of the table.
        sent_bytes: how long the columns are, as `TableMapping.read_expressions` reads them; None: not known.

    Returns:
        None where nobody can say.
    """
    bound = _bounds.get(mapping, _UNSEEN)
    if bound is _UNSEEN:
        bound = _bounds[mapping] = _bound_of(mapping)
    if bound is None or sent_bytes is None:
        return None
    told_bytes: int = sum(map(mul, bound.times, sent_bytes))
    return bound.shared_bytes + told_bytes


_UNSEEN = _Bound(0, ())
_bounds: WeakKeyDictionary[TableMapping, _Bound | None] = WeakKeyDictionary()


def _bound_of(mapping: TableMapping) -> _Bound | None:
    shared, times = 0, []
    for column in mapping.columns:
        known = _known(column)
        if known is None:
            return None
        shared += len(column.attribute.encode()) + known[0]
        times.append(known[1])
    return _Bound(shared, (*times, *_OVERFLOW_AND_STAMP))


def _known(column: MappedColumn) -> tuple[int, int] | None:
    """What a column's values count for whatever was sent, and how often what was sent counts."""
    if column.codec.converted:
        return None
    largest = largest_bytes(column)
    if largest is not None:
        return largest, 0
    often = _TIMES.get(column.codec.pg_type)
    if often is None:
        return None
    return (0, 2 * often) if column.type == "L" and column.codec.pg_type.endswith("[]") else (0, often)
