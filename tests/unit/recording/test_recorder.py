"""What is noted of operations: their kinds and numbers, who their keys are, and nothing that says more."""

import gzip
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dualstore.items import Index, KeyAttribute, KeySchema, TableShape
from dualstore.operations import parse
from dualstore.recording import Note, Recorder, TableNamed, place_hash, read_lines
from dualstore.recording.lines import Lost, Opened
from dualstore.replication.served import ServedTable
from dualstore.stores import MemoryStore
from dualstore.telemetry import Telemetry
from dualstore.telemetry.names import RECORDING_DROPPED

CANARY = "canary7391"
SHAPE = TableShape(
    "orders-prod",
    KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "S")),
    {"by-name": Index("by-name", KeySchema(KeyAttribute("name", "S")))},
)
ORDERS = ServedTable("orders", SHAPE)
OTHERS = ServedTable("others", TableShape("others-prod", KeySchema(KeyAttribute("id", "S"))))
TABLES = {"orders-prod": ORDERS, "others-prod": OTHERS}


class Recording:
    """A recorder around a store in memory, and what it has written."""

    def __init__(self, directory: Path, **changed: Any) -> None:
        self.directory = directory
        self.telemetry = Telemetry()
        self.store = MemoryStore({name: table.shape for name, table in TABLES.items()})
        options: dict[str, Any] = {"percents": {"orders": 100.0}, "secret": "s", **changed}
        self.recorder = Recorder(
            directory, options.pop("percents"), TABLES, telemetry=self.telemetry, **options
        )
        self.carry_out = self.recorder.around(lambda _, operation: self.store.execute(operation))

    def __call__(self, name: str, **request: Any) -> Any:
        operation = parse(name, request)
        table = request.get("TableName") or next(each for each in TABLES if each in operation.tables)
        return self.carry_out(TABLES[table], operation)

    def dropped(self, reason: str) -> float:
        found = self.telemetry.values(RECORDING_DROPPED)
        return sum(count for series, count in found.items() if series.labels[1] == reason)

    def lines(self) -> list[Any]:
        self.recorder.close()
        return list(read_lines(self.directory))

    def notes(self) -> list[Note]:
        return [line for line in self.lines() if isinstance(line, Note)]


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Recording]:
    one = Recording(tmp_path)
    yield one
    one.recorder.close()


def key(p: str = "p", s: str = "s") -> dict[str, Any]:
    return {"pk": {"S": p}, "sk": {"S": s}}


def put(recording: Callable[..., Any], p: str = "p", s: str = "s", **more: Any) -> None:
    recording("PutItem", TableName="orders-prod", Item={**key(p, s), **more})


def test_of_every_operation_its_kind_and_numbers_are_noted(recording: Recording) -> None:
    put(recording, text={"S": "x" * 100})
    get = {"TableName": "orders-prod", "Key": key()}
    recording("GetItem", **get, ConsistentRead=True)
    recording(
        "UpdateItem",
        **get,
        UpdateExpression="SET a = :a",
        ConditionExpression="attribute_exists(pk)",
        ExpressionAttributeValues={":a": {"S": "x" * 10}},
    )
    query = {"TableName": "orders-prod", "ExpressionAttributeValues": {":p": {"S": "p"}, ":s": {"S": "a"}}}
    recording("Query", **query, KeyConditionExpression="pk = :p AND sk > :s", Limit=5)
    recording("Scan", TableName="orders-prod", Limit=7)
    recording("DeleteItem", **get)

    noted = [
        (each.operation, each.consistent, each.conditional, each.ranged, each.limit, each.answered)
        for each in recording.notes()
    ]
    assert noted == [
        ("PutItem", False, False, False, 0, -1),
        ("GetItem", True, False, False, 0, 1),
        ("UpdateItem", False, True, False, 0, -1),
        ("Query", False, False, True, 5, 1),
        ("Scan", False, False, False, 7, 1),
        ("DeleteItem", False, False, False, 0, -1),
    ]


def test_sizes_are_told_by_their_class(recording: Recording) -> None:
    put(recording, text={"S": "x" * 100})
    (touch,) = recording.notes()[0].touched
    assert touch.size_bytes == 128, "pk, sk and text are 110 bytes"


def test_batches_and_transactions_are_noted_with_all_their_keys(recording: Recording) -> None:
    writes = [{"PutRequest": {"Item": key(s="1")}}, {"DeleteRequest": {"Key": key(s="2")}}]
    recording("BatchWriteItem", RequestItems={"orders-prod": writes})
    recording("BatchGetItem", RequestItems={"orders-prod": {"Keys": [key(s="1"), key(s="2")]}})
    where = {"TableName": "orders-prod", "Key": key(s="3")}
    update = {**where, "UpdateExpression": "SET a = :a", "ExpressionAttributeValues": {":a": {"N": "1"}}}
    recording("TransactWriteItems", TransactItems=[{"Update": update}])
    recording("TransactGetItems", TransactItems=[{"Get": where}])

    written, read, transacted, got = recording.notes()
    assert [touch.act for touch in written.touched] == ["Put", "Delete"]
    assert (read.answered, len(read.touched)) == (1, 2)
    assert [touch.act for touch in transacted.touched] == ["Update"]
    assert got.answered == 1
    assert written.touched[0].item == read.touched[0].item, "the same key is the same key"


def test_a_key_is_told_apart_and_recognised_by_partition_and_by_item(recording: Recording) -> None:
    for p, s in (("p", "1"), ("p", "2"), ("q", "1"), ("p", "1")):
        put(recording, p, s)
    touches = [note.touched[0] for note in recording.notes()]
    assert Counter(touch.partition for touch in touches).most_common()[0][1] == 3
    assert len({touch.item for touch in touches}) == 3
    assert touches[0] == touches[3]
    assert touches[0].item != touches[2].item, "equal sort keys of two partitions cannot be linked"


def test_an_index_is_noted_with_its_own_partitions(recording: Recording) -> None:
    recording(
        "Query",
        TableName="orders-prod",
        IndexName="by-name",
        KeyConditionExpression="#n = :n",
        ExpressionAttributeNames={"#n": "name"},
        ExpressionAttributeValues={":n": {"S": "Ada"}},
    )
    (note,) = recording.notes()
    assert (note.index, len(note.touched), note.touched[0].item) == ("by-name", 1, "")


def test_no_key_and_no_value_is_in_a_recording(recording: Recording) -> None:
    secret = {"S": CANARY}
    put(
        recording,
        CANARY,
        CANARY,
        **{f"attribute{CANARY}": secret, "name": secret, "b": {"B": CANARY.encode()}},
    )
    where = {"TableName": "orders-prod", "Key": key(CANARY, CANARY)}
    recording("GetItem", **where)
    recording(
        "UpdateItem",
        **where,
        UpdateExpression=f"SET {CANARY} = :v",
        ExpressionAttributeValues={":v": secret},
        ConditionExpression="pk = :v",
    )
    recording(
        "Query",
        TableName="orders-prod",
        KeyConditionExpression="pk = :p AND sk = :p",
        ExpressionAttributeValues={":p": secret},
        ProjectionExpression=CANARY,
    )
    recording(
        "Query",
        TableName="orders-prod",
        IndexName="by-name",
        KeyConditionExpression="#n = :n",
        ExpressionAttributeNames={"#n": "name"},
        ExpressionAttributeValues={":n": secret},
    )
    recording(
        "Scan",
        TableName="orders-prod",
        FilterExpression=f"{CANARY} = :v",
        ExpressionAttributeValues={":v": secret},
    )
    recording("BatchWriteItem", RequestItems={"orders-prod": [{"PutRequest": {"Item": key(CANARY, "b")}}]})
    recording("BatchGetItem", RequestItems={"orders-prod": {"Keys": [key(CANARY, CANARY)]}})
    recording("TransactWriteItems", TransactItems=[{"Delete": where}])
    recording("TransactGetItems", TransactItems=[{"Get": where}])
    with pytest.raises(ClientError):
        recording(
            "DeleteItem",
            **where,
            ConditionExpression="attribute_exists(#x)",
            ExpressionAttributeNames={"#x": CANARY},
        )

    assert len(recording.notes()) == 11
    written = b"".join(gzip.decompress(path.read_bytes()) for path in recording.directory.iterdir())
    forms = {CANARY, CANARY.encode().hex(), "Y2FuYXJ5"}  # as it is, in hexadecimal, in base64
    assert not [form for form in forms if form.encode() in written]


def test_without_the_salt_no_key_can_be_found_by_trying(tmp_path: Path) -> None:
    noted = []
    for number in range(2):
        one = Recording(tmp_path / str(number), secret=None)
        put(one)
        noted.append(one.notes()[0].touched[0])
    assert noted[0] != noted[1], "two processes draw two salts"


def test_processes_with_one_secret_know_the_same_keys(tmp_path: Path) -> None:
    first, second = (Recording(tmp_path / name, secret="shared") for name in "ab")
    put(first)
    put(second)
    assert first.notes()[0].touched == second.notes()[0].touched
    salts = {line.salt for one in (first, second) for line in one.lines() if isinstance(line, Opened)}
    assert len(salts) == 1


def test_only_the_share_that_is_asked_for_is_noted(tmp_path: Path) -> None:
    draws = iter([0.1, 0.6, 0.49, 0.5])
    one = Recording(tmp_path, percents={"orders": 50.0}, chance=lambda: next(draws))
    for number in range(4):
        put(one, str(number))
    lines = one.lines()
    assert sum(isinstance(line, Note) for line in lines) == 2
    assert [line.percent for line in lines if isinstance(line, TableNamed)] == [50.0]


def test_a_table_that_is_not_recorded_leaves_no_trace(recording: Recording) -> None:
    recording("PutItem", TableName="others-prod", Item={"id": {"S": "x"}})
    both = {
        "orders-prod": [{"PutRequest": {"Item": key()}}],
        "others-prod": [{"PutRequest": {"Item": {"id": {"S": "y"}}}}],
    }
    recording("BatchWriteItem", RequestItems=both)
    (note,) = recording.notes()
    assert (note.table, len(note.touched)) == ("orders", 1)


def test_what_waits_is_bounded_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    one = Recording(tmp_path, queue_keys=6)
    for number in range(10):
        put(one, str(number))
    lines = one.lines()
    assert sum(isinstance(line, Note) for line in lines) == 3
    assert [line for line in lines if isinstance(line, Lost)] == [Lost("orders", 7)]
    assert one.dropped("queue_full") == 7


def test_an_operation_that_fails_is_noted_and_its_error_is_the_callers(recording: Recording) -> None:
    with pytest.raises(ClientError):
        recording(
            "DeleteItem", TableName="orders-prod", Key=key(), ConditionExpression="attribute_exists(pk)"
        )
    assert [note.operation for note in recording.notes()] == ["DeleteItem"]


def test_a_malformed_request_is_its_callers_affair(recording: Recording) -> None:
    with pytest.raises(ClientError):
        recording("Query", TableName="orders-prod", KeyConditionExpression="nonsense")
    assert recording.notes() == []
    assert recording.dropped("malformed") == 1


def test_where_it_is_recorded_is_kept_as_a_hash(tmp_path: Path) -> None:
    one = Recording(
        tmp_path, places=lambda table: (f"arn:aws:dynamodb:eu-west-1:123456789012:table/{table}",)
    )
    put(one)
    (named,) = [line for line in one.lines() if isinstance(line, TableNamed)]
    assert named.places == (place_hash("arn:aws:dynamodb:eu-west-1:123456789012:table/orders-prod"),)


def test_a_place_that_cannot_be_told_ends_no_recording(tmp_path: Path) -> None:
    def away(_: str) -> tuple[str, ...]:
        raise OSError("no route")

    one = Recording(tmp_path, places=away)
    put(one)
    assert [line.places for line in one.lines() if isinstance(line, TableNamed)] == [()]


def test_at_its_limit_recording_ends_and_operations_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = Recording(tmp_path, limit_bytes=1)
    put(one)
    one.recorder.write(everything=True)
    put(one)
    one.recorder.write(everything=True)
    assert one.lines() == []
    assert one.dropped("limit") >= 1
    assert "limit_bytes" in caplog.text
    assert len(one("Scan", TableName="orders-prod")["Items"]) == 1
