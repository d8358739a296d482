"""A failover from a PostgreSQL that answers: what it took is listed, by hashed keys, and sealed."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from dualstore import Stage
from dualstore.items import key_hash, without_stamps
from dualstore.mapping import typed_json
from integration.commands import CommandLine
from integration.deployment import Deployment, eventually
from integration.test_failover import FAIL_OVER, Live, at_live
from integration.test_flip import drained
from integration.writing import item_of, key_of

pytestmark = pytest.mark.usefixtures("patient_doctor")

SEAL = Fernet.generate_key()


@pytest.fixture
def live(deployment: Deployment, tmp_path: Path) -> Iterator[Live]:
    with at_live(deployment, tmp_path) as live:
        yield live


@pytest.fixture
def dualstore(live: Live) -> CommandLine:
    """The command line, which keeps items encrypted."""
    environment = {**live.dualstore.environment, "DUALSTORE_BACKFILL__QUARANTINE_KEY": SEAL.decode()}
    return replace(live.dualstore, more='[backfill]\nquarantine = "encrypted"\n', environment=environment)


def test_a_failover_from_a_postgresql_that_answers_lists_what_it_took_and_tells_neither_key_nor_item(
    live: Live, dualstore: CommandLine, tmp_path: Path
) -> None:
    table = live.table
    live.client.put_item(TableName=table.physical, Item=item_of(1, 1))
    drained(live.store, table)
    live.hold_back()
    live.client.put_item(TableName=table.physical, Item=item_of(1, 7))
    refused = dualstore(*FAIL_OVER)
    assert refused.exit_code == 1, refused.output
    assert "it answers this machine" in refused.output
    assert "--although-postgresql-answers" in refused.output
    assert table.stage is Stage.LIVE

    done = dualstore(*FAIL_OVER, "--although-postgresql-answers")
    assert done.exit_code == 0, done.output
    assert "DynamoDB is the authority, at stage shadow" in done.output
    assert "silent since" not in done.output
    eventually(lambda: table.stage is Stage.SHADOW)
    live.client.put_item(TableName=table.physical, Item=item_of(2, 1))
    doctor = dualstore("doctor", "--checklist", "data-integrity")
    assert "what that lost has not been listed" in doctor.output

    export = tmp_path / "lost.jsonl"
    hashed = dualstore("failover", "--reconcile", "--export", str(export))
    plain = dualstore("failover", "--reconcile", "--plain-keys")
    assert (hashed.exit_code, plain.exit_code) == (0, 0), hashed.output + plain.output
    assert f"key {key_hash(table.served.shape.keys, key_of(1))}: written" in hashed.output
    assert typed_json(key_of(1)) not in hashed.output
    assert f"{typed_json(key_of(1))}: written" in plain.output
    (line,) = map(json.loads, export.read_text().splitlines())
    assert "item" not in line
    assert without_stamps(json.loads(Fernet(SEAL).decrypt(line["encrypted"]))) == item_of(1, 7)
    assert export.stat().st_mode & 0o077 == 0, "it is as secret as the table"
    live.let_go()
