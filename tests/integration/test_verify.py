"""The verification between two real servers: exactly the planted faults, in both directions."""

import threading
from datetime import timedelta
from decimal import Decimal

import pytest

from bulk_sides import BulkSides, bulk_sides, create_table, order
from dualstore.errors import SchemaError
from dualstore.operations import Scan
from dualstore.stores.dynamo import DynamoStore
from dualstore.stores.postgres_runs import RunState
from dualstore.verify import Finding

DIGITS = "1." + "7" * 36


@pytest.fixture
def sides(bulk_url, dynamodb, table_name):
    """Both databases for real."""
    create_table(dynamodb, table_name)
    with bulk_sides(bulk_url, DynamoStore(reads=dynamodb, writes=dynamodb), table_name) as both:
        yield both


def copied(sides: BulkSides, *items):
    sides.put(*items)
    for item in items:
        sides.mirror(item, item)


def found(verification):
    return {
        (int(Decimal(each.key["number"]["N"])), each.finding, each.paths) for each in verification.differences
    }


def last_of_the_last_page(sides: BulkSides):
    answer = {"LastEvaluatedKey": None}
    while "LastEvaluatedKey" in answer:
        request = {"TableName": sides.table, "Segment": 1, "TotalSegments": 2}
        if answer["LastEvaluatedKey"] is not None:
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
        last, answer = answer, sides.dynamodb.execute(Scan(request))
    items = answer["Items"] or last["Items"]
    return items[-1]


def test_exactly_the_planted_faults_are_found(sides: BulkSides):
    copied(sides, *(order(n, text={"S": "x" * 30_000}) for n in range(100)))
    planted = {
        "lost": (order(1), None),
        "changed in the 38th digit": (
            order(2, total={"N": DIGITS + "1"}),
            order(2, total={"N": DIGITS + "2"}),
        ),
        "swapped, one": (order(3, name={"S": "three"}), order(3, name={"S": "four"})),
        "swapped, other": (order(4, name={"S": "four"}), order(4, name={"S": "three"})),
        "null for missing": (order(5, note={"NULL": True}), order(5)),
        "missing for null": (order(6), order(6, note={"NULL": True})),
        "NUL": (order(8, name={"S": "a\x00b"}), order(8, name={"S": "ab"})),
        "cut": (order(9, name={"S": "abcdef"}), order(9, name={"S": "abcde"})),
        "deep": (order(10), order(10, lines={"L": [{"M": {"price": {"N": "10.50001"}}}]})),
    }
    harmless = {
        "order of a set": (order(20, tags={"SS": ["a", "b"]}), order(20, tags={"SS": ["b", "a"]})),
        "digits of a number": (order(21, total={"N": "1"}), order(21, total={"N": "1.0"})),
    }
    for dynamodb, postgres in (planted | harmless).values():
        sides.put(dynamodb)
        sides.mirror(dynamodb, postgres)
    sides.mirror(order(1000), order(1000))
    last = last_of_the_last_page(sides)
    sides.mirror(last, last | {"code": {"S": "damaged"}})
    last_number = int(last["number"]["N"])
    assert last_number > 21  # none of those above

    verification = sides.verify(segments=2).run()

    expected = {
        (1, Finding.MISSING_ON_POSTGRES, ()),
        (2, Finding.VALUE, ("total",)),
        (3, Finding.VALUE, ("name",)),
        (4, Finding.VALUE, ("name",)),
        (5, Finding.VALUE, ("note",)),
        (6, Finding.VALUE, ("note",)),
        (8, Finding.VALUE, ("name",)),
        (9, Finding.VALUE, ("name",)),
        (10, Finding.VALUE, ("lines",)),
        (1000, Finding.MISSING_ON_DYNAMODB, ()),
        (last_number, Finding.VALUE, ("code",)),
    }
    assert found(verification) == expected
    assert (verification.difference_count, verification.equal) == (11, 90)
    assert (verification.items_dynamodb, verification.rows_postgres, verification.moving) == (100, 100, 0)


def test_repair_ends_every_difference_and_a_second_look_proves_it(sides: BulkSides):
    copied(sides, *(order(n) for n in range(50)))
    sides.mirror(order(1), None)
    sides.mirror(order(2), order(2, name={"S": "damaged"}))
    sides.mirror(order(1000), order(1000))

    repairing = sides.verify(repair=True, settle=sides.settle_all).run()

    assert (repairing.difference_count, repairing.repaired, repairing.proven) == (3, 3, True)
    assert sides.verify().run().difference_count == 0
    sides.assert_equal()


def test_more_rows_than_fit_in_a_page_are_found_missing_on_dynamodb(sides: BulkSides):
    copied(sides, *(order(n) for n in range(10)))
    with sides.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO shop.orders (customer, number)"
            " SELECT 'customer' || n || chr(1) || chr(2), n FROM generate_series(1, 2500) AS n"
        )

    verification = sides.verify().run()

    assert verification.difference_count == 2500
    assert {each.finding for each in verification.differences} == {Finding.MISSING_ON_DYNAMODB}
    assert {each.key["customer"]["S"][-1] for each in verification.differences} == {"\x01"}


def test_a_table_under_constant_writes_is_never_called_different(sides: BulkSides):
    copied(sides, *(order(n) for n in range(200)))
    stop = threading.Event()
    failures = []

    def write(writer):
        try:
            while not stop.is_set():
                for n in range(writer, 200, 20):
                    sides.dual_write(order(n), None)
                    sides.dual_write(order(n), order(n, name={"S": f"again {n}"}))
        except BaseException as error:
            failures.append(error)
            raise

    writers = [threading.Thread(target=write, args=(each,)) for each in range(2)]
    for each in writers:
        each.start()
    patient = sides.verify(pause=timedelta(seconds=2))  # longer than a writer stands between two writes
    try:
        during = patient.run()
    finally:
        stop.set()
        for each in writers:
            each.join()

    assert not failures
    assert during.difference_count == 0
    assert sides.verify().run().proven


def test_the_run_is_recorded_with_its_result(sides: BulkSides):
    copied(sides, order(1))
    sides.put(order(2, name={"S": "secret"}))

    verification = sides.verify().run()

    with sides.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT kind, table_name, state, result FROM dualstore.runs").one()
    assert row[:3] == ("verify", sides.table, RunState.FINISHED)
    assert (row.result["difference_count"], row.result["equal"]) == (1, 1)
    assert row.result["differences"][0]["key_hash"] == verification.differences[0].key_hash
    assert "secret" not in str(row.result)
    assert "customer" not in str(row.result)


def test_nothing_is_left_in_the_database(sides: BulkSides):
    copied(sides, order(1))
    with sides.engine.connect() as connection:
        tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r'"
        before = connection.exec_driver_sql(tables).scalar()

        sides.verify().run()

        assert connection.exec_driver_sql(tables).scalar() == before


def test_a_missing_schema_is_refused(sides: BulkSides):
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA dualstore CASCADE")

    with pytest.raises(SchemaError, match="dualstore schema upgrade"):
        sides.verify().run()
