"""Mappings made from a PynamoDB model and a SQLAlchemy model, or from a table's shape alone.

Everything that can be wrong is found here, before any I/O, and the message says how to mend it.
"""

from collections.abc import Iterator, Mapping
from inspect import getmembers
from typing import Any

import sqlalchemy as sa
from pynamodb.attributes import Attribute, TTLAttribute
from pynamodb.indexes import GlobalSecondaryIndex
from pynamodb.indexes import Index as ModelIndex
from pynamodb.models import Model
from sqlalchemy.exc import NoInspectionAvailable
from sqlalchemy.orm import Mapper

from dualstore.errors import MappingError
from dualstore.items import (
    PREDECESSOR,
    STAMP,
    Index,
    KeyAttribute,
    KeySchema,
    Projection,
    TableShape,
)
from dualstore.mapping.advice import column_notes, constraint_notes
from dualstore.mapping.codecs import Codec, codec_for
from dualstore.mapping.converters import converted
from dualstore.mapping.rows import BOOKKEEPING_COLUMNS, bookkeeping_columns
from dualstore.mapping.tables import BYTEWISE, MappedColumn, TableMapping

_KEY_TYPES: dict[str, tuple[sa.types.TypeEngine[Any], str]] = {
    "S": (sa.Text(collation="C"), 'Text(collation="C")'),
    "N": (sa.Numeric(), "Numeric"),
    "B": (sa.LargeBinary(), "LargeBinary"),
}
_PROJECTIONS: dict[str, Projection] = {"ALL": "ALL", "KEYS_ONLY": "KEYS_ONLY"}
_IDENTIFIER_SIZE_BYTES = 63


def shape_of_model(model: type[Model]) -> TableShape:
    """The shape of a PynamoDB model's table.

    Raises:
        MappingError: the model names no table or has no hash key.
    """
    name = getattr(model.Meta, "table_name", None)
    if not isinstance(name, str):
        raise MappingError(f"{model.__name__}.Meta has no table_name: set it before the model is mapped")
    keys = _key_schema(model.__name__, model.get_attributes())
    indexes = (index for _, index in getmembers(model, lambda member: isinstance(member, ModelIndex)))
    return TableShape(name, keys, {index.Meta.index_name: _index(model.__name__, index) for index in indexes})


def _key_schema(owner: str, attributes: Mapping[str, Attribute[Any]]) -> KeySchema:
    keys = {
        role: KeyAttribute(attribute.attr_name, attribute.attr_type)  # type: ignore[arg-type]  # DynamoDB: S, N, B
        for attribute in attributes.values()
        for role in ("is_hash_key", "is_range_key")
        if getattr(attribute, role)
    }
    if "is_hash_key" not in keys:
        raise MappingError(f"{owner} has no hash key: give one of its attributes hash_key=True")
    return KeySchema(keys["is_hash_key"], keys.get("is_range_key"))


def _index(owner: str, index: ModelIndex[Any]) -> Index:
    meta = index.Meta
    projection: str = meta.projection.projection_type
    return Index(
        name=meta.index_name,
        keys=_key_schema(f"{owner}, index {meta.index_name!r}", meta.attributes),
        projection=_PROJECTIONS.get(projection) or tuple(meta.projection.non_key_attributes),
        is_global=isinstance(index, GlobalSecondaryIndex),
    )


def map_table(logical_name: str, model: type[Model], row: type[Any]) -> TableMapping:
    """Map a PynamoDB model to a SQLAlchemy model.

    An attribute belongs to the column that names it in `mapped_column(..., info={"dynamodb": "name"})`,
    else to the one whose ORM attribute has the name of the PynamoDB attribute, else to the one whose
    ORM attribute has the attribute's name in DynamoDB. `info={"dynamodb": None}` keeps a column out. What a
    column holds can be what a `Converter` makes of the attribute, `info={"converter": ...}`.
    Attributes without a column, or whose types have no codec, live in the overflow.

    Args:
        logical_name: the table's name in flags, configuration and metrics.
        model: the PynamoDB model.
        row: the SQLAlchemy model, with the mixin `Mirrored`.

    Raises:
        MappingError: `row` cannot hold every item of the table; the message says what to change.
    """
    shape = shape_of_model(model)
    mapper = _mapper(row)
    table = mapper.local_table
    if not isinstance(table, sa.Table):
        raise MappingError(f"{row.__name__} is not mapped to a table: map it to one with __tablename__")
    place = f"{row.__name__} (table {table.fullname!r}) for {model.__name__}"
    missing = [name for name in BOOKKEEPING_COLUMNS if name not in table.columns]
    if missing:
        raise MappingError(
            f"{place}: columns {', '.join(missing)} are missing: "
            f"write `class {row.__name__}(Mirrored, …)` with dualstore.mapping.Mirrored"
        )
    attributes = {attribute.attr_name: attribute for attribute in model.get_attributes().values()}
    for reserved in (STAMP, PREDECESSOR):
        if reserved in attributes:
            raise MappingError(f"{place}: attribute {reserved!r} is dualstore's own; rename the model's")
    columns = dict(_matches(place, model, mapper))
    matched = {
        attribute: MappedColumn(attribute, column, codec)
        for attribute, column in columns.items()
        if (codec := _codec(place, attributes[attribute], column)) is not None
    }
    _check_keys(place, shape, table, columns, matched)
    _check_columns(place, table, [mapped.column for mapped in matched.values()])
    keys = tuple(matched.pop(name) for name in shape.keys.names)
    types = {name: (attribute.attr_type, bool(attribute.null)) for name, attribute in attributes.items()}
    notes = (*column_notes(place, types, columns, matched), *constraint_notes(place, table))
    return TableMapping(logical_name, shape, table, keys + tuple(matched.values()), notes)


def _codec(place: str, attribute: Attribute[Any], column: sa.Column[Any]) -> Codec | None:
    if "converter" not in column.info:
        return codec_for(attribute.attr_type, column.type)
    at = f"{place}: column {column.name!r}"
    if isinstance(attribute, TTLAttribute):
        raise MappingError(
            f"{at}: PostgreSQL must see when an item expires, and cannot behind a converter: leave it out, "
            "and declare the column as BigInteger, Numeric or DateTime"
        )
    return converted(column.info["converter"], attribute.attr_type, column.type, at=at)


def _mapper(row: type[Any]) -> Mapper[Any]:
    try:
        mapper: Mapper[Any] = sa.inspect(row)
    except NoInspectionAvailable:
        raise MappingError(
            f"{row!r} is not a SQLAlchemy model: give the mapped class that has the table's columns"
        ) from None
    return mapper


def _matches(place: str, model: type[Model], mapper: Mapper[Any]) -> Iterator[tuple[str, sa.Column[Any]]]:
    """Each attribute that has a column, with it."""
    attributes = model.get_attributes()
    declared = {attribute.attr_name for attribute in attributes.values()}
    columns = {
        prop.key: prop.columns[0]
        for prop in mapper.column_attrs
        if isinstance(prop.columns[0], sa.Column) and prop.columns[0].name not in BOOKKEEPING_COLUMNS
    }
    taken: dict[str, str] = {}
    for key in [key for key, column in columns.items() if "dynamodb" in column.info]:
        column = columns.pop(key)
        name = column.info["dynamodb"]
        if name is None:
            continue
        if name not in declared:
            raise MappingError(
                f'{place}: column {column.name!r} has info={{"dynamodb": {name!r}}}, but '
                f"{model.__name__} declares no such DynamoDB attribute: declare it or mend the name"
            )
        if name in taken:
            raise MappingError(
                f"{place}: columns {taken[name]!r} and {column.name!r} both hold attribute {name!r}: "
                "leave it to one of them"
            )
        taken[name] = str(column.name)
        yield name, column
    by_python_name = {python_name: attribute.attr_name for python_name, attribute in attributes.items()}
    for names in (by_python_name, {name: name for name in declared}):
        for key in [key for key in columns if names.get(key) not in (None, *taken)]:
            column = columns.pop(key)
            taken[names[key]] = str(column.name)
            yield names[key], column


def _check_keys(
    place: str,
    shape: TableShape,
    table: sa.Table,
    columns: Mapping[str, sa.Column[Any]],
    matched: Mapping[str, MappedColumn],
) -> None:
    for attribute in shape.keys.attributes:
        fix = f"mapped_column({_KEY_TYPES[attribute.type][1]}, primary_key=True)"
        column = columns.get(attribute.name)
        if column is None:
            raise MappingError(
                f"{place}: no column holds key attribute {attribute.name!r}: "
                f'add one as {fix}, or name it by info={{"dynamodb": {attribute.name!r}}}'
            )
        mapped = matched.get(attribute.name)
        if mapped is None or not mapped.total:
            raise MappingError(
                f"{place}: key column {column.name!r} is {column.type!r}, which cannot hold every key "
                f"of type {attribute.type}, and a key has no overflow: declare it as {fix}"
            )
        collation = getattr(column.type, "collation", None)
        if attribute.type == "S" and collation not in BYTEWISE:
            raise MappingError(
                f"{place}: key column {column.name!r} has collation {collation or 'of the database'}, "
                f"which does not order text by its bytes as DynamoDB does: declare it as {fix}"
            )
    key_columns = [columns[name] for name in shape.keys.names]
    if list(table.primary_key.columns) != key_columns:
        wanted = ", ".join(str(column.name) for column in key_columns)
        raise MappingError(
            f"{place}: the SQL primary key must be exactly ({wanted}), in this order, "
            f"and is ({', '.join(table.primary_key.columns.keys())}): it is the identity of an item"
        )


def _check_columns(place: str, table: sa.Table, mapped: list[sa.Column[Any]]) -> None:
    for column in table.columns:
        if column in mapped:
            if column.computed is not None or (column.identity is not None and column.identity.always):
                raise MappingError(
                    f"{place}: column {column.name!r} is generated by PostgreSQL, so an attribute "
                    'cannot be written to it: keep it out with info={"dynamodb": None}'
                )
            continue
        fills_itself = (
            column.nullable
            or column.server_default is not None
            or column.computed is not None
            or column.identity is not None
        )
        if not fills_itself:
            raise MappingError(
                f"{place}: column {column.name!r} is NOT NULL, and no attribute of its type fills it: "
                "make it nullable, give it a server_default, or name the attribute "
                'by info={"dynamodb": …} (see dualstore.mapping.TYPES for which column takes which type)'
            )


def unmapped_table(
    logical_name: str,
    shape: TableShape,
    *,
    table_name: str | None = None,
    metadata: sa.MetaData | None = None,
    beside: TableMapping | None = None,
) -> TableMapping:
    """Map a DynamoDB table that has no SQL model: the key in columns, all else in the overflow.

    Args:
        logical_name: the table's name in flags, configuration and metrics.
        shape: its shape in DynamoDB.
        table_name: the SQL table's name; the logical name if not given.
        metadata: where the SQL table is to be registered; a fresh one if not given.
        beside: another mapping of the same DynamoDB table, whose SQL schema and types of key columns are to
            be this one's, too.

    Raises:
        MappingError: the name is too long for PostgreSQL.
    """
    name = table_name or logical_name
    if len(name.encode()) > _IDENTIFIER_SIZE_BYTES:
        raise MappingError(
            f"table {logical_name!r}: PostgreSQL cuts names after {_IDENTIFIER_SIZE_BYTES} bytes: "
            "give a shorter table_name"
        )
    types = (
        [_KEY_TYPES[attribute.type][0] for attribute in shape.keys.attributes]
        if beside is None
        else [column.column.type for column in beside.key_columns]
    )
    columns = [
        sa.Column(column_name, type_, primary_key=True, autoincrement=False)
        for column_name, type_ in zip(("partition_key", "sort_key"), types, strict=False)
    ]
    schema = None if beside is None else beside.table.schema
    table = sa.Table(name, metadata or sa.MetaData(), *columns, *bookkeeping_columns(), schema=schema)
    mapped = []
    for attribute, column in zip(shape.keys.attributes, columns, strict=True):
        codec = codec_for(attribute.type, column.type)
        if codec is None:
            raise AssertionError("every key type has a codec")
        mapped.append(MappedColumn(attribute.name, column, codec))
    return TableMapping(logical_name, shape, table, tuple(mapped))
