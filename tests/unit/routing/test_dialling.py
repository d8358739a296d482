"""Which reads the mirror is asked for: the dial, cohorts, and what a unit of work holds."""

import contextvars
import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from botocore.exceptions import ClientError, ParamValidationError

from dualstore.control import Gate, Stop
from dualstore.flags import share
from dualstore.items import partition_bytes
from dualstore.operations import parse
from dualstore.routing import ReadRules, cohort
from dualstore.stages import Side, Stage
from dualstore.telemetry.names import FALLBACKS, GRANTS_EXPIRED
from unit.replication.processes import TABLE
from unit.routing.conftest import SHAPE, Routing, key

CUSTOMERS = [f"cust-{n}" for n in range(60)]
SHARES = {name: share("orders", partition_bytes(SHAPE.keys, key(name))) for name in CUSTOMERS}
INTERNAL = ReadRules(always_on=frozenset({"internal"}), always_off=frozenset({"bank"}))
D, P = Side.DYNAMODB, Side.POSTGRES


def side_of(routing: Routing, customer: str = "ann", number: int = 1) -> Side:
    (side,) = routing.sides(lambda: routing.get(customer, number))
    return side


def at_postgres(routing: Routing) -> set[str]:
    return {name for name in CUSTOMERS if side_of(routing, name) is P}


# The dial


@pytest.mark.parametrize("percent", [0, 0.5, 10, 55.5, 99, 100])
def test_a_read_goes_where_the_share_of_its_partition_key_says(routing: Routing, percent: float) -> None:
    routing.decide(percent)
    assert at_postgres(routing) == {name for name in CUSTOMERS if SHARES[name] < percent}


def test_dialling_up_keeps_every_partition_that_was_there_and_dialling_down_takes_the_last_ones(
    routing: Routing,
) -> None:
    there: list[set[str]] = []
    for percent in (0, 5, 30, 60, 100):
        routing.decide(percent)
        there.append(at_postgres(routing))
    for percent in (60, 30, 5, 0):
        routing.decide(percent)
        there.append(at_postgres(routing))
    assert there[0] < there[1] < there[2] < there[3] < there[4]
    assert there[5:] == there[3::-1]


def test_all_reads_of_a_partition_are_on_one_side_whatever_their_operation(routing: Routing) -> None:
    routing.decide(50)
    for name in CUSTOMERS[:20]:
        reads = (
            partial(routing.get, name, 1),
            partial(routing.get, name, 2),
            partial(routing.query, name),
            partial(routing.query, name, IndexName="by-date"),
            partial(routing.batch, key(name)),
        )
        for read in reads:
            assert routing.sides(read) == [P if SHARES[name] < 50 else D]


def test_the_reads_of_an_index_partition_go_by_one_hash_of_the_request(routing: Routing) -> None:
    cities = [f"city-{n}" for n in range(40)]
    there: list[set[str]] = []
    for percent in (0, 20, 60, 100):
        routing.decide(percent)
        reads = {city: partial(routing.of_index, "by-rank", "city", city) for city in cities}
        sides = {city: routing.sides(read) for city, read in reads.items()}
        assert sides == {city: routing.sides(read) for city, read in reads.items()}
        there.append({city for city, (side,) in sides.items() if side is P})
    assert set() == there[0] < there[1] < there[2] < there[3] == set(cities)


@pytest.mark.parametrize("consistent", [True, False])
@pytest.mark.parametrize("stage", [Stage.DUALWRITE, Stage.SHADOW])
def test_a_dialled_read_shows_every_acknowledged_write_whether_it_is_asked_for_consistently_or_not(
    routing: Routing, stage: Stage, *, consistent: bool
) -> None:
    routing.decide(stage=stage)
    for number in range(5):
        routing.put(note={"S": str(number)})
        assert side_of(routing) is P
        assert routing.get(ConsistentRead=consistent)["note"] == {"S": str(number)}
        assert routing.query(ConsistentRead=consistent)["Items"][0]["note"] == {"S": str(number)}
        (found,) = routing.batch(key(), ConsistentRead=consistent)["Responses"][SHAPE.name]
        assert found["note"] == {"S": str(number)}


@pytest.mark.parametrize(
    "wrong", [{"customer": {"S": "ann"}}, {"customer": {"N": "1"}, "number": {"N": "1"}}, {}]
)
@pytest.mark.parametrize("percent", [50, 100])
def test_a_request_that_dynamodb_refuses_is_refused_in_its_own_words(
    routing: Routing, wrong: dict[str, Any], percent: float
) -> None:
    routing.decide(percent)
    for name, request in (
        ("GetItem", {"TableName": TABLE, "Key": wrong}),
        ("BatchGetItem", {"RequestItems": {TABLE: {"Keys": [wrong]}}}),
    ):
        with pytest.raises(ClientError) as here:
            routing.world.authority.execute(parse(name, request))
        with pytest.raises(ClientError) as routed:
            routing.router.execute(name, request)
        assert routed.value.response == here.value.response


@pytest.mark.parametrize("wrong", [None, "ann", {"customer": "ann"}, {"customer": {"S": 5}}], ids=repr)
@pytest.mark.parametrize("percent", [0, 50, 100])
def test_a_key_that_boto3_does_not_send_is_refused_by_boto3(
    routing: Routing, wrong: Any, percent: float
) -> None:
    def as_boto3(name: str, args: Any) -> None:
        assert args[0].request["Key"] is wrong
        raise ParamValidationError(report="Key")

    routing.decide(percent)
    routing.process.authority.before = as_boto3
    with pytest.raises(ParamValidationError):
        routing.ask("GetItem", Key=wrong)


# Cohorts


def routing_by(cohort_of: Callable[[Any], str | None]) -> dict[str, Any]:
    return {"rules": {"orders": INTERNAL}, "cohorts": {"orders": cohort_of}}


def of_name(customer: Any) -> str | None:
    return str(customer).partition("#")[0]


def test_a_cohort_that_is_always_on_reads_the_mirror_before_the_first_percent(
    routing_of: Callable[..., Routing],
) -> None:
    routing = routing_of(**routing_by(of_name))
    routing.decide(0)
    assert side_of(routing, "internal#7") is P
    assert side_of(routing, "other#7") is D
    assert routing.sides(lambda: routing.query("internal#7")) == [P]


def test_a_cohort_that_is_always_off_does_not_read_the_mirror_at_100_percent(
    routing_of: Callable[..., Routing],
) -> None:
    routing = routing_of(**routing_by(of_name))
    assert side_of(routing, "bank#7") is D
    assert side_of(routing, "other#7") is P
    assert routing.sides(lambda: routing.query("bank#7")) == [D]


def test_always_off_wins(routing_of: Callable[..., Routing]) -> None:
    both = ReadRules(always_on=frozenset({"ann"}), always_off=frozenset({"ann"}))
    routing = routing_of(rules={"orders": both}, cohorts={"orders": of_name})
    assert side_of(routing, "ann") is D


def test_a_cohort_that_no_list_names_goes_by_the_hash(routing_of: Callable[..., Routing]) -> None:
    routing = routing_of(rules={"orders": INTERNAL}, cohorts={"orders": lambda _: "unheard of"})
    routing.decide(50)
    assert at_postgres(routing) == {name for name in CUSTOMERS if SHARES[name] < 50}


@pytest.mark.parametrize(
    "change",
    [
        {"gate": Gate.SHUT},
        {"loaded": False},
        {"suspects": frozenset({"someone"})},
        {"deferred": True},
        {"stopped": Stop("kim", 0.0)},
        {"stage": Stage.OFF},
    ],
)
def test_no_cohort_reads_a_mirror_that_may_not_be_read(
    routing_of: Callable[..., Routing], change: dict[str, Any]
) -> None:
    routing = routing_of(**routing_by(of_name))
    routing.decide(0, **change)
    assert side_of(routing, "internal#7") is D


def test_no_cohort_reads_a_mirror_without_a_grant_or_a_doubtful_key(
    routing_of: Callable[..., Routing],
) -> None:
    routing = routing_of(**routing_by(of_name))
    routing.decide(0)
    routing.world.mirror.mark_dirty(SHAPE.name, key("internal#7"), nonce="n", reason="test")
    assert side_of(routing, "internal#7") is D
    assert side_of(routing, "internal#8") is P
    routing.world.clock.advance(1.1)
    assert side_of(routing, "internal#8") is D


def test_the_cohort_of_the_context_counts_for_every_key_and_for_indexes(
    routing_of: Callable[..., Routing],
) -> None:
    routing = routing_of(**routing_by(of_name))
    routing.decide(0)
    with cohort("internal"):
        assert side_of(routing, "bank#7") is P
        assert routing.sides(lambda: routing.of_index("by-email", "email", "e")) == [P]
        with cohort("bank"):
            assert side_of(routing, "internal#7") is D
        assert side_of(routing, "bank#7") is P
    assert side_of(routing, "bank#7") is D
    assert routing.sides(lambda: routing.of_index("by-email", "email", "e")) == [D]


def test_a_cohort_follows_the_context_into_a_thread_and_no_other_thread(
    routing_of: Callable[..., Routing],
) -> None:
    routing = routing_of(**routing_by(of_name))
    routing.decide(0)
    seen: dict[str, Side] = {}

    def read(name: str) -> None:
        seen[name] = side_of(routing)

    with cohort("internal"):
        copied = contextvars.copy_context()
        threads = [
            threading.Thread(target=read, args=("alone",)),
            threading.Thread(target=copied.run, args=(read, "in its context")),
        ]
        for thread in threads:
            thread.start()
            thread.join()
    assert seen == {"alone": D, "in its context": P}


def test_a_cohort_function_that_raises_is_reported_once_without_the_key_and_no_read_fails(
    routing_of: Callable[..., Routing], caplog: pytest.LogCaptureFixture
) -> None:
    def broken(customer: Any) -> str | None:
        raise LookupError(customer)

    routing = routing_of(**routing_by(broken))
    routing.decide(0)
    with caplog.at_level(logging.WARNING):
        assert side_of(routing, "canary-customer") is D
        assert side_of(routing, "canary-customer") is D
    assert caplog.text.count("LookupError") == 1
    assert "canary" not in caplog.text


# What is held


def test_a_held_route_stays_while_the_dial_moves(routing: Routing) -> None:
    routing.decide(50)
    before = at_postgres(routing)
    with routing.router.hold():
        for percent in (0, 100, 10):
            routing.decide(percent)
            assert at_postgres(routing) == before
    assert at_postgres(routing) < before


def test_a_held_route_holds_for_batches_and_listings_too(routing: Routing) -> None:
    with routing.router.hold():
        routing.decide(0)
        assert routing.sides(lambda: routing.batch(key())) == [P]
        assert routing.sides(routing.query) == [P]
    assert routing.sides(lambda: routing.batch(key())) == [D]


def test_an_inner_block_does_not_let_the_route_go(routing: Routing) -> None:
    with routing.router.hold():
        routing.decide(0)
        with routing.router.hold():
            assert side_of(routing) is P
        assert side_of(routing) is P
    assert side_of(routing) is D


def test_one_store_s_route_is_not_another_s(routing: Routing, routing_of: Callable[..., Routing]) -> None:
    other = routing_of()
    with routing.router.hold():
        other.decide(0)
        assert side_of(other) is D


@pytest.mark.parametrize(
    "change", [{"gate": Gate.SHUT}, {"stopped": Stop("kim", 0.0)}, {"suspects": frozenset({"someone"})}]
)
def test_a_held_route_holds_neither_gate_nor_stop(routing: Routing, change: dict[str, Any]) -> None:
    with routing.router.hold():
        assert side_of(routing) is P
        routing.decide(**change)
        assert side_of(routing) is D


def test_a_held_route_holds_no_grant(routing: Routing) -> None:
    with routing.router.hold():
        routing.world.clock.advance(1.1)
        assert side_of(routing) is D


def test_a_held_route_holds_no_epoch(routing: Routing) -> None:
    routing.put()
    with routing.router.hold():
        routing.decide(epoch=routing.world.record.epoch + 1, stage=Stage.OFF)
        assert side_of(routing) is D


def test_a_held_route_holds_the_cohort_that_it_began_with(routing_of: Callable[..., Routing]) -> None:
    routing = routing_of(rules={"orders": INTERNAL})
    routing.decide(0)
    with cohort("internal"), routing.router.hold():
        with cohort("bank"):
            assert side_of(routing) is P
        assert side_of(routing) is P
    with routing.router.hold(), cohort("internal"):
        assert side_of(routing) is D


# What else is looked at


def test_without_a_grant_the_mirror_is_not_asked_either(routing: Routing) -> None:
    routing.world.clock.advance(1.1)
    assert side_of(routing) is D
    assert routing.sides(lambda: routing.batch(key())) == [D]
    assert "execute_as_mirror" not in routing.process.mirror.calls
    assert routing.counted(GRANTS_EXPIRED)["read"] == 2
    assert routing.counted(FALLBACKS) == {}


def test_while_the_mirror_is_known_to_be_down_it_is_not_asked(routing: Routing) -> None:
    routing.process.health.failed()
    assert side_of(routing) is D
    assert "execute_as_mirror" not in routing.process.mirror.calls


def test_reads_that_find_the_breaker_open_are_counted_as_fallbacks(routing: Routing) -> None:
    routing.process.mirror.down = True
    for _ in range(5):
        assert side_of(routing) is D
    assert routing.process.mirror.calls.count("execute_as_mirror") == 2
    assert routing.counted(FALLBACKS) == {"MirrorUnavailable": 2, "breaker": 3}
