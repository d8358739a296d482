"""The ways to write the table, each a function of an operation and an item's number."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import ldclient
import psycopg
import sqlalchemy as sa
from ldclient.integrations.test_data import TestData
from ldclient.migrations import MigratorBuilder
from ldclient.migrations import Stage as MigratorStage
from sqlalchemy.dialects.postgresql import insert

from orders import CHANGED_NOTE, NOTE, Address, PlainRow, item_of, key_of, row_of

Write = Callable[[str, int], object]
"""Carries out an operation on the item of a number."""


def by_client(client: Any, table: str) -> Write:
    """The writes through boto3's low-level client, or through one that is shaped like it."""

    def write(operation: str, number: int) -> None:
        if operation == "update":
            client.update_item(
                TableName=table,
                Key=key_of(number),
                UpdateExpression="SET note = :note, paid = :paid",
                ExpressionAttributeValues={":note": {"S": CHANGED_NOTE}, ":paid": {"BOOL": True}},
            )
        elif operation == "delete":
            client.delete_item(TableName=table, Key=key_of(number))
        else:
            client.put_item(TableName=table, Item=item_of(number))

    return write


def by_model(model: Any) -> Write:
    """The writes through a PynamoDB model."""

    def write(operation: str, number: int) -> None:
        order = model(
            f"customer-{number % 97}",
            number,
            note=NOTE,
            total=12.5,
            paid=False,
            address=Address(street="High Street", door=7),
        )
        if operation == "update":
            order.update(actions=[model.note.set(CHANGED_NOTE), model.paid.set(True)])
        elif operation == "delete":
            order.delete()
        else:
            order.save()

    return write


def by_core(engine: sa.Engine) -> Write:
    """The writes in SQLAlchemy Core, each in a transaction on the engine's pool."""
    table = PlainRow.__table__
    new = insert(table)
    changed = {name: new.excluded[name] for name in ("note", "total", "paid", "address")}
    put = new.on_conflict_do_update(index_elements=["customer", "number"], set_=changed)
    is_key = (table.c.customer == sa.bindparam("of")) & (table.c.number == sa.bindparam("at"))
    change, remove = sa.update(table).where(is_key), sa.delete(table).where(is_key)

    def write(operation: str, number: int) -> None:
        key = {"of": f"customer-{number % 97}", "at": number}
        with engine.begin() as connection:
            if operation == "update":
                connection.execute(change, {**key, "note": CHANGED_NOTE, "paid": True})
            elif operation == "delete":
                connection.execute(remove, key)
            else:
                connection.execute(put, row_of(number))

    return write


def by_psycopg(connection: psycopg.Connection[Any]) -> Write:
    """The writes as prepared statements on a connection of their own, in autocommit."""
    columns = "customer, number, note, total, paid, address"
    put = (
        f"INSERT INTO orders_plain ({columns}) VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT (customer, number)"
        " DO UPDATE SET note = EXCLUDED.note, total = EXCLUDED.total, paid = EXCLUDED.paid, "
        "address = EXCLUDED.address"
    )
    change = "UPDATE orders_plain SET note = %s, paid = %s WHERE customer = %s AND number = %s"
    remove = "DELETE FROM orders_plain WHERE customer = %s AND number = %s"

    def write(operation: str, number: int) -> None:
        key = (f"customer-{number % 97}", number)
        if operation == "update":
            connection.execute(change, (CHANGED_NOTE, True, *key), prepare=True)
        elif operation == "delete":
            connection.execute(remove, key, prepare=True)
        else:
            row = row_of(number) | {"address": psycopg.types.json.Jsonb(row_of(number)["address"])}
            connection.execute(put, tuple(row.values()), prepare=True)

    return write


@contextlib.contextmanager
def by_migrator(old: Write, new: Write) -> Iterator[Write]:
    """Two writes as LaunchDarkly's Migrator makes them at stage dualwrite."""
    flags = TestData.data_source()
    stages = [stage.value for stage in MigratorStage]
    chosen = stages.index(MigratorStage.DUALWRITE.value)
    flags.update(flags.flag("orders-stage").variations(*stages).variation_for_all(chosen))
    client = ldclient.LDClient(ldclient.Config("benchmark", update_processor_class=flags, send_events=False))

    def adapted(write: Write) -> Callable[[Any], ldclient.Result]:
        def migrated(payload: Any) -> ldclient.Result:
            write(*payload)
            return ldclient.Result.success(None)

        return migrated

    builder = MigratorBuilder(client)
    builder.write(adapted(old), adapted(new)).read(adapted(old), adapted(new))
    migrator = builder.build()
    context = ldclient.Context.create("orders")

    def write(operation: str, number: int) -> None:
        result = migrator.write("orders-stage", context, MigratorStage.OFF, (operation, number))
        if result.nonauthoritative is None or not result.nonauthoritative.is_success():
            raise RuntimeError("the Migrator did not make both writes")

    try:
        yield write
    finally:
        client.close()
