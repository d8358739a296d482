"""What columns count for in the size of a row's item, as SQL: it agrees with `items`, or says nothing.

`items.item_size_bytes` is the rule. Most columns tell what their attribute counts for without being decoded,
and binary without being fetched from where PostgreSQL keeps what is large. Documents, sets, floats, the
overflow, and what a team's own functions made do not: those are decoded.
"""

from collections.abc import Callable, Collection, Mapping
from functools import partial

import sqlalchemy as sa

from dualstore.items import STAMP
from dualstore.mapping import OVERFLOW_COLUMN, STAMP_COLUMN, MappedColumn, TableMapping, escape, quoted
from dualstore.mapping.codecs import actual_type
from dualstore.stores.postgres.row_updates import READABLE_MOMENTS
from dualstore.stores.postgres.trigger_functions import literal

_Sized = Callable[[str], str]
"""From the SQL of a value to the SQL of its size, which is null where the item itself has to be asked."""
_FLAG_BYTES, _UUID_BYTES, _DAY_BYTES, _UTC_TEXT_BYTES = 1, 36, 10, 31


def telling(mapping: TableMapping) -> list[MappedColumn]:
    """The columns that tell what their attributes count for."""
    return [column for column in mapping.columns if _sized(column) is not None]


def size_sql(columns: Collection[MappedColumn], *, stamped: bool) -> str:
    """What some columns of the row `t` count for, names included, in bytes, as `bigint`.

    Null where that is for the item to tell: where a text has U+0000 or U+0001, a number may have more than 38
    digits, no item is made of a value, or an attribute is in its column and in the overflow as well.

    Args:
        columns: columns that are `telling`.
        stamped: whether the stamp counts.
    """
    values = {column.attribute: f"t.{quoted(column.name)}" for column in columns}
    sizes = ["0::bigint", *map(_attribute, columns)]
    if stamped:
        values[STAMP] = stamp = f"t.{quoted(STAMP_COLUMN)}"
        sizes.append(f"coalesce({len(STAMP)} + octet_length({stamp}), 0)")
    return " + ".join([*sizes, _nothing_twice(values)])


def _attribute(column: MappedColumn) -> str:
    """What the attribute of a column counts for: its name and its value."""
    value, sized = f"t.{quoted(column.name)}", _sized(column)
    if sized is None:
        raise AssertionError("the column does not tell its size")
    name_bytes = len(column.attribute.encode())
    return f"CASE WHEN {value} IS NULL THEN 0 ELSE {name_bytes} + {sized(value)} END"


def _nothing_twice(values: Mapping[str, str]) -> str:
    """0 where none of the attributes that have a value is in the overflow as well, else null."""
    overflow = f"t.{quoted(OVERFLOW_COLUMN)}"
    names = ", ".join(
        f"CASE WHEN {value} IS NOT NULL THEN {literal(escape(attribute))} END"
        for attribute, value in values.items()
    )
    return f"CASE WHEN {overflow} IS NULL THEN 0 WHEN NOT {overflow} ?| ARRAY[{names}]::text[] THEN 0 END"


def _sized(column: MappedColumn) -> _Sized | None:
    codec, type_ = column.codec, actual_type(column.column.type)
    if codec.converted:
        return None
    if isinstance(type_, sa.Enum):
        return partial(_label, {label: len(codec.decode(label).encode()) for label in type_.enums})
    return _SIZED.get((codec.type, codec.pg_type))


def _label(sizes_bytes: Mapping[str, int], value: str) -> str:
    cases = " ".join(f"WHEN {literal(label)} THEN {size}" for label, size in sizes_bytes.items())
    return f"CASE {value}::text {cases} END"


def _text(value: str) -> str:
    # U+0000 and U+0001 are stored as two characters each, of which U+0001 is the first.
    return f'CASE WHEN position(chr(1) IN ({value}::text COLLATE "C")) = 0 THEN octet_length({value}) END'


def _digits(value: str) -> str:
    """A byte, and one for two digits from the first to the last that is not 0; one more below 0."""
    digits = f"length(replace(btrim({value}::text, '-0.'), '.', ''))"
    return f"(1 + ({digits} + 1) / 2 + ({value} < 0)::integer)"


def _number(value: str) -> str:
    # Such a number has 38 digits at most. NaN and infinity are greater than all numbers.
    return f"CASE WHEN abs({value}) < 1e19 AND scale({value}) <= 19 THEN {_digits(value)} END"


def _constant(size_bytes: int, value: str) -> str:  # noqa: ARG001 - all values are so large
    return str(size_bytes)


def _moment(pg_type: str, sized: _Sized, value: str) -> str:
    """Of moments that can be read; what others there are no item is made of."""
    earliest, latest = (f"{pg_type} {literal(moment)}" for moment in READABLE_MOMENTS[pg_type])
    return f"CASE WHEN {value} BETWEEN {earliest} AND {latest} THEN {sized(value)} END"


def _epoch(value: str) -> str:
    return _digits(f"extract(epoch FROM {value})")


_SIZED: Mapping[tuple[str, str], _Sized] = {
    ("S", "text"): _text,
    ("S", "varchar"): _text,
    ("S", "uuid"): partial(_constant, _UUID_BYTES),
    ("S", "date"): partial(_moment, "date", partial(_constant, _DAY_BYTES)),
    ("S", "timestamp"): partial(_moment, "timestamp", partial(_constant, _UTC_TEXT_BYTES)),
    ("S", "timestamptz"): partial(_moment, "timestamptz", partial(_constant, _UTC_TEXT_BYTES)),
    ("N", "numeric"): _number,
    ("N", "int2"): _digits,
    ("N", "int4"): _digits,
    ("N", "int8"): _digits,
    ("N", "timestamp"): partial(_moment, "timestamp", _epoch),
    ("N", "timestamptz"): partial(_moment, "timestamptz", _epoch),
    ("B", "bytea"): "octet_length({})".format,
    ("BOOL", "bool"): partial(_constant, _FLAG_BYTES),
}
"""By the DynamoDB type and psycopg's name of the column's."""
