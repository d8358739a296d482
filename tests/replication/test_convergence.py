"""Invariants I1, I2 and I6, under every schedule that seeds or Hypothesis come up with."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replication.environment import simulated
from replication.histories import seeded
from replication.mutant import Mutant
from replication.mutants import MUTANTS
from replication.scenarios import OF_ONE_KEY, SCENARIOS
from replication.simulation import tape

# Of the scenarios with whole processes, each of which takes ten times as long as one of a single key, fewer.
_SCHEDULES = {True: 200, False: 30}
# Those that take from twenty seconds to minutes to be found are looked for by `nox -s mutants`.
_LONG_LOOKED_FOR = frozenset(
    {
        "a mirror is not read while a process mirrors late",
        "and until stream, journal and dirty keys are",
        "and under the same token (without the second look)",
        "the authority's writes check epoch and role",
        "updates and deletes are conditional on the predecessor stamp",
        "a grant counts from before it was asked for",
        "a closed record grants no read",
        "creations are conditional on absence",
        "the old record decides the move",
        "the copy looks for a tombstone when it inserts a row",
        "keys are in doubt where the reply to a batch was lost",
        "creations go under a token",
        "and until the outbox is drained",
        "who slept looks at DynamoDB before it takes a grant on PostgreSQL's record",
        "a PostgreSQL that is back is told of the failover",
    }
)
_QUICKLY_FOUND = [
    mutant for mutant in MUTANTS if mutant.within < 5_000 and mutant.removed not in _LONG_LOOKED_FOR
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_invariant_holds_under_schedules_by_number(name: str) -> None:
    with simulated():
        for seed in range(_SCHEDULES[name in OF_ONE_KEY]):
            assert SCENARIOS[name](seeded(seed)) == [], f"schedule {seed} of {name}"


@pytest.mark.parametrize("name", SCENARIOS)
@settings(max_examples=15)
@given(choices=st.binary(max_size=400))
def test_every_invariant_holds_under_schedules_of_hypothesis(name: str, choices: bytes) -> None:
    with simulated():
        assert SCENARIOS[name](tape(choices)) == []


@pytest.mark.parametrize("mutant", _QUICKLY_FOUND, ids=lambda mutant: f"{mutant.rule}: {mutant.removed}")
def test_without_a_mechanism_an_invariant_breaks(mutant: Mutant) -> None:
    assert mutant.found_after(range(mutant.within)) is not None


def test_what_is_left_to_nox_is_there() -> None:
    assert {mutant.removed for mutant in MUTANTS} >= _LONG_LOOKED_FOR


def test_a_schedule_is_played_again_exactly() -> None:
    def played(seed: int) -> list[int]:
        chosen: list[int] = []
        choose = seeded(seed)

        def remembered(bound: int) -> int:
            chosen.append(choose(bound))
            return chosen[-1]

        with simulated():
            SCENARIOS["dialled"](remembered)
        return chosen

    assert played(7) == played(7)
    assert played(7) != played(8)
