"""Bound models between two real databases: an application must not notice, whatever the stage."""

import functools
import uuid
from collections.abc import Callable, Iterator
from pprint import pformat
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.connection import Connection
from pynamodb.exceptions import DoesNotExist, PynamoDBException, TransactWriteError
from pynamodb.models import Model
from pynamodb.transactions import TransactGet, TransactWrite

from dualstore import DualStore, Stage
from dualstore.errors import ConfigurationError
from dualstore.flags import Requested, StaticFlags
from dualstore.items import PREDECESSOR, STAMP
from dualstore.stages import Side
from integration.deployment import (
    LASTING,
    REGION,
    WHOLE_MIGRATION,
    Deployment,
    authoritative,
    bring_to,
    eventually,
    mirrored,
    order_model,
    order_row,
    served_by,
)


@pytest.fixture(scope="module")
def unbound(deployment: Deployment) -> Any:
    """The same model on a table that dualstore does not know."""
    return deployment.table()[0]


@pytest.fixture(scope="module")
def stages(deployment: Deployment) -> Iterator[tuple[DualStore, dict[str, Any]]]:
    """One store that serves a table at each stage, and the bound models."""
    with deployment.store(StaticFlags(), grants=LASTING) as store:
        models = {}
        for name, requested in WHOLE_MIGRATION.items():
            models[name], row = deployment.table()
            store.bind(models[name], row, name=name)
            bring_to(store, name, requested)
        yield store, models
        for name in ("dualwrite", "shadow"):
            assert store.table(name).verify(segments=1, workers=1).proven


@pytest.fixture
def partition() -> str:
    return uuid.uuid4().hex


def told(call: Callable[[], Any]) -> Any:
    """What a caller is told: the value, or the exception with its code."""
    try:
        return call()
    except (PynamoDBException, ValueError) as error:
        return type(error).__name__, getattr(error, "cause_response_code", None)


def described(items: Any) -> list[Any]:
    return [{"sk": each.sk, "name": each.name, "n": each.n, "version": each.version} for each in items]


def fill(model: Any, p: str, count: int = 5) -> None:
    with model.batch_write() as batch:
        for sk in range(count):
            batch.save(model(p, sk, name=f"{p}-{sk % 2}", n=sk, tags={"a", str(sk)}))


# Each scenario takes a model and a partition of its own, and returns what its caller saw.


def saves_and_gets(model: Any, p: str) -> Any:
    model(p, 1, name="x", n=1, tags={"a"}, lines=[1, "two"], address={"street": "s"}).save()
    found = model.get(p, 1)
    return found.to_dynamodb_dict(), model.get(p, 1, attributes_to_get=["name"]).name


def gets_what_is_not_there(model: Any, p: str) -> Any:
    return told(lambda: model.get(p, 404)), told(lambda: model(p, 404).refresh())


def creates_twice(model: Any, p: str) -> Any:
    first = told(lambda: model(p, 1, name="one").save(model.pk.does_not_exist()) is not None)
    second = told(lambda: model(p, 1, name="two").save(model.pk.does_not_exist()))
    return first, second, model.get(p, 1).name


def saves_an_outdated_version(model: Any, p: str) -> Any:
    item = model(p, 1, name="one")
    item.save()
    outdated = model.get(p, 1)
    item.name = "two"
    item.save()
    return told(outdated.save), told(outdated.delete), model.get(p, 1).version, item.version


def updates(model: Any, p: str) -> Any:
    item = model(p, 1, name="one", n=1, tags={"a"}, lines=["zero"], address={"street": "s"})
    item.save()
    seen = []
    for actions in (
        [model.n.add(5)],
        [model.name.set("two"), model.tags.add({"b"})],
        [model.address.street.set("t")],
        [model.lines.set(model.lines.append(["one"]))],
        [model.lines[5].set("far")],
        [model.name.remove()],
        [model.tags.delete({"a", "b"})],
    ):
        item.update(actions)
        seen.append(item.to_dynamodb_dict())
    return seen, model.get(p, 1).to_dynamodb_dict()


def updates_what_is_not_there(model: Any, p: str) -> Any:
    item = model(p, 1)
    item.update([model.n.set(1)], add_version_condition=False)
    return item.to_dynamodb_dict(), told(lambda: model(p, 2).update([model.n.set(1)], model.n == 5))


def takes_away_from_what_is_not_there(model: Any, p: str) -> Any:
    connection = model._get_connection()
    answer = connection.update_item(p, "1", actions=[model.name.remove()], return_values="ALL_NEW")
    return answer.get("Attributes"), described(model.query(p))


def asks_for_values(model: Any, p: str) -> Any:
    connection = model._get_connection()
    model(p, 1, name="one", n=1, lines=["zero"]).save()
    seen: list[Any] = []
    for returned in ("NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"):
        for actions in ([model.n.add(1)], [model.lines[9].set("x")], [model.lines[0].set("y")]):
            answer = connection.update_item(p, "1", actions=actions, return_values=returned)
            seen.append(answer.get("Attributes"))
    put = connection.put_item(p, "1", {"name": {"S": "two"}}, return_values="ALL_OLD")
    deleted = connection.delete_item(p, "1", return_values="ALL_OLD")
    again = connection.delete_item(p, "1", return_values="ALL_OLD")
    return seen, *(each.get("Attributes") for each in (put, deleted, again))


def asks_for_what_the_condition_met(model: Any, p: str) -> Any:
    model(p, 1, name="one").save()
    connection = model._get_connection()
    request = {
        "TableName": model.Meta.table_name,
        "Key": {"pk": {"S": p}, "sk": {"N": "1"}},
        "ConditionExpression": "attribute_not_exists(pk)",
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }
    with pytest.raises(ClientError) as refused:
        connection.connection.dispatch("DeleteItem", request)
    cause = refused.value.__cause__
    assert isinstance(cause, ClientError)
    return cause.response.get("Item")


def deletes(model: Any, p: str) -> Any:
    item = model(p, 1, name="one")
    item.save()
    item.delete()
    return told(lambda: model.get(p, 1)), told(lambda: model(p, 2).delete(add_version_condition=False) and 0)


def queries(model: Any, p: str) -> Any:
    fill(model, p, 7)
    return [
        described(model.query(p, **options))
        for options in (
            {},
            {"range_key_condition": model.sk > 3},
            {"range_key_condition": model.sk.between(2, 4), "scan_index_forward": False},
            {"filter_condition": model.n >= 3, "limit": 2},
            {"page_size": 2},
            {"consistent_read": True, "limit": 3},
        )
    ]


def pages(model: Any, p: str) -> Any:
    fill(model, p, 7)
    results = model.query(p, page_size=3)
    first = [next(results).sk for _ in range(2)]
    middle = results.last_evaluated_key
    rest = described(model.query(p, last_evaluated_key=middle))
    whole = model.query(p, page_size=7)
    list(whole)
    return first, middle, rest, whole.last_evaluated_key, whole.total_count


def queries_an_index(model: Any, p: str) -> Any:
    fill(model, p, 7)
    return described(model.by_name.query(f"{p}-1", page_size=2)), model.by_name.count(f"{p}-0")


def counts(model: Any, p: str) -> Any:
    fill(model, p, 7)
    return model.count(p), model.count(p, model.sk > 2), model.count(p, filter_condition=model.n == 3)


def scans(model: Any, p: str) -> Any:
    fill(model, p, 7)
    found = model.scan((model.name == f"{p}-1") | (model.name == f"{p}-0"), page_size=3)
    return sorted(item.sk for item in found)


def scans_with_a_rate_limit(model: Any, p: str) -> Any:
    fill(model, p, 3)
    found = model.scan(model.n >= 0, rate_limit=10_000, segment=0, total_segments=1)
    return sorted(item.sk for item in found if item.pk == p)


def writes_and_gets_in_batches(model: Any, p: str) -> Any:
    fill(model, p, 30)
    with model.batch_write() as batch:
        batch.delete(model(p, 0))
        batch.save(model(p, 1, name="again"))
    found = list(model.batch_get([(p, sk) for sk in range(30)]))
    return sorted((item.sk, item.name, item.n) for item in found)


def puts_one_key_twice_in_a_batch(model: Any, p: str) -> Any:
    def twice() -> None:
        with model.batch_write() as batch:
            batch.save(model(p, 1))
            batch.save(model(p, 1))

    return told(twice)


def transacts(model: Any, p: str) -> Any:
    connection = Connection(region=REGION, host=model.Meta.host)
    model(p, 1, name="one").save()
    model(p, 2, name="two").save()
    with TransactWrite(connection=connection) as transaction:
        transaction.condition_check(model, p, 1, model.name == "one")
        transaction.delete(model(p, 2), add_version_condition=False)
        transaction.save(model(p, 3, name="three"))
        transaction.update(model(p, 4), [model.n.add(4)], add_version_condition=False)
    with TransactGet(connection=connection) as reading:
        futures = [reading.get(model, p, sk) for sk in (1, 3, 4)]
    return described(model.query(p)), described(future.get() for future in futures)


def transacts_in_vain(model: Any, p: str) -> Any:
    connection = Connection(region=REGION, host=model.Meta.host)
    model(p, 1, name="one").save()
    with (  # noqa: PT012 - the block's end raises
        pytest.raises(TransactWriteError) as refused,
        TransactWrite(connection=connection) as transaction,
    ):
        transaction.save(model(p, 9, name="nine"))
        transaction.delete(model(p, 1), condition=model.name == "else", add_version_condition=False)
    error = refused.value
    reasons = [reason.code if reason else None for reason in error.cancellation_reasons]
    return error.cause_response_code, reasons, described(model.query(p))


def makes_mistakes(model: Any, p: str) -> Any:
    connection = model._get_connection()
    key = {"TableName": model.Meta.table_name, "Key": {"pk": {"S": p}, "sk": {"N": "1"}}}
    wrong_key = {**key, "Key": {"pk": {"N": "1"}, "sk": {"N": "1"}}}
    update = {"UpdateExpression": "SET n = :v", "ExpressionAttributeValues": {":v": {"N": "1"}}}
    mistakes = (
        ("GetItem", wrong_key),
        ("DeleteItem", wrong_key),
        ("UpdateItem", {**wrong_key, **update}),
        ("UpdateItem", {**key, "UpdateExpression": "SET n = "}),
        ("UpdateItem", {**key, **update, "UpdateExpression": "SET pk = :v"}),
        ("PutItem", {"TableName": model.Meta.table_name, "Item": {"pk": {"S": p}}}),
        ("PutItem", {"TableName": model.Meta.table_name, "Item": {"pk": {"S": ""}, "sk": {"N": "1"}}}),
        ("Query", {"TableName": model.Meta.table_name}),
        ("BatchWriteItem", {"RequestItems": {model.Meta.table_name: [{"DeleteRequest": {"Key": {}}}]}}),
        ("TransactWriteItems", {"TransactItems": [{"Delete": wrong_key}]}),
    )  # fmt: skip

    def code(name: str, request: dict[str, Any]) -> str:
        try:
            connection.connection.dispatch(name, dict(request))
        except ClientError as refused:
            return refused.response["Error"]["Code"]
        return "accepted"

    return [code(*each) for each in mistakes]


SCENARIOS = (
    saves_and_gets, gets_what_is_not_there, creates_twice, saves_an_outdated_version, updates,
    updates_what_is_not_there, takes_away_from_what_is_not_there, asks_for_values,
    asks_for_what_the_condition_met, deletes, queries, pages, queries_an_index, counts, scans,
    scans_with_a_rate_limit, writes_and_gets_in_batches, puts_one_key_twice_in_a_batch, transacts,
    transacts_in_vain, makes_mistakes,
)  # fmt: skip


def seen(scenario: Callable[..., Any], model: Any, p: str) -> str:
    # DynamoDB promises no order of attributes.
    return pformat(scenario(model, p), width=1_000_000, sort_dicts=True).replace(p, "partition")


@pytest.fixture(scope="module")
def without_dualstore(unbound: Any) -> Callable[[Callable[..., Any]], str]:
    """What each scenario sees on a table of its own, found out once."""
    return functools.cache(lambda scenario: seen(scenario, unbound, uuid.uuid4().hex))


@pytest.mark.parametrize("stage", WHOLE_MIGRATION)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_bound_model_does_the_same_as_an_unbound_one(  # noqa: PLR0917 - pytest passes by name
    scenario: Callable[..., Any],
    stage: str,
    stages: tuple[DualStore, dict[str, Any]],
    without_dualstore: Any,
    deployment: Deployment,
    partition: str,
) -> None:
    store, models = stages
    model = models[stage]
    assert seen(scenario, model, partition) == without_dualstore(scenario)
    table = model.Meta.table_name
    on_postgres = mirrored(store, table, partition)
    if stage == "off":
        assert on_postgres == []
    else:
        assert on_postgres == authoritative(deployment, table, partition)
        assert not store._mirroring.mirror.dirty_keys(table)


def test_reads_are_served_by_the_side_that_the_stage_says(
    stages: tuple[DualStore, dict[str, Any]], partition: str
) -> None:
    store, models = stages
    for stage, side in (("off", Side.DYNAMODB), ("dualwrite", Side.DYNAMODB), ("shadow", Side.POSTGRES)):
        model = models[stage]
        model(partition, 1, name="x", n=1).save()
        before = served_by(store, side)
        model.get(partition, 1)
        list(model.query(partition))
        assert served_by(store, side) == before + 2


def test_every_write_is_stamped_and_no_reader_sees_a_stamp(
    stages: tuple[DualStore, dict[str, Any]], deployment: Deployment, partition: str
) -> None:
    store, models = stages
    client = store.client()
    for model in models.values():
        fill(model, partition, 2)
        model(partition, 2).update([model.n.set(2)], add_version_condition=False)
        table = model.Meta.table_name
        raw = deployment.dynamodb.query(
            TableName=table,
            KeyConditionExpression="pk = :p",
            ExpressionAttributeValues={":p": {"S": partition}},
        )
        assert [STAMP in item for item in raw["Items"]] == [True] * 3

        names: list[str] = []
        original = model.from_raw_data.__func__

        def noting(cls: Any, data: Any, original: Any = original, names: Any = names) -> Any:
            names.extend(data)
            return original(cls, data)

        model.from_raw_data = classmethod(noting)
        try:
            list(model.query(partition))
            list(model.scan())
            list(model.batch_get([(partition, sk) for sk in range(3)]))
        finally:
            del model.from_raw_data
        assert {"pk", "sk"} <= set(names)
        assert not {STAMP, PREDECESSOR} & set(names)
        for answer in (
            client.get_item(TableName=table, Key={"pk": {"S": partition}, "sk": {"N": "2"}}),
            client.scan(TableName=table),
            client.batch_get_item(
                RequestItems={table: {"Keys": [{"pk": {"S": partition}, "sk": {"N": "1"}}]}}
            ),
            client.transact_get_items(
                TransactItems=[
                    {"Get": {"TableName": table, "Key": {"pk": {"S": partition}, "sk": {"N": "1"}}}}
                ]
            ),
        ):
            assert partition in repr(answer)
            assert STAMP not in repr(answer)
            assert PREDECESSOR not in repr(answer)


def test_pynamodb_announces_each_operation_once(
    stages: tuple[DualStore, dict[str, Any]], partition: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its signals, which need a package that is not required here: so watch who sends them."""
    sent: list[tuple[str, str]] = []
    for when in ("pre", "post"):
        monkeypatch.setattr(
            Connection,
            f"send_{when}_boto_callback",
            lambda _, operation, *rest, when=when: sent.append((when, operation)),
        )
    stages[1]["shadow"](partition, 1).save()
    stages[1]["shadow"].get(partition, 1)
    assert sent == [("pre", "PutItem"), ("post", "PutItem"), ("pre", "GetItem"), ("post", "GetItem")]


# What is bound, and since when


@pytest.fixture
def store(deployment: Deployment) -> Iterator[DualStore]:
    with deployment.store() as one:
        yield one


def stamped_in(deployment: Deployment, model: Any, partition: str) -> list[bool]:
    return [STAMP in item for item in authoritative(deployment, model.Meta.table_name, partition)]


def test_a_model_bound_after_its_connection_was_used_is_routed_and_one_unbound_is_not(
    store: DualStore, deployment: Deployment, partition: str
) -> None:
    model, row = deployment.table()
    model(partition, 1).save()
    store.bind(model, row)
    model(partition, 2).save()
    store.unbind(model)
    store.unbind(model)
    model(partition, 3).save()
    assert stamped_in(deployment, model, partition) == [False, True, False]


def test_a_subclass_and_another_model_of_the_same_table_are_routed_too(
    store: DualStore, deployment: Deployment, partition: str
) -> None:
    model, row = deployment.table()

    class Special(model):  # type: ignore[misc,valid-type]
        extra = UnicodeAttribute(null=True)

    class Other(Model):
        class Meta:
            table_name = model.Meta.table_name
            region = REGION
            host = deployment.endpoint_url

        pk = UnicodeAttribute(hash_key=True)
        sk = NumberAttribute(range_key=True)

    Special(partition, 0).save()
    store.bind(model, row)
    Special(partition, 1, extra="x").save()
    Other(partition, 2).save()
    assert Special.get(partition, 1).extra == "x"
    assert stamped_in(deployment, model, partition) == [False, True, True]


def test_a_block_binds_and_a_block_within_a_binding_leaves_it_as_it_was(
    store: DualStore, deployment: Deployment, partition: str
) -> None:
    model, row = deployment.table()
    with store.bound(model, row):
        model(partition, 1).save()
        with store.bound(model, row):
            model(partition, 2).save()
        model(partition, 3).save()
    model(partition, 4).save()
    with pytest.raises(RuntimeError), store.bound(model, row):
        raise RuntimeError
    model(partition, 5).save()
    assert stamped_in(deployment, model, partition) == [True, True, True, False, False]


def test_a_table_name_set_at_run_time_is_refused_until_that_table_is_bound_as_well(
    store: DualStore, deployment: Deployment, partition: str
) -> None:
    model, row = deployment.table()
    other, other_row = deployment.table()
    first, second = model.Meta.table_name, other.Meta.table_name
    store.bind(model, row)
    model(partition, 1).save()
    model.Meta.table_name = second
    with pytest.raises(ConfigurationError, match="Bind it again"):
        model(partition, 2).save()
    with pytest.raises(ConfigurationError, match="one of its own"):
        store.bind(model, row)
    store.bind(model, other_row)
    model(partition, 2).save()
    assert model.get(partition, 2).sk == 2
    model.Meta.table_name = first
    assert model.get(partition, 1).sk == 1
    with pytest.raises(DoesNotExist):
        model.get(partition, 2)
    assert stamped_in(deployment, other, partition) == [True]


def test_one_table_is_mirrored_in_one_way_only(store: DualStore, deployment: Deployment) -> None:
    model, row = deployment.table()
    _, other_row = deployment.table()
    store.bind(model, row, name="first")
    store.bind(model, row)
    store.bind(model)
    with pytest.raises(ConfigurationError, match="already mirrored"):
        store.bind(model, other_row)
    with pytest.raises(ConfigurationError, match="already goes by the name first"):
        store.repository(model, row, name="second")


def test_two_stores_of_one_process_do_not_take_each_others_bindings(
    store: DualStore, deployment: Deployment, partition: str
) -> None:
    model, row = deployment.table()
    store.bind(model, row)
    with deployment.store() as second:
        with pytest.raises(ConfigurationError, match="unbind it there first"):
            second.bind(model, row)
        second.repository(model, row).save(model(partition, 1))
        second.unbind(model)
        model(partition, 2).save()
    model(partition, 3).save()
    assert stamped_in(deployment, model, partition) == [True, True, True]


def test_a_transaction_over_tables_of_two_stores_is_refused(
    store: DualStore, deployment: Deployment, partition: str
) -> None:
    model, row = deployment.table()
    other, other_row = deployment.table()
    store.bind(model, row)
    connection = Connection(region=REGION, host=deployment.endpoint_url)
    with deployment.store() as second:
        second.bind(other, other_row)
        with (  # noqa: PT012 - the block's end raises
            pytest.raises(ConfigurationError, match="bind them all on one"),
            TransactWrite(connection=connection) as t,
        ):
            t.save(model(partition, 1))
            t.save(other(partition, 1))
        with (  # noqa: PT012 - the block's end raises
            pytest.raises(ConfigurationError, match="bind them all on one"),
            store.transact_write() as t,
        ):
            t.save(model(partition, 1))
            t.save(other(partition, 1))
    assert authoritative(deployment, model.Meta.table_name, partition) == []


def test_a_transaction_with_an_unserved_table_leaves_that_one_as_it_is(
    store: DualStore, deployment: Deployment, partition: str
) -> None:
    model, row = deployment.table()
    other, _ = deployment.table()
    store.bind(model, row)
    with TransactWrite(connection=Connection(region=REGION, host=deployment.endpoint_url)) as transaction:
        transaction.save(model(partition, 1))
        transaction.save(other(partition, 1))
    assert stamped_in(deployment, model, partition) == [True]
    assert stamped_in(deployment, other, partition) == [False]


def test_a_model_of_another_dynamodb_is_refused(store: DualStore) -> None:
    with pytest.raises(ConfigurationError, match=r"Meta\.host"):
        store.bind(order_model("elsewhere", "http://127.0.0.1:1"), order_row("elsewhere"))


def test_two_processes_see_each_others_writes_at_every_dial(deployment: Deployment, partition: str) -> None:
    model, row = deployment.table()
    flags = StaticFlags()
    with deployment.store(flags) as first, deployment.store(flags) as second:
        here, there = first.repository(model, row, name="o"), second.repository(model, row, name="o")
        here.save(model(partition, 0, name="before"))
        table = bring_to(first, "o", Requested(stage=Stage.SHADOW, postgres_read_percent=100.0))
        assert len(table.status().confirmed) == 2
        for n in range(5):
            item = model(partition, 1, name=str(n))
            here.update(item, [model.name.set(str(n))], add_version_condition=False)
            assert there.get(partition, 1).name == str(n)
            assert here.get(partition, 1).name == str(n)
        assert served_by(second, Side.POSTGRES) == 5
        assert [item.name for item in there.query(partition)] == ["before", "4"]


def test_a_share_of_the_keys_is_mirrored_where_the_dial_says_so(
    deployment: Deployment, partition: str
) -> None:
    model, row = deployment.table()
    flags = StaticFlags()
    with deployment.store(flags) as store:
        store.bind(model, row, name="some")
        flags.set("some", stage=Stage.DUALWRITE, mirror_percent=40.0)
        table = store.table("some")
        table.wait_until(lambda record: record.stage is Stage.DUALWRITE)
        keys = [f"{partition}-{number}" for number in range(30)]
        for key in keys:
            model(key, 1).save()
        covered = [key for key in keys if mirrored(store, table.physical, key)]
        assert 0 < len(covered) < 30
        flags.set("some", mirror_percent=100.0)
        table.wait_until(lambda record: record.mirrors_every_key)
        for key in keys:
            model(key, 1).delete(add_version_condition=False)
        table.backfill(segments=1, workers=1)
        assert table.verify(segments=1, workers=1).proven


def test_a_table_without_a_sql_model_is_served_from_its_key_columns_and_overflow(
    deployment: Deployment, partition: str
) -> None:
    model, _ = deployment.table()
    flags = StaticFlags()
    with deployment.store(flags) as store:
        store.bind(model, name=f"plain_{partition[:8]}")
        logical = f"plain_{partition[:8]}"
        from dualstore import schema  # noqa: PLC0415

        schema.create_unmapped(deployment.engine, store.table(logical).mapping)
        model(partition, 1, name="before", tags={"x"}).save()
        bring_to(store, logical, WHOLE_MIGRATION["shadow"])
        model(partition, 2, name="after", lines=[1]).save()
        before = served_by(store, Side.POSTGRES)
        assert [item.name for item in model.query(partition)] == ["before", "after"]
        assert model.get(partition, 1).tags == {"x"}
        assert served_by(store, Side.POSTGRES) == before + 2
        assert store.table(logical).verify(segments=1, workers=1).proven


def test_a_row_that_the_team_s_table_refuses_is_dirty_and_read_at_the_authority(
    stages: tuple[DualStore, dict[str, Any]], deployment: Deployment, partition: str
) -> None:
    store, models = stages
    model, table = models["shadow"], store.table("shadow")
    model(partition, 1, name="fits", n=1).save()
    item = model.get(partition, 1)
    item.n = 1_000_000
    item.save()
    try:
        assert [each["n"] for each in mirrored(store, table.physical, partition)] == [{"N": "1"}]
        assert len(store._mirroring.mirror.dirty_keys(table.physical)) == 1
        assert model.get(partition, 1).n == 1_000_000
        assert [each.n for each in model.query(partition)] == [1_000_000]
        other = uuid.uuid4().hex
        model(other, 1, n=2).save()
        before = served_by(store, Side.POSTGRES)
        assert model.get(other, 1).n == 2
        assert served_by(store, Side.POSTGRES) == before + 1
        assert table.view.record.mirror_readable
    finally:
        item.n = 2
        item.save()
    eventually(lambda: not table.status().pending)
    assert mirrored(store, table.physical, partition) == authoritative(deployment, table.physical, partition)
    assert [each.n for each in model.query(partition)] == [2]
