"""Scan: every item once, whole or in segments, in pages."""

from pprint import pformat

import pytest

from contract.tables import N, S, TableUnderTest, rejects


@pytest.fixture
def many(things: TableUnderTest) -> TableUnderTest:
    """60 items in 20 partitions."""
    for number in range(60):
        things.put({"pk": S(f"p{number % 20}"), "sk": N(number), "n": N(number % 3)})
    return things


def keys(items) -> set[tuple[str, str]]:
    found = [(item["pk"]["S"], item["sk"]["N"]) for item in items]
    assert len(found) == len(set(found))
    return set(found)


EVERY = {(f"p{number % 20}", str(number)) for number in range(60)}


def test_a_scan_finds_every_item(many: TableUnderTest):
    found = many.scan()
    assert keys(found["Items"]) == EVERY
    assert (found["Count"], found["ScannedCount"]) == (60, 60)
    assert "LastEvaluatedKey" not in found


def test_a_scan_of_an_empty_table_finds_nothing(things: TableUnderTest):
    assert things.scan() == {"Items": [], "Count": 0, "ScannedCount": 0}


@pytest.mark.parametrize("limit", [1, 7, 60, 61])
def test_pages_give_every_item_once(many: TableUnderTest, limit):
    assert keys(many.all("Scan", Limit=limit)) == EVERY


@pytest.mark.parametrize("total", [1, 2, 5, 64])
def test_segments_share_the_items_out(many: TableUnderTest, total):
    segments = [many.all("Scan", Segment=number, TotalSegments=total) for number in range(total)]
    assert keys([item for segment in segments for item in segment]) == EVERY


def test_segments_have_pages(many: TableUnderTest):
    found = [item for n in range(3) for item in many.all("Scan", Segment=n, TotalSegments=3, Limit=4)]
    assert keys(found) == EVERY


def test_a_segment_is_gone_on_with_behind_an_item_that_is_gone(many: TableUnderTest):
    first = many.scan(Segment=0, TotalSegments=1, Limit=20)
    many.delete(first["LastEvaluatedKey"])
    rest = many.scan(Segment=0, TotalSegments=1, ExclusiveStartKey=first["LastEvaluatedKey"])
    assert keys([*first["Items"], *rest["Items"]]) == EVERY


def test_a_partition_lies_in_one_segment_and_in_order(many: TableUnderTest):
    for number in range(4):
        seen: dict[str, list[int]] = {}
        for item in many.all("Scan", Segment=number, TotalSegments=4):
            seen.setdefault(item["pk"]["S"], []).append(int(item["sk"]["N"]))
        assert all(len(found) == 3 and found == sorted(found) for found in seen.values())


def test_a_filter_may_name_the_key(many: TableUnderTest):
    found = many.scan(FilterExpression="pk = :p AND n = :n", values={":p": S("p3"), ":n": N(0)})
    assert (found["Count"], found["ScannedCount"]) == (1, 60)


def test_limit_counts_what_is_evaluated(many: TableUnderTest):
    pages = many.pages("Scan", FilterExpression="n = :n", Limit=10, values={":n": N(0)})
    assert sum(page["Count"] for page in pages) == 20
    assert [page["ScannedCount"] for page in pages if page["ScannedCount"]] == [10] * 6


def test_a_projection_picks_parts(many: TableUnderTest):
    assert keys(many.scan(ProjectionExpression="pk, sk")["Items"]) == EVERY
    assert all(set(item) == {"n"} for item in many.scan(ProjectionExpression="n")["Items"])


def test_select_count_gives_no_items(many: TableUnderTest):
    assert many.scan(Select="COUNT", ConsistentRead=True) == {"Count": 60, "ScannedCount": 60}


@pytest.mark.parametrize(
    "request_",
    [
        {"Segment": 1},
        {"TotalSegments": 2},
        {"Segment": 2, "TotalSegments": 2},
        {"Segment": -1, "TotalSegments": 2},
        {"Segment": 0, "TotalSegments": 0},
        {"Segment": 0, "TotalSegments": 1_000_001},
        {"Limit": 0},
        {"ExclusiveStartKey": {"pk": S("p")}},
        {"ExclusiveStartKey": {"pk": S("p"), "sk": S("1")}},
        {"Select": "ALL_PROJECTED_ATTRIBUTES"},
    ],
    ids=str,
)
def test_malformed_scans_are_refused(many: TableUnderTest, request_):
    with rejects():
        many.scan(**request_)


def test_a_page_of_a_scan_ends_after_a_megabyte(table):
    singles = table("singles")
    for number in range(8):
        singles.put({"pk": S(f"p{number}"), "filler": S("x" * 300_000)})
    pages = singles.pages("Scan")
    assert sorted(item["pk"]["S"] for page in pages for item in page["Items"]) == [f"p{n}" for n in range(8)]
    assert len(pages) >= 2
    assert all(page["Count"] in {3, 4} for page in pages[:-1])


@pytest.mark.parametrize("kind", ["numbered", "binaries", "singles"])
def test_keys_of_every_type_are_scanned_in_pages(table, kind):
    typed = table(kind)
    for number in range(12):
        match kind:
            case "numbered":
                typed.put({"pk": N(f"{number - 6}.5")})
            case "binaries":
                typed.put({"pk": {"B": bytes([number * 20])}, "sk": {"B": b"\x00"}})
            case _:
                typed.put({"pk": S(f"\x00{number}\x01")})
    whole = typed.scan()["Items"]
    assert len(whole) == 12
    paged = [item for n in range(2) for item in typed.all("Scan", Limit=2, Segment=n, TotalSegments=2)]
    # Neither items nor their attributes come in any promised order.
    assert sorted(pformat(item) for item in paged) == sorted(pformat(item) for item in whole)
