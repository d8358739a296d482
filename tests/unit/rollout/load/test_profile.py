"""A load profile's file: written by hand or condensed, and every mistake told with its line."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dualstore.rollout.document import DocumentError
from dualstore.rollout.load import (
    LoadProfile,
    OperationRate,
    PartitionClass,
    Recorded,
    TableLoad,
    load_profile,
    parse_profile,
    profile_text,
    schema_of_profiles,
)

BY_HAND = """\
profile: orders by hand
tables:
  orders:
    operations:
      - {operation: GetItem, per_second: 90, consistent_percent: 25}
      - operation: PutItem
        per_second: 10
        item_bytes: [[400, 70], [4000, 30]]
      - {operation: Query, per_second: 5, index: by-name, limits: 20}
    keys:
      - {partitions: 1, percent: 40, items: 50, sorts: [[1, 80], [49, 20]]}
      - {partitions: 1000, percent: {GetItem: 60, PutItem: 10}}
    indexes:
      by-name:
        - {partitions: 10, percent: 100}
"""


def mistakes(text: str) -> list[tuple[int, str]]:
    with pytest.raises(DocumentError) as raised:
        parse_profile(text, name="load.yml")
    return [(mistake.line, mistake.message) for mistake in raised.value.mistakes]


def test_a_profile_can_be_written_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "load.yml"
    path.write_text(BY_HAND)
    table = load_profile(path).tables["orders"]
    get, put, query = table.operations
    assert (get.per_second, get.consistent_percent, table.per_second) == (90, 25, 105)
    assert put.item_bytes == ((400, 70), (4000, 30))
    assert (query.label, query.limits) == ("Query by-name", ((20, 100),))
    hot, cold = table.keys
    assert (hot.items, hot.sorts, hot.percent("PutItem")) == (50, ((1, 80), (49, 20)), 40)
    assert (cold.partitions, cold.items, cold.percent("PutItem"), cold.percent("Query")) == (1000, 1, 10, 0)


def test_a_profile_is_what_it_was_once_it_is_written_and_read() -> None:
    profile = LoadProfile(
        "all of it",
        {
            "orders": TableLoad(
                (
                    OperationRate("Query", 1.5, "by-name", 10, 20, 30, limits=((0, 50.0), (20, 50.0))),
                    OperationRate(
                        "TransactWriteItems", 0.25, keys=((2, 100.0),), acts={"Put": 60.0, "Delete": 40.0}
                    ),
                    OperationRate("PutItem", 3.0, item_bytes=((512, 100.0),)),
                ),
                (
                    PartitionClass(1, {"PutItem": 50.0, "every": 1.0}, 7, ((1, 90.0), (9, 10.0))),
                    PartitionClass(3, {"every": 50.0}),
                ),
                {"by-name": (PartitionClass(2, {"Query": 100.0}),)},
                {"status": {"S": "open"}},
            )
        },
        Recorded(60.0, "2026-01-01T00:00:00+00:00", 100, 3, 1),
        {"orders": ("abc",)},
    )
    assert parse_profile(profile_text(profile)) == profile


def test_json_is_a_profile_too() -> None:
    table = {
        "operations": [{"operation": "GetItem", "per_second": 1}],
        "keys": [{"partitions": 5, "percent": 100}],
    }
    assert parse_profile(json.dumps({"profile": "p", "tables": {"t": table}})).tables["t"].per_second == 1


@pytest.mark.parametrize(
    ("written", "instead", "line", "said"),
    [
        ("operation: GetItem", "operation: GetItems", 5, "did you mean GetItem?"),
        ("per_second: 10", "per_seconds: 10", 6, "per_second is missing"),
        ("consistent_percent: 25", "consistent_percent: 125", 5, "125 is greater than the maximum of 100"),
        ("[4000, 30]", "[4000, 0]", 8, "less than or equal to the minimum of 0"),
        ("[4000, 30]", "[4000]", 8, "is too short"),
        ("limits: 20", "limits: many", 9, "'many' is not a Limit"),
        ("partitions: 1000", "partitions: 0", 12, "0 is less than the minimum of 1"),
        ("GetItem: 60, ", "GetItem: 60, Put: 3, ", 12, "Put is not known here"),
        ("index: by-name", "index: by-nme", 9, "nothing is said of the keys of index by-nme"),
        ("operation: GetItem", "operation: GetItem, index: by-name", 5, "GetItem reads no index"),
        ("percent: 100", "percent: {GetItem: 1}", 9, "no class of partitions has a share of Query"),
        ("profile: orders by hand\n", "", 1, "profile is missing"),
    ],
)
def test_every_mistake_is_told_with_its_line(written: str, instead: str, line: int, said: str) -> None:
    found = mistakes(BY_HAND.replace(written, instead, 1))
    assert [(where, said in message) for where, message in found if said in message] == [(line, True)], found


def test_its_schema_is_one() -> None:
    Draft202012Validator.check_schema(schema_of_profiles())
