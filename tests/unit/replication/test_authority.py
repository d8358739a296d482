"""One write at the authority: lost replies, retries, and what its caller is told."""

from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from dualstore.errors import RequestRejected, client_error
from dualstore.items import PREDECESSOR, STAMP
from dualstore.operations import (
    ConditionalWrite,
    DeleteItem,
    GetItem,
    Operation,
    PutItem,
    Response,
    UpdateItem,
)
from dualstore.replication.authority import Acknowledged, RetryPolicy, WriteRefused, write
from dualstore.stores.memory import MemoryStore
from unit.replication.processes import SHAPE, TABLE, stored

KEY = {"id": {"S": "a"}}
AT_ONCE = RetryPolicy(attempts=4, first_wait=timedelta(), longest_wait=timedelta())
LOST = ReadTimeoutError(endpoint_url="simulated")
NEVER_SENT = EndpointConnectionError(endpoint_url="simulated")
LARGEST_ITEM_BYTES = 409_600


def throttled(name: str) -> ClientError:
    return client_error(name, RequestRejected("ProvisionedThroughputExceededException", "slow down"))


def server_error(name: str) -> ClientError:
    return client_error(name, RequestRejected("InternalServerError", "sorry"))


class Unreliable:
    """A store whose attempts fail as told, one entry each: None, "lost" (after), or an exception (before)."""

    def __init__(self, *fates: Any, store: MemoryStore | None = None) -> None:
        self.store = store or MemoryStore({TABLE: SHAPE})
        self.side = self.store.side
        self.fates = list(fates)
        self.sent: list[Operation] = []
        self.between = lambda attempt: None

    def execute(self, operation: Operation) -> Response:
        self.between(len(self.sent))
        self.sent.append(operation)
        fate = self.fates.pop(0) if self.fates else None
        if isinstance(fate, Exception):
            raise fate
        response = self.store.execute(operation)
        if fate == "lost":
            raise LOST
        return response


def send(store: Unreliable, operation: ConditionalWrite, *, mirrored: bool = True) -> Acknowledged:
    return write(store, operation, mirrored=mirrored, policy=AT_ONCE)  # type: ignore[arg-type]


def put(value: str = "new", **options: Any) -> PutItem:
    return PutItem({"TableName": TABLE, "Item": {**KEY, "v": {"S": value}}, **options})


def count(**options: Any) -> UpdateItem:
    request = {"UpdateExpression": "ADD n :one", "ExpressionAttributeValues": {":one": {"N": "1"}}}
    return UpdateItem({"TableName": TABLE, "Key": KEY, **request, **options})


def delete(**options: Any) -> DeleteItem:
    return DeleteItem({"TableName": TABLE, "Key": KEY, **options})


CREATE = {"ConditionExpression": "attribute_not_exists(id)"}
EXISTS = {"ConditionExpression": "attribute_exists(id)"}
BOTH = pytest.mark.parametrize("mirrored", [False, True])


@BOTH
def test_each_attempt_has_a_stamp_of_its_own(mirrored) -> None:
    store = Unreliable(LOST, throttled("PutItem"))
    acknowledged = send(store, put(), mirrored=mirrored)
    stamps = [each.request["Item"][STAMP]["B"] for each in store.sent]
    assert len(set(stamps)) == 3
    assert acknowledged.stamp == stamps[-1] == stored(store.store)[STAMP]["B"]
    assert acknowledged.certain is mirrored


@BOTH
def test_a_create_whose_reply_was_lost_is_recognised_by_its_own_stamp(mirrored) -> None:
    store = Unreliable("lost")
    acknowledged = send(store, put(**CREATE), mirrored=mirrored)
    assert acknowledged.reply.response.keys() == {"ResponseMetadata"}
    assert not acknowledged.certain
    assert len(store.sent) == 2


@BOTH
@pytest.mark.parametrize("failure", ["lost", server_error("UpdateItem")])
def test_an_increment_whose_reply_was_lost_counts_once(failure: Any, mirrored) -> None:
    store = Unreliable(failure, "lost", failure)
    send(store, count(), mirrored=mirrored)
    assert stored(store.store)["n"] == {"N": "1"}


@BOTH
@pytest.mark.parametrize("returned", ["ALL_NEW", "UPDATED_NEW"])
def test_the_values_that_a_lost_reply_carried_are_recovered(returned: str, mirrored) -> None:
    acknowledged = send(Unreliable("lost"), count(ReturnValues=returned), mirrored=mirrored)
    whole = {**KEY, "n": {"N": "1"}}
    assert acknowledged.reply.response["Attributes"] == (
        whole if returned == "ALL_NEW" else {"n": {"N": "1"}}
    )


@pytest.mark.parametrize("operation", [count(ReturnValues="ALL_OLD"), put(ReturnValues="ALL_OLD")])
def test_old_values_that_went_with_the_reply_leave_the_outcome_unknown_and_nothing_is_sent_again(
    operation: ConditionalWrite,
) -> None:
    store = Unreliable(store=None)
    send(store, put("before"))
    sent, store.fates = len(store.sent), ["lost"]
    with pytest.raises(WriteRefused) as refused:
        send(store, operation)
    assert refused.value.error is LOST
    assert refused.value.doubtful
    assert len(store.sent) - sent == 2


def test_an_update_found_carried_out_is_not_repeated_once_others_have_covered_its_stamps() -> None:
    store = Unreliable("lost")
    others = Unreliable(store=store.store)

    def overtake(attempt: int) -> None:
        if attempt >= 2:
            send(others, count())
            send(others, count())

    store.between = overtake
    with pytest.raises(WriteRefused):
        send(store, count(ReturnValues="UPDATED_OLD"))
    assert stored(store.store)["n"] == {"N": "1"}


def test_a_lost_write_that_one_update_followed_is_recognised_by_the_predecessor() -> None:
    store = Unreliable("lost")
    others = Unreliable(store=store.store)
    store.between = lambda attempt: attempt == 1 and send(others, count()) and None
    send(store, put(**CREATE))
    assert stored(store.store)["n"] == {"N": "1"}


def test_values_of_a_lost_update_that_another_followed_are_not_made_up() -> None:
    store = Unreliable("lost")
    others = Unreliable(store=store.store)
    store.between = lambda attempt: attempt == 1 and send(others, count()) and None
    with pytest.raises(WriteRefused) as refused:
        send(store, count(ReturnValues="ALL_NEW"))
    assert refused.value.error is LOST
    assert stored(store.store)["n"] == {"N": "2"}


def test_a_refusal_after_a_lost_request_is_the_callers_own() -> None:
    store = Unreliable()
    send(store, put("before"))
    store.fates = [LOST]
    with pytest.raises(WriteRefused) as refused:
        send(store, put(**CREATE))
    assert isinstance(refused.value.error, ClientError)
    assert refused.value.doubtful
    assert "Item" not in refused.value.error.response


@pytest.mark.parametrize(
    "final",
    [
        throttled("UpdateItem"),
        client_error("UpdateItem", RequestRejected("AccessDeniedException", "")),
        client_error("UpdateItem", RequestRejected("ValidationException", "")),
    ],
)
def test_after_a_lost_reply_no_other_error_tells_the_caller_that_nothing_was_written(
    final: ClientError,
) -> None:
    store = Unreliable("lost", *[final] * 3)
    with pytest.raises(WriteRefused) as refused:
        send(store, count())
    assert refused.value.error is LOST
    assert refused.value.doubtful


def test_a_conditional_delete_that_finds_nothing_after_a_lost_reply_is_unknown_and_not_sent_again() -> None:
    store = Unreliable()
    send(store, put())
    sent, store.fates = len(store.sent), ["lost"]
    with pytest.raises(WriteRefused) as refused:
        send(store, delete(**EXISTS))
    assert refused.value.error is LOST
    assert refused.value.doubtful
    assert len(store.sent) - sent == 2


def test_a_conditional_delete_that_meets_an_item_after_a_lost_request_is_refused() -> None:
    store = Unreliable()
    send(store, put())
    store.fates = [LOST]
    with pytest.raises(WriteRefused) as refused:
        send(store, delete(ConditionExpression="v = :x", ExpressionAttributeValues={":x": {"S": "else"}}))
    assert isinstance(refused.value.error, ClientError)
    assert "Item" not in refused.value.error.response


def test_a_delete_after_a_lost_reply_succeeds_and_is_settled() -> None:
    store = Unreliable()
    send(store, put())
    store.fates = ["lost"]
    acknowledged = send(store, delete())
    assert not acknowledged.certain
    assert stored(store.store) is None


def test_a_deleted_item_that_went_with_the_reply_is_not_reported_as_never_there() -> None:
    store = Unreliable()
    send(store, put())
    store.fates = ["lost"]
    with pytest.raises(WriteRefused) as refused:
        send(store, delete(ReturnValues="ALL_OLD"))
    assert refused.value.error is LOST


@BOTH
def test_a_throttled_write_is_tried_again_and_leaves_no_doubt(mirrored) -> None:
    store = Unreliable(throttled("UpdateItem"), NEVER_SENT, throttled("UpdateItem"))
    acknowledged = send(store, count(), mirrored=mirrored)
    assert acknowledged.certain is mirrored
    assert not [each for each in store.sent if "ConditionExpression" in each.request]

    store = Unreliable(*[throttled("UpdateItem")] * 9)
    with pytest.raises(WriteRefused) as refused:
        send(store, count(), mirrored=mirrored)
    assert not refused.value.doubtful
    assert len(store.sent) == AT_ONCE.attempts


# Stamps that do not fit


def large(value_bytes: int, **options: Any) -> PutItem:
    return PutItem({"TableName": TABLE, "Item": {**KEY, "v": {"S": "x" * value_bytes}}, **options})


LARGEST = LARGEST_ITEM_BYTES - len("idav")


def test_whoever_interrupts_a_write_ends_it() -> None:
    store = Unreliable(*[throttled("PutItem")] * 2)

    interrupted: list[int] = []

    def interrupt(attempt: int) -> None:
        if attempt == 2:
            interrupted.append(attempt)
            raise KeyboardInterrupt

    store.between = interrupt
    with pytest.raises(KeyboardInterrupt):
        write(store, PutItem({"TableName": TABLE, "Item": dict(KEY)}), mirrored=True, policy=AT_ONCE)
    assert interrupted == [2]


@BOTH
def test_an_item_of_the_largest_size_is_written_without_a_stamp(mirrored) -> None:
    store = Unreliable()
    acknowledged = send(store, large(LARGEST), mirrored=mirrored)
    assert (acknowledged.stamp, acknowledged.certain) == (None, False)
    assert STAMP not in stored(store.store)


def test_a_request_that_is_wrong_by_itself_is_refused_in_the_authoritys_words() -> None:
    store = Unreliable()
    with pytest.raises(WriteRefused) as refused:
        send(store, large(LARGEST + 1))
    assert refused.value.error.response["Error"]["Code"] == "ValidationException"
    assert not refused.value.doubtful
    assert len(store.sent) == 2


def test_an_unstamped_write_whose_reply_was_lost_is_not_repeated() -> None:
    store = Unreliable()
    send(store, large(LARGEST - len("n") - 3))
    store.fates = [client_error("UpdateItem", RequestRejected("ValidationException", "")), "lost"]
    with pytest.raises(WriteRefused) as refused:
        send(store, count())
    assert refused.value.error is LOST
    assert refused.value.doubtful
    assert stored(store.store)["n"] == {"N": "1"}


@BOTH
@pytest.mark.parametrize("returned", ["NONE", "ALL_NEW", "UPDATED_NEW"])
def test_an_update_that_only_takes_away_does_not_create_the_item(returned: str, mirrored) -> None:
    store = Unreliable()
    removal = {"TableName": TABLE, "Key": KEY, "UpdateExpression": "REMOVE v", "ReturnValues": returned}
    acknowledged = send(store, UpdateItem(removal), mirrored=mirrored)
    assert stored(store.store) is None
    assert "Attributes" not in acknowledged.reply.response
    assert not acknowledged.certain


@pytest.mark.parametrize("expression", ["SET v = ", "SET", "nonsense", "SET v = :missing", ""])
def test_an_expression_that_is_none_is_refused_in_the_authoritys_words(expression: str) -> None:
    wrong = {"TableName": TABLE, "Key": KEY, "UpdateExpression": expression, "ReturnValues": "UPDATED_NEW"}
    with pytest.raises(WriteRefused) as refused:
        send(Unreliable(), UpdateItem(wrong))
    assert refused.value.error.response["Error"]["Code"] == "ValidationException"
    assert not refused.value.doubtful


def test_a_legacy_update_whose_reply_was_lost_is_not_repeated() -> None:
    store = Unreliable(LOST)
    legacy = {"n": {"Action": "ADD", "Value": {"N": "1"}}}
    with pytest.raises(WriteRefused) as refused:
        send(store, UpdateItem({"TableName": TABLE, "Key": KEY, "AttributeUpdates": legacy}))
    assert refused.value.doubtful
    assert len(store.sent) == 1


@BOTH
@pytest.mark.parametrize("unstamped", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_the_item_that_a_condition_met_is_shown_without_stamps_and_only_to_whom_asked(
    lost, unstamped, mirrored
) -> None:
    store = Unreliable()
    send(store, put("before"))
    send(store, count())
    assert {STAMP, PREDECESSOR} <= stored(store.store).keys()
    operation = large(LARGEST, **CREATE) if unstamped else put(**CREATE)
    shown = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
    for asked in ({}, shown):
        store.fates = [LOST] if lost and not unstamped else []
        with pytest.raises(WriteRefused) as refused:
            send(store, PutItem({**operation.request, **asked}), mirrored=mirrored)
        response = refused.value.error.response
        assert response.get("Item") == ({**KEY, "v": {"S": "before"}, "n": {"N": "1"}} if asked else None)


def test_a_reader_sees_what_the_writer_was_told(world: Any) -> None:
    store = Unreliable("lost", store=world.authority)
    answer = send(store, count(ReturnValues="ALL_NEW")).reply.response["Attributes"]
    read = world.authority.execute(GetItem({"TableName": TABLE, "Key": KEY}))["Item"]
    assert {name: value for name, value in read.items() if name not in {STAMP, PREDECESSOR}} == answer
