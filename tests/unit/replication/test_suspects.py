"""The names of what makes a table suspect: each occurrence has its own, and tells who may clear it."""

import pytest

from dualstore.replication.suspects import (
    FAILED_OVER,
    GAP,
    STREAM_OFF,
    UNMIRRORED,
    is_for_verification,
    is_gap,
    is_numbered,
    is_unmirrored,
    renewed,
)

PROCESS = "1f7b8c3f2ad5460c8a5b5f0b2b4e1d33"
KINDS = [UNMIRRORED, FAILED_OVER, STREAM_OFF, f"{GAP} 1234"]


@pytest.mark.parametrize("kind", [*KINDS, PROCESS])
def test_whoever_clears_an_occurrence_leaves_the_next_of_its_kind(kind: str) -> None:
    seen = renewed(frozenset(), kind, 7)
    now = renewed(seen, kind, 9)
    assert now - seen == now
    assert len(now) == 1


def test_an_occurrence_stands_for_those_before_of_its_kind_and_leaves_other_kinds() -> None:
    others = renewed(renewed({PROCESS}, f"{GAP} 1", 3), f"{GAP} 12", 4)
    assert renewed(renewed(others, UNMIRRORED, 5), UNMIRRORED, 6) - others == {
        "unmirrored since complete (generation 6)"
    }


@pytest.mark.parametrize("kind", KINDS)
def test_names_of_the_version_before_are_of_their_kind_and_give_way_to_the_next(kind: str) -> None:
    assert is_for_verification(kind)
    assert not is_numbered(kind)
    assert renewed({kind}, kind, 7) == renewed(frozenset(), kind, 7)


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_verification_clears_what_is_no_process(kind: str) -> None:
    (name,) = renewed(frozenset(), kind, 7)
    assert is_numbered(name)
    assert is_for_verification(name)
    assert (is_gap(name), is_unmirrored(name)) == (kind.startswith(GAP), kind == UNMIRRORED)


def test_a_relay_clears_processes_those_that_overflowed_too() -> None:
    for name in {PROCESS, *renewed(frozenset(), PROCESS, 7)}:
        assert not is_for_verification(name)
