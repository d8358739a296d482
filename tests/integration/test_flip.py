"""PostgreSQL becomes the authority, DynamoDB again, and PostgreSQL for good, under writes."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError

from dualstore import DualStore, Stage
from dualstore.control import Phase
from dualstore.errors import IllegalTransition
from dualstore.flags import Requested, StaticFlags
from dualstore.items import Item, without_stamps
from dualstore.replication.agent import GrantTimes
from dualstore.store import MigratedTable
from dualstore.verify import VerifyProgress
from integration.deployment import Deployment, bring_to, eventually
from integration.writing import NAME, item_of, key_of, writing

# On a busy machine a process takes its time to start.
PATIENCE = 60.0
READY = Requested(stage=Stage.SHADOW, postgres_read_percent=100.0)


def with_stream(deployment: Deployment, table: str) -> None:
    deployment.dynamodb.update_table(
        TableName=table,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )


@contextmanager
def relaying(store: DualStore) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=store.relaying().run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def ask(table: MigratedTable, store: DualStore, stage: Stage) -> None:
    assert isinstance(store.flags, StaticFlags)
    store.flags.set(NAME, stage=stage)
    table.wait_until(lambda record: record.stage is stage)


def both_sides(
    deployment: Deployment, store: DualStore, table: str
) -> tuple[dict[Any, Item], dict[Any, Item]]:
    def by_key(items: list[Item]) -> dict[Any, Item]:
        return {(item["pk"]["S"], item["sk"]["N"]): without_stamps(item) for item in items}

    scanned = deployment.dynamodb.scan(TableName=table, ConsistentRead=True)["Items"]
    rows = [item for page in store._mirroring.mirror.all_items(table) for item in page]
    return by_key(scanned), by_key(rows)


@pytest.fixture
def prepared(deployment: Deployment) -> Iterator[tuple[DualStore, MigratedTable, Any]]:
    """A table at stage shadow, verified, with a relay."""
    with prepare(deployment) as made:
        yield made


@contextmanager
def prepare(deployment: Deployment, **options: Any) -> Iterator[tuple[DualStore, MigratedTable, Any]]:
    model, row = deployment.table()
    with_stream(deployment, model.Meta.table_name)
    with deployment.store(**options) as store:
        store.bind(model, row, name=NAME)
        store.prepare()
        with relaying(store):
            table = bring_to(store, NAME, READY)
            assert table.verify(repair=True).proven
            relay = store.relay()
            eventually(lambda: relay.drained_since(table.physical, relay.now() - timedelta(seconds=9)))
            yield store, table, model
        store.unbind(model)


def drained(store: DualStore, table: MigratedTable) -> None:
    """Wait until DynamoDB has been brought after PostgreSQL.

    A creation that was under way when a database went away is looked at once more, much later.
    """

    def is_drained() -> bool:
        depth = store._mirroring.outbox.depth(table.physical)
        return depth.entries == depth.second_looks

    eventually(is_drained, seconds=30)


def names(items: dict[Any, Item]) -> dict[int, str]:
    """The names of items by sort key."""
    return {int(sk): item["name"]["S"] for (_, sk), item in items.items()}


def test_the_authority_moves_there_and_back_and_there_again_with_no_write_lost(
    prepared: tuple[DualStore, MigratedTable, Any], deployment: Deployment
) -> None:
    store, table, model = prepared
    client = store.client()
    stop = threading.Event()
    acknowledged: dict[int, str] = {}
    errors: list[Exception] = []

    def write(first: int) -> None:
        number = 0
        while not stop.is_set():
            sk, number = first + number % 20, number + 1
            try:
                client.put_item(TableName=table.physical, Item=item_of(sk, number))
                acknowledged[sk] = f"{number}"
                found = client.get_item(TableName=table.physical, Key=key_of(sk), ConsistentRead=True)
                assert found["Item"]["name"] == {"S": f"{number}"}
            except Exception as error:  # noqa: BLE001 - the test wants none at all
                errors.append(error)

    writers = [threading.Thread(target=write, args=(n * 100,)) for n in range(2)]
    for writer in writers:
        writer.start()
    try:
        for stage in (Stage.LIVE, Stage.SHADOW, Stage.LIVE, Stage.RAMPDOWN):
            time.sleep(0.3)
            ask(table, store, stage)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert errors == []
    drained(store, table)
    theirs, ours = both_sides(deployment, store, table.physical)
    assert theirs == ours
    assert {int(sk): item["name"]["S"] for (_, sk), item in ours.items()} == acknowledged
    ask(table, store, Stage.COMPLETE)
    model("q", 1, name="after").save()
    assert model.get("q", 1).name == "after"
    theirs, ours = both_sides(deployment, store, table.physical)
    assert theirs != ours


# Another process


def test_a_second_process_writes_through_every_move_and_loses_nothing(
    prepared: tuple[DualStore, MigratedTable, Any], deployment: Deployment
) -> None:
    store, table, _ = prepared
    with writing(deployment, table.physical, 100) as other:
        eventually(lambda: other.acknowledged, seconds=PATIENCE)
        for stage in (Stage.LIVE, Stage.SHADOW, Stage.LIVE):
            ask(table, store, stage)
            seen = dict(other.acknowledged)
            eventually(lambda seen=seen: other.acknowledged != seen)
        other.finish()
    assert other.errors == []
    drained(store, table)
    theirs, ours = both_sides(deployment, store, table.physical)
    assert theirs == ours
    assert names(ours) == other.acknowledged


def test_a_process_that_is_killed_during_the_pause_loses_nothing_and_the_move_can_be_made_later(
    deployment: Deployment,
) -> None:
    grants = GrantTimes(
        poll=timedelta(milliseconds=50),
        read=timedelta(seconds=1),
        write=timedelta(seconds=10),
        move=timedelta(seconds=4),
    )
    with prepare(deployment, grants=grants) as (store, table, _):
        with writing(deployment, table.physical, 100) as other:
            eventually(lambda: other.acknowledged, seconds=PATIENCE)
            other.process.send_signal(signal.SIGSTOP)  # it does not confirm the pause
            assert isinstance(store.flags, StaticFlags)
            store.flags.set(NAME, stage=Stage.LIVE)
            eventually(lambda: table.view.record.phase is Phase.CLOSED)
            other.process.kill()
            other.finish()
        eventually(lambda: table.view.record.phase is Phase.OPEN, seconds=20)
        assert (table.stage, table.view.record.target) == (Stage.SHADOW, Stage.LIVE)
        store.client().put_item(TableName=table.physical, Item=item_of(1, 1))
        theirs, _ = both_sides(deployment, store, table.physical)
        found = names(theirs)
        assert found.pop(1) == "1"
        # What was written last may not have been answered, or reported.
        unreported = {sk for sk in found if found[sk] != other.acknowledged.get(sk)}
        assert len(unreported) <= 1
        assert all(int(found[sk]) > int(other.acknowledged.get(sk, 0)) for sk in unreported)
        assert found.keys() >= other.acknowledged.keys()
        eventually(lambda: table.view.record.suspects, seconds=30)
        # The stream is young: the relay, which sees the suspect a moment later, adds what only a verification
        # clears. So it may take two.
        eventually(lambda: table.verify(repair=True).proven and is_trusted(table), seconds=30)
        ask(table, store, Stage.SHADOW)
        eventually(lambda: table.view.record.target is None)
        ask(table, store, Stage.LIVE)
        theirs, ours = both_sides(deployment, store, table.physical)
        assert theirs == ours


def is_trusted(table: MigratedTable) -> bool:
    """Whether nothing is suspect, for longer than a relay takes to look."""
    for _ in range(30):
        if table.view.record.suspects:
            return False
        time.sleep(0.1)
    return True


# At live


@pytest.fixture
def live(
    prepared: tuple[DualStore, MigratedTable, Any], deployment: Deployment
) -> tuple[DualStore, MigratedTable, Any]:
    store, table, _ = prepared
    ask(table, store, Stage.LIVE)
    return prepared


def agreed(deployment: Deployment, store: DualStore, table: MigratedTable) -> dict[Any, Item]:
    """What both sides hold, once DynamoDB has been brought after PostgreSQL."""
    drained(store, table)
    theirs, ours = both_sides(deployment, store, table.physical)
    assert theirs == ours
    return ours


def test_complete_is_reached_and_left_again_while_writers_never_rest(
    live: tuple[DualStore, MigratedTable, Any], deployment: Deployment
) -> None:
    """The outbox is never empty then; what DynamoDB lacks since, a verification on the way back sends."""
    store, table, _ = live
    with writing(deployment, table.physical, 100) as other:
        for stage in (Stage.RAMPDOWN, Stage.COMPLETE, Stage.RAMPDOWN):
            seen = dict(other.acknowledged)
            eventually(lambda seen=seen: other.acknowledged != seen, seconds=PATIENCE)
            ask(table, store, stage)
        store.flags.set(NAME, stage=Stage.LIVE)  # type: ignore[attr-defined]
        eventually(lambda: table.stage is Stage.LIVE)
        store.flags.set(NAME, stage=Stage.SHADOW)  # type: ignore[attr-defined]
        eventually(lambda: table.status().refusal is not None)
        eventually(lambda: table.verify(repair=True).proven and is_trusted(table), seconds=60)
        table.wait_until(lambda record: record.stage is Stage.SHADOW)
        other.finish()
    assert other.errors == []
    theirs, ours = both_sides(deployment, store, table.physical)
    assert theirs == ours
    assert names(theirs) == other.acknowledged


def test_what_was_being_written_at_complete_can_be_seen_before_a_verification_proves_anything(
    live: tuple[DualStore, MigratedTable, Any], deployment: Deployment
) -> None:
    """Nothing else would bring it to DynamoDB: at `complete` nobody notes what is written."""
    store, table, model = live
    row = table.mapping.table
    model("p", 1, name="before").save()
    for stage in (Stage.RAMPDOWN, Stage.COMPLETE):
        ask(table, store, stage)
    with deployment.engine.connect() as slow, ThreadPoolExecutor(1) as verifier:
        slow.execute(sa.update(row).values(name="under way"))
        ask(table, store, Stage.RAMPDOWN)
        verification = verifier.submit(table.verify, repair=True)
        with pytest.raises(TimeoutError):
            verification.result(timeout=2)
        slow.commit()
        assert verification.result(timeout=PATIENCE).proven
    theirs, ours = both_sides(deployment, store, table.physical)
    assert names(theirs) == names(ours) == {1: "under way"}


def test_what_is_written_in_a_second_stay_at_complete_is_not_proven_by_a_verification_from_before(
    live: tuple[DualStore, MigratedTable, Any], deployment: Deployment
) -> None:
    store, table, model = live
    model("p", 1, name="before").save()
    for stage in (Stage.RAMPDOWN, Stage.COMPLETE, Stage.RAMPDOWN):
        ask(table, store, stage)
    stays = [Stage.COMPLETE]

    def stay_again(done: VerifyProgress) -> None:
        if done.segments_done == done.segments_total and stays:
            ask(table, store, stays.pop())
            acknowledged = {**key_of(1), "name": {"S": "acknowledged"}}
            store.client().put_item(TableName=table.physical, Item=acknowledged)
            ask(table, store, Stage.RAMPDOWN)

    table.verify(repair=True, segments=1, workers=1, progress=stay_again)
    record = table.status().record
    assert record.suspects
    assert not record.verified
    assert table.verify(repair=True, segments=1, workers=1).proven
    assert not table.status().record.suspects
    theirs, ours = both_sides(deployment, store, table.physical)
    assert names(theirs) == names(ours) == {1: "acknowledged"}


def test_a_table_that_sql_deletes_rows_of_at_live_is_verified_all_the_same(
    live: tuple[DualStore, MigratedTable, Any], deployment: Deployment
) -> None:
    store, table, model = live
    for sort_key in (1, 2, 3):
        model("p", sort_key, name="by dualstore").save()
    drained(store, table)
    row, left = table.mapping.table, [1]

    def delete(done: VerifyProgress) -> None:
        if done.segments_done == done.segments_total and left:  # the row was compared with its item
            with deployment.engine.begin() as connection:
                connection.execute(sa.delete(row).where(row.c.sk == left.pop()))
            drained(store, table)

    found = table.verify(segments=1, workers=1, progress=delete)

    assert (found.proven, found.items_dynamodb, found.rows_postgres) == (True, 3, 2)


def test_what_the_orm_and_psql_write_at_live_reaches_dynamodb(
    live: tuple[DualStore, MigratedTable, Any], deployment: Deployment
) -> None:
    store, table, model = live
    row = table.mapping.table
    model("p", 1, name="by dualstore").save()
    with deployment.engine.begin() as connection:
        connection.execute(sa.insert(row), [{"pk": "p", "sk": 2, "name": "by the ORM"}])
        connection.execute(sa.update(row).where(row.c.sk == 1).values(name="changed by SQL"))
    with deployment.engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO {row.name} (pk, sk, name) VALUES ('p', 3, 'by psql')")
    assert names(agreed(deployment, store, table)) == {1: "changed by SQL", 2: "by the ORM", 3: "by psql"}
    with deployment.engine.begin() as connection:
        connection.execute(sa.delete(row).where(row.c.sk == 2))
    assert names(agreed(deployment, store, table)).keys() == {1, 3}
    assert model.get("p", 3).name == "by psql"


def test_transactions_and_batches_at_live_reach_dynamodb_and_a_token_counts_once(
    live: tuple[DualStore, MigratedTable, Any], deployment: Deployment
) -> None:
    store, table, model = live
    client = store.client()
    requests = [{"PutRequest": {"Item": item_of(sk, sk)}} for sk in range(10)]
    assert client.batch_write_item(RequestItems={table.physical: requests})["UnprocessedItems"] == {}
    add = {
        "TableName": table.physical,
        "Key": key_of(0),
        "UpdateExpression": "ADD n :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    }
    delete = {"TableName": table.physical, "Key": key_of(9)}
    for _ in range(2):
        client.transact_write_items(
            TransactItems=[{"Update": add}, {"Delete": delete}], ClientRequestToken="once"
        )
    keys = [key_of(0), key_of(9)]
    read = client.batch_get_item(RequestItems={table.physical: {"Keys": keys}})
    assert [item["n"] for item in read["Responses"][table.physical]] == [{"N": "1"}]
    gets = [{"Get": {"TableName": table.physical, "Key": key}} for key in keys]
    answers = client.transact_get_items(TransactItems=gets)["Responses"]
    assert [answer.get("Item", {}).get("n") for answer in answers] == [{"N": "1"}, None]
    with pytest.raises(ClientError) as cancelled:
        client.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": table.physical, "Item": item_of(5, 99)}},
                {"Delete": {**delete, "ConditionExpression": "attribute_exists(pk)"}},
            ]
        )
    assert cancelled.value.response["Error"]["Code"] == "TransactionCanceledException"
    assert names(agreed(deployment, store, table)) == {sk: f"{sk}" for sk in range(9)}
    assert model.get("p", 0).n == 1


def test_what_expires_at_live_is_deleted_from_both_sides(deployment: Deployment) -> None:
    with prepare(deployment, ttl_attributes={NAME: "expires"}) as (store, table, _):
        ask(table, store, Stage.LIVE)
        client, now = store.client(), int(time.time())
        client.put_item(TableName=table.physical, Item=item_of(1, 1))
        for sk, expires in ((2, now - 60), (3, now + 3600)):
            client.put_item(
                TableName=table.physical, Item={**item_of(sk, sk), "expires": {"N": str(expires)}}
            )
        expiry = store.relaying()._expiry  # of a relay that begins its rounds now
        assert expiry.sweep(table.served, "expires", table.view.record, streamed=True).deleted == 1
        assert "Item" not in client.get_item(TableName=table.physical, Key=key_of(2))
        assert names(agreed(deployment, store, table)).keys() == {1, 3}


# Mirroring after the answer


def test_a_deferred_table_answers_first_is_mirrored_soon_and_its_reads_are_not_dialled(
    deployment: Deployment,
) -> None:
    model, row = deployment.table()
    with deployment.store(deferred_tables=frozenset({NAME})) as store:
        store.bind(model, row, name=NAME)
        table = bring_to(store, NAME, Requested(stage=Stage.DUALWRITE))
        eventually(lambda: store._agent.may_defer(table.physical))
        client = store.client()
        for number in range(40):
            client.put_item(TableName=table.physical, Item=item_of(number % 4, number))
        eventually(lambda: both_sides(deployment, store, table.physical)[1].keys() != set())
        assert isinstance(store.flags, StaticFlags)
        store.flags.set(NAME, postgres_read_percent=50.0)
        with pytest.raises(IllegalTransition, match="inline"):
            table.wait_until(lambda record: record.dials.postgres_read_percent == 50.0)
        store.unbind(model)
        with deployment.store() as other:
            other.bind(model, row, name=NAME)
            store.close()  # finishes what it has put off
            theirs, ours = both_sides(deployment, other, table.physical)
            assert theirs == ours
            assert names(ours) == {sk: f"{36 + sk}" for sk in range(4)}
            eventually(lambda: other.table(NAME).view.record.mirror_readable)
            other.unbind(model)
