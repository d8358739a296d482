"""Backups of DynamoDB against moto, and a restored copy held against the present."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws

from dualstore.items import KeyAttribute, KeySchema, TableShape
from dualstore.rollout import backups
from dualstore.rollout.backups import BackupState
from dualstore.stages import Side
from dualstore.stores.memory import MemoryStore

TABLE = "orders"
SHAPE = TableShape(TABLE, KeySchema(KeyAttribute("pk", "S")))
ITEMS = [
    {"pk": {"S": "a"}, "n": {"N": "1"}, "b": {"B": b"\x00\xff"}},
    {"pk": {"S": "b"}, "bs": {"BS": [b"x"]}, "m": {"M": {"l": {"L": [{"B": b"y"}, {"NULL": True}]}}}},
]


@pytest.fixture
def client() -> Iterator[Any]:
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")
        client.create_table(
            TableName=TABLE,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        for item in ITEMS:
            client.put_item(TableName=TABLE, Item=item)
        yield client


def recover(client: Any) -> None:
    client.update_continuous_backups(
        TableName=TABLE, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
    )


def test_point_in_time_recovery_is_asked_for_and_its_lack_told(client: Any) -> None:
    assert backups.recovery_check(client, TABLE, required=True).problem is not None
    assert backups.recovery_check(client, TABLE, required=False).problem is None
    recover(client)
    assert backups.recovery_check(client, TABLE, required=True).problem is None
    missing = backups.recovery_check(client, "nothing", required=True)
    assert "does not say (TableNotFoundException)" in str(missing.problem)


def test_an_on_demand_backup_is_found_by_its_name_and_not_one_from_before(client: Any) -> None:
    began = datetime.now(UTC)
    assert backups.find_on_demand(client, TABLE, "before", since=began) is None
    backups.start_on_demand(client, TABLE, "before")
    found = backups.find_on_demand(client, TABLE, "before", since=began)
    assert found is not None
    assert (found.state, "/backup/" in found.place) == (BackupState.THERE, True)
    assert backups.find_on_demand(client, TABLE, "another", since=began) is None
    assert backups.find_on_demand(client, TABLE, "before", since=began + timedelta(hours=1)) is None


def test_an_export_is_begun_and_looked_up(client: Any) -> None:
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="exports")
    recover(client)
    arn = client.describe_table(TableName=TABLE)["Table"]["TableArn"]
    begun = backups.start_export(client, arn, bucket="exports", prefix="p", token="t")
    for _ in range(100):
        found = backups.find_export(client, begun.place)
        if found.state is not BackupState.UNDER_WAY:
            break
    assert (found.state, found.items) == (BackupState.THERE, len(ITEMS))
    lost = backups.start_export(client, arn, bucket="no-such-bucket", prefix="p", token="u")
    for _ in range(100):
        if backups.find_export(client, lost.place).state is BackupState.FAILED:
            break
    assert "it failed" in str(backups.backup_check("orders", backups.find_export(client, lost.place)).problem)


def test_lines_hold_every_item_as_it_was(client: Any, tmp_path: Path) -> None:
    began = datetime.now(UTC)
    path = tmp_path / "orders.jsonl.gz"
    assert backups.find_lines(path, since=began) is None
    backups.write_lines(client, TABLE, path)
    found = backups.find_lines(path, since=began)
    assert found is not None
    assert found.state is BackupState.THERE
    assert sorted(backups.read_lines(path), key=lambda item: item["pk"]["S"]) == ITEMS
    assert backups.find_lines(path, since=began + timedelta(hours=1)) is None, "one from before is none"
    assert [each.name for each in tmp_path.iterdir()] == ["orders.jsonl.gz"]


def test_lines_are_all_there_or_not_at_all(client: Any, tmp_path: Path) -> None:
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        backups.write_lines(client, "nothing", tmp_path / "x.gz")
    assert list(tmp_path.iterdir()) == []


def held(*items: dict[str, Any]) -> MemoryStore:
    """A PostgreSQL that holds these items, written in this order."""
    store = MemoryStore({TABLE: SHAPE}, side=Side.POSTGRES)
    for item in items:
        state = store.state(TABLE, {"pk": item["pk"]})
        store.write_settled(TABLE, {"pk": item["pk"]}, item, seen=state.revision, epoch=0)
    return store


def stamped(key: str, stamp: bytes, n: int = 0) -> dict[str, Any]:
    return {"pk": {"S": key}, "n": {"N": str(n)}, "_dsv": {"B": stamp}}


def test_lines_of_the_same_stamp_have_to_be_the_same() -> None:
    present = held(stamped("a", b"1"), stamped("b", b"2", n=5), stamped("c", b"3"))
    backup = [stamped("a", b"1"), stamped("b", b"2", n=4), stamped("c", b"0"), stamped("d", b"4")]
    found = backups.compare_lines(iter(backup), present, SHAPE)
    assert (found.items, found.unchanged, found.changed, found.differing) == (4, 1, 2, 1)
    assert not found.is_good
    assert backups.compare_lines(iter(backup[:1]), present, SHAPE).is_good
    assert not backups.compare_lines(iter([]), present, SHAPE).is_good, "an empty backup proves nothing"


def test_what_was_written_before_the_service_was_bound_has_no_stamp_and_counts_as_changed() -> None:
    same, other = {"pk": {"S": "a"}, "n": {"N": "1"}}, {"pk": {"S": "a"}, "n": {"N": "2"}}
    present = held(same)
    assert backups.compare_lines(iter([same]), present, SHAPE).unchanged == 1
    found = backups.compare_lines(iter([other]), present, SHAPE)
    assert (found.changed, found.differing) == (1, 0)
