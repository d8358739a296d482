"""The judge finds what it is there for: each test plants one fault in an otherwise blameless ledger."""

from collections.abc import Mapping
from typing import Any

import pytest

from soak.judge import GRACE_NS, Verdict, judge
from soak.recording import Effect, Expected, Ledger, Outcome, Seen, Written
from soak.tables import ORDERS, Place, register_item

HOT = Place(ORDERS, "hot-0", 1)
SUM = Place(ORDERS, "sum-0", 0)
OWN = Place(ORDERS, "cnt-0-0", 0)
FOREVER = 10 * GRACE_NS


def write(
    token: str | None,
    began: int,
    ended: int | None,
    outcome: Outcome = "acknowledged",
    *,
    place: Place = HOT,
    expects: Expected | None = None,
    late: int = 0,
    lost: int = 0,
    kind: str = "put",
) -> Written:
    effects = (Effect(place, token, expects),)
    return Written("w", kind, "shadow", effects, outcome, began, ended, late, lost)


def read(token: str | int | None, began: int, ended: int, *, place: Place = HOT) -> Seen:
    return Seen(place, token, began, ended, "get", "shadow")


def item(token: str) -> dict[str, Any]:
    return register_item(HOT, token)


def counter(place: Place, number: int, *members: str) -> dict[str, Any]:
    return {**place.key, "n": {"N": str(number)}, "members": {"SS": sorted(members)}}


def judged(
    ledger: Ledger,
    final: Mapping[Place, Any],
    *,
    postgres: Mapping[Place, Any] | None = None,
    deaths: Mapping[str, int] | None = None,
) -> Verdict:
    return judge(ledger, final, final if postgres is None else postgres, deaths=deaths or {})


def found(verdict: Verdict) -> set[str]:
    return {name for name in ("lost", "differing", "stale", "wrong") if getattr(verdict, name)}


BLAMELESS = Ledger(
    writes=[
        write("p1", 1, 2),
        write("p2", 3, 6),
        write("p3", 4, 5),
        write("p4", 7, 8, "unknown"),
        write(None, 9, 10, "refused", expects="present"),
    ],
    seen=[read(None, 0, 1), read("p1", 2, 3), read("p2", 5, 6), read("p3", 6, 7), read("p4", 20, 21)],
)


def test_writes_that_overlap_may_be_in_either_order_and_an_unknown_one_may_have_happened() -> None:
    ledger = Ledger(writes=BLAMELESS.writes[:4], seen=BLAMELESS.seen)
    for token in ("p2", "p3", "p4"):
        assert found(judged(ledger, {HOT: item(token)})) == set()


@pytest.mark.parametrize("token", ["p1", "p9"])
def test_an_overwritten_or_unknown_state_is_a_lost_write(token: str) -> None:
    ledger = Ledger(writes=BLAMELESS.writes[:4], seen=BLAMELESS.seen)
    assert found(judged(ledger, {HOT: item(token)})) == {"lost"}


def test_an_acknowledged_item_that_is_gone_is_lost() -> None:
    assert found(judged(Ledger([write("p1", 1, 2)], [read("p1", 2, 3)]), {})) == {"lost"}


def test_a_deleted_item_that_is_back_is_a_lost_deletion() -> None:
    ledger = Ledger([write("p1", 1, 2), write(None, 3, 4)], [read(None, 5, 6)])
    assert found(judged(ledger, {HOT: item("p1")})) == {"lost"}
    assert found(judged(ledger, {})) == set()


def test_a_write_that_was_refused_or_undone_shows_nowhere() -> None:
    for outcome in ("refused", "undone"):
        ledger = Ledger([write("p1", 1, 2, outcome)], [read(None, 3, 4)])
        assert found(judged(ledger, {HOT: item("p1")})) == {"lost"}


def test_a_request_that_was_given_up_may_take_effect_until_a_while_after_the_server_goes_on() -> None:
    late = write("p1", 1, 2, late=1)
    frozen = {"event": "DynamoDB goes on", "by": "soak", "since": 1, "at": 2 * GRACE_NS}
    for events, after, blame in (
        ([], GRACE_NS, set()),
        ([], 2 * GRACE_NS, {"lost"}),
        ([frozen], 2 * GRACE_NS, set()),
        ([frozen], 4 * GRACE_NS, {"lost"}),
    ):
        ledger = Ledger([late, write("p2", after, after + 1)], [read("p2", after + 2, after + 3)], events)
        assert found(judged(ledger, {HOT: item("p1")})) == blame


def test_a_killed_process_may_have_written_but_not_long_after_its_death() -> None:
    for after, blame in ((5, set()), (FOREVER, {"lost"})):
        writes = [write("p1", 1, None, "unanswered"), write("p2", after, after + 1)]
        ledger = Ledger(writes, [read("p2", after + 2, after + 3)])
        assert found(judged(ledger, {HOT: item("p1")}, deaths={"w": 3})) == blame


def test_a_read_that_misses_an_acknowledged_write_is_stale() -> None:
    ledger = Ledger([write("p1", 1, 2), write("p2", 3, 4)], [read("p1", 5, 6)])
    assert found(judged(ledger, {HOT: item("p2")})) == {"stale"}
    ledger.seen[0] = read(None, 5, 6)
    assert found(judged(ledger, {HOT: item("p2")})) == {"stale"}


def test_a_read_cannot_show_what_is_written_later() -> None:
    ledger = Ledger([write("p1", 5, 6)], [read("p1", 1, 2)])
    assert found(judged(ledger, {HOT: item("p1")})) == {"stale"}


@pytest.mark.parametrize(
    ("expects", "outcome", "before"),
    [
        ("absent", "refused", None),
        ("absent", "acknowledged", "p0"),
        ("present", "refused", "p0"),
        ("present", "acknowledged", None),
    ],
)
def test_an_answer_to_a_condition_that_no_state_explains_is_wrong(
    expects: Expected, outcome: Outcome, before: str | None
) -> None:
    conditional = write("p1", 3, 4, outcome, expects=expects)
    ledger = Ledger([write(before, 1, 2), conditional], [read(before, 2, 3)])
    final = "p1" if outcome == "acknowledged" else before
    assert found(judged(ledger, {HOT: item(final)} if final else {})) == {"wrong"}


def test_sides_that_differ_are_found() -> None:
    ledger = Ledger([write("p1", 1, 2)], [read("p1", 3, 4)])
    assert found(judged(ledger, {HOT: item("p1")}, postgres={})) == {"differing", "lost"}


def test_a_mixture_of_two_items_is_wrong() -> None:
    mixture = {**item("p1"), "extra": {"S": "p2"}}
    assert found(judged(Ledger([write("p1", 1, 2)], [read("p1", 3, 4)]), {HOT: mixture})) == {"wrong"}


def test_a_counter_holds_every_acknowledged_increment_once() -> None:
    writes = [
        write("m1", 1, 2, place=SUM),
        write("m2", 1, 2, "unknown", place=SUM),
        write("m3", 1, 2, "undone", place=SUM),
    ]
    ledger = Ledger(writes, [read(1, 3, 4, place=SUM)])
    assert found(judged(ledger, {SUM: counter(SUM, 1, "m1")})) == set()
    assert found(judged(ledger, {SUM: counter(SUM, 2, "m1", "m2")})) == set()
    for final in (counter(SUM, 1, "m2"), counter(SUM, 2, "m1"), counter(SUM, 2, "m1", "m3")):
        assert found(judged(ledger, {SUM: final})) == {"lost"}


def test_an_increment_whose_reply_was_lost_counts_twice_only_where_others_count_too() -> None:
    for place, blame in ((SUM, set()), (OWN, {"lost"})):
        ledger = Ledger([write("m1", 1, 2, place=place, lost=1)], [read(1, 3, 4, place=place)])
        assert found(judged(ledger, {place: counter(place, 2, "m1")})) == blame


def test_a_transaction_sent_again_counts_twice_only_across_a_move() -> None:
    writes = [write("m1", 1, 2, place=OWN), write("m1", 3, 4, place=OWN, kind="transaction again")]
    move = {"event": "stage", "by": "soak", "table": ORDERS, "moved": True, "since": 3, "at": 5}
    for events, blame in (([], {"lost"}), ([move], set())):
        ledger = Ledger(writes, [read(1, 5, 6, place=OWN)], events)
        assert found(judged(ledger, {OWN: counter(OWN, 2, "m1")})) == blame


def test_a_counter_is_never_read_below_what_was_acknowledged() -> None:
    writes = [write("m1", 1, 2, place=SUM), write("m2", 3, 4, place=SUM)]
    ledger = Ledger(writes, [read(1, 5, 6, place=SUM)])
    assert found(judged(ledger, {SUM: counter(SUM, 2, "m1", "m2")})) == {"stale"}


def test_half_a_transaction_that_somebody_saw_is_wrong() -> None:
    event = {"event": "half a transaction", "by": "w", "at": 3, "at_place": str(HOT)}
    ledger = Ledger([write("p1", 1, 2)], [read("p1", 3, 4)], [event])
    assert found(judged(ledger, {HOT: item("p1")})) == {"wrong"}


def test_an_empty_ledger_proves_nothing() -> None:
    assert not judged(Ledger(), {}).clean
