"""The guard of one process: bad figures of its own end its reads of the mirror, without any database."""

from dataclasses import replace

import pytest

from dualstore.control import ControlRecord, Stop
from dualstore.replication.clocks import SYSTEM_CLOCK
from dualstore.routing.breaker import Admission, BreakerLimits, Breakers
from dualstore.routing.guard import Counted, Guard, GuardLimits, judged
from dualstore.stages import Dials, Side, Stage
from dualstore.telemetry import Role, ShadowCompared, Telemetry, Verdict

LIMITS = GuardLimits()
RECORD = ControlRecord("orders", stage=Stage.SHADOW, dials=Dials(50.0), loaded=True)


class Process:
    """One process with a guard; what it reads from the mirror is made up."""

    def __init__(self) -> None:
        self.telemetry = Telemetry()
        self.breakers = Breakers(BreakerLimits(), on_change=lambda *_: None, clock=SYSTEM_CLOCK)
        self.record = RECORD
        self.guard = Guard(self.telemetry, self.breakers, lambda: {"orders": self.record}, limits=LIMITS)
        self.guard.look()

    def reads(self, count: int, outcome: str = "ok") -> None:
        for _ in range(count):
            self.telemetry.operation("orders", "GetItem", Side.POSTGRES, Role.MIRROR, 0.001, outcome)

    def compared(self, count: int, verdict: Verdict) -> None:
        self.telemetry.record(ShadowCompared("orders", "GetItem", verdict), times=count)

    @property
    def may_read(self) -> bool:
        return self.breakers.of("orders").admit() is not Admission.REFUSED


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.mark.parametrize(
    ("counted", "is_bad"),
    [
        (Counted(), False),
        (Counted(reads=49, errors=49), False),
        (Counted(reads=50, errors=9), False),
        (Counted(reads=50, errors=10), True),
        (Counted(reads=1000, compared=100, mismatches=4), False),
        (Counted(reads=1000, compared=100, mismatches=5), True),
    ],
)
def test_figures_are_bad_from_a_share_on_and_of_enough(counted: Counted, *, is_bad: bool) -> None:
    assert (judged(counted, LIMITS) is not None) is is_bad


def test_a_mismatch_burst_ends_the_reads_of_this_process_at_the_next_look(process: Process) -> None:
    process.reads(1000)
    process.compared(90, Verdict.EQUAL)
    process.compared(10, Verdict.MISMATCH)
    assert process.may_read
    process.guard.look()
    assert not process.may_read
    # Good figures do not bring it back: nobody has decided anything.
    process.compared(10_000, Verdict.EQUAL)
    process.guard.look()
    assert not process.may_read


def test_an_error_burst_ends_them_too(process: Process) -> None:
    process.reads(80)
    process.reads(20, outcome="Unavailable")
    process.guard.look()
    assert not process.may_read


@pytest.mark.parametrize(
    "decided",
    [
        replace(RECORD, dials=Dials(25.0)),
        replace(RECORD, stage=Stage.DUALWRITE),
        replace(RECORD, stopped=Stop("kim", 0.0)),
    ],
)
def test_what_it_has_stopped_goes_on_once_somebody_has_decided(
    process: Process, decided: ControlRecord
) -> None:
    process.compared(100, Verdict.MISMATCH)
    process.guard.look()
    process.record = decided
    process.guard.look()
    assert process.may_read


def test_what_was_counted_under_other_dials_says_nothing(process: Process) -> None:
    process.compared(100, Verdict.MISMATCH)
    process.record = replace(RECORD, dials=Dials(25.0))
    process.guard.look()
    process.guard.look()
    assert process.may_read


def test_where_the_mirror_is_not_read_there_is_nothing_to_guard(process: Process) -> None:
    process.record = replace(RECORD, stage=Stage.LIVE)
    process.guard.look()
    process.compared(100, Verdict.MISMATCH)
    process.guard.look()
    assert process.may_read


def test_a_probe_that_is_under_way_does_not_open_what_is_held() -> None:
    breaker = Breakers(BreakerLimits(probes=1), on_change=lambda *_: None, clock=SYSTEM_CLOCK).of("orders")
    admission = breaker.admit()
    breaker.hold()
    breaker.note(Admission.PROBE, SYSTEM_CLOCK.now(), 0.001, failed=False)
    breaker.note(admission, SYSTEM_CLOCK.now(), 0.001, failed=False)
    assert breaker.admit() is Admission.REFUSED
    breaker.let_go()
    assert breaker.admit() is Admission.PROBE
