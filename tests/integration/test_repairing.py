"""Settling single keys, and many at once, on real servers, while either side is the authority."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dualstore import DualStore, Stage
from dualstore.store import MigratedTable
from integration.commands import CommandLine
from integration.deployment import Deployment, bring_to
from integration.test_flip import READY, ask, both_sides, drained, names, relaying, with_stream
from integration.writing import NAME, item_of, key_of

PLANTED = 300


@pytest.fixture
def migrated(deployment: Deployment) -> Iterator[tuple[DualStore, MigratedTable]]:
    """A table at stage shadow that could go live, with three items and no relay."""
    model, row = deployment.table()
    with_stream(deployment, model.Meta.table_name)
    with deployment.store() as store:
        store.bind(model, row, name=NAME)
        store.prepare()
        table = bring_to(store, NAME, READY)
        for sk in range(3):
            store.client().put_item(TableName=table.physical, Item=item_of(sk, sk))
        yield store, table
        store.unbind(model)


def live(store: DualStore, table: MigratedTable) -> None:
    """Go live, and end the relay that this takes."""
    with relaying(store):
        assert table.verify(repair=True).proven
        ask(table, store, Stage.LIVE)
        drained(store, table)


@contextmanager
def sending(store: DualStore) -> Iterator[None]:
    """Hand on to DynamoDB what is in the outbox; nobody reads the stream."""
    stop = threading.Event()
    thread = threading.Thread(target=store.sender().run, args=(stop,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(20)


def damage(store: DualStore, table: MigratedTable, sk: int) -> None:
    """Take a row out of PostgreSQL, the mirror, as nobody should."""
    mirror, epoch = store._mirroring.mirror, table.view.record.epoch
    seen = mirror.state(table.physical, key_of(sk)).revision
    assert mirror.write_settled(table.physical, key_of(sk), None, seen=seen, epoch=epoch)


TYPED = {
    "DynamoDB JSON": json.dumps(key_of(1)),
    "plain values": '{"pk": "p", "sk": 1}',
}


@pytest.mark.parametrize("how", TYPED)
def test_one_key_is_repaired_by_its_name_and_no_other(
    migrated: tuple[DualStore, MigratedTable], deployment: Deployment, tmp_path: Path, how: str
) -> None:
    store, table = migrated
    for sk in (1, 2):
        damage(store, table, sk)
    outcome = CommandLine(deployment, table.physical, tmp_path)("repair", "--key", TYPED[how])
    assert outcome.exit_code == 0, outcome.output
    assert "settled" in outcome.output
    assert names(both_sides(deployment, store, table.physical)[1]).keys() == {0, 1}


def test_what_is_no_key_is_refused_and_not_repeated(
    migrated: tuple[DualStore, MigratedTable], deployment: Deployment, tmp_path: Path
) -> None:
    _, table = migrated
    outcome = CommandLine(deployment, table.physical, tmp_path)("repair", "--key", '{"pk": "canary"}')
    assert outcome.exit_code == 2
    assert "no key of the table" in outcome.stderr
    assert "canary" not in outcome.output


def test_at_live_one_key_is_sent_to_dynamodb_and_waited_for(
    migrated: tuple[DualStore, MigratedTable], deployment: Deployment
) -> None:
    store, table = migrated
    live(store, table)
    deployment.dynamodb.put_item(TableName=table.physical, Item=item_of(1, 99))
    with sending(store):
        table.settle([key_of(1)])
    assert names(both_sides(deployment, store, table.physical)[0])[1] == "1"


def test_a_verification_at_live_repairs_many_keys_together(
    migrated: tuple[DualStore, MigratedTable], deployment: Deployment
) -> None:
    store, table = migrated
    live(store, table)
    planted = [{"PutRequest": {"Item": item_of(1000 + n, n)}} for n in range(PLANTED)]
    for start in range(0, PLANTED, 25):
        requests = {table.physical: planted[start : start + 25]}
        assert not deployment.dynamodb.batch_write_item(RequestItems=requests)["UnprocessedItems"]
    with sending(store):
        found = table.verify(repair=True)
    assert (found.difference_count, found.repaired) == (PLANTED, PLANTED)
    assert found.proven
    theirs, ours = both_sides(deployment, store, table.physical)
    assert theirs == ours
