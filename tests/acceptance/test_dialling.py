"""A fleet of processes under load is dialled from 0 to 100 and back, and no caller ever reads wrongly.

Every process is a bound PynamoDB service with LaunchDarkly's own SDK. What it reads is judged by a ledger
that the databases know nothing of: whatever side answers, an item is never older than the last version that
any process was told is written, and always one that somebody wrote.
"""

import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from acceptance.fleet import MEMBERS, NAME, PARTITIONS, PLACES, Fleet, dialled, fleet_of
from acceptance.fleet_ledger import Ledger, Place, attributes_of, is_deletion
from acceptance.fleet_member import cohort_of
from dualstore import DualStore
from dualstore.flags import FileFlags
from dualstore.stages import Side
from dualstore.testing.servers import DynamoDB
from integration.deployment import Deployment, deployed, eventually
from unit.flags.launchdarkly_service import flag, rollout, running

FLIP_SECONDS = 15.0
"""A changed flag is followed by every process within this; a second is usual where the machine is idle."""
RECONNECT_SECONDS = 45.0
"""And after an outage of LaunchDarkly within this: its SDK waits for up to 16 s before it tries again."""
DELTA_SECONDS = 1.0
STAGES = ("off", "dualwrite", "shadow", "live", "rampdown", "complete")


@pytest.fixture
def deployment(postgres_url: str, dynamodb_server: DynamoDB, dynamodb: Any) -> Iterator[Deployment]:
    with deployed(postgres_url, dynamodb, dynamodb_server.endpoint_url) as both:
        yield both


@pytest.fixture
def table(deployment: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A table on both sides, whose models commands find."""
    model, _ = deployment.table()
    monkeypatch.syspath_prepend(tmp_path)
    name: str = model.Meta.table_name
    return name


@pytest.mark.timeout(400)
def test_a_fleet_that_is_dialled_from_0_to_100_and_back_reads_right_at_every_step(
    deployment: Deployment, table: str, tmp_path: Path
) -> None:
    began, path = datetime.now(UTC), tmp_path / "flags.json"
    flags = FileFlags(path)
    flags.create()
    with fleet_of(deployment, table, tmp_path, f'kind = "file"\npath = {json.dumps(str(path))}') as fleet:
        said = fleet.dualstore
        said("dial", NAME, "--stage", "dualwrite", "--yes")
        said("backfill", NAME, "--segments", "1", "--workers", "1")
        assert settles_at(fleet, 0) == {"internal-1", "internal-2"}
        dialled_up = said("dial", NAME, "--stage", "shadow", "--read-percent", "1", "--yes")
        assert "stage dualwrite → shadow, read-percent 0 → 1" in dialled_up
        served = {1: settles_at(fleet, 1)}
        # A person who edits the file asks nobody to wait for the fleet.
        flags.set(NAME, postgres_read_percent=10)
        served[10] = follows(fleet, 10)
        said("dial", NAME, "--read-percent", "50", "--yes")
        served[50] = settles_at(fleet, 50)
        assert served[1] < served[10] < served[50]

        assert "all reads go to DynamoDB" in said("stop", NAME, "--reason", "a test")
        stopped = time.monotonic() + DELTA_SECONDS
        assert fleet.holds((), since=stopped) == set()
        assert {side for read in fleet.reads(since=stopped) for side in read.sides} == {Side.DYNAMODB}
        said("stop", NAME, "--release")
        assert settles_at(fleet, 50) == served[50]

        evidence_is_that_of_all(fleet)
        shown = said("dial", NAME, "--read-percent", "100", "--yes")
        assert evidence_in(shown) == ("read-percent 50", 0)
        assert settles_at(fleet, 100) > served[50]
        for content, problem in (
            ('{"flagValues": {', "unreachable"),
            (path.read_text().replace("100.0", '"a hundred"'), "malformed"),
        ):
            before = [member.problems[problem] for member in fleet.members]
            replaced(path, content)
            fleet.everybody(lambda member: member.problems[problem] > before[member.number])  # noqa: B023 - now
            assert settles_at(fleet, 100) == dialled(100)

        replaced(path, path.read_text().replace('"a hundred"', "25.0"))
        assert served[10] < follows(fleet, 25) < served[50]
        said("dial", NAME, "--read-percent", "0", "--yes")
        settles_at(fleet, 0)
        fleet.finish()
        nothing_is_lost(fleet, table)
        every_comparison_is_counted(fleet, began)


def settles_at(fleet: Fleet, percent: float) -> set[str]:
    """Every process reads exactly the partitions of a step from PostgreSQL, from now on; gives them back."""
    served = fleet.holds(dialled(percent), since=time.monotonic())
    assert served == dialled(percent)
    return served


def follows(fleet: Fleet, percent: float, *, seconds: float = FLIP_SECONDS) -> set[str]:
    """Within the time that is promised every process does so by itself; gives back the partitions."""
    changed = time.monotonic()
    customers = [pk for pk in PARTITIONS if cohort_of(pk) == "customer"]
    expected = {(number, pk): pk in dialled(percent) for number in range(MEMBERS) for pk in customers}

    def have_followed() -> bool:
        latest = {
            (read.member, read.pk): read.is_by_postgres for read in reversed(fleet.reads(since=changed))
        }
        return latest.items() >= expected.items()

    eventually(have_followed, seconds=seconds)
    return settles_at(fleet, percent)


def replaced(path: Path, content: str) -> None:
    """Put another flag file in the place of this one, as an editor does."""
    written = path.with_suffix(".new")
    written.write_text(content)
    written.replace(path)


def evidence_is_that_of_all(fleet: Fleet) -> None:
    """What is shown of the present step was counted by all processes, and is no more than it can be."""
    eventually(lambda: shown(fleet)["evidence"]["comparisons"] > 50)
    status = shown(fleet)
    evidence = status["evidence"]
    assert status["fleet"]["processes"] >= len(fleet.members)
    assert evidence["mismatches"] == 0, evidence
    assert evidence["comparisons"] <= len(fleet.reads(since=0))
    # Of no mismatch in n comparisons the exact bound is 1 - 0.05 ** (1 / n).
    assert evidence["mismatch_bound"] == pytest.approx(1 - 0.05 ** (1 / evidence["comparisons"]))


def evidence_in(said: str) -> tuple[str, int]:
    """The step that a command shows evidence of, and the mismatches among the comparisons, which are some."""
    step = re.search(rf"{NAME}: stage shadow, (read-percent \d+), shadow-percent 100\n", said)
    compared = re.search(
        r"([\d,]+) of ([\d,]+) compared reads differ: with 95 % confidence at most (\S+) %", said
    )
    assert step, said
    assert compared, said
    mismatches, comparisons, bound = (float(text.replace(",", "")) for text in compared.groups())
    assert comparisons > 50
    assert bound == pytest.approx(100 * (1 - 0.05 ** (1 / comparisons)), rel=0.06), "to two digits"
    return step[1], int(mismatches)


def shown(fleet: Fleet) -> dict[str, Any]:
    (table,) = json.loads(fleet.dualstore("status", "--json"))
    return dict(table)


def every_comparison_is_counted(fleet: Fleet, began: datetime) -> None:
    """What all processes counted by themselves is what the fleet's figures add up to."""
    counted: Counter[str] = sum((member.compared or Counter() for member in fleet.members), Counter())
    assert counted["mismatch"] == 0, counted
    assert all((member.compared or {}).get("equal", 0) > 0 for member in fleet.members)
    with DualStore.from_config(fleet.configuration, registers=False) as store:
        evidence = store.evidence(NAME, since=began)
    assert evidence.comparisons == counted["equal"] + counted["lag"]
    assert evidence.unusable == counted["failed"] + counted["incomparable"]


def nothing_is_lost(fleet: Fleet, table: str) -> None:
    """Both sides hold what the ledger says, and the same."""
    found = fleet.deployment.dynamodb.scan(TableName=table, ConsistentRead=True)["Items"]
    held = {Place(item["pk"]["S"], int(item["sk"]["N"])): int(item["n"]["N"]) for item in found}
    with Ledger(fleet.folder / "ledger", PLACES) as ledger:
        done = {place: ledger.done(place) for place in PLACES}
    assert held == {place: version for place, version in done.items() if not is_deletion(version)}
    assert min(done.values()) > 0, "an item was never written"
    assert "0 different" in fleet.dualstore("verify", NAME)


@pytest.mark.timeout(400)
def test_a_fleet_follows_launchdarkly_and_stays_where_it_is_while_that_is_away(
    deployment: Deployment, table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "sdk-key")
    with running() as (launchdarkly, url):
        uris = "\n".join(f'{name}_uri = "{url}"' for name in ("base", "stream", "events"))
        launchdarkly.put(*flags_at("dualwrite", 0))
        with fleet_of(deployment, table, tmp_path, f'kind = "launchdarkly"\n{uris}') as fleet:
            eventually(lambda: shown(fleet)["stage"] == "dualwrite")
            fleet.dualstore("backfill", NAME, "--segments", "1", "--workers", "1")
            settles_at(fleet, 0)
            for each in flags_at("shadow", 50):
                launchdarkly.patch(each)
            served = follows(fleet, 50)
            # A rollout to half of the contexts asks for nothing: no two processes may differ.
            launchdarkly.patch({**flags_at("shadow", 0, 100)[1], "fallthrough": rollout(50, 50)})
            fleet.everybody(lambda member: member.problems["split"])
            assert settles_at(fleet, 50) == served
            launchdarkly.status = 503
            launchdarkly.hang_up()
            fleet.everybody(lambda member: member.problems["unreachable"])
            assert settles_at(fleet, 50) == served
            launchdarkly.status = 200
            launchdarkly.put(*flags_at("shadow", 100))
            follows(fleet, 100, seconds=RECONNECT_SECONDS)
            fleet.finish()
            nothing_is_lost(fleet, table)


def flags_at(stage: str, *percents: float) -> list[dict[str, Any]]:
    """The two flags, each serving one value to everybody."""
    return [
        flag(f"dualstore-{NAME}-stage", *STAGES, serve=STAGES.index(stage)),
        flag(f"dualstore-{NAME}-read-percent", *percents),
    ]


def test_the_ledger_takes_what_was_written_between_and_objects_to_all_else(tmp_path: Path) -> None:
    place = Place("p", 0)
    with Ledger(tmp_path / "ledger", [place]) as ledger, Ledger(tmp_path / "ledger", [place]) as another:
        ledger.begin(place, 9)
        ledger.finish(place, 8)

        def objects(found: dict[str, Any] | None, since: int = 7) -> bool:
            return another.objection(place, found, since) is not None

        assert another.done(place) == 8
        assert [objects(attributes_of(place, version)) for version in (6, 7, 8, 9)] == [
            True,
            False,
            False,
            False,
        ]
        assert objects(None), "none of versions 7 to 9 is a deletion"
        assert not objects(None, since=5)
        torn = attributes_of(place, 8) | {"lines": [7, "7"]}
        assert objects(torn)
        ledger.begin(place, 11)
        assert [objects(attributes_of(place, version)) for version in (10, 11, 12)] == [True, False, True]
        assert not objects(None)
