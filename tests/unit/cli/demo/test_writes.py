"""The pure effects of the traffic's writes, on which the demo's proof stands."""

from decimal import Decimal

import pytest

from dualstore.cli.demo.writes import (
    REFUSED,
    Close,
    Rename,
    Reopen,
    Save,
    Visit,
    record,
    states_after,
)

HERE = record({"icao": "EGLL", "name": "Heathrow", "elevation": 83.0})
NEW = record({"icao": "EGLL", "name": "Heathrow", "note": "1"})


def test_a_record_is_the_same_however_its_numbers_are_written():
    assert record({"lat": 51.0, "lon": Decimal("0.10")}) == record({"lat": 51, "lon": Decimal("0.1")})


def test_a_missing_attribute_and_none_are_the_same_record():
    assert record({"name": "x", "city": None}) == record({"name": "x"})


@pytest.mark.parametrize(
    ("write", "before", "after"),
    [
        (Save(NEW), None, NEW),
        (Save(NEW), HERE, NEW),
        (Reopen(NEW), None, NEW),
        (Reopen(NEW), HERE, REFUSED),
        (Close(), HERE, None),
        (Close(), None, None),
        (Rename("Heathrow", "LHR"), None, REFUSED),
        (Rename("Gatwick", "LHR"), HERE, REFUSED),
        (Visit("v"), None, REFUSED),
    ],
)
def test_a_write_leaves_what_it_says(write, before, after):
    assert write.after(before) == after


def test_a_rename_changes_the_name_alone():
    renamed = Rename("Heathrow", "LHR").after(HERE)
    assert dict(renamed) == {**dict(HERE), "name": "LHR"}


def test_a_visit_adds_one_and_the_visitor():
    twice = Visit("b").after(Visit("a").after(HERE))
    assert dict(twice) == {**dict(HERE), "visits": Decimal(2), "visitors": frozenset({"a", "b"})}


def test_an_unknown_outcome_leaves_both_states_possible():
    assert states_after({HERE}, Close(), "unknown") == {HERE, None}


def test_an_acknowledged_write_leaves_one_state():
    assert states_after({HERE, None}, Save(NEW), "acknowledged") == {NEW}


def test_a_refusal_tells_which_state_it_was():
    assert states_after({HERE, None}, Reopen(NEW), "refused") == {HERE}


def test_an_answer_that_cannot_be_leaves_no_state():
    assert states_after({HERE}, Save(NEW), "refused") == frozenset()
    assert states_after({HERE}, Reopen(NEW), "acknowledged") == frozenset()


def test_a_write_that_no_database_took_leaves_every_state_as_it_was():
    assert states_after({HERE, None}, Save(NEW), "undone") == {HERE, None}
