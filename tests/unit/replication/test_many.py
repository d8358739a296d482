"""Batches and transactions: stamps, lost replies, and what is settled afterwards."""

from typing import Any

import pytest
import stamina
from botocore.exceptions import ClientError, ReadTimeoutError

from dualstore.control import PostgresRole
from dualstore.errors import MirrorUnavailable, RequestRejected, client_error
from dualstore.items import PREDECESSOR, STAMP
from dualstore.operations import TransactWriteItems
from unit.replication.processes import TABLE, WRITE_GRANT, Process, World, stored

LOST = ReadTimeoutError(endpoint_url="simulated")
REFUSED = client_error("BatchWriteItem", RequestRejected("AccessDeniedException", ""))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries do not wait."""
    original, no_wait = stamina.retry_context, {"wait_initial": 0, "wait_max": 0, "wait_jitter": 0}
    monkeypatch.setattr(stamina, "retry_context", lambda **options: original(**{**options, **no_wait}))


@pytest.fixture
def process(two: tuple[Process, Process]) -> Process:
    return two[0]


def item(key: str = "a", value: str = "new") -> dict[str, Any]:
    return {"id": {"S": key}, "v": {"S": value}}


def batch(process: Process, *entries: dict[str, Any]) -> dict[str, Any]:
    return process.router.execute("BatchWriteItem", {"RequestItems": {TABLE: list(entries)}})


def put(key: str = "a", value: str = "new") -> dict[str, Any]:
    return {"PutRequest": {"Item": item(key, value)}}


def delete(key: str = "a") -> dict[str, Any]:
    return {"DeleteRequest": {"Key": {"id": {"S": key}}}}


def transact(process: Process, *actions: dict[str, Any], **options: Any) -> dict[str, Any]:
    named = [_named(action) for action in actions]
    return process.router.execute("TransactWriteItems", {"TransactItems": named, **options})


def _named(action: dict[str, Any]) -> dict[str, Any]:
    return {kind: {"TableName": TABLE, **body} for kind, body in action.items()}


def count(key: str = "a", **options: Any) -> dict[str, Any]:
    update = {"UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
    return {"Update": {"Key": {"id": {"S": key}}, **update, **options}}


def fails(process: Process, *fates: Any) -> None:
    """Let the coming writes at the authority fail: "lost" after, an exception before it is carried out."""
    remaining = list(fates)
    execute = process.world.authority.execute

    class Failing:
        side = process.world.authority.side

        def execute(self, operation: Any) -> Any:
            fate = None if operation.reads or not remaining else remaining.pop(0)
            if isinstance(fate, Exception):
                raise fate
            response = execute(operation)
            if fate == "lost":
                raise LOST
            return response

    process.mirroring.authority = Failing()  # type: ignore[assignment]


def check_equal(world: World, *keys: str) -> None:
    for key in keys:
        authority, mirror = stored(world.authority, key), stored(world.mirror, key)
        if authority is not None:
            authority = {name: value for name, value in authority.items() if name != PREDECESSOR}
        assert mirror == authority


def test_a_batch_is_stamped_and_mirrored(world: World, process: Process) -> None:
    process.put("old", key="gone")
    batch(process, put("a"), put("b"), delete("gone"))
    assert stored(world.authority)[STAMP] != stored(world.authority, "b")[STAMP]
    check_equal(world, "a", "b", "gone")


def test_unprocessed_entries_come_back_as_the_caller_sent_them(world: World, process: Process) -> None:
    def unprocessed(operation: Any) -> Any:
        if operation.reads:
            return world.authority.execute(operation)
        return {"UnprocessedItems": operation.request["RequestItems"]}

    process.mirroring.authority = type("Busy", (), {"execute": staticmethod(unprocessed)})()
    entries = [put("a"), delete("b")]
    assert batch(process, *entries)["UnprocessedItems"] == {TABLE: entries}
    check_equal(world, "a", "b")


@pytest.mark.parametrize("fates", [("lost",), (LOST,), ("lost", LOST)])
def test_a_batch_whose_reply_was_lost_is_sent_again(
    world: World, process: Process, fates: tuple[Any, ...]
) -> None:
    fails(process, *fates)
    batch(process, put("a"), put("b"))
    check_equal(world, "a", "b")
    assert stored(world.mirror, "b") is not None


@pytest.mark.parametrize("fates", [("lost", REFUSED), ("lost", *[LOST] * 9)])
def test_a_batch_that_may_have_been_carried_out_leaves_its_keys_in_doubt(
    world: World, process: Process, fates: tuple[Any, ...]
) -> None:
    fails(process, *fates)
    with pytest.raises((ClientError, ReadTimeoutError)):
        batch(process, put("a"), put("b"))
    assert len(world.mirror.dirty_keys(TABLE)) == 2
    process.repair()
    check_equal(world, "a", "b")


def test_a_batch_that_was_refused_leaves_no_doubt(world: World, process: Process) -> None:
    fails(process, REFUSED)
    with pytest.raises(ClientError):
        batch(process, put("a"))
    assert not world.mirror.dirty_keys(TABLE)


@pytest.mark.parametrize("token", [None, "token-of-the-caller"])
def test_a_transaction_whose_reply_was_lost_is_carried_out_once(
    world: World, process: Process, token: str | None
) -> None:
    fails(process, "lost", "lost")
    options = {} if token is None else {"ClientRequestToken": token}
    transact(process, count("a"), {"Put": {"Item": item("b")}}, **options)
    assert stored(world.authority)["n"] == {"N": "1"}
    check_equal(world, "a", "b")
    if token is not None:
        transact(process, count("a"), {"Put": {"Item": item("b")}}, **options)
        assert stored(world.authority)["n"] == {"N": "1"}


@pytest.mark.parametrize("others_write", [False, True])
def test_a_transaction_that_was_settled_key_by_key_is_recognised_after_the_move(
    world: World,
    two: tuple[Process, Process],
    others_write: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    process, other = two

    def interfere(name: str, args: tuple[Any, ...]) -> None:
        if name == "write_settled_together" and args[0]:
            if not others_write:
                raise MirrorUnavailable("for a moment")
            other.put("meanwhile", key="b")

    process.mirror.before = interfere
    request = {"TransactItems": [_named(count("a")), _named({"Put": {"Item": item("b")}})]}
    request["ClientRequestToken"] = "token-of-the-caller"
    process.router.execute("TransactWriteItems", request)
    check_equal(world, "a", "b")
    before = stored(world.mirror, "b")
    epoch = world.record.epoch + 1
    world.mirror.raise_fence(TABLE, epoch=epoch, role=PostgresRole.AUTHORITY)
    world.mirror.execute_as_authority(TransactWriteItems(request), epochs={TABLE: epoch})
    assert stored(world.mirror)["n"] == {"N": "1"}
    assert stored(world.mirror, "b") == before


def test_a_transaction_without_room_for_stamps_is_carried_out_without_them_and_once(
    world: World, process: Process
) -> None:
    largest = {"id": {"S": "b"}, "v": {"S": "x" * (409_600 - len("idbv"))}}
    fails(process, None, "lost")
    transact(process, count("a"), {"Put": {"Item": largest}})
    assert stored(world.authority)["n"] == {"N": "1"}
    assert STAMP not in stored(world.authority, "b")
    check_equal(world, "a", "b")


def test_an_update_in_a_transaction_that_only_takes_away_creates_nothing(
    world: World, process: Process
) -> None:
    transact(process, {"Update": {"Key": {"id": {"S": "a"}}, "UpdateExpression": "REMOVE v"}})
    assert stored(world.authority) is None
    check_equal(world, "a")


def test_the_items_that_a_cancelled_transaction_shows_hold_no_stamps(process: Process) -> None:
    process.put("old")
    shown = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    with pytest.raises(ClientError) as refused:
        transact(process, {"Put": {"Item": item(), "ConditionExpression": "v = id", **shown}}, count("b"))
    (reason, _) = refused.value.response["CancellationReasons"]
    assert reason["Item"] == item(value="old")


def test_a_condition_check_is_neither_stamped_nor_settled(world: World, process: Process) -> None:
    process.put("old")
    before = stored(world.authority)
    check = {"Key": {"id": {"S": "a"}}, "ConditionExpression": "attribute_exists(id)"}
    transact(process, {"ConditionCheck": check}, count("b"))
    assert stored(world.authority) == before
    check_equal(world, "a", "b")


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("BatchWriteItem", {"RequestItems": {TABLE: [{"DeleteRequest": {"Key": {"id": {"N": "x"}}}}]}}),
        ("BatchWriteItem", {"RequestItems": {TABLE: [{"PutRequest": {"Item": {"v": {"S": "x"}}}}]}}),
        ("BatchWriteItem", {"RequestItems": {TABLE: [put(), put()]}}),
        ("TransactWriteItems", {"TransactItems": [{"Put": {"TableName": TABLE, "Item": item("")}}]}),
        ("PutItem", {"TableName": TABLE, "Item": {"id": {"N": "1"}}}),
    ],
)  # fmt: skip
def test_a_wrong_key_is_refused_in_the_authoritys_words(
    process: Process, name: str, request_: dict[str, Any]
) -> None:
    with pytest.raises(ClientError) as refused:
        process.router.execute(name, request_)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_a_batch_whose_reply_came_late_is_unknown_and_in_doubt_if_the_grant_cannot_be_renewed(
    world: World, process: Process
) -> None:
    def slow(operation: Any) -> Any:
        if not operation.reads:
            world.clock.advance(WRITE_GRANT)
            process.bookkeeping.down = True
        return world.authority.execute(operation)

    process.mirroring.authority = type("Slow", (), {"execute": staticmethod(slow)})()
    with pytest.raises(ClientError) as unknown:
        batch(process, put("a"))
    assert unknown.value.response["Error"]["Code"] == "InternalServerError"
    assert [doubt.key for doubt in world.mirror.dirty_keys(TABLE)] == [{"id": {"S": "a"}}]


def test_a_mirror_that_is_down_after_a_batch_gets_every_key_from_the_journal(
    world: World, process: Process
) -> None:
    process.mirror.down = True
    batch(process, *(put(key) for key in "abcdefgh"))
    assert process.journalled() == 8
    process.mirror.down = False
    process.repair()
    check_equal(world, *"abcdefgh")
