"""Comparing with what an export says of its moment: later changes are told apart, faults are found."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bulk_sides import BulkSides, bulk_sides, order
from dualstore.errors import ConfigurationError
from dualstore.items import Item, key_hash
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres_keys import PostgresKeys
from dualstore.verify import BulkVerify, Finding, PastJudge
from integration.test_bulk_verify import SHAPE, TABLE, Killed, KilledAt, export_of, found, load, plan

TAKEN_AT = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture(scope="module")
def module_sides(postgres_server: Any) -> Iterator[BulkSides]:
    url = postgres_server.create_database()
    with bulk_sides(url, MemoryStore({TABLE: SHAPE}), TABLE) as both:
        yield both
    postgres_server.drop_database(url)


@pytest.fixture
def sides(module_sides: BulkSides) -> BulkSides:
    module_sides.empty()
    for item in list(module_sides.items_on_dynamodb().values()):
        module_sides.delete(module_sides.key(item))
    return module_sides


def written(n: int, minutes: float, **attributes: Any) -> Item:
    """An item that was written so long after the export; before it, where that is negative."""
    moment = TAKEN_AT + timedelta(minutes=minutes)
    stamp = int(moment.timestamp() * 1000).to_bytes(6) + b"\x70\x00\x80" + bytes([n]) * 7
    return order(n, _dsv={"B": stamp}, **attributes)


def against_the_export(sides: BulkSides, export: Any, *, follows: bool) -> BulkVerify:
    full = plan(sides, export, at_once=True)
    judge = PastJudge(
        shape=SHAPE,
        dynamodb=sides.dynamodb,
        postgres=sides.postgres,
        pause=timedelta(milliseconds=1),
        taken_at=TAKEN_AT,
        follows=follows,
        deleted_at=PostgresKeys(sides.engine, sides.mapping).deleted_at,
    )
    return replace(full, judge=judge)


CHANGED: dict[str, Any] = {"name": {"S": "another"}}
BY_A_TRANSACTION = {"_dsv": {"B": b"\xff" * 16}}


def since_the_export(sides: BulkSides) -> tuple[Any, set[tuple[str, Finding, tuple[str, ...]]]]:
    """An export, what has become of its items, and the differences that are none of that."""
    load(sides, [written(n, -60) for n in range(40)])
    export = export_of(sides, batch=7)
    for image in (
        written(0, 30, **CHANGED),
        written(1, -1, **CHANGED),  # within the margin: the export may miss it
        order(2, **BY_A_TRANSACTION, **CHANGED),
    ):
        sides.put(image)
        sides.mirror(image, image)
    sides.put(written(100, 30))
    sides.mirror(written(100, 30), written(100, 30))
    sides.dual_write(order(3), None)  # leaves a tombstone
    for n in (4, 5):  # leave none
        execute(sides, f"DELETE FROM shop.orders WHERE number = {n}")
    sides.delete(sides.key(order(4)))
    execute(sides, "UPDATE shop.orders SET name = 'damaged' WHERE number = 6")
    execute(sides, "UPDATE shop.orders SET name = 'damaged', dualstore_stamp = NULL WHERE number = 7")
    sides.mirror(written(101, -60), written(101, -60))
    faults = {
        5: (Finding.MISSING_ON_POSTGRES, ()),
        6: (Finding.VALUE, ("name",)),
        7: (Finding.VALUE, ("name",)),
        101: (Finding.MISSING_ON_DYNAMODB, ()),
    }
    return export, {(key_hash(SHAPE.keys, order(n)), *fault) for n, fault in faults.items()}


def execute(sides: BulkSides, statement: str) -> None:
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(statement)


def test_what_was_changed_later_is_told_apart_and_faults_are_found(sides: BulkSides) -> None:
    export, faults = since_the_export(sides)

    verification = against_the_export(sides, export, follows=True).run()

    assert found(verification) == faults
    assert verification.difference_count == 4
    # Three changed, one created, two deleted.
    assert (verification.later, verification.undecided, verification.equal) == (6, 0, 32)
    assert (verification.moving, verification.proven) == (0, False)


def test_where_dynamodb_is_left_alone_what_nothing_tells_of_is_not_guessed(sides: BulkSides) -> None:
    export, faults = since_the_export(sides)

    verification = against_the_export(sides, export, follows=False).run()

    told = {fault for fault in faults if fault[0] in {key_hash(SHAPE.keys, order(n)) for n in (6, 101)}}
    assert found(verification) == told
    # By a transaction; deleted twice, of which one is a loss; without a stamp.
    assert (verification.later, verification.undecided, verification.equal) == (4, 4, 32)
    assert not verification.passes(0.999)


def test_undecided_keys_alone_are_in_the_way_of_a_proof(sides: BulkSides) -> None:
    load(sides, [written(n, -60) for n in range(10)])
    export = export_of(sides)
    execute(sides, "DELETE FROM shop.orders WHERE number = 4")

    verification = against_the_export(sides, export, follows=False).run()

    assert (verification.difference_count, verification.undecided) == (0, 1)
    assert (verification.passes(0.999), verification.passes(0.5), verification.proven) == (False, True, False)


def test_one_that_is_killed_anywhere_goes_on_and_says_the_same(sides: BulkSides) -> None:
    export, faults = since_the_export(sides)
    exchange, kills, whole = 1, 0, None
    while whole is None:
        try:
            with KilledAt(sides.engine, exchange):
                whole = against_the_export(sides, export, follows=True).run()
        except Killed:
            kills += 1
        exchange += 5

    assert kills > 5
    assert found(whole) == faults
    assert (whole.later, whole.equal, whole.items_dynamodb) == (6, 32, 40)


def test_the_past_repairs_nothing(sides: BulkSides) -> None:
    load(sides, [order(1)])
    verification = against_the_export(sides, export_of(sides), follows=True)

    with pytest.raises(ConfigurationError, match="leave out --repair"):
        replace(verification, judge=replace(verification.judge, repair=True)).run()
