"""A page is given out by the mirror only where a cursor of any of its items goes on rightly (ADR 10)."""

from typing import Any

import pytest

from dualstore.operations import parse
from dualstore.stages import Side
from dualstore.telemetry.names import FALLBACKS
from unit.replication.processes import TABLE
from unit.routing.conftest import Routing, key

D, P = Side.DYNAMODB, Side.POSTGRES


def in_city(routing: Routing, **request: Any) -> dict[str, Any]:
    return routing.of_index("by-rank", "city", "York", **request)


def place(routing: Routing, *ranks: int, city: str = "York") -> None:
    for number, rank in enumerate(ranks):
        routing.put("ann", number, city={"S": city}, rank={"N": str(rank)}, email={"S": "same"})


def test_pages_of_a_partition_of_the_table_may_follow_on_either_side(routing: Routing) -> None:
    place(routing, 1, 2, 3)
    assert routing.sides(lambda: routing.query(Limit=1)) == [P]
    assert routing.sides(lambda: routing.query(Limit=1, ExclusiveStartKey=key("ann", 0))) == [P]
    assert routing.sides(lambda: routing.query(ScanIndexForward=False, Limit=2)) == [P]


def test_so_may_those_of_an_index_whose_keys_hold_the_table_s(routing: Routing) -> None:
    def by_number(**request: Any) -> Any:
        return routing.ask(
            "Query",
            IndexName="by-number",
            KeyConditionExpression="#n = :n",
            ExpressionAttributeNames={"#n": "number"},
            ExpressionAttributeValues={":n": {"N": "1"}},
            **request,
        )

    place(routing, 1, 2)
    assert routing.sides(by_number) == [P]
    assert routing.sides(lambda: by_number(ExclusiveStartKey=key("ann", 1))) == [P]


def test_a_whole_partition_of_an_index_without_ties_is_given_out(routing: Routing) -> None:
    place(routing, 3, 1, 2)
    assert routing.sides(lambda: in_city(routing)) == [P]
    assert [each["rank"]["N"] for each in in_city(routing)["Items"]] == ["1", "2", "3"]


@pytest.mark.parametrize("ranks", [(1, 1), (1, 2, 2), (1, 1, 2)])
def test_one_with_ties_is_answered_by_the_authority(routing: Routing, ranks: tuple[int, ...]) -> None:
    place(routing, *ranks)
    assert routing.sides(lambda: in_city(routing)) == [D]
    assert routing.counted(FALLBACKS) == {"order": 1}


def test_numbers_that_are_written_differently_tie(routing: Routing) -> None:
    routing.put("ann", 1, city={"S": "York"}, rank={"N": "1"})
    routing.put("bob", 1, city={"S": "York"}, rank={"N": "1.0"})
    assert routing.sides(lambda: in_city(routing)) == [D]


def test_a_page_that_has_a_next_one_is_answered_by_the_authority_and_so_is_the_next(routing: Routing) -> None:
    place(routing, 1, 2, 3)
    page = in_city(routing, Limit=2)
    assert routing.sides(lambda: in_city(routing, Limit=2)) == [D]
    cursor = page["LastEvaluatedKey"]
    assert routing.sides(lambda: in_city(routing, ExclusiveStartKey=cursor)) == [D]


def test_where_the_projection_leaves_no_sort_key_there_may_be_ties(routing: Routing) -> None:
    place(routing, 1, 2)
    assert routing.sides(lambda: in_city(routing, ProjectionExpression="note")) == [D]
    assert routing.sides(lambda: in_city(routing, Select="COUNT")) == [P]


def test_an_index_without_a_sort_key_is_given_out_with_one_item_at_most(routing: Routing) -> None:
    def mail() -> Any:
        return routing.of_index("by-email", "email", "same")

    assert routing.sides(mail) == [P]
    place(routing, 1)
    assert routing.sides(mail) == [P]
    place(routing, 1, 2)
    assert routing.sides(mail) == [D]


def test_the_authority_is_asked_for_a_global_index_as_its_caller_asked(routing: Routing) -> None:
    place(routing, 1, 1)
    seen: list[Any] = []
    routing.process.authority.before = lambda name, args: seen.append(args[0].request)
    in_city(routing)
    assert "ConsistentRead" not in seen[-1]


def test_a_doubt_in_another_partition_does_not_keep_a_query_from_the_mirror(routing: Routing) -> None:
    place(routing, 1, 2)
    routing.world.mirror.mark_dirty(TABLE, key("bob"), nonce="n", reason="test")
    assert routing.sides(routing.query) == [P]
    assert routing.sides(lambda: routing.query(IndexName="by-date")) == [P]
    assert routing.sides(lambda: in_city(routing)) == [D]
    routing.world.mirror.mark_dirty(TABLE, key("ann", 77), nonce="n", reason="test")
    assert routing.sides(routing.query) == [D]
    assert routing.sides(lambda: routing.query(IndexName="by-date")) == [D]


def test_a_partition_key_that_begins_like_another_is_another(routing: Routing) -> None:
    routing.world.mirror.mark_dirty(TABLE, key("anna"), nonce="n", reason="test")
    assert routing.sides(routing.query) == [P]


@pytest.mark.parametrize("request_", [{}, {"Select": "COUNT"}, {"Segment": 0, "TotalSegments": 2}])
def test_a_scan_is_answered_by_the_authority(routing: Routing, request_: dict[str, Any]) -> None:
    place(routing, 1)
    assert routing.sides(lambda: routing.ask("Scan", **request_)) == [D]
    assert "execute_as_mirror" not in routing.process.mirror.calls


def test_an_index_that_is_not_known_is_left_to_the_authority(routing: Routing) -> None:
    class Answering:
        side = D

        def execute(self, operation: Any) -> Any:
            return {"Items": [], "Count": 0}

    routing.process.authority.store = Answering()  # type: ignore[assignment]
    assert routing.sides(lambda: routing.of_index("made-since", "city", "York")) == [D]


def test_the_mirror_shows_half_of_a_transaction_for_a_moment_so_transactions_read_the_authority(
    routing: Routing,
) -> None:
    """Another writer settles one of the keys while the transaction's own mirror write is under way."""
    gets = {"TransactItems": [{"Get": {"TableName": TABLE, "Key": key("ann", n)}} for n in (1, 2)]}
    other = routing.world.process()
    other.router = type(routing.router)(
        other.mirroring,
        other.mirror,
        routing.router._tables,
        telemetry=other.telemetry,
        observe=lambda *_: None,
    )
    half: list[list[bool]] = []
    whole: list[list[bool]] = []

    def overtaken(name: str, args: Any) -> None:
        if name == "write_settled_together":
            routing.process.mirror.before = lambda *_: None
            item = {**key("ann", 1), "note": {"S": "over the transaction's"}}
            other.router.execute("PutItem", {"TableName": TABLE, "Item": item})
            mirror = routing.world.mirror.execute_as_mirror(parse("TransactGetItems", gets))
            half.append(["Item" in each for each in mirror["Responses"]])
            routed = routing.router.execute("TransactGetItems", gets)
            whole.append(["Item" in each for each in routed["Responses"]])

    routing.process.mirror.before = overtaken
    puts = [
        {"Put": {"TableName": TABLE, "Item": {**key("ann", n), "note": {"S": "together"}}}} for n in (1, 2)
    ]
    routing.router.execute("TransactWriteItems", {"TransactItems": puts})
    assert half == [[True, False]]
    assert whole == [[True, True]]
    assert routing.sides(lambda: routing.router.execute("TransactGetItems", gets)) == [D]
