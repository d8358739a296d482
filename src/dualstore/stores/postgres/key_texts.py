"""A key in SQL: as the outbox names it, and in the forms in which the journal of doubts does."""

from collections.abc import Iterable

from dualstore.mapping import Mapped, MappedColumn, TableMapping, escape, quoted

# Equal keys have one text, whoever wrote them: 1.0 is 1, and `bytea_output` says nothing. Triggers run in
# anybody's session: backslashes stand in E'...', which `standard_conforming_strings` changes nothing of.
_TEXT = {"S": "{}::text", "N": "trim_scale({})::text", "B": "E'\\\\x' || encode({}, 'hex')"}

# `escape` of mapping.text undone on the hexadecimal digits: pairs are told apart from left to right.
_PAYLOAD = {
    "S": (
        "CASE WHEN position(chr(1) IN {0}) = 0 THEN convert_to({0}, 'UTF8') ELSE decode(replace(replace("
        "regexp_replace(encode(convert_to({0}, 'UTF8'), 'hex'), '(..)', E'\\\\1 ', 'g'), "
        "'01 01 ', '00 '), '01 02 ', '01 '), 'hex') END"
    ),
    "N": "convert_to(trim_scale({0})::text, 'UTF8')",
    "B": "{0}",
}
_JSON = {"S": "{}", "N": "trim_scale({})::text", "B": "translate(encode({}, 'base64'), E'\\n', '')"}


def key_texts(mapping: TableMapping, row: str) -> str:
    """The key columns of a row as `text[]`: `outbox.key`. A cast of each to its column's type reads it back.

    Args:
        mapping: of the table.
        row: what the statement calls the row, such as `NEW`.
    """
    return _array(_TEXT[column.type].format(_named(column, row)) for column in mapping.key_columns)


def key_texts_of_values(mapping: Mapped, placeholders: tuple[str, ...]) -> str:
    """As `key_texts`, of what `TableMapping.encode_key` answered, cast already: `$1::text`, ….

    Args:
        mapping: of the table.
        placeholders: one for each key column.
    """
    pairs = zip(mapping.key_columns, placeholders, strict=True)
    return _array(_TEXT[column.type].format(placeholder) for column, placeholder in pairs)


def lane_of(key: str) -> str:
    """The lane of a key.

    Args:
        key: an expression for `outbox.key`.
    """
    return f"(hashtextextended(array_to_string({key}, chr(1)), 0) & 15)::smallint"


def stored_key(mapping: TableMapping, row: str) -> str:
    """The key of a row in the form of `items.key_bytes`, as `bytea`."""
    return " || ".join(_component(column, _named(column, row)) for column in mapping.key_columns)


def typed_key(mapping: TableMapping, row: str) -> str:
    """The key of a row as `mapping.typed_json` writes it, as `jsonb`."""
    entries = ", ".join(
        f"{_literal(escape(column.attribute))}, "
        f"jsonb_build_object('{column.type}', {_JSON[column.type].format(_named(column, row))})"
        for column in mapping.key_columns
    )
    return f"jsonb_build_object({entries})"


def _component(column: MappedColumn, name: str) -> str:
    payload = _PAYLOAD[column.type].format(name)
    return f"'{column.type}'::bytea || int4send(octet_length({payload})) || ({payload})"


def _named(column: MappedColumn, row: str) -> str:
    return f"{row}.{quoted(column.name)}"


def _array(texts: Iterable[str]) -> str:
    return f"ARRAY[{', '.join(texts)}]"


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
