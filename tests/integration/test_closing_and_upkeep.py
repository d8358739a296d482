"""A store between two real databases: what it refuses once closed, and what it does for its tables."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from pynamodb.exceptions import PutError

from dualstore import DualStore, Stage
from dualstore.control import Gate
from dualstore.errors import ConfigurationError
from dualstore.flags import StaticFlags
from dualstore.items import STAMP
from dualstore.replication.agent import GrantTimes
from dualstore.stages import Side
from dualstore.store import Options
from integration.deployment import (
    LASTING,
    WHOLE_MIGRATION,
    Deployment,
    authoritative,
    bring_to,
    mirrored,
    served_by,
)

NAME = "orders"
SELDOM = timedelta(hours=1)


def store_of(deployment: Deployment, grants: GrantTimes) -> DualStore:
    """A store that repairs when it is told to."""
    options = Options(bookkeeping_table=deployment.bookkeeping, grants=grants, repair_pause=SELDOM)
    return DualStore(
        engine=deployment.engine, dynamodb=deployment.clients, flags=StaticFlags(), options=options
    )


@contextmanager
def seen(deployment: Deployment, operation: str, act: Callable[[Any], AWSResponse | None]) -> Iterator[None]:
    """Show each request of an operation that reads, right before it is sent; may answer it."""
    events, event = deployment.clients.reads.meta.events, f"before-send.dynamodb.{operation}"

    def handler(request: Any, **_: Any) -> AWSResponse | None:
        return act(request)

    events.register(event, handler)
    try:
        yield
    finally:
        events.unregister(event, handler)


# Closing


def test_a_mirrored_table_stays_bound_when_its_store_is_closed_and_refuses_writes_until_it_is_unbound(
    deployment: Deployment,
) -> None:
    model, row = deployment.table()
    store = deployment.store()
    with store:
        store.bind(model, row, name=NAME)
        bring_to(store, NAME, WHOLE_MIGRATION["dualwrite"])
        model("p", 1).save()
    with pytest.raises(PutError, match="closed"):
        model("p", 2).save()
    with pytest.raises(PutError, match="closed"), model.batch_write() as batch:
        batch.save(model("p", 3))
    assert [item.sk for item in model.query("p")] == [1]
    store.unbind(model)
    model("p", 4).save()
    written = authoritative(deployment, model.Meta.table_name, "p")
    assert [(item["sk"]["N"], STAMP in item) for item in written] == [("1", True), ("4", False)]


def test_a_table_that_nobody_mirrors_is_free_when_its_store_is_closed(deployment: Deployment) -> None:
    model, row = deployment.table()
    with deployment.store() as store:
        store.bind(model, row, name=NAME)
        model("p", 1).save()
    model("p", 2).save()
    written = authoritative(deployment, model.Meta.table_name, "p")
    assert [STAMP in item for item in written] == [True, False]


def test_a_table_that_a_closed_store_holds_may_be_bound_by_another_one(deployment: Deployment) -> None:
    model, row = deployment.table()
    with deployment.store() as first:
        first.bind(model, row, name=NAME)
        bring_to(first, NAME, WHOLE_MIGRATION["dualwrite"])
        with deployment.store() as early, pytest.raises(ConfigurationError, match="unbind it there first"):
            early.bind(model, row, name=NAME)
    with deployment.store() as second:
        second.bind(model, row, name=NAME)
        first.unbind(model)  # not its own any more
        model("p", 1).save()
        name = model.Meta.table_name
        assert mirrored(second, name, "p") == authoritative(deployment, name, "p") != []
        second.unbind(model)


# Backfill


def test_nobody_reads_the_mirror_while_a_backfill_copies(deployment: Deployment) -> None:
    """Run again while the mirror is read; the other process takes its time to hear of it."""
    model, row = deployment.table()
    slow = GrantTimes(poll=timedelta(seconds=0.5), read=timedelta(seconds=5))
    with deployment.store() as store, store_of(deployment, slow) as other:
        reader = other.repository(model, row, name=NAME)
        store.bind(model, row, name=NAME)
        model("p", 1, name="first").save()
        table = bring_to(store, NAME, WHOLE_MIGRATION["shadow"])
        assert reader.get("p", 1).name == "first"
        assert served_by(other, Side.POSTGRES) == 1
        while_copying: list[tuple[bool, bool]] = []

        def note(_: Any) -> None:
            both = (table.view.record, other.table(NAME).view.record)
            while_copying.append((both[0].mirror_readable, both[1].mirror_readable))

        with seen(deployment, "Scan", note):
            assert table.backfill(segments=2, workers=1).succeeded
        assert len(while_copying) >= 2
        assert set(while_copying) == {(False, False)}

        table.wait_until(lambda record: record.loaded)
        assert reader.get("p", 1).name == "first"
        assert served_by(other, Side.POSTGRES) == 2


# Maintenance


def test_a_table_whose_repair_fails_does_not_keep_the_next_one_from_being_repaired(
    deployment: Deployment,
) -> None:
    quick = GrantTimes(poll=timedelta(milliseconds=50), read=timedelta(milliseconds=200))
    key = {"pk": {"S": "p"}, "sk": {"N": "1"}}
    with store_of(deployment, quick) as store:
        flags = store.flags
        assert isinstance(flags, StaticFlags)
        for name in ("broken", "sound"):
            model, row = deployment.table()
            store.repository(model, row, name=name)
            flags.set(name, stage=Stage.DUALWRITE)
        broken, sound = store.tables()
        for table in (broken, sound):
            table.wait_until(lambda record: record.stage is Stage.DUALWRITE)
            deployment.dynamodb.put_item(TableName=table.physical, Item=key)
            store._mirroring.journal.record(table.served.shape, key)
            store._agent.homes[Side.DYNAMODB].shut_gate(table.physical)
        asked: list[str] = []

        def refuse(request: Any) -> AWSResponse | None:
            if f"journal#{broken.physical}".encode() not in request.body:
                return None
            asked.append(broken.physical)
            denied = {"__type": "com.amazon.coral.service#AccessDeniedException"}
            return AWSResponse(request.url, 400, {}, _Body(json.dumps(denied).encode()))

        with seen(deployment, "Query", refuse):
            store._maintenance.round()
        assert asked
        assert sound.status().record.gate is Gate.OPEN
        assert sound.status().journal_keys == 0
        assert mirrored(store, sound.physical, "p") == authoritative(deployment, sound.physical, "p") != []
        assert broken.status().record.gate is Gate.SHUT
        assert broken.status().journal_keys == 1
        store._maintenance.round()
        assert not broken.status().pending


class _Body:
    """What botocore reads an answer from."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> Iterator[bytes]:
        yield self._content


# What is read back


@pytest.fixture(scope="module")
def dialled(deployment: Deployment) -> Iterator[tuple[DualStore, str]]:
    """A store whose reads PostgreSQL serves, and the table."""
    with deployment.store(grants=LASTING) as store:
        model, row = deployment.table()
        store.repository(model, row, name=NAME)
        yield store, bring_to(store, NAME, WHOLE_MIGRATION["shadow"]).physical


@pytest.mark.parametrize("operation", ["PutItem", "UpdateItem", "BatchWriteItem", "TransactWriteItems"])
def test_a_dialled_read_gives_the_values_that_dynamodb_gives(
    deployment: Deployment, dialled: tuple[DualStore, str], operation: str
) -> None:
    store, name = dialled
    key = {"pk": {"S": operation}, "sk": {"N": "1"}}
    values = {
        "n": {"N": "-0"},
        "whole": {"N": "1.50"},
        "numbers": {"NS": ["1.00", "2"]},
        "inside": {"L": [{"M": {"n": {"N": "1e2"}}}]},
    }
    item = {**key, **values}
    update: dict[str, Any] = {
        "UpdateExpression": "SET n = :n, whole = :whole, numbers = :numbers, inside = :inside",
        "ExpressionAttributeValues": {f":{each}": value for each, value in values.items()},
    }
    requests: dict[str, dict[str, Any]] = {
        "PutItem": {"TableName": name, "Item": item},
        "UpdateItem": {"TableName": name, "Key": key, **update},
        "BatchWriteItem": {"RequestItems": {name: [{"PutRequest": {"Item": item}}]}},
        "TransactWriteItems": {"TransactItems": [{"Put": {"TableName": name, "Item": item}}]},
    }
    store._router.execute(operation, requests[operation])
    (stored,) = authoritative(deployment, name, operation)
    before = served_by(store, Side.POSTGRES)
    answer = store.client().get_item(TableName=name, Key=key)["Item"]
    assert served_by(store, Side.POSTGRES) == before + 1
    assert mirrored(store, name, operation) == [stored]
    assert answer == {each: value for each, value in stored.items() if each != STAMP}
