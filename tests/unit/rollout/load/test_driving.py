"""Driving: operations are sent when they are due, and their latencies counted from then."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from dualstore.errors import Unavailable
from dualstore.rollout.load.driving import drive
from dualstore.rollout.load.requests import Asked
from dualstore.rollout.load.tally import UNPROCESSED, Cause, OperationTally, Tally


def every(seconds: float, count: int) -> Iterator[tuple[float, Asked]]:
    """Arrivals at equal distances."""
    for number in range(count):
        yield number * seconds, Asked(0, "GetItem", {"number": number}, (number,))


def taking(clock: Any, seconds: Callable[[int], float]) -> Callable[[str, Any], dict[str, Any]]:
    """A service that takes so long for each operation, by its number."""

    def execute(_: str, request: Any) -> dict[str, Any]:
        clock.sleep(seconds(request["number"]))
        return {}

    return execute


def driven(execute: Any, arrivals: Any, clock: Any, *, ends: float, writers: int = 1, **more: Any) -> Tally:
    return drive(execute, arrivals, kinds=1, writers=writers, ends=ends, clock=clock, **more)


def test_operations_are_sent_when_they_are_due_and_not_earlier(clock) -> None:
    moments = []

    def execute(*_: Any) -> dict[str, Any]:
        moments.append(clock.now() - 1000)
        return {}

    tally = driven(execute, every(0.1, 20), clock, ends=2)
    assert moments == pytest.approx([n / 10 for n in range(20)])
    assert (tally.planned, tally.kinds[0].latencies.count, tally.cause) == (20, 20, None)
    assert tally.kinds[0].longest_seconds == pytest.approx(0, abs=1e-9)


def test_a_service_that_stands_still_delays_all_that_was_due_meanwhile(clock) -> None:
    """What measures from when it sends sees one slow operation; its callers would have seen ten."""
    tally = driven(taking(clock, lambda n: 1.0 if n == 5 else 0.0), every(0.1, 100), clock, ends=10)
    kind = tally.kinds[0]
    assert kind.latencies.count == 100
    assert kind.longest_seconds == pytest.approx(1.0)
    late = sum(count for bucket, count in kind.latencies.sparse() if bucket > 200)
    assert late == 10, "one second of operations at ten a second"
    assert sum(count for bucket, count in kind.service.sparse() if bucket > 200) == 1
    assert (kind.latencies.p95_ms or 0) > 300
    assert (kind.service.p95_ms or 0) < 1


def test_what_the_ramp_sends_is_not_counted(clock) -> None:
    sent = []

    def execute(_: str, request: Any) -> dict[str, Any]:
        sent.append(request["number"])
        return {}

    tally = driven(execute, every(0.1, 20), clock, ends=2, measured_from=1.0)
    assert (len(sent), tally.planned, tally.kinds[0].latencies.count) == (20, 10, 10)
    assert tally.seconds == pytest.approx(1)


def test_a_service_too_slow_for_its_writers_is_told_from_a_slow_generator(clock) -> None:
    tally = driven(taking(clock, lambda _: 0.2), every(0.1, 50), clock, ends=5)
    assert (tally.late_free, tally.late_busy) == (0, 34)
    assert tally.cause is Cause.WRITERS


def test_what_has_not_begun_long_after_the_end_is_not_begun(clock) -> None:
    tally = driven(taking(clock, lambda _: 1.0), every(0.1, 50), clock, ends=5)
    assert (tally.kinds[0].latencies.count, tally.unbegun, tally.planned) == (8, 42, 50)
    assert (tally.sent, tally.busy) == (8, pytest.approx(1))


def test_what_the_ramp_left_unbegun_is_none_of_what_is_measured(clock) -> None:
    tally = driven(taking(clock, lambda _: 4.5), every(0.1, 20), clock, ends=2, measured_from=1)
    assert (tally.planned, tally.unbegun, tally.sent) == (10, 10, 1)


def test_a_generator_without_a_processor_is_told_from_a_slow_service(clock) -> None:
    class Paused(type(clock)):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds + 0.05)

    tally = driven(lambda *_: {}, every(0.1, 50), Paused(), ends=5)
    assert (tally.late_busy, tally.cause) == (0, Cause.STARVED)


def test_errors_are_counted_by_their_code_and_no_latency_is(clock) -> None:
    def client_error(code: str) -> ClientError:
        return ClientError({"Error": {"Code": code, "Message": ""}}, "PutItem")

    answers: list[Any] = [
        client_error("ThrottlingException"),
        client_error("ThrottlingException"),
        client_error("ConditionalCheckFailedException"),
        EndpointConnectionError(endpoint_url="http://nobody"),
        Unavailable("away"),
        {"UnprocessedItems": {"orders": []}},
        {"UnprocessedItems": {"orders": [1]}},
        {},
    ]

    def execute(_: str, request: Any) -> dict[str, Any]:
        answer = answers[request["number"]]
        if isinstance(answer, Exception):
            raise answer
        return answer

    kind = driven(execute, every(0.1, len(answers)), clock, ends=1).kinds[0]
    assert kind.errors == {
        "ThrottlingException": 2,
        "EndpointConnectionError": 1,
        "Unavailable": 1,
        UNPROCESSED: 2,
    }
    assert kind.latencies.count == 2, "a condition's no is an answer"


def test_it_ends_early_when_it_is_stopped(clock) -> None:
    stop = threading.Event()

    def execute(_: str, request: Any) -> dict[str, Any]:
        if request["number"] == 9:
            stop.set()
        return {}

    tally = driven(execute, every(0.1, 1000), clock, ends=100, stop=stop)
    assert tally.planned == 10
    assert tally.seconds == pytest.approx(0.9)


def test_several_writers_send_everything_once(clock) -> None:
    sent: list[int] = []

    def execute(_: str, request: Any) -> dict[str, Any]:
        sent.append(request["number"])
        return {}

    tally = driven(execute, every(0.01, 500), clock, ends=5, writers=8)
    assert sorted(sent) == list(range(500))
    assert tally.partitions == set(range(500))


def test_the_tallies_of_several_processes_add_up(clock) -> None:
    one = driven(taking(clock, lambda _: 0.2), every(0.1, 50), clock, ends=5)
    both = one.plus(Tally.from_json(one.to_json()))
    assert both.kinds[0].latencies.count == 2 * one.kinds[0].latencies.count > 0
    assert (both.planned, both.late_busy, both.writers) == (100, 2 * one.late_busy, 2)
    assert both.seconds == one.seconds, "they ran at the same time"
    assert both.kinds[0].latencies.p99_ms == one.kinds[0].latencies.p99_ms
    assert one.plus(Tally({1: OperationTally(planned=3)}, 1.0)).planned == 53
