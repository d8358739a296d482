"""`dualstore demo` as a visitor runs it, and its proof on databases that somebody tampered with."""

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

from dualstore.cli.demo.evidence import Evidence
from dualstore.cli.demo.ledger import LedgerWriter
from dualstore.cli.demo.proof import Kind
from dualstore.cli.demo.walk import STEPS
from dualstore.cli.demo.writes import Close
from dualstore.testing.servers import DynamoDB

pytestmark = pytest.mark.timeout(600)

DUALSTORE = (sys.executable, "-c", "from dualstore.cli import main; main()")


def dualstore(*arguments):
    return subprocess.run(
        [*DUALSTORE, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=500
    )


@dataclass(frozen=True)
class KeptDemo:
    """A demonstration that has ended, with both databases still up."""

    output: str
    report: str
    folder: Path
    postgres_url: str
    dynamodb: DynamoDB

    def prove(self):
        return dualstore("demo", "--prove", self.folder)

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
    reached = [
        name for name in STEPS if re.search(rf"^\[ *[\d.]+s\] {re.escape(name)}: ", demo.output, re.MULTILINE)
    ]
    assert reached == list(STEPS)
    assert "Proven: " in demo.output


def test_the_demo_stops_postgres_and_kills_a_process_without_an_error_to_any_caller(demo):
    assert "PostgreSQL has been stopped" in demo.output
    assert "was killed between its two writes (exit code -9)" in demo.output
    assert re.search(r"of its \d+ unanswered writes [1-9]\d* reached DynamoDB alone", demo.output)
    assert "its last writes are on both sides" in demo.output
    assert "no caller saw an error" in demo.output


def test_the_report_needs_nothing_but_itself(demo):
    assert demo.report.count("<svg") == 2
    assert "✓ Proven" in demo.report
    references = re.findall(r'(?:src|href)\s*=\s*"([^"#][^"]*)"|url\(([^#)][^)]*)\)', demo.report)
    assert references == []
    assert "<script" not in demo.report


def test_the_proof_holds_when_it_is_computed_again(demo):
    assert demo.prove().returncode == 0


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
    assert proof.returncode == 1
    assert f"{icao}: differs" in proof.stdout
    assert "NOT proven" in proof.stdout


def test_an_item_deleted_from_dynamodb_fails_the_proof(demo):
    client, key = demo.dynamodb.client(), {"icao": {"S": demo.an_airport(Kind.OWNED)}}
    item = client.delete_item(TableName="airports", Key=key, ReturnValues="ALL_OLD")["Attributes"]
    try:
        proof = demo.prove()
    finally:
        client.put_item(TableName="airports", Item=item)
    assert proof.returncode == 1
    assert f"{key['icao']['S']}: only in PostgreSQL" in proof.stdout


def test_an_acknowledged_write_that_is_nowhere_fails_the_proof(demo):
    icao = demo.an_airport(Kind.CONTENDED)
    ledgers = demo.folder / "ledgers"
    with LedgerWriter(ledgers, "late-1") as ledger:
        ledger.conclude(ledger.intend(icao, Close()), "acknowledged")
    try:
        proof = demo.prove()
    finally:
        (ledgers / "late-1.jsonl").unlink()
    assert proof.returncode == 1
    assert f"{icao}: it shows an overtaken write" in proof.stdout
