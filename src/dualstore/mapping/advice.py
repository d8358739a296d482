"""What would make a mapping faster or safer, short of an error."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from dualstore.items import Index
from dualstore.mapping.codecs import TYPES, codec_for
from dualstore.mapping.tables import MappedColumn, TableMapping


def column_notes(
    place: str,
    attributes: Mapping[str, tuple[str, bool]],
    columns: Mapping[str, sa.Column[Any]],
    matched: Mapping[str, MappedColumn],
) -> Iterator[str]:
    """Columns that stay NULL, and columns that may refuse an item.

    Args:
        place: what is mapped, for the sentences.
        attributes: the type of each attribute, and whether items may lack it.
        columns: the column of each attribute that has one.
        matched: those of them, apart from the key's, whose types have a codec.
    """
    for name, column in columns.items():
        type_, optional = attributes[name]
        if name in matched and not column.nullable and (optional or not matched[name].total):
            yield (
                f"{place}: column {column.name!r} is NOT NULL, so an item whose {name!r} is missing or does "
                "not fit it cannot be mirrored: make the column nullable"
            )
        elif name not in matched and codec_for(type_, column.type) is None:
            yield (
                f"{place}: column {column.name!r} stays NULL, {name!r} is in the overflow: {column.type!r} "
                f"takes no attribute of type {type_}, which {TYPES.get(type_, 'no column')} would take"
            )


def constraint_notes(place: str, table: sa.Table) -> Iterator[str]:
    """Constraints that the order of mirrored writes can break (DESIGN, replication protocol, rule 9).

    The mirror takes the writes of different keys in any order, so two items may for a moment hold what
    only one of them holds in the end, or a child may come before its parent.
    """
    for constraint in table.constraints:
        if isinstance(constraint, sa.UniqueConstraint) and not constraint.deferrable:
            names = ", ".join(column.name for column in constraint.columns)
            yield (
                f"{place}: UNIQUE ({names}) is checked at once: declare it DEFERRABLE INITIALLY DEFERRED "
                "while the table is a mirror, or leave it out until then"
            )
        elif isinstance(constraint, sa.ForeignKeyConstraint):
            names = ", ".join(column.name for column in constraint.columns)
            yield (
                f"{place}: the foreign key ({names}) refuses children that come before their parents, and a "
                "cascade changes rows that no write asked for: add it once PostgreSQL is authoritative"
            )
    for index in table.indexes:
        if index.unique:
            yield (
                f"{place}: unique index {index.name!r} cannot be deferred: make it a UNIQUE constraint, "
                "DEFERRABLE INITIALLY DEFERRED, while the table is a mirror"
            )


def missing_indexes(mapping: TableMapping, names: Iterable[str]) -> Iterator[str]:
    """The secondary indexes of DynamoDB, of those named, that no index of the SQL table serves.

    Args:
        mapping: of the SQL table.
        names: of the indexes.

    Returns:
        For each, a sentence that says what to add.
    """
    present = [
        [column.name for column in columns]
        for columns in (
            mapping.table.primary_key.columns,
            *(index.columns for index in mapping.table.indexes),
            *(
                constraint.columns
                for constraint in mapping.table.constraints
                if isinstance(constraint, sa.UniqueConstraint)
            ),
        )
    ]
    for name in names:
        yield from _index_advice(mapping, mapping.shape.indexes[name], present)


def _index_advice(mapping: TableMapping, index: Index, present: Sequence[Sequence[str]]) -> Iterator[str]:
    place = f"table {mapping.table.fullname!r}, DynamoDB index {index.name!r}"
    for attribute in index.keys.attributes:
        column = mapping.column_of.get(attribute.name)
        if column is None:
            yield f"{place}: its key attribute {attribute.name!r} has no column: add one"
        elif not (column.total and column.sortable):
            yield (
                f"{place}: column {column.name!r} does not hold every {attribute.type} in DynamoDB's order: "
                'declare it as Text(collation="C"), Numeric or LargeBinary'
            )
    if all(name in mapping.column_of for name in index.keys.names):
        wanted = [mapping.column_of[name].name for name in index.keys.names]
        if not any(columns[: len(wanted)] == wanted for columns in present):
            names = ", ".join(repr(name) for name in wanted)
            yield f"{place}: no SQL index starts with its key: add Index(None, {names})"
