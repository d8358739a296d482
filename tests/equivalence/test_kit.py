"""The equivalence kit finds what is wrong, shows it as a script that runs, and passes where nothing is."""

import ast
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, settings

from dualstore.bind import routing
from dualstore.errors import ConfigurationError
from dualstore.mapping import shape_of_model
from dualstore.operations import OPERATIONS, Request, Response
from dualstore.testing import (
    Difference,
    equivalence,
    equivalence_machine,
    sides_of,
    store_contract,
)
from dualstore.testing.answers import pages_of
from dualstore.testing.script import Done, script_of
from dualstore.testing.sides import create_request
from dualstore.testing.steps import Delete, Get, Put
from dualstore.testing.strategies.present import Remembers
from equivalence import models
from equivalence.planted import PLANTED, examples_until_caught

FEW = settings(
    max_examples=8,
    stateful_step_count=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

TestOrders = equivalence(models.Order, models.OrderRow, settings=FEW)
TestJobs = equivalence(models.Job, models.JobRow, settings=FEW)
TestJobsWithoutColumns = equivalence(models.Job, settings=FEW)


def memory_of(shape: Any) -> Any:
    from dualstore.stores import MemoryStore  # noqa: PLC0415 - as in a team's own test file

    return MemoryStore({shape.name: shape})


TestMemoryKeepsTheContract = store_contract(memory_of)


@pytest.mark.parametrize(
    "fault",
    ["text sorts without regard to case", "a set loses its last member"],
)
def test_a_planted_fault_is_caught(dualstore_engine: sa.Engine, dualstore_dynamodb: Any, fault: str) -> None:
    caught = examples_until_caught(fault, engine=dualstore_engine, dynamodb=dualstore_dynamodb, start=1)
    assert caught is not None, "not within 200 examples"
    assert "PostgreSQL does not answer as" in str(caught[1])


class Routed:
    """Answers PynamoDB from one store."""

    closed = False

    def __init__(self, store: Any) -> None:
        self._store = store

    def serves(self, tables: frozenset[str]) -> bool:
        return True

    def execute(self, name: str, request: Request) -> Response:
        answer: Response = self._store.execute(OPERATIONS[name](request))
        return answer


def printed_by(script: str, model: Any, store: Any, capsys: pytest.CaptureFixture[str]) -> str:
    """What a script prints where PynamoDB is answered by this store, or the error that ends it."""
    tree = ast.parse(script)
    assert any(isinstance(line, ast.ImportFrom) and line.module == model.__module__ for line in tree.body)
    capsys.readouterr()
    with routing(Routed(store), frozenset({model.Meta.table_name})):
        try:
            exec(compile(tree, "<script>", "exec"), {})
        except Exception as error:  # noqa: BLE001 - whatever ends it
            return type(error).__name__
    return capsys.readouterr().out


LAST = "print(Order.get('a', 'b', consistent_read=True).serialize(null_check=False))"


def test_a_failure_is_a_short_script_that_shows_it(
    dualstore_engine: sa.Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    fault = "an empty string is dropped"
    with sides_of(models.Order, models.OrderRow, engine=dualstore_engine, dynamodb=None) as sides:
        machine: Any = equivalence_machine(models.Order, sides=sides)()
        key = {"customer": {"S": "a"}, "line": {"S": "b"}}
        with PLANTED[fault]():
            machine.take(Get(key))
            machine.take(Put(key, models.Order.customer == "x"))
            with pytest.raises(Difference) as caught:
                machine.take(Put({**key, "remark": {"S": ""}}))
        script = caught.value.script
        assert script in str(caught.value)
        said = [line for line in script.splitlines() if line and "import" not in line]
        assert said == ["Order(customer='a', line='b', note='').save()", LAST]
        sides.begin()
        expected = printed_by(script, models.Order, sides.memory, capsys)
        assert printed_by(script, models.Order, sides.postgres, capsys) == expected
        sides.begin()
        with PLANTED[fault]():
            assert printed_by(script, models.Order, sides.postgres, capsys) != expected


def test_a_machine_tells_the_draws_what_is_there_by_now(dualstore_engine: sa.Engine) -> None:
    with sides_of(models.Order, models.OrderRow, engine=dualstore_engine, dynamodb=None) as sides:
        machine: Any = equivalence_machine(models.Order, sides=sides)()
        key = {"customer": {"S": "a"}, "line": {"S": "b"}}
        assert isinstance(machine, Remembers)
        assert machine.present == []
        machine.take(Put(key))
        assert machine.present == [key]
        machine.take(Delete(key))
        assert machine.present == []


def test_what_pynamodb_cannot_say_is_said_with_boto3() -> None:
    key = {"customer": {"S": "a"}, "line": {"S": "b"}}
    saved = Put({**key, "status": {"S": "open"}})
    strange = Put({**key, "status": {"NULL": True}})
    memory = memory_of(shape_of_model(models.Order))
    history = [Done(step, pages_of(memory, step, "orders")) for step in (saved, strange)]
    lines = script_of(models.Order, history).splitlines()
    assert "Order(customer='a', line='b', status='open').save()" in lines
    assert any(line.startswith("print(client.put_item(**{'TableName': 'orders'") for line in lines)


def test_tables_that_have_items_are_left_alone(dualstore_engine: sa.Engine, dynamodb: Any) -> None:
    table = models.OrderRow.__table__
    table.create(dualstore_engine)
    try:
        with dualstore_engine.begin() as connection:
            connection.execute(table.insert().values(customer="a", line="b"))
        with (
            pytest.raises(ConfigurationError, match="has rows"),
            sides_of(models.Order, models.OrderRow, engine=dualstore_engine, dynamodb=None),
        ):
            raise AssertionError
    finally:
        table.drop(dualstore_engine)


def test_a_dynamodb_table_that_is_there_is_left_alone(
    dualstore_engine: sa.Engine, dualstore_dynamodb: Any, dynamodb: Any
) -> None:
    with sides_of(models.Order, None, engine=dualstore_engine, dynamodb=None) as sides:
        shape = sides.shape
    if dualstore_dynamodb.engine == "ministack":
        pytest.skip("ministack is no oracle, and gets no table")
    dynamodb.create_table(**create_request(shape))
    try:
        with (
            pytest.raises(ConfigurationError, match="is there"),
            sides_of(models.Order, None, engine=dualstore_engine, dynamodb=dualstore_dynamodb),
        ):
            raise AssertionError
        assert dynamodb.describe_table(TableName=shape.name)
    finally:
        dynamodb.delete_table(TableName=shape.name)
