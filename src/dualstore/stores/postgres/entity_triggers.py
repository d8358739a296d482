"""The triggers of a DynamoDB table in several SQL tables: a key has one row, and a move is one change of it.

What a primary key does for one table, a trigger does for several while PostgreSQL is the authority: it takes
a lock of the key, and looks for a row in the other tables. dualstore's own writes hold a lock of their own
and have looked already; they pass the trigger because an ORM or psql may write beside them.
"""

from collections.abc import Callable

from dualstore.mapping import REVISION_COLUMN as REVISION
from dualstore.mapping import Entity, Mapped, SplitMapping, TableMapping, escape, quoted
from dualstore.stores.postgres.key_texts import key_texts
from dualstore.stores.postgres.split_statements import MOVE_SETTING
from dualstore.stores.postgres.trigger_functions import (
    NOT_MIRROR,
    WRITER,
    Trigger,
    function_named,
    literal,
    sql_table,
    table_triggers,
)

_MOVE = f"current_setting('{MOVE_SETTING}', true)"

# The change is noted where the row arrives, with the stamp that it had.
_DEPARTED = f"""
        IF starts_with({_MOVE}, OLD.{REVISION} || ':') THEN
            RETURN NULL;
        END IF;"""
_ARRIVED = f"""
        IF TG_OP = 'INSERT' AND split_part({_MOVE}, ':', 3) = encode(made, 'hex') THEN
            replaced := decode(nullif(split_part({_MOVE}, ':', 2), ''), 'hex');
        END IF;"""


def triggers_of(mapping: Mapped) -> tuple[tuple[TableMapping, tuple[Trigger, ...]], ...]:
    """The triggers of each SQL table of a mapped table."""
    if isinstance(mapping, TableMapping):
        return ((mapping, table_triggers(mapping)),)
    return tuple(
        (part, (*_guards(mapping, place), *table_triggers(part, departed=_DEPARTED, arrived=_ARRIVED)))
        for place, part in enumerate(mapping.parts)
    )


def _guards(mapping: SplitMapping, place: int) -> tuple[Trigger, ...]:
    part = mapping.parts[place]
    function, body = function_named(part, "alone"), _alone(mapping, place)
    names = [quoted(column.name) for column in part.key_columns]
    moved = " OR ".join(f"OLD.{name} IS DISTINCT FROM NEW.{name}" for name in names)
    return (
        Trigger("dualstore_alone_insert", "BEFORE INSERT", "ROW", NOT_MIRROR, function, body),
        Trigger(
            "dualstore_alone_update", "BEFORE UPDATE", "ROW", f"{NOT_MIRROR} AND ({moved})", function, body
        ),
    )


def _alone(mapping: SplitMapping, place: int) -> str:
    part = mapping.parts[place]
    others = [other for number, other in enumerate(mapping.parts) if number != place]
    elsewhere = "\n            OR ".join(_elsewhere(part, other) for other in others)
    taken = literal(
        f"the key is in another SQL table of DynamoDB table {mapping.shape.name} already, and "
        f"{sql_table(part)} would be the second"
    )
    # A snapshot that is older than the lock does not show the row that another transaction has put elsewhere.
    isolated = literal(
        f"a row of DynamoDB table {mapping.shape.name}, which is in several SQL tables, cannot be inserted "
        "under REPEATABLE READ or SERIALIZABLE: whether its key is in another of them cannot be seen there"
    )
    return f"""
DECLARE
    move text := coalesce({_MOVE}, '');
BEGIN
    IF NOT EXISTS (SELECT FROM dualstore.control
                   WHERE table_name = {literal(mapping.shape.name)} AND role = 'authority') THEN
        RETURN NEW;
    END IF;{_belongs(mapping, place)}
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'feature_not_supported', MESSAGE = {isolated},
            HINT = 'Write these tables in READ COMMITTED transactions.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtextextended(
        {literal(mapping.shape.name)} || chr(1) || array_to_string({key_texts(part, "NEW")}, chr(1)), 1));
    IF {elsewhere} THEN
        IF {WRITER} = 'authority' THEN
            PERFORM ln(0::float8); -- somebody was faster: the write is to be decided anew
        END IF;
        RAISE EXCEPTION USING ERRCODE = 'unique_violation', MESSAGE = {taken},
            HINT = 'Delete that row first, in a statement before this one.';
    END IF;
    RETURN NEW;
END"""


def _elsewhere(part: TableMapping, other: TableMapping) -> str:
    """Whether another table has a row of the key, but for one that is just moving here."""
    pairs = zip(part.key_columns, other.key_columns, strict=True)
    same = " AND ".join(f"o.{quoted(theirs.name)} = NEW.{quoted(mine.name)}" for mine, theirs in pairs)
    return (
        f"EXISTS (SELECT FROM {found_table(other)} o WHERE {same} "
        f"AND NOT starts_with(move, o.{REVISION} || ':'))"
    )


def found_table(mapping: TableMapping) -> str:
    """A SQL table within a function, which knows no search path; `resolved` puts its schema there."""
    table = mapping.table
    return f"{quoted(table.schema or _UNKNOWN_SCHEMA)}.{quoted(table.name)}"


_UNKNOWN_SCHEMA = "?"


def resolved(body: str, mapping: Mapped, schema_of: Callable[[str], str]) -> str:
    """A function's text with the schemas of the tables that are mapped without one.

    Args:
        body: the text.
        mapping: of the DynamoDB table.
        schema_of: tells the schema of a table that the search path finds, by its quoted name.
    """
    for part in mapping.parts:
        if part.table.schema is None and (unknown := found_table(part)) in body:
            name = quoted(part.table.name)
            body = body.replace(unknown, f"{quoted(schema_of(name))}.{name}")
    return body


def _belongs(mapping: SplitMapping, place: int) -> str:
    """Refuse a row whose key says that it is another entity's: reads by that key would not look here."""
    part = mapping.parts[place]
    told = [each.entity for each in mapping.entities[:place] if each.entity.attribute is None]
    conditions = [f"({_begins(part, entity)})" for entity in told]
    if place < len(mapping.entities) and mapping.entities[place].entity.prefixes:
        conditions.append(f"NOT ({_begins(part, mapping.entities[place].entity)})")
    if not conditions:
        return ""
    message = literal(
        f"by its key the row is of another entity of DynamoDB table {mapping.shape.name} than those in "
        f"{sql_table(part)}"
    )
    return f"""
    IF {" OR ".join(conditions)} THEN
        RAISE EXCEPTION USING ERRCODE = 'check_violation', MESSAGE = {message},
            HINT = 'Write it into the SQL table of that entity.';
    END IF;"""


def _begins(part: TableMapping, entity: Entity) -> str:
    names = {column.attribute: quoted(column.name) for column in part.key_columns}
    return " AND ".join(
        f"starts_with(NEW.{names[attribute]}::text, {literal(escape(prefix))})"
        for attribute, prefix in entity.prefixes
    )
