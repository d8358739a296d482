"""What counts as a difference."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from dualstore.verify import Difference, Finding, Verification, compare_sides
from dualstore.verify.findings import observe_pair

ITEM = {"pk": {"S": "a"}, "n": {"N": "1"}}
DIGITS = "1." + "1" * 36


@pytest.mark.parametrize(
    ("dynamodb", "postgres"),
    [
        pytest.param({"N": "1.0"}, {"N": "1"}, id="the same number in other digits"),
        pytest.param({"SS": ["a", "b"]}, {"SS": ["b", "a"]}, id="a set in another order"),
        pytest.param({"NS": ["1", "2"]}, {"NS": ["2.0", "1"]}, id="a set of numbers in another order"),
        pytest.param({"M": {"x": {"S": ""}}}, {"M": {"x": {"S": ""}}}, id="the same map"),
    ],
)
def test_what_dynamodb_holds_equal_is_no_difference(dynamodb, postgres):
    assert (
        compare_sides({"pk": {"S": "a"}, "v": dynamodb}, {"pk": {"S": "a"}, "v": postgres}) is Finding.EQUAL
    )


@pytest.mark.parametrize(
    ("dynamodb", "postgres"),
    [
        pytest.param({"N": DIGITS + "1"}, {"N": DIGITS + "2"}, id="the 38th digit"),
        pytest.param({"S": "a\x00"}, {"S": "a"}, id="a NUL"),
        pytest.param({"S": "1"}, {"N": "1"}, id="another type"),
        pytest.param({"S": "text"}, {"S": "tex"}, id="a cut string"),
        pytest.param({"L": [{"N": "1"}]}, {"L": [{"N": "1"}, {"N": "1"}]}, id="a longer list"),
        pytest.param({"NULL": True}, None, id="null for missing"),
        pytest.param(None, {"NULL": True}, id="missing for null"),
    ],
)
def test_what_an_application_could_tell_apart_is_a_difference(dynamodb, postgres):
    sides = [{"pk": {"S": "a"}} | ({} if value is None else {"v": value}) for value in (dynamodb, postgres)]
    observation = observe_pair(*sides, revision=1)

    assert (observation.finding, observation.paths) == (Finding.VALUE, ("v",))


def test_a_predecessor_stamp_is_not_looked_at():
    assert compare_sides(ITEM | {"_dsp": {"B": b"1"}}, ITEM) is Finding.EQUAL


def test_equal_content_with_another_stamp_is_told_apart_from_a_difference():
    finding = compare_sides(ITEM | {"_dsv": {"B": b"1"}}, ITEM | {"_dsv": {"B": b"2"}})

    assert finding is Finding.STAMP
    assert not finding.is_difference


@pytest.mark.parametrize(
    ("dynamodb", "postgres", "finding"),
    [
        (None, None, Finding.EQUAL),
        (ITEM, None, Finding.MISSING_ON_POSTGRES),
        (None, ITEM, Finding.MISSING_ON_DYNAMODB),
    ],
)
def test_a_missing_item_is_told_by_its_side(dynamodb, postgres, finding):
    assert compare_sides(dynamodb, postgres) is finding


def test_two_looks_at_another_item_or_revision_are_not_the_same_observation():
    other = ITEM | {"n": {"N": "2"}}

    looks = {
        observe_pair(ITEM, None, revision=1),
        observe_pair(other, None, revision=1),
        observe_pair(ITEM, None, revision=2),
    }

    assert len(looks) == 3
    assert observe_pair(dict(reversed(ITEM.items())), None, revision=1) in looks


def test_a_difference_keeps_its_key_out_of_every_text():
    difference = Difference("0" * 16, Finding.VALUE, ("v",), key={"pk": {"S": "secret"}})

    assert "secret" not in f"{difference} {difference!r}"


def verification(**counts):
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    counts = (
        dict.fromkeys(
            (
                "items_dynamodb",
                "rows_postgres",
                "equal",
                "stamps_only",
                "difference_count",
                "repaired",
                "moving",
            ),
            0,
        )
        | counts
    )
    return Verification(
        run_id=UUID(int=0), table="t", differences=(), started=moment, finished=moment, **counts
    )


def test_nothing_compared_is_a_full_success():
    assert verification().success_rate == 1.0
    assert verification().proven


def test_the_success_rate_is_the_share_found_equal_before_repair():
    assert verification(equal=6, difference_count=3, repaired=3, moving=1).success_rate == 0.6


@pytest.mark.parametrize(
    ("counts", "proven"),
    [
        ({"equal": 3}, True),
        ({"equal": 3, "difference_count": 2, "repaired": 2}, True),
        ({"equal": 3, "difference_count": 2, "repaired": 1}, False),
        ({"equal": 3, "moving": 1}, False),
    ],
)
def test_only_a_key_left_different_or_unjudged_spoils_the_proof(counts, proven):
    assert verification(**counts).proven is proven
