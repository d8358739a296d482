"""When figures are an alarm, and that an alarm does not flap."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dualstore.control import ControlRecord
from dualstore.rollout.reaction import way_back
from dualstore.rollout.thresholds import (
    DEFAULTS,
    Reading,
    Signal,
    Threshold,
    Thresholds,
    Window,
    judge,
    readings_of,
    to_roll_back,
)
from dualstore.stages import Dials, Side, Stage
from dualstore.telemetry import Role
from dualstore.telemetry.figures import Doer, Done, Figures, Work
from dualstore.telemetry.latency import Latencies, LatencyCell

ERRORS = Thresholds({"errors": Threshold(1.0, 0.5, samples=50, rolls_back=True)}, windows=3, of=5)
OVER, BETWEEN, UNDER = Reading(3.0, 2.0, 100), Reading(0.8, 0.4, 100), Reading(0.1, 0.0, 100)
FEW = Reading(100.0, 60.0, 10)
BY_LETTER = {"o": OVER, "b": BETWEEN, "u": UNDER, "f": FEW}


def history(letters: str) -> list[Window]:
    """o: over, b: between, u: under, f: over, of too few; -: nothing."""
    return [{"errors": BY_LETTER[letter]} if letter != "-" else {} for letter in letters]


@pytest.mark.parametrize(
    ("letters", "was", "now"),
    [
        ("", False, False),
        ("ooo", False, True),
        ("uouou", False, False),  # two of five are not three
        ("ououo", False, True),
        ("oouuu", False, False),
        ("bbbbb", False, False),  # in between begins nothing
        ("fffff", False, False),  # too few say nothing
        ("-----", False, False),
        ("uuuub", True, True),  # and ends nothing
        ("uuuuo", True, True),
        ("uuuuu", True, False),
        ("u-f-u", True, False),  # what is not seen any more does not keep an alarm up
        ("uuuu", True, True),  # fewer windows than are looked at end nothing
        ("ooouuuuu", True, False),  # what is older than five windows is not looked at
    ],
)
def test_an_alarm_begins_and_ends(letters: str, *, was: bool, now: bool) -> None:
    before = frozenset({"errors"} if was else ())
    assert judge(history(letters), ERRORS, alarms=before) == ({"errors"} if now else set())


@given(
    letters=st.text("obuf-", max_size=60),
    windows=st.integers(1, 4),
    more=st.integers(0, 3),
)
def test_an_alarm_does_not_flap(letters: str, windows: int, more: int) -> None:
    thresholds = Thresholds(ERRORS.signals, windows=windows, of=windows + more)
    alarms: frozenset[str] = frozenset()
    changed_at: list[int] = []
    seen = history(letters)
    for end in range(1, len(seen) + 1):
        now = judge(seen[:end], thresholds, alarms=alarms)
        assert judge(seen[:end], thresholds, alarms=now) == now, "asked again it says the same"
        if now != alarms:
            changed_at.append(end)
            assert letters[end - 1] == "o" if now else letters[end - 1] in "uf-"
        alarms = now
    lasted = [later - earlier for earlier, later in pairwise(changed_at)]
    assert all(length >= thresholds.of for length in lasted[::2]), "an alarm lasts for `of` windows"
    assert all(length >= thresholds.windows for length in lasted[1::2]), "the next one takes `windows` more"


@given(bad=st.integers(0, 20), length=st.integers(1, 2))
def test_less_than_three_bad_windows_in_a_row_begin_nothing(bad: int, length: int) -> None:
    letters = "u" * bad + "o" * length + "u" * 20
    assert not any(judge(history(letters[:end]), ERRORS) for end in range(len(letters) + 1))


def test_a_threshold_is_left_at_or_below_where_it_is_entered() -> None:
    with pytest.raises(ValueError, match="leave must not be above enter"):
        Threshold(1.0, 2.0)
    with pytest.raises(ValueError, match="windows"):
        Thresholds({}, windows=4, of=3)


# -- what rolls back ----------------------------------------------------------------------------


def record(stage: Stage, percent: float = 0.0) -> ControlRecord:
    return ControlRecord("orders", stage=stage, dials=Dials(percent))


def all_over(signal: str) -> Sequence[Window]:
    return [{signal: Reading(1e6, 1e6, 10**6)}] * 5


@pytest.mark.parametrize("signal", [Signal.ERRORS, Signal.FALLBACKS, Signal.LATENCY])
@pytest.mark.parametrize("stage", [Stage.SHADOW, Stage.LIVE])
def test_what_callers_feel_rolls_back_at_every_stage(signal: Signal, stage: Stage) -> None:
    assert to_roll_back(all_over(signal), Thresholds(DEFAULTS), record(stage)) == {signal}


def test_a_mismatch_rolls_back_only_while_dynamodb_decides() -> None:
    thresholds = Thresholds(DEFAULTS)
    assert to_roll_back(all_over(Signal.MISMATCHES), thresholds, record(Stage.SHADOW)) == {Signal.MISMATCHES}
    assert to_roll_back(all_over(Signal.MISMATCHES), thresholds, record(Stage.LIVE)) == set()
    assert judge(all_over(Signal.MISMATCHES), thresholds) == {Signal.MISMATCHES}, "it is told all the same"


@pytest.mark.parametrize("signal", [Signal.POOL, Signal.THROTTLES, Signal.OUTBOX_AGE, Signal.DIRTY_KEYS])
def test_what_a_rollback_would_not_mend_is_told_only(signal: Signal) -> None:
    assert to_roll_back(all_over(signal), Thresholds(DEFAULTS), record(Stage.LIVE)) == set()


@pytest.mark.parametrize(
    ("stage", "percent", "how", "asked"),
    [
        (Stage.SHADOW, 100.0, "step", {"postgres_read_percent": 50.0}),
        (Stage.SHADOW, 7.0, "step", {"postgres_read_percent": 5.0}),
        (Stage.DUALWRITE, 1.0, "step", {"postgres_read_percent": 0.0}),
        (Stage.SHADOW, 100.0, "zero", {"postgres_read_percent": 0.0}),
        (Stage.SHADOW, 0.0, "step", {}),
        (Stage.LIVE, 0.0, "step", {"stage": Stage.SHADOW, "postgres_read_percent": 0.0}),
        (Stage.RAMPDOWN, 0.0, "step", {"stage": Stage.LIVE}),
        (Stage.COMPLETE, 0.0, "zero", {}),
        (Stage.OFF, 0.0, "zero", {}),
    ],
)
def test_the_way_back_by_stage(stage: Stage, percent: float, how: str, asked: dict[str, object]) -> None:
    assert way_back(record(stage, percent), how=how) == asked  # type: ignore[arg-type]


# -- what figures say ----------------------------------------------------------------------------


def latencies(*milliseconds: float) -> Latencies:
    cell = LatencyCell()
    for each in milliseconds:
        cell.add(each / 1_000)
    return cell.read()


def reads(side: Side, role: Role, done: Done) -> Figures:
    return Figures({Doer(Work.READ, side, role): done})


def test_a_rate_is_told_with_what_it_surely_is_at_least() -> None:
    seen = readings_of(reads(Side.POSTGRES, Role.MIRROR, Done(latencies(*[1.0] * 95), errors=5)))
    errors = seen[Signal.ERRORS]
    assert (errors.value, errors.samples) == (5.0, 100)
    assert 1.9 < errors.at_least < 2.1  # Clopper-Pearson, 5 of 100, one-sided 95 %


def test_two_failures_of_a_hundred_are_not_surely_more_than_one_per_cent() -> None:
    seen = readings_of(reads(Side.POSTGRES, Role.MIRROR, Done(latencies(*[1.0] * 98), errors=2)))
    assert seen[Signal.ERRORS].value == 2.0
    assert not DEFAULTS[Signal.ERRORS].is_over(seen[Signal.ERRORS])


def test_fallbacks_are_a_share_of_what_was_dialled() -> None:
    figures = Figures.sum(
        [
            reads(Side.POSTGRES, Role.MIRROR, Done(latencies(*[1.0] * 50))),
            Figures({}, {"fallbacks": 150, "mismatch": 1, "equal": 98, "lag": 1, "throttled": 0}),
        ]
    )
    seen = readings_of(figures)
    assert seen[Signal.FALLBACKS].value == 75.0
    assert (seen[Signal.MISMATCHES].value, seen[Signal.MISMATCHES].samples) == (1.0, 100)


def test_latencies_are_compared_once_there_are_enough_of_both_sides() -> None:
    def both(dynamodb: int, postgres: int) -> Window:
        return readings_of(
            Figures.sum(
                [
                    reads(Side.DYNAMODB, Role.SHADOW, Done(latencies(*[2.0] * dynamodb))),
                    reads(Side.POSTGRES, Role.MIRROR, Done(latencies(*[6.0] * postgres))),
                ]
            )
        )

    assert Signal.LATENCY not in both(39, 200)
    found = both(100, 100)[Signal.LATENCY]
    assert 180 < found.value < 220  # three times as slow
    assert found.at_least > 150
    assert Signal.SERVICE_LEVEL not in both(100, 199)
    assert 5.5 < both(0, 500)[Signal.SERVICE_LEVEL].value < 6.5
