"""Batches and transactions over tables whose authorities are different databases."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from dualstore.control import ControlRecord, Phase
from dualstore.errors import AuthorityMoved, OutcomeUnknown, Unavailable, client_error, invalid
from dualstore.items import STAMP, KeyAttribute, KeySchema, TableShape
from dualstore.operations import BatchGetItem, BatchWriteItem
from dualstore.replication.parts import by_authority
from dualstore.replication.served import ServedTable
from dualstore.replication.views import View
from dualstore.router import Router
from dualstore.stages import Side, Stage
from unit.replication.processes import SERVED, SHAPE, TABLE, Process, World, bring

HERE, THERE, ALIEN = TABLE, "other-prod", "alien-prod"
"""Tables of which DynamoDB is the authority, of which PostgreSQL is, and that is not served."""
OTHER = ServedTable("other", TableShape(THERE, KeySchema(KeyAttribute("id", "S"))))
KEY = {"id": {"S": "a"}}
TABLES = {HERE: SERVED, THERE: OTHER}


@pytest.fixture
def world() -> World:
    alien = TableShape(ALIEN, KeySchema(KeyAttribute("id", "S")))
    return World({HERE: SHAPE, THERE: OTHER.shape, ALIEN: alien})


@pytest.fixture
def process(world: World) -> Process:
    """At shadow with one table, and at live with another."""
    process = world.process()
    process.agent.serve(OTHER.physical, logical=OTHER.logical)
    router = Router(
        process.mirroring,
        process.mirror,
        TABLES,
        telemetry=process.telemetry,
        observe=lambda table, operation, side, answer: process.observed.append(side),
    )
    process.router = router
    bring(Stage.SHADOW, process)
    for stage in (Stage.DUALWRITE, Stage.SHADOW, Stage.LIVE):
        process.flags.set(OTHER.logical, stage=stage)
        for _ in range(4):
            world.clock.advance(1)
            process.agent.tick()
        assert process.agent.view(THERE).record.stage is stage
    assert process.agent.view(HERE).record.stage is Stage.SHADOW
    return process


def held(world: World, table: str) -> tuple[Any, Any]:
    """What DynamoDB and PostgreSQL hold of the key."""
    items = (store.state(table, KEY).item for store in (world.authority, world.mirror))
    return tuple(item and item["v"]["S"] for item in items)  # type: ignore[return-value]


def batch(process: Process, *tables: str, value: str = "new") -> Any:
    item = {**KEY, "v": {"S": value}}
    return process.router.execute(
        "BatchWriteItem", {"RequestItems": {table: [{"PutRequest": {"Item": item}}] for table in tables}}
    )


def batch_get(process: Process, *tables: str, **request: Any) -> Any:
    keys = {table: {"Keys": [KEY], "ConsistentRead": True} for table in tables}
    return process.router.execute("BatchGetItem", {"RequestItems": keys, **request})


def transaction(process: Process, *tables: str) -> Any:
    puts = [{"Put": {"TableName": table, "Item": {**KEY, "v": {"S": "new"}}}} for table in tables]
    return process.router.execute("TransactWriteItems", {"TransactItems": puts})


def transact_get(process: Process, *tables: str) -> Any:
    gets = [{"Get": {"TableName": table, "Key": KEY}} for table in tables]
    return process.router.execute("TransactGetItems", {"TransactItems": gets})


def test_each_part_of_a_batch_is_written_where_its_authority_is(world: World, process: Process) -> None:
    assert batch(process, HERE, THERE, ALIEN).get("UnprocessedItems", {}) == {}
    assert held(world, HERE) == ("new", "new")  # mirrored
    assert held(world, THERE) == (None, "new")  # handed on later
    assert held(world, ALIEN) == ("new", None)
    assert [entry.entries for entry in map(world.outbox.depth, (HERE, THERE))] == [0, 1]


def test_each_part_of_a_batch_is_read_where_its_authority_is_without_stamps(
    world: World, process: Process
) -> None:
    batch(process, HERE, THERE, ALIEN)
    world.authority.execute(
        BatchWriteItem({"RequestItems": {THERE: [{"PutRequest": {"Item": {**KEY, "v": {"S": "behind"}}}}]}})
    )
    process.observed.clear()
    answer = batch_get(process, HERE, THERE, ALIEN, ReturnConsumedCapacity="TOTAL")
    assert answer["Responses"] == {table: [{**KEY, "v": {"S": "new"}}] for table in (HERE, THERE, ALIEN)}
    assert sorted(each["TableName"] for each in answer["ConsumedCapacity"]) == sorted((HERE, THERE, ALIEN))
    assert sorted(process.observed) == [Side.DYNAMODB, Side.POSTGRES]
    assert STAMP in (world.mirror.state(THERE, KEY).item or {})


@pytest.mark.parametrize("tables", [(HERE, ALIEN), (THERE,)])
def test_a_transaction_on_one_side_is_carried_out_there(
    world: World, process: Process, tables: tuple[str, ...]
) -> None:
    transaction(process, *tables)
    expected = {HERE: ("new", "new"), THERE: (None, "new"), ALIEN: ("new", None)}
    assert {table: held(world, table) for table in tables} == {table: expected[table] for table in tables}
    assert [each["Item"]["v"]["S"] for each in transact_get(process, *tables)["Responses"]] == ["new"] * len(
        tables
    )


@pytest.mark.parametrize("act", [transaction, transact_get])
@pytest.mark.parametrize("tables", [(HERE, THERE), (THERE, ALIEN)])
def test_a_transaction_that_spans_both_sides_is_refused_whole_and_says_which_tables(
    world: World, process: Process, act: Any, tables: tuple[str, ...]
) -> None:
    with pytest.raises(ClientError, match="cannot span") as refused:
        act(process, *tables)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    for table in tables:
        assert table in str(refused.value)
        assert held(world, table) == (None, None)


DELETIONS = BatchWriteItem(
    {"RequestItems": {table: [{"DeleteRequest": {"Key": KEY}}] for table in (HERE, THERE)}}
)
READS = BatchGetItem({"RequestItems": {table: {"Keys": [KEY]} for table in (HERE, THERE)}})
REFUSED = client_error("BatchWriteItem", invalid("PostgreSQL's half"))


def by_both(operation: BatchWriteItem | BatchGetItem, dynamodb: Any, postgres: Any) -> Any:
    views = {
        table: View(ControlRecord(table, stage=stage, phase=Phase.OPEN), 0, 0)
        for table, stage in ((HERE, Stage.SHADOW), (THERE, Stage.LIVE))
    }
    return by_authority(operation, views, dynamodb, postgres)


def done(part: Any, mine: Any) -> Any:
    return {"UnprocessedItems": {}}


def raising(error: Exception) -> Any:
    def ask(part: Any, mine: Any) -> Any:
        raise error

    return ask


def test_unprocessed_items_of_both_parts_are_handed_back() -> None:
    def nothing_done(part: Any, mine: Any) -> Any:
        assert set(mine) == part.tables
        return {"UnprocessedItems": part.request["RequestItems"]}

    answer = by_both(DELETIONS, nothing_done, nothing_done)
    assert answer["UnprocessedItems"] == DELETIONS.request["RequestItems"]


@pytest.mark.parametrize("error", [Unavailable("away"), AuthorityMoved("moved"), REFUSED], ids=repr)
def test_what_postgresql_did_not_write_after_dynamodb_s_half_is_answered_unprocessed(
    error: Exception,
) -> None:
    answer = by_both(DELETIONS, done, raising(error))
    assert answer["UnprocessedItems"] == {THERE: DELETIONS.request["RequestItems"][THERE]}


def test_what_postgresql_may_have_written_is_not_called_unprocessed() -> None:
    with pytest.raises(OutcomeUnknown):
        by_both(DELETIONS, done, raising(OutcomeUnknown("no reply")))


def test_a_batch_of_reads_that_postgresql_refuses_is_refused() -> None:
    with pytest.raises(ClientError):
        by_both(READS, done, raising(REFUSED))


@pytest.mark.parametrize("error", [Unavailable("away"), AuthorityMoved("moved"), REFUSED], ids=repr)
def test_a_batch_whose_first_half_is_not_done_is_not_begun_at_the_other(error: Exception) -> None:
    with pytest.raises(type(error)):
        by_both(DELETIONS, raising(error), lambda part, mine: pytest.fail("begun"))


def test_a_part_waits_for_its_own_table_alone(world: World, process: Process) -> None:
    """The other table's writes go on while those of one pause; a batch over both waits for it."""
    process.flags.set(OTHER.logical, stage=Stage.SHADOW)
    process.agent.tick()
    assert process.agent.view(THERE).record.phase is Phase.CLOSED
    began = world.clock.now()
    batch(process, HERE, value="goes on")
    assert world.clock.now() == began
    world.clock.after(0.5, process.agent.tick)
    batch(process, HERE, THERE, value="both")
    assert world.clock.now() - began >= 0.5
    assert [held(world, table) for table in (HERE, THERE)] == [("both", "both")] * 2


def test_a_batch_that_meets_a_move_half_way_writes_no_half_twice_and_hands_the_other_back(
    world: World, process: Process
) -> None:
    """What DynamoDB has taken may have been written again since, by somebody else."""

    def meanwhile(name: str, args: Any) -> None:
        if name == "execute_as_authority":
            process.mirror.before = lambda *_: None
            process.flags.set(OTHER.logical, stage=Stage.SHADOW)
            process.agent.tick()
            world.clock.after(0.1, process.agent.tick)
            batch(process, HERE, value="somebody else's")

    process.mirror.before = meanwhile
    unprocessed = batch(process, HERE, THERE)["UnprocessedItems"]
    assert unprocessed == {THERE: [{"PutRequest": {"Item": {**KEY, "v": {"S": "new"}}}}]}
    assert held(world, HERE) == ("somebody else's",) * 2
    assert held(world, THERE) == (None, None)
    process.router.execute("BatchWriteItem", {"RequestItems": unprocessed})
    assert process.agent.view(THERE).record.stage is Stage.SHADOW
    assert held(world, THERE) == ("new", "new")
