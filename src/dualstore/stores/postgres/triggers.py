"""The triggers by which a mapped SQL table tells of its own changes (DESIGN, replication protocol, rule 7).

They fire for every writer, an ORM, psql and cascades included, in the writer's own transaction. They do not
fire where `session_replication_role` is `replica`: the copy that a logical replication keeps (a blue/green
deployment) must not stamp its rows afresh.
"""

from collections.abc import Sequence
from datetime import timedelta
from functools import partial

import sqlalchemy as sa
import stamina
from sqlalchemy.exc import DBAPIError

from dualstore.errors import ConfigurationError, Unavailable
from dualstore.mapping import Mapped, TableMapping, quoted
from dualstore.stores.postgres.entity_triggers import resolved, triggers_of
from dualstore.stores.postgres.faults import Fault, fault_of, unavailable
from dualstore.stores.postgres.trigger_functions import Trigger, sql_table

PATIENCE = timedelta(seconds=60)

# CREATE TRIGGER waits for the writers of the table, and all other writers wait behind it: so not for long.
_LOCK_TIMEOUT = "SET LOCAL lock_timeout = '250ms'"
_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('dualstore triggers', 0))"
_LEAST_VERSION = 140_000
_PASSING = frozenset({Fault.LATE, Fault.CONTENTION, Fault.LOST})

_PRESENT = """
SELECT t.tgname, obj_description(t.oid, 'pg_trigger') FROM pg_trigger t
WHERE t.tgrelid = to_regclass(:table) AND NOT t.tgisinternal AND t.tgenabled IN ('O', 'A')
  AND t.tgname = ANY (:names)"""

_SCHEMA_OF = "SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = CAST(:table AS regclass)"


def install(engine: sa.Engine, mapping: Mapped, *, patience: timedelta = PATIENCE) -> None:
    """Put the triggers on a mapped table; harmless where they are, and while the table is in use.

    Args:
        engine: of the database; its role owns the table.
        mapping: of the table, which exists; so does the schema `dualstore`.
        patience: how long to try to get a word in with the table's writers.

    Raises:
        ConfigurationError: the server is older than PostgreSQL 14, which replaces triggers in place.
        Unavailable: the table was in use all the time.
    """
    if not is_installed(engine, mapping):
        for part, triggers in triggers_of(mapping):
            statements = _creation(engine, mapping, part, triggers)
            _patiently(engine, f"putting triggers on {sql_table(part)}", statements, patience)


def remove(engine: sa.Engine, mapping: Mapped, *, patience: timedelta = PATIENCE) -> None:
    """Take the triggers off a mapped table; harmless where there are none (see `install`)."""
    for part, triggers in triggers_of(mapping):
        table = sql_table(part)
        statements = [f"DROP TRIGGER IF EXISTS {quoted(trigger.name)} ON {table}" for trigger in triggers]
        statements += [f"DROP FUNCTION IF EXISTS {trigger.function}()" for trigger in triggers]
        _patiently(engine, f"taking triggers off {table}", statements, patience)


def is_installed(engine: sa.Engine, mapping: Mapped) -> bool:
    """Whether a mapped table has all its triggers, in this version's form, and none is switched off."""
    with engine.connect() as connection:
        return all(_are_present(connection, part, triggers) for part, triggers in triggers_of(mapping))


def _are_present(connection: sa.Connection, part: TableMapping, triggers: Sequence[Trigger]) -> bool:
    wanted = {trigger.name: trigger.fingerprint for trigger in triggers}
    found = connection.execute(sa.text(_PRESENT), {"table": sql_table(part), "names": list(wanted)}).all()
    return {row.tgname: row.obj_description for row in found} == wanted


def _creation(
    engine: sa.Engine, whole: Mapped, mapping: TableMapping, triggers: Sequence[Trigger]
) -> list[str]:
    functions = {
        trigger.function: resolved(trigger.body, whole, partial(_schema_of, engine)) for trigger in triggers
    }
    return [
        *(_create_function(name, body) for name, body in functions.items()),
        *(statement for trigger in triggers for statement in _create_trigger(mapping, trigger)),
    ]


def _schema_of(engine: sa.Engine, name: str) -> str:
    with engine.connect() as connection:
        return str(connection.execute(sa.text(_SCHEMA_OF), {"table": name}).scalar_one())


def _create_function(name: str, body: str) -> str:
    """With its owner's rights: who may write the table need not be allowed to write the outbox."""
    return (
        f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, pg_temp AS $dualstore${body}\n$dualstore$"
    )


def _create_trigger(mapping: TableMapping, trigger: Trigger) -> tuple[str, str]:
    name, table = quoted(trigger.name), sql_table(mapping)
    when = f" WHEN ({trigger.condition})" if trigger.condition else ""
    return (
        (
            f"CREATE OR REPLACE TRIGGER {name} {trigger.event} ON {table} "
            f"FOR EACH {trigger.each}{when} EXECUTE FUNCTION {trigger.function}()"
        ),
        f"COMMENT ON TRIGGER {name} ON {table} IS '{trigger.fingerprint}'",
    )


def _patiently(engine: sa.Engine, doing: str, statements: list[str], patience: timedelta) -> None:
    try:
        for attempt in stamina.retry_context(
            on=lambda error: fault_of(error) in _PASSING,
            attempts=None,
            timeout=patience,
            wait_initial=0.1,
            wait_max=2.0,
        ):
            with attempt:
                _run(engine, statements)
    except DBAPIError as error:
        if fault_of(error) in _PASSING:
            raise unavailable(error, doing, Unavailable) from None
        raise


def _run(engine: sa.Engine, statements: list[str]) -> None:
    with engine.begin() as connection:
        _check_version(connection)
        for statement in (_LOCK_TIMEOUT, _ONE_AT_A_TIME, *statements):
            # Not through `text`, which would take a colon for a parameter, as psycopg takes a per cent sign.
            connection.exec_driver_sql(statement.replace("%", "%%"))


def _check_version(connection: sa.Connection) -> None:
    version = int(connection.exec_driver_sql("SHOW server_version_num").scalar_one())
    if version < _LEAST_VERSION:
        raise ConfigurationError(
            f"PostgreSQL {version // 10_000} cannot replace a trigger in place; use PostgreSQL 14 or later"
        )
