"""`dualstore demo` as a visitor runs it, and its proof on databases that somebody tampered with."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner

from dualstore.cli import main
from dualstore.cli.demo.evidence import Evidence
from dualstore.cli.demo.example import example_folder
from dualstore.cli.demo.ledger import LedgerWriter, read_ledgers
from dualstore.cli.demo.planned import PLAN
from dualstore.cli.demo.proof import LONGEST_PAUSE_SECONDS, TELLING_CODES, Kind, named, pauses
from dualstore.cli.demo.steps import steps
from dualstore.cli.demo.writes import Close
from dualstore.rollout import load_plan
from dualstore.stores.outbox import LANES
from dualstore.testing.servers import DynamoDB

pytestmark = pytest.mark.timeout(600)

DUALSTORE = (sys.executable, "-c", "from dualstore.cli import main; main()")


def dualstore(*arguments):
    return subprocess.run(
        [*DUALSTORE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=500
    )


def dualstore_here(*arguments):
    """The same in this process, which has imported everything."""
    return CliRunner().invoke(main, [*map(str, arguments)])


@dataclass(frozen=True)
class KeptDemo:
    """A demonstration that has ended, with both databases still up."""

    output: str
    report: str
    folder: Path
    postgres_url: str
    dynamodb: DynamoDB

    def prove(self):
        return dualstore_here("demo", "--prove", self.folder)

    def an_airport(self, kind):
        """The code of an airport of this kind that is there."""
        codes = sorted(code for code, its in Evidence.load(self.folder).kinds.items() if its is kind)
        with psycopg.connect(self.postgres_url) as connection:
            rows = connection.execute("SELECT icao FROM airports WHERE icao = ANY(%s) ORDER BY icao", [codes])
            return rows.fetchone()[0]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    report = tmp_path_factory.mktemp("demo") / "report.html"
    ended = dualstore("demo", "--fast", "--keep", "--report", report)
    output = ended.stdout
    try:
        assert ended.returncode == 0, output + ended.stderr
        yield KeptDemo(
            output=output,
            report=report.read_text(encoding="utf-8"),
            folder=Path(re.search(r"--prove (\S+)", output)[1]),
            postgres_url=re.search(r"psql '(.+)'", output)[1],
            dynamodb=DynamoDB(re.search(r"--endpoint-url (\S+)", output)[1]),
        )
    finally:
        if kept := re.search(r"kill -INT ([\d ]+); sleep 2; rm -r (\S+)", output):
            for pid in map(int, kept[1].split()):
                end(pid)
            shutil.rmtree(kept[2])


def end(pid):
    """Ends a server that is not our child, and waits until it is gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGINT)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.05)
        raise AssertionError(f"server {pid} does not end")


def test_the_demo_walks_every_step_and_proves_the_result(demo):
    reached = re.findall(r"^\[ *[\d.]+s\] ([^ ].*?): ", demo.output, re.MULTILINE)
    assert reached == list(steps(with_streams=True))
    assert "Proven: " in demo.output


def test_the_demo_stops_postgres_and_kills_a_process_without_an_error_to_any_caller(demo):
    assert "PostgreSQL has been stopped" in demo.output
    assert "was killed between its two writes (exit code -9)" in demo.output
    assert re.search(r"of its \d+ unanswered writes [1-9]\d* reached DynamoDB alone", demo.output)
    assert "its last writes are on both sides" in demo.output


def test_the_migration_is_the_plan_of_the_example_carried_out_by_its_runner(demo, monkeypatch):
    monkeypatch.syspath_prepend(example_folder())
    plan, config = demo.folder / PLAN, demo.folder / "dualstore.toml"
    shown = dualstore_here("plan", "show", plan, "--record", "--json", "--config", config)
    assert shown.exit_code == 0, shown.output
    record = json.loads(shown.stdout)
    assert {step["state"] for step in record["steps"]} == {"done"}
    assert load_plan(plan).steps_until(None)[-1].id == "backup_verification"
    back = [event["step"] for event in record["events"] if event["kind"] == "rolled back"]
    assert back == ["gradual_traffic_increase/50", "gradual_traffic_increase/10", "flip_authority"]
    assert {event["by"] for event in record["events"] if event["kind"] == "approved"} == {"Grace"}
    judged = [e["step"] for e in record["events"] if "every gate of airports is met" in str(e["evidence"])]
    assert len(judged) > len(back), "forward again, every gate is judged anew"
    assert "set shorter than usual: control.poll_interval_seconds 0.2 instead of 0.4" in demo.output


def test_at_live_callers_notice_the_loss_of_the_authority_only(demo):
    evidence = Evidence.load(demo.folder)
    (away,) = evidence.away
    assert evidence.total.failures, "PostgreSQL was away, and somebody called"
    assert all(away.touches(each.began_ns, each.ended_ns) for each in evidence.total.failures)
    assert {each.code for each in evidence.total.failures} <= TELLING_CODES
    outcomes = {entry.outcome for entry in read_ledgers(demo.folder / "ledgers")}
    assert outcomes >= {"acknowledged", "refused", "undone"}


def test_the_authority_moves_three_times_and_the_pauses_are_measured(demo):
    moves = Evidence.load(demo.folder).moves
    assert [move.name for move in moves] == ["to live", "to shadow", "to live (2)"]
    longest = pauses(read_ledgers(demo.folder / "ledgers"), moves)
    assert all(0 < seconds <= LONGEST_PAUSE_SECONDS for seconds in longest.values())
    assert named(longest) in demo.output


def test_a_relay_that_is_killed_is_replaced_and_what_sql_writes_reaches_dynamodb(demo):
    checks = {check.claim: check for check in Evidence.load(demo.folder).on_the_way}
    taken_over = checks["another relay took over all lanes of the one that was killed"]
    assert (taken_over.examined, taken_over.faults) == (LANES, ())
    assert checks["what the team's own SQL writes reaches DynamoDB"].holds
    assert checks["both sides are equal when DynamoDB is left"].holds


def test_postgres_goes_on_alone_once_dynamodb_has_been_left(demo):
    evidence = Evidence.load(demo.folder)
    since = [e for e in read_ledgers(demo.folder / "ledgers") if e.began_ns >= evidence.left_ns]
    assert len(since) > 10
    assert {entry.outcome for entry in since} <= {"acknowledged", "refused"}


def test_the_report_needs_nothing_but_itself(demo):
    assert demo.report.count("<svg") == 2
    assert "✓ Proven" in demo.report
    references = re.findall(r'(?:src|href)\s*=\s*"([^"#][^"]*)"|url\(([^#)][^)]*)\)', demo.report)
    assert references == []
    assert "<script" not in demo.report


def test_the_proof_holds_when_it_is_computed_again(demo):
    assert dualstore("demo", "--prove", demo.folder).returncode == 0


@pytest.mark.parametrize("kind", [Kind.OWNED, Kind.SHARED, Kind.CONTENDED])
def test_an_altered_row_fails_the_proof(demo, kind):
    icao = demo.an_airport(kind)
    with psycopg.connect(demo.postgres_url, autocommit=True) as connection:
        (elevation,) = connection.execute("SELECT elevation FROM airports WHERE icao = %s", [icao]).fetchone()
        connection.execute("UPDATE airports SET elevation = elevation + 1 WHERE icao = %s", [icao])
        try:
            proof = demo.prove()
        finally:
            connection.execute("UPDATE airports SET elevation = %s WHERE icao = %s", [elevation, icao])
    assert proof.exit_code == 1
    assert re.search(rf"{icao}: (differs|nobody wrote its state)", proof.stdout)
    assert "NOT proven" in proof.stdout


def test_an_item_deleted_from_dynamodb_fails_the_proof(demo):
    client, key = demo.dynamodb.client(), {"icao": {"S": demo.an_airport(Kind.OWNED)}}
    item = client.delete_item(TableName="airports", Key=key, ReturnValues="ALL_OLD")["Attributes"]
    try:
        proof = demo.prove()
    finally:
        client.put_item(TableName="airports", Item=item)
    assert proof.exit_code == 1
    assert f"{key['icao']['S']}: it is missing" in proof.stdout


def test_an_acknowledged_write_that_is_nowhere_fails_the_proof(demo):
    icao = demo.an_airport(Kind.CONTENDED)
    ledgers = demo.folder / "ledgers"
    with LedgerWriter(ledgers, "late-1") as ledger:
        ledger.conclude(ledger.intend(icao, Close()), "acknowledged")
    try:
        proof = demo.prove()
    finally:
        (ledgers / "late-1.jsonl").unlink()
    assert proof.exit_code == 1
    assert f"{icao}: it shows an overtaken write" in proof.stdout
