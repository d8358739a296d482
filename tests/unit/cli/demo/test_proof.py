"""The demo's proof: what it accepts, and each fault it has to find."""

from itertools import count

import pytest

from dualstore.cli.demo.ledger import Entry
from dualstore.cli.demo.moments import Failure, Stretch
from dualstore.cli.demo.proof import (
    LONGEST_PAUSE_SECONDS,
    Check,
    Judge,
    Kind,
    contended_fault,
    failure_checks,
    owned_fault,
    pause_check,
    shared_fault,
    side_by_side,
)
from dualstore.cli.demo.writes import Close, Rename, Reopen, Save, Visit, record

SOURCE = record({"icao": "EGLL", "name": "Heathrow", "elevation": 83})
NEW = record({"icao": "EGLL", "name": "Heathrow", "note": "new"})
NEWER = record({"icao": "EGLL", "name": "Heathrow", "note": "newer"})


@pytest.fixture
def entry():
    """Makes entries; each begins after the one before ended, unless its times are given."""
    numbers = count(1)

    def make(write, outcome="acknowledged", *, writer="w-1", began=None, ended=None):
        number = next(numbers)
        began = number * 10 if began is None else began
        if ended is None and outcome != "unknown":
            ended = began + 5
        return Entry(writer, number, "EGLL", write, outcome, began, ended)

    return make


def with_visits(*visitors, visits=None):
    attributes = {"visits": len(visitors) if visits is None else visits, "visitors": set(visitors)}
    return record({**dict(SOURCE), **attributes}) if visitors else SOURCE


class TestAnOwnedAirport:
    def test_is_as_its_last_acknowledged_write_left_it(self, entry):
        writes = [entry(Save(NEW)), entry(Rename("Heathrow", "LHR")), entry(Close()), entry(Reopen(NEWER))]
        assert owned_fault(SOURCE, writes, NEWER) is None

    def test_that_lost_its_last_write_is_found(self, entry):
        assert owned_fault(SOURCE, [entry(Save(NEW)), entry(Save(NEWER))], NEW) == "differs in note"

    def test_that_was_altered_is_found(self, entry):
        assert (
            owned_fault(SOURCE, [entry(Save(NEW))], record({**dict(NEW), "name": "?"})) == "differs in name"
        )

    def test_that_was_resurrected_is_found(self, entry):
        assert (
            owned_fault(SOURCE, [entry(Save(NEW)), entry(Close())], NEW) == "it is there, and should not be"
        )

    def test_that_vanished_is_found(self, entry):
        assert owned_fault(SOURCE, [entry(Save(NEW))], None) == "it is missing"

    @pytest.mark.parametrize("final", [NEW, NEWER])
    def test_may_show_an_unanswered_write_or_not(self, entry, final):
        assert owned_fault(SOURCE, [entry(Save(NEW)), entry(Save(NEWER), "unknown")], final) is None

    def test_may_not_show_a_third_state_after_an_unanswered_write(self, entry):
        writes = [entry(Save(NEW)), entry(Save(NEWER), "unknown")]
        assert owned_fault(SOURCE, writes, SOURCE) is not None

    def test_whose_create_was_wrongly_refused_is_found(self, entry):
        fault = owned_fault(SOURCE, [entry(Close()), entry(Reopen(NEW), "refused")], NEW)
        assert fault == "reopen 2 of w-1 was refused, which cannot be"

    def test_whose_visit_was_counted_twice_is_found(self, entry):
        assert owned_fault(SOURCE, [entry(Visit("a"))], with_visits("a", visits=2)) == "differs in visits"

    def test_that_somebody_else_wrote_to_is_found(self, entry):
        writes = [entry(Save(NEW)), entry(Save(NEWER), writer="w-2")]
        assert owned_fault(SOURCE, writes, NEWER) == "several writers wrote to an owned airport"


class TestASharedCounter:
    def test_has_every_acknowledged_visitor_once(self, entry):
        visits = [entry(Visit("a")), entry(Visit("b"), writer="w-2")]
        assert shared_fault(SOURCE, visits, with_visits("a", "b")) is None

    def test_may_have_an_unanswered_visitor_or_not(self, entry):
        visits = [entry(Visit("a")), entry(Visit("b"), "unknown")]
        assert shared_fault(SOURCE, visits, with_visits("a")) is None
        assert shared_fault(SOURCE, visits, with_visits("a", "b")) is None

    def test_that_lost_a_visit_is_found(self, entry):
        visits = [entry(Visit("a")), entry(Visit("b"))]
        assert shared_fault(SOURCE, visits, with_visits("a")) == "1 of 2 acknowledged visits are lost"

    def test_that_counted_a_visit_twice_is_found(self, entry):
        fault = shared_fault(SOURCE, [entry(Visit("a"))], with_visits("a", visits=2))
        assert fault == "2 visits by 1 visitors, who each came once"

    def test_with_a_visitor_who_never_came_is_found(self, entry):
        assert shared_fault(SOURCE, [entry(Visit("a"))], with_visits("a", "x")) == "1 visitors never came"

    def test_with_a_visitor_who_was_refused_is_found(self, entry):
        assert shared_fault(SOURCE, [entry(Visit("a"), "refused")], with_visits("a")) is not None

    def test_with_another_attribute_changed_is_found(self, entry):
        final = record({**dict(with_visits("a")), "name": "?"})
        assert shared_fault(SOURCE, [entry(Visit("a"))], final) == "differs in name"

    def test_that_is_gone_is_found(self, entry):
        assert shared_fault(SOURCE, [entry(Visit("a"))], None) == "it is missing"


class TestAContendedAirport:
    def test_may_show_either_of_two_writes_that_overlapped(self, entry):
        writes = [entry(Save(NEW), began=10, ended=30), entry(Save(NEWER), writer="w-2", began=20, ended=25)]
        assert contended_fault(SOURCE, writes, NEW) is None
        assert contended_fault(SOURCE, writes, NEWER) is None

    def test_that_shows_an_overtaken_write_is_found(self, entry):
        writes = [entry(Save(NEW)), entry(Save(NEWER), writer="w-2")]
        assert "overtaken" in contended_fault(SOURCE, writes, NEW)

    def test_that_was_resurrected_is_found(self, entry):
        writes = [entry(Save(NEW)), entry(Close(), writer="w-2")]
        assert "overtaken" in contended_fault(SOURCE, writes, NEW)

    def test_that_lost_a_create_after_a_delete_is_found(self, entry):
        writes = [entry(Close()), entry(Reopen(NEW), writer="w-2")]
        assert "overtaken" in contended_fault(SOURCE, writes, None)

    def test_that_vanished_though_nobody_deleted_it_is_found(self, entry):
        assert "nobody asked for" in contended_fault(SOURCE, [entry(Save(NEW))], None)

    def test_that_shows_a_refused_write_is_found(self, entry):
        assert contended_fault(SOURCE, [entry(Reopen(NEW), "refused")], NEW) == "nobody wrote its state"

    def test_that_still_shows_the_source_after_a_write_is_found(self, entry):
        assert contended_fault(SOURCE, [entry(Save(NEW))], SOURCE) == "nobody wrote its state"

    def test_may_show_an_unanswered_write_at_any_time(self, entry):
        writes = [entry(Save(NEW), "unknown"), entry(Save(NEWER), writer="w-2")]
        assert contended_fault(SOURCE, writes, NEW) is None

    def test_may_show_a_write_of_unknown_outcome_though_another_began_since(self, entry):
        entries = [entry(Save(NEW), "unknown", ended=12), entry(Save(NEWER))]
        assert contended_fault(SOURCE, entries, NEW) is None

    def test_that_shows_a_write_that_no_database_took_is_found(self, entry):
        assert contended_fault(SOURCE, [entry(Save(NEW), "undone")], NEW) == "nobody wrote its state"

    def test_that_nobody_wrote_to_is_as_in_the_source(self):
        assert contended_fault(SOURCE, [], SOURCE) is None


def test_an_airport_that_nobody_owns_must_be_as_in_the_source():
    judge = Judge({"EGLL": SOURCE}, {}, ())
    assert faults(judge, {"EGLL": SOURCE}) == {}
    assert faults(judge, {"EGLL": NEW}) == {Kind.UNTOUCHED: ("EGLL: differs in elevation, note",)}
    assert faults(judge, {}) == {Kind.UNTOUCHED: ("EGLL: it is missing",)}


def test_an_airport_from_nowhere_is_found():
    judge = Judge({"EGLL": SOURCE}, {}, ())
    found = faults(judge, {"EGLL": SOURCE, "XXXX": SOURCE})
    assert found == {Kind.UNTOUCHED: ("XXXX: it is there, and should not be",)}


def test_the_kind_of_an_airport_decides_how_it_is_judged(entry):
    judge = Judge({"EGLL": SOURCE}, {"EGLL": Kind.OWNED}, (entry(Save(NEW)),))
    assert faults(judge, {"EGLL": NEW}) == {}
    assert faults(judge, {"EGLL": SOURCE}) == {Kind.OWNED: ("EGLL: differs in elevation, note",)}


def faults(judge, observed):
    checks = dict(zip(Kind, judge.checks(observed, where="here"), strict=True))
    return {kind: check.faults for kind, check in checks.items() if check.faults}


def test_items_on_one_side_only_and_different_ones_are_found():
    check = side_by_side({"A": 1, "B": 2, "C": 3}, {"B": 2, "C": 4, "D": 5})
    assert check.faults == ("A: only in DynamoDB", "C: differs", "D: only in PostgreSQL")
    assert check.examined == 4


def test_a_claim_for_which_nothing_was_examined_does_not_hold():
    assert not Check("a claim", "here", 0, "airports").holds
    assert Check("a claim", "here", 1, "airports").holds


class TestTheErrorsThatCallersSaw:
    AWAY = Stretch("PostgreSQL was away", 100, 200)

    @staticmethod
    def failure(code, began, ended):
        return Failure(f"PutError ({code})", code, began, ended)

    def holds(self, *failures, away=(AWAY,)):
        return [check.holds for check in failure_checks(failures, calls=1_000, away=away)]

    def test_are_excused_while_the_authority_was_away(self):
        assert self.holds(self.failure("ServiceUnavailable", 90, 110)) == [True, True]
        assert self.holds(self.failure("InternalServerError", 190, 210)) == [True, True]

    def test_are_found_where_it_was_there(self):
        excused = self.failure("ServiceUnavailable", 150, 160)
        assert self.holds(excused, self.failure("ServiceUnavailable", 201, 210)) == [False, True]
        assert self.holds(excused, away=()) == [False]

    def test_are_found_where_they_do_not_say_what_became_of_the_call(self):
        assert self.holds(self.failure("", 150, 160)) == [True, False]

    def test_must_have_been_seen_by_somebody(self):
        assert self.holds() == [True, False]


class TestThePauseOfAMove:
    MOVE = Stretch("to live", 0, 10**10)

    def check(self, *entries):
        return pause_check(entries, [self.MOVE])

    def test_is_the_longest_that_an_acknowledged_write_waited(self, entry):
        short = entry(Save(NEW), began=0, ended=10**9)
        longer = entry(Save(NEW), began=9 * 10**9, ended=12 * 10**9)
        later = entry(Save(NEW), began=11 * 10**9, ended=99 * 10**9)
        check = self.check(short, longer, later)
        assert check.holds
        assert "to live 3.00 s" in check.claim

    def test_that_is_too_long_is_found(self, entry):
        ended = int((LONGEST_PAUSE_SECONDS + 1) * 1e9)
        assert not self.check(entry(Save(NEW), began=0, ended=ended)).holds

    def test_that_nobody_measured_is_found(self, entry):
        assert not self.check(entry(Save(NEW), "undone", began=0, ended=1)).holds
