"""The orders with PostgreSQL as their authority: triggers, a control record, and a look at the outbox."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from dualstore.control import PostgresRole
from dualstore.operations import parse
from dualstore.stages import Stage
from dualstore.stores.postgres import PostgresStore, triggers
from integration.postgres.orders import TABLE, TABLES, create

EPOCH = 5
BOOKKEEPING = ("tombstones", "dirty", "tokens", "outbox", "receipts")
EPOCHS: Mapping[str, int] = dict.fromkeys(TABLES, EPOCH)

_SET_ROLE = """
INSERT INTO dualstore.control (table_name, epoch, stage, read_percent, mirror_percent, gate, role, phase)
VALUES (:table, :epoch, :stage, 100, 100, 'open', :role, 'open')
ON CONFLICT (table_name)
DO UPDATE SET role = excluded.role, stage = excluded.stage, epoch = excluded.epoch"""


def run(engine: sa.Engine, statement: str, **values: Any) -> Any:
    """Run a statement as somebody who knows nothing of dualstore; its rows."""
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement), values)
        return result.all() if result.returns_rows else []


def set_role(engine: sa.Engine, role: PostgresRole, *, stage: Stage = Stage.LIVE) -> None:
    for table in TABLES:
        run(engine, _SET_ROLE, table=table, epoch=EPOCH, role=role, stage=stage)


def prepare(engine: sa.Engine) -> None:
    """Make the tables, their triggers, and PostgreSQL their authority."""
    create(engine)
    for mapping in TABLES.values():
        triggers.install(engine, mapping)
    set_role(engine, PostgresRole.AUTHORITY)


def empty(engine: sa.Engine) -> None:
    """Take everything out of the tables and the bookkeeping."""
    set_role(engine, PostgresRole.NONE)
    bookkeeping = ", ".join(f"dualstore.{name}" for name in BOOKKEEPING)
    run(engine, f"TRUNCATE orders, notes, {bookkeeping}")
    set_role(engine, PostgresRole.AUTHORITY)


def ask(store: PostgresStore, operation: str, **request: Any) -> dict[str, Any]:
    """Carry out an operation on the orders, as their authority."""
    if "values" in request:
        request["ExpressionAttributeValues"] = request.pop("values")
    if operation not in {"TransactWriteItems", "BatchWriteItem"}:
        request["TableName"] = TABLE
    return store.execute_as_authority(parse(operation, request), epochs=EPOCHS)


def receipts(engine: sa.Engine) -> list[bytes]:
    """The stamps of the writes at stage `complete` since the last look."""
    return sorted(stamp for (stamp,) in run(engine, "DELETE FROM dualstore.receipts RETURNING stamp"))


def outbox(engine: sa.Engine) -> list[Any]:
    """What was noted since the last look, in order."""
    return sorted(run(engine, "DELETE FROM dualstore.outbox RETURNING *"))
