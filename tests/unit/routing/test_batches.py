"""A BatchGetItem is taken apart by key, and its answers are put together as if it had not been."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

from dualstore.control import Gate
from dualstore.operations import BatchGetItem, parse
from dualstore.stages import Side, Stage
from dualstore.telemetry.names import FALLBACKS
from unit.replication.processes import TABLE
from unit.routing.conftest import Refusing, Routing, key
from unit.routing.test_dialling import SHARES

D, P = Side.DYNAMODB, Side.POSTGRES
HERE = [name for name, share in SHARES.items() if share >= 50][:4]
THERE = [name for name, share in SHARES.items() if share < 50][:4]
MIXED = [key(name) for pair in zip(HERE, THERE, strict=True) for name in pair]


@pytest.fixture(autouse=True)
def _half(routing: Routing) -> None:
    """Eight items, of which the dial covers every second one."""
    for each in MIXED:
        routing.put(each["customer"]["S"], text={"S": "x" * 5_000})
    routing.decide(50)


def asked(routing: Routing, of: str) -> list[dict[str, Any]]:
    """What a side has been asked in BatchGetItems, by the parts of the table."""
    link = routing.process.mirror if of == "execute_as_mirror" else routing.process.authority
    found: list[dict[str, Any]] = []
    link.before = lambda name, args: (
        found.append(args[0].request["RequestItems"][TABLE])
        if name == of and isinstance(args[0], BatchGetItem)
        else None
    )
    return found


def names(items: list[dict[str, Any]]) -> list[str]:
    return [each["customer"]["S"] for each in items]


def undivided(routing: Routing, *keys: dict[str, Any], request: Any = None, **options: Any) -> dict[str, Any]:
    """The answer of DynamoDB alone."""
    part = {TABLE: {"Keys": list(keys), **options}}
    answer = routing.world.authority.execute(parse("BatchGetItem", {"RequestItems": part, **(request or {})}))
    hidden = [
        {name: value for name, value in each.items() if not name.startswith("_ds")}
        for each in answer["Responses"][TABLE]
    ]
    return {**answer, "Responses": {TABLE: hidden}}


def test_each_key_is_read_where_a_get_item_of_it_would_be(routing: Routing) -> None:
    mirror, authority = asked(routing, "execute_as_mirror"), asked(routing, "execute")
    assert routing.sides(lambda: routing.batch(*MIXED)) == [P, D]
    assert [names(part["Keys"]) for part in mirror] == [THERE]
    assert [names(part["Keys"]) for part in authority] == [HERE]


@pytest.mark.parametrize("options", [{}, {"ConsistentRead": True}])
@pytest.mark.parametrize(
    "capacity", [{}, {"ReturnConsumedCapacity": "TOTAL"}, {"ReturnConsumedCapacity": "INDEXES"}]
)
def test_the_answer_is_that_of_one_side_items_order_and_capacity(
    routing: Routing, options: dict[str, Any], capacity: dict[str, Any]
) -> None:
    keys = [*MIXED, key("nobody"), key("no one")]
    assert routing.batch(*keys, request=capacity, **options) == undivided(
        routing, *keys, request=capacity, **options
    )


def test_items_without_their_keys_come_in_any_order(routing: Routing) -> None:
    answer = routing.batch(*MIXED, ProjectionExpression="note")
    assert answer["Responses"][TABLE] == [{"note": {"S": "n"}}] * len(MIXED)


def test_a_batch_that_the_dial_covers_whole_asks_the_mirror_alone(routing: Routing) -> None:
    authority = asked(routing, "execute")
    assert routing.batch(*map(key, THERE)) == undivided(routing, *map(key, THERE))
    assert authority == []


def test_a_key_in_doubt_is_read_at_the_authority_consistently_and_the_others_stay(routing: Routing) -> None:
    doubtful = key(THERE[1])
    routing.world.mirror.mark_dirty(TABLE, doubtful, nonce="n", reason="test")
    mirror, authority = asked(routing, "execute_as_mirror"), asked(routing, "execute")
    answer = routing.batch(*MIXED)
    assert answer == undivided(routing, *MIXED)
    assert [names(part["Keys"]) for part in mirror] == [THERE]
    (part,) = authority
    assert names(part["Keys"]) == [*HERE, THERE[1]]
    assert part["ConsistentRead"]


def test_a_write_that_the_mirror_missed_is_seen_in_a_batch(routing: Routing) -> None:
    refusing = Refusing(routing.process.mirror, "write_direct", "write_settled")
    routing.put(THERE[0], note={"S": "second"})
    refusing.stop()
    (found,) = routing.batch(key(THERE[0]))["Responses"][TABLE]
    assert found["note"] == {"S": "second"}
    assert routing.sides(lambda: routing.batch(key(THERE[0]), key(THERE[1]))) == [P, D]


@pytest.mark.parametrize("failure", ["down", "gate", "grant"])
def test_where_the_mirror_s_answer_does_not_count_the_authority_is_asked_for_everything_consistently(
    routing: Routing, failure: str
) -> None:
    def meanwhile(name: str, args: Any) -> None:
        if name != "execute_as_mirror":
            return
        if failure == "down":
            raise routing.process.mirror.failure
        if failure == "gate":
            routing.world.decide(gate=Gate.SHUT)
            routing.process.agent.refresh()
        else:
            routing.world.clock.advance(1.1)

    routing.process.mirror.before = meanwhile
    authority = asked(routing, "execute")
    assert routing.sides(lambda: routing.batch(*MIXED)) == [D]
    assert [sorted(names(part["Keys"])) for part in authority] == [sorted([*HERE, *THERE])]
    assert authority[0]["ConsistentRead"]
    reason = "MirrorUnavailable" if failure == "down" else "grant"
    assert routing.counted(FALLBACKS) == {reason: 1}


def test_keys_that_no_dial_covers_are_read_as_their_caller_asked(routing: Routing) -> None:
    authority = asked(routing, "execute")
    routing.batch(*MIXED)
    assert "ConsistentRead" not in authority[0]


def test_a_batch_that_is_too_long_is_refused_though_its_parts_would_not_be(routing: Routing) -> None:
    keys = [key(f"cust-{n}", 1) for n in range(101)]
    with pytest.raises(ClientError) as refused:
        routing.batch(*keys)
    assert refused.value.response["Error"]["Code"] == "ValidationException"
    assert "execute_as_mirror" not in routing.process.mirror.calls


@pytest.mark.parametrize("name", [HERE[0], THERE[0]])
def test_a_key_that_is_asked_for_twice_is_refused_on_either_side(routing: Routing, name: str) -> None:
    twice = {"customer": {"S": name}, "number": {"N": "1.0"}}
    with pytest.raises(ClientError) as refused:
        routing.batch(*MIXED, twice)
    assert refused.value.response["Error"]["Code"] == "ValidationException"


def test_what_both_sides_leave_unprocessed_is_handed_back_once(routing: Routing) -> None:
    """Each side stops at 16 MB; what the mirror leaves, the authority is asked for."""

    def leaves_half(operation: Any) -> Any:
        part = operation.request["RequestItems"][TABLE]
        left = part["Keys"][2:]
        answer = routing.world.authority.execute(
            BatchGetItem({"RequestItems": {TABLE: {**part, "Keys": part["Keys"][:2]}}})
        )
        return {**answer, "UnprocessedKeys": {TABLE: {**part, "Keys": left}} if left else {}}

    class Half:
        side = D

        def execute(self, operation: Any) -> Any:
            return leaves_half(operation)

        execute_as_mirror = execute

    routing.process.authority.store = routing.process.mirror.store = Half()
    answer = routing.batch(*MIXED)
    assert sorted(names(answer["Responses"][TABLE])) == sorted([*THERE[:2], *HERE[:2]])
    assert sorted(names(answer["UnprocessedKeys"][TABLE]["Keys"])) == sorted([*HERE[2:], *THERE[2:]])


def test_nothing_that_was_shown_to_the_comparison_changes_afterwards(routing: Routing) -> None:
    shown: list[Any] = []
    routing.router._authorities._observe = lambda *args: shown.append((args[1], args[3]))
    routing.world.mirror.mark_dirty(TABLE, key(THERE[1]), nonce="n", reason="test")
    routing.batch(*MIXED)
    for part, answer in shown:
        keys = part.request["RequestItems"][TABLE]["Keys"]
        left = answer["UnprocessedKeys"].get(TABLE, {"Keys": []})["Keys"]
        assert len(keys) == len(answer["Responses"][TABLE]) + len(left)
    assert len(shown) == 2


def test_at_other_stages_a_batch_is_not_taken_apart(routing: Routing) -> None:
    routing.decide(50, stage=Stage.OFF)
    assert routing.sides(lambda: routing.batch(*MIXED)) == [D]
