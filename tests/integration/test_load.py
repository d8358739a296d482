"""Traffic that is recorded, condensed and replayed on real databases: mix and skew are there again."""

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from dualstore import DualStore
from dualstore.cli import main
from dualstore.config import RecordingSettings
from dualstore.flags import StaticFlags
from dualstore.recording import Line, Lost, Note, Opened, TableNamed, read_lines
from dualstore.recording.lines import VERSION
from dualstore.rollout.load import CONFIRMATION, LoadProfile, Replay, cleaned, condense, profile_text, seeded
from dualstore.rollout.load import replay as replayed
from integration.commands import CREDENTIALS
from integration.deployment import (
    REGION,
    WHOLE_MIGRATION,
    Deployment,
    authoritative,
    bring_to,
    mirrored,
)
from unit.rollout.load.clocks import WaitedTime

NAME = "orders"
RECORDED = 240
PER_SECOND = 20.0
PROCESSES = os.environ.get("DUALSTORE_LOAD_PROCESSES", "1")
"""How many replay where the command does: each costs two seconds to begin."""


@dataclass
class Service:
    """A table that is migrated, and what was recorded of it."""

    deployment: Deployment
    model: Any
    row: Any
    folder: Path

    @property
    def physical(self) -> str:
        name: str = self.model.Meta.table_name
        return name

    def store(self, recording: str) -> DualStore:
        """A store that records all of the table's operations."""
        settings = RecordingSettings(directory=self.folder / recording)
        store = self.deployment.store(StaticFlags(), recording=settings, recorded_percents={NAME: 100.0})
        store.repository(self.model, self.row, name=NAME)
        return store

    def notes(self, recording: str) -> list[Note]:
        return [line for line in read_lines(self.folder / recording) if isinstance(line, Note)]

    def partitions_of_load(self, table: str | None = None) -> set[str]:
        """The partitions that a load has made."""
        found = self.deployment.dynamodb.scan(TableName=table or self.physical)["Items"]
        return {item["pk"]["S"] for item in found if item["pk"]["S"].startswith("dualstore-load/")}


@pytest.fixture(scope="module")
def service(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """A table at a stage where both sides are written, and some traffic on it that was recorded."""
    service = Service(deployment, *deployment.table(), tmp_path_factory.mktemp("recordings"))
    with service.store("traffic") as store:
        bring_to(store, NAME, WHOLE_MIGRATION["dualwrite"])
        traffic(store, service.physical)
    return service


@pytest.fixture(scope="module")
def profile(service: Service) -> LoadProfile:
    return condense(spread_out(read_lines(service.folder / "traffic")), name="traffic")


def traffic(store: DualStore, table: str) -> None:
    """Half of all operations on one partition, three quarters of those on one of its items."""
    client, random = store.client(), Random(1)
    for number in range(RECORDED):
        is_hot = random.random() < 0.5
        p = "hot" if is_hot else f"p{random.randrange(60)}"
        sk = 0 if is_hot and random.random() < 0.75 else random.randrange(10)
        key = {"pk": {"S": p}, "sk": {"N": str(sk)}}
        kind = random.random()
        if kind < 0.6:
            client.get_item(TableName=table, Key=key, ConsistentRead=number % 2 == 0)
        elif kind < 0.9:
            item = {**key, "name": {"S": "Ada"}, "text": {"S": "x" * 400}}
            client.put_item(TableName=table, Item=item)
        else:
            client.query(
                TableName=table,
                KeyConditionExpression="pk = :p",
                ExpressionAttributeValues={":p": {"S": p}},
                Limit=5,
            )


def spread_out(lines: Iterator[Line]) -> Iterator[Line]:
    """As if they had come at an even pace, however fast this machine is."""
    number = 0
    for line in lines:
        if isinstance(line, Note):
            yield msgspec.structs.replace(line, at=number / PER_SECOND)
            number += 1
        else:
            yield line


def hottest(notes: list[Note], operation: str) -> tuple[float, float]:
    """The hottest partition's share of an operation's keys, and the share of its hottest item in that."""
    touches = [touch for note in notes if note.operation == operation for touch in note.touched]
    ((partition, count),) = Counter(touch.partition for touch in touches).most_common(1)
    items = Counter(touch.item for touch in touches if touch.partition == partition)
    return count / len(touches), items.most_common(1)[0][1] / count


def test_what_was_recorded_is_found_again_in_its_replay_and_cleaned_away(
    service: Service, profile: LoadProfile
) -> None:
    load = profile.tables[NAME]
    assert load.per_second == pytest.approx(PER_SECOND, rel=0.02)
    planned = Replay(load=load, multiple=3, duration=timedelta(seconds=6), writers=4)
    with service.store("seeding") as store:
        written, wanted = seeded(store, NAME, planned)
        assert written == wanted == sum(each.partitions * each.items for each in load.keys)
    with service.store("replay") as store:
        tally = replayed(store, NAME, planned, clock=WaitedTime())
        made = service.partitions_of_load()
        assert {mirrored(store, service.physical, each)[0]["pk"]["S"] for each in list(made)[:3]} <= made
    with service.store("cleaning") as store:
        assert cleaned(store, NAME, planned) >= written

    assert tally.planned == pytest.approx(PER_SECOND * 3 * 6, rel=0.15)
    assert [kind.errors for kind in tally.kinds.values()] == [{}] * len(load.operations)
    recorded, again = service.notes("traffic"), service.notes("replay")
    assert (len(recorded), len(again)) == (RECORDED, tally.planned)
    mix, mix_again = (Counter(note.operation for note in each) for each in (recorded, again))
    for operation, count in mix.items():
        assert mix_again[operation] / len(again) == pytest.approx(count / len(recorded), abs=0.06)
    for operation in ("GetItem", "PutItem"):
        partition, item = hottest(recorded, operation)
        assert hottest(again, operation) == (pytest.approx(partition, abs=0.1), pytest.approx(item, abs=0.15))
    reads = [[note.consistent for note in each if note.operation == "GetItem"] for each in (recorded, again)]
    assert sum(reads[1]) / len(reads[1]) == pytest.approx(sum(reads[0]) / len(reads[0]), abs=0.1)
    sizes = [
        {touch.size_bytes for note in each for touch in note.touched if note.operation == "PutItem"}
        for each in (recorded, again)
    ]
    assert sizes[0] == sizes[1]

    assert service.partitions_of_load() == set()
    assert authoritative(service.deployment, service.physical, "hot"), "what the load did not make stays"


@dataclass
class CommandLine:
    """`dualstore load` on a table without a model, so that other processes know it, too."""

    service: Service
    folder: Path
    table: str
    environment: str = 'environment = "staging"\n'

    def __call__(self, *arguments: str) -> Result:
        config = self.folder / "dualstore.toml"
        url = self.service.deployment.engine.url.render_as_string(hide_password=False)
        config.write_text(
            f'{self.environment}[postgres]\nurl = "{url.replace("+psycopg", "")}"\n'
            f'[dynamodb]\nendpoint_url = "{self.service.deployment.endpoint_url}"\nregion = "{REGION}"\n'
            f'bookkeeping_table = "{self.service.deployment.bookkeeping}"\n'
            f'[tables.loaded]\nphysical_name = "{self.table}"\n'
        )
        target = ("--table", "loaded", "--from", NAME, "--config", str(config))
        return CliRunner(env=CREDENTIALS).invoke(main, ["load", *arguments, *target])


@pytest.fixture
def command_line(service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)  # for the processes that it starts
    model, _ = service.deployment.table()
    return CommandLine(service, tmp_path, model.Meta.table_name)


HERE = ("--confirm", "127.0.0.1")
SHORT = ("--multiple", "2", "--duration", "1s", "--ramp", "0s", "--json")


def test_the_command_replays_judges_and_cleans_up(
    command_line: CommandLine, profile: LoadProfile, tmp_path: Path
) -> None:
    path = tmp_path / "load.yml"
    path.write_text(profile_text(profile))
    forced = ("--force", CONFIRMATION.format(table="loaded"))
    limits = ("--p99-under", "1ms", "--seed-items", "10", "--processes", PROCESSES)
    run = command_line("run", str(path), *SHORT, *HERE, *forced, *limits)
    assert run.exit_code == 1, run.output
    document = json.loads(run.stdout)
    assert any("p99 is" in failure for failure in document["failures"])
    assert document["total"]["planned_per_second"] == pytest.approx(2 * PER_SECOND, rel=0.5)
    assert (document["total"]["errors"], document["seeded"]) == ({}, 10)
    assert command_line.service.partitions_of_load(command_line.table), "without --clean they stay"

    again = command_line("run", str(path), *SHORT, *HERE, *forced, "--clean", "--seed-items", "0")
    document = json.loads(again.stdout)
    assert again.exit_code == (0 if document["well"] else 1)
    assert document["deleted"] >= 10, "those of the run before, too"
    assert command_line.service.partitions_of_load(command_line.table) == set()
    assert "0 items" in command_line("clean", str(path), *HERE, *forced).stdout


def test_load_is_refused_where_it_may_not_be(
    command_line: CommandLine, service: Service, profile: LoadProfile, tmp_path: Path
) -> None:
    path = tmp_path / "load.yml"
    path.write_text(profile_text(profile))
    recorded = command_line("run", str(path), *SHORT, *HERE)
    assert recorded.exit_code == 1
    assert CONFIRMATION.format(table="loaded") in recorded.stderr
    path.write_text(profile_text(LoadProfile("by hand", profile.tables)))
    unconfirmed = command_line("run", str(path), *SHORT, "--confirm", "db.elsewhere")
    assert (unconfirmed.exit_code, "is 127.0.0.1" in unconfirmed.stderr) == (2, True)
    for environment in ("", 'environment = "production"\n'):
        command_line.environment = environment
        refused = command_line("run", str(path), *SHORT, *HERE)
        assert (refused.exit_code, "staging" in refused.stderr) == (1, True)
    assert service.partitions_of_load(command_line.table) == set()


def test_recordings_become_a_profile_by_a_command(service: Service, tmp_path: Path) -> None:
    path = tmp_path / "load.yml"
    lines = b"".join(
        msgspec.json.encode(each) + b"\n" for each in spread_out(read_lines(service.folder / "traffic"))
    )
    recording = tmp_path / "recording.jsonl.gz"
    recording.write_bytes(gzip.compress(lines))
    other = tmp_path / "other.jsonl.gz"
    opened = Opened(VERSION, "other", "another salt", 0.0)
    more = [opened, TableNamed(NAME, 100.0), Lost(NAME, 5)]
    other.write_bytes(gzip.compress(b"".join(msgspec.json.encode(each) + b"\n" for each in more)))
    both = CliRunner().invoke(main, ["load", "profile", str(recording), str(other)])
    assert "5 operations were dropped" in both.stderr
    assert "2 groups of processes" in both.stderr
    made = CliRunner().invoke(main, ["load", "profile", str(recording), "--out", str(path)])
    assert "20.0 operations a second" in made.stdout or "20.1 operations a second" in made.stdout, made.output
    checked = CliRunner().invoke(main, ["load", "validate", str(path)])
    assert (checked.exit_code, "GetItem" in checked.stdout) == (0, True)
