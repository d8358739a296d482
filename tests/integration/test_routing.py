"""Cohorts, held routes, batches and the reader endpoint, on real databases and through PynamoDB."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from dualstore import DualStore, Stage
from dualstore.control import ControlRecord, Phase
from dualstore.flags import Requested, StaticFlags
from dualstore.routing import ReadRules
from dualstore.stages import Side
from dualstore.store.table import MigratedTable
from dualstore.telemetry import Role
from integration.deployment import QUICK, Deployment

COHORTS = ReadRules(always_on=frozenset({"internal"}), always_off=frozenset({"bank"}))
P, D = Side.POSTGRES, Side.DYNAMODB


def read_as(store: DualStore) -> dict[tuple[Side, Role], int]:
    """How many reads each side has answered, by what it was asked as."""
    found: dict[tuple[Side, Role], int] = {}
    reads = {"GetItem", "Query", "BatchGetItem", "Scan"}
    for key, cell in store.telemetry.snapshot().operations.items():
        if key.operation in reads and key.outcome == "ok" and key.role is not Role.SHADOW:
            found[key.side, key.role] = found.get((key.side, key.role), 0) + sum(cell.counts)
    return found


def told_by(store: DualStore, act: Any) -> list[tuple[Side, Role]]:
    """Who answered what is read meanwhile."""
    before = read_as(store)
    act()
    after = read_as(store)
    return sorted(who for who, count in after.items() for _ in range(count - before.get(who, 0)))


def at_stage(table: MigratedTable, flags: StaticFlags, stage: Stage) -> None:
    flags.set(table.served.logical, stage=stage)
    table.wait_until(lambda record: record.stage is stage)


@pytest.fixture
def flags() -> StaticFlags:
    return StaticFlags()


@pytest.fixture
def mirrored(deployment: Deployment, flags: StaticFlags) -> Iterator[tuple[DualStore, Any, MigratedTable]]:
    """A table at dualwrite, its mirror readable, at read-percent 0; with cohorts by the key's prefix."""
    model, row = deployment.table()
    name = model.Meta.table_name
    flags.set(name, stage=Stage.DUALWRITE)
    with deployment.store(flags, reads={name: COHORTS}) as store:
        store.bind(model, row, cohort=lambda pk: pk.partition("#")[0])
        store.prepare()  # the triggers
        table = store.table(name)
        table.wait_until(lambda record: record.stage is Stage.DUALWRITE)
        table.backfill()
        for tenant in ("internal", "bank", "other"):
            for sk in range(3):
                model(f"{tenant}#1", sk, name=tenant, n=sk).save()
        yield store, model, table
        store.unbind(model)


def test_a_cohort_reads_postgresql_before_the_first_percent_and_another_never(
    mirrored: tuple[DualStore, Any, MigratedTable], flags: StaticFlags
) -> None:
    store, model, table = mirrored
    assert told_by(store, lambda: model.get("internal#1", 1)) == [(P, Role.MIRROR)]
    assert told_by(store, lambda: model.get("other#1", 1)) == [(D, Role.AUTHORITATIVE)]
    with store.cohort("internal"):
        assert told_by(store, lambda: list(model.query("bank#1"))) == [(P, Role.MIRROR)]
    flags.set(table.served.logical, postgres_read_percent=100.0)
    table.wait_until(lambda record: record.dials.postgres_read_percent == 100)
    assert told_by(store, lambda: model.get("other#1", 1)) == [(P, Role.MIRROR)]
    assert told_by(store, lambda: model.get("bank#1", 1)) == [(D, Role.AUTHORITATIVE)]


def test_a_held_route_outlives_a_dial_and_not_a_stop(
    mirrored: tuple[DualStore, Any, MigratedTable], flags: StaticFlags
) -> None:
    store, model, table = mirrored
    with store.hold_route():
        flags.set(table.served.logical, postgres_read_percent=100.0)
        table.wait_until(lambda record: record.dials.postgres_read_percent == 100)
        assert told_by(store, lambda: model.get("other#1", 1)) == [(D, Role.AUTHORITATIVE)]
    with store.hold_route():
        assert told_by(store, lambda: model.get("other#1", 1)) == [(P, Role.MIRROR)]
        store.stop(table.served.logical, by="test")
        table.wait_until(lambda record: record.stopped is not None)
        assert told_by(store, lambda: model.get("other#1", 1)) == [(D, Role.AUTHORITATIVE)]


def test_a_batch_is_read_on_both_sides_and_its_items_are_the_same(
    mirrored: tuple[DualStore, Any, MigratedTable],
) -> None:
    store, model, table = mirrored
    name = table.physical
    keys = [
        {"pk": {"S": f"{tenant}#1"}, "sk": {"N": str(sk)}}
        for sk in range(3)
        for tenant in ("internal", "other", "bank")
    ]
    found: list[Any] = []

    def read() -> None:
        answer = store.client().batch_get_item(RequestItems={name: {"Keys": keys}})
        found[:] = answer["Responses"][name]

    both = [(D, Role.AUTHORITATIVE), (P, Role.MIRROR)]
    assert told_by(store, read) == both
    assert [{"pk": each["pk"], "sk": each["sk"]} for each in found] == keys
    with store.engine.begin() as connection:  # a stranger: the trigger puts the key in doubt
        connection.execute(
            sa.text(f'UPDATE "{table.mapping.table.name}" SET name = :n WHERE pk = :pk AND sk = 1'),
            {"n": "planted", "pk": "internal#1"},
        )
    assert told_by(store, read) == both
    assert {each["name"]["S"] for each in found} == {"internal", "other", "bank"}
    by_model = model.batch_get([("internal#1", 1), ("other#1", 1)])
    assert {each.name for each in by_model} == {"internal", "other"}


def test_a_table_named_by_its_arn_is_written_on_both_sides_and_read_by_dial(
    mirrored: tuple[DualStore, Any, MigratedTable], deployment: Deployment
) -> None:
    store, model, table = mirrored
    arn = deployment.dynamodb.describe_table(TableName=table.physical)["Table"]["TableArn"]
    client, key = store.client(), {"pk": {"S": "internal#1"}, "sk": {"N": "1"}}
    entries = [{"PutRequest": {"Item": {**key, "name": {"S": "by its ARN"}}}}]
    assert client.batch_write_item(RequestItems={arn: entries})["UnprocessedItems"] == {}
    by_client: list[Any] = []

    def read() -> None:
        by_client.append(client.get_item(TableName=arn, Key=key)["Item"])
        by_client.extend(client.batch_get_item(RequestItems={arn: {"Keys": [key]}})["Responses"][arn])

    assert told_by(store, read) == [(P, Role.MIRROR)] * 2
    assert by_client == [entries[0]["PutRequest"]["Item"]] * 2
    model.Meta.table_name = arn
    try:
        assert told_by(store, lambda: model.get("internal#1", 1)) == [(P, Role.MIRROR)]
    finally:
        model.Meta.table_name = table.physical


def test_a_lookup_by_an_index_is_dialled_and_one_with_ties_is_not(
    mirrored: tuple[DualStore, Any, MigratedTable],
) -> None:
    store, model, _ = mirrored
    with store.cohort("internal"):
        without_ties: list[Any] = []
        assert told_by(store, lambda: without_ties.extend(model.by_name.query("internal"))) == [
            (P, Role.MIRROR)
        ]
        assert [each.sk for each in without_ties] == [0, 1, 2]
        model("internal#2", 7, name="internal", n=1).save()
        with_ties: list[Any] = []
        assert (D, Role.AUTHORITATIVE) in told_by(
            store, lambda: with_ties.extend(model.by_name.query("internal"))
        )
        assert len(with_ties) == 4


def test_the_reader_endpoint_answers_eventual_reads_of_the_authority_and_the_writer_takes_over(
    deployment: Deployment,
) -> None:
    """The same server stands for a replica: what is tested is who is asked."""
    model, row = deployment.table()
    name = model.Meta.table_name
    flags = StaticFlags({name: Requested(stage=Stage.COMPLETE)})
    reader = sa.create_engine(deployment.engine.url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    options = replace(QUICK, bookkeeping_table=deployment.bookkeeping)
    with DualStore(
        engine=deployment.engine,
        dynamodb=deployment.clients,
        flags=flags,
        options=options,
        reader_engine=reader,
    ) as store:
        store.prepare()
        decided = ControlRecord(name, stage=Stage.COMPLETE, loaded=True, verified=True, epoch=1, generation=1)
        homes = store._agent.homes
        homes[P].install(decided)
        homes[D].install(replace(decided, phase=Phase.MOVED))
        store.bind(model, row)
        store.prepare()
        model("a", 1, name="x").save()
        assert told_by(store, lambda: model.get("a", 1)) == [(P, Role.READER)]
        assert told_by(store, lambda: list(model.query("a"))) == [(P, Role.READER)]
        assert told_by(store, lambda: list(model.scan())) == [(P, Role.READER)]
        assert told_by(store, lambda: list(model.batch_get([("a", 1)]))) == [(P, Role.READER)]
        assert told_by(store, lambda: model.get("a", 1, consistent_read=True)) == [(P, Role.AUTHORITATIVE)]
        with reader.connect():  # its only connection: nobody else gets one
            assert told_by(store, lambda: model.get("a", 1)) == [(P, Role.AUTHORITATIVE)]
        assert told_by(store, lambda: model.get("a", 1)) == [(P, Role.READER)]
        store.unbind(model)
    reader.dispose()
