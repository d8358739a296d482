"""PostgreSQL is gone at `live`: DynamoDB takes over, and when PostgreSQL is back what was lost is listed."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError

from dualstore import DualStore, Stage
from dualstore.control import Phase
from dualstore.replication.agent import GrantTimes
from dualstore.replication.failover_notes import DepthNote
from dualstore.stages import Side
from dualstore.store import MigratedTable
from dualstore.store.configured import ConfiguredTable
from dualstore.testing.servers import DynamoDBServer, PostgresServer
from integration.commands import CREDENTIALS, CommandLine
from integration.deployment import Deployment, deployed, eventually
from integration.test_flip import ask, both_sides, drained, names, prepare
from integration.writing import KEYS, NAME, item_of, key_of, writing

WRITE_GRANT = timedelta(seconds=3)
# On a busy machine a process takes its time to start.
PATIENCE = 120.0
GRANTS = GrantTimes(poll=timedelta(milliseconds=100), read=timedelta(seconds=1), write=WRITE_GRANT)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[PostgresServer, DynamoDBServer]]:
    """Servers of this module's own, which it may stop."""
    with (
        PostgresServer(settings={"fsync": "off"}) as postgres,
        DynamoDBServer(data_directory=tmp_path_factory.mktemp("dynamodb")) as dynamodb,
    ):
        yield postgres, dynamodb


@pytest.fixture(scope="module")
def postgres(servers: tuple[PostgresServer, DynamoDBServer]) -> PostgresServer:
    return servers[0]


@contextmanager
def stopped(server: PostgresServer) -> Iterator[None]:
    server.stop("immediate")
    try:
        yield
    finally:
        server.start()


@pytest.fixture(scope="module")
def deployment(servers: tuple[PostgresServer, DynamoDBServer]) -> Iterator[Deployment]:
    postgres, dynamodb = servers
    with deployed(postgres.create_database(), dynamodb.client(), dynamodb.endpoint_url) as both:
        yield both


@dataclass
class Ledger:
    """What one thread of the service wrote and was acknowledged, in order, whatever else happened to it."""

    client: Any
    table: str
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    unknown: set[tuple[int, int]] = field(default_factory=set)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        number = 0
        while not self.stop.is_set():
            number += 1
            sk = 100 + number % 10
            try:
                self.client.put_item(TableName=self.table, Item=item_of(sk, number))
            except ClientError as error:
                if error.response["Error"]["Code"] != "ServiceUnavailable":
                    self.unknown.add((sk, number))
            else:
                self.acknowledged.append((sk, number))
            time.sleep(0.01)

    @contextmanager
    def kept(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join(30)


@dataclass
class Live:
    """A table at `live`, with its outbox held back, and the command line beside it."""

    store: DualStore
    table: MigratedTable
    dualstore: CommandLine

    @property
    def client(self) -> Any:
        return self.store.client()

    def note(self) -> DepthNote | None:
        return self.store._replication.notes.depth(self.table.physical, epoch=self.table.view.record.epoch)

    def hold_back(self) -> None:
        """Have nobody send what is in the outbox: all its lanes are somebody else's."""
        self._give_lanes("'the test'", "clock_timestamp() + interval '10 minutes'")

    def let_go(self) -> None:
        self._give_lanes("NULL", "NULL")

    def _give_lanes(self, holder: str, until: str) -> None:
        with self.store.engine.begin() as connection:
            given = connection.execute(
                sa.text(
                    f"UPDATE dualstore.lanes SET holder = {holder}, until = {until}, token = token + 1 "
                    "WHERE table_name = :table"
                ),
                {"table": self.table.physical},
            )
        assert given.rowcount == 16


@contextmanager
def at_live(deployment: Deployment, folder: Path) -> Iterator[Live]:
    environment = {**CREDENTIALS, "DUALSTORE_CONTROL__WRITE_GRANT_SECONDS": f"{WRITE_GRANT.total_seconds()}"}
    with prepare(deployment, grants=GRANTS, relay_lease=timedelta(seconds=2)) as (store, table, _):
        ask(table, store, Stage.LIVE)
        yield Live(store, table, CommandLine(deployment, table.physical, folder, environment=environment))


@pytest.fixture
def live(deployment: Deployment, tmp_path: Path) -> Iterator[Live]:
    with at_live(deployment, tmp_path) as live:
        yield live


def held_by_dynamodb(deployment: Deployment, table: str) -> dict[int, str]:
    items = deployment.dynamodb.scan(TableName=table, ConsistentRead=True)["Items"]
    return {int(item["sk"]["N"]): item["name"]["S"] for item in items}


def outbox_rows(deployment: Deployment, table: str) -> int:
    with deployment.engine.connect() as connection:
        found = connection.execute(
            sa.text("SELECT count(*) FROM dualstore.outbox WHERE table_name = :t"), {"t": table}
        )
        return int(found.scalar_one())


FAIL_OVER = ("failover", "--to", "dynamodb", "--accept-loss", "--yes")


def test_what_had_not_reached_dynamodb_is_lost_and_listed_and_nothing_else(
    live: Live, deployment: Deployment, postgres: PostgresServer, tmp_path: Path
) -> None:
    table, client = live.table, live.client
    for sk in range(8):
        client.put_item(TableName=table.physical, Item=item_of(sk, 1))
    drained(live.store, table)
    live.hold_back()
    for sk in range(4):
        client.put_item(TableName=table.physical, Item=item_of(sk, 2))
    client.put_item(TableName=table.physical, Item=item_of(3, 3))
    client.delete_item(TableName=table.physical, Key=key_of(4))
    ledger, export = Ledger(client, table.physical), tmp_path / "lost.jsonl"
    with ledger.kept():
        eventually(lambda: (note := live.note()) is not None and note.rows >= 6, seconds=20)
        is_refused_while_anybody_reaches_postgresql(live)
        with stopped(postgres):
            acknowledged = ledger.acknowledged[:]
            does_nothing_without_a_word_about_the_loss(live)
            assert not any(sk >= 100 for sk in held_by_dynamodb(deployment, table.physical))
            fails_over_once(live)
            goes_on_with_dynamodb(live, ledger)
        takes_no_write_of_anybody(live)
        reconciled = is_reconciled_once(live, export)
    live.let_go()

    lines = [json.loads(line) for line in export.read_text().splitlines()]
    assert f"{len(lines):,} change(s) lost" in reconciled
    listed = [
        (int(line["key"]["sk"]["N"]), line.get("item", {}).get("name", {}).get("S", ""), line["kind"])
        for line in lines
    ]
    assert sorted(each for each in listed if each[0] < 100) == [
        (0, "2", "written"),
        (1, "2", "written"),
        (2, "2", "written"),
        (3, "", "written over"),
        (3, "3", "written"),
        (4, "", "deleted"),
    ]
    is_what_the_ledger_says([each for each in listed if each[0] >= 100], acknowledged, ledger.unknown)
    # And nothing that was acknowledged after it.
    found, last = held_by_dynamodb(deployment, table.physical), dict(ledger.acknowledged)
    assert {sk: int(found[sk]) for sk in last} == last

    # Both sides come to be equal, and a verification makes PostgreSQL readable again.
    eventually(lambda: (pair := both_sides(deployment, live.store, table.physical))[0] == pair[1], seconds=30)
    assert not table.view.record.mirror_readable
    assert table.verify(repair=True).proven
    eventually(lambda: table.view.record.mirror_readable)
    assert names(both_sides(deployment, live.store, table.physical)[1])[1] == "9"


def is_refused_while_anybody_reaches_postgresql(live: Live) -> None:
    for lost in ((), (Side.POSTGRES,)):  # then it is the operator who is cut off from it
        refused = live.dualstore(*FAIL_OVER, lost=lost)
        assert refused.exit_code == 1, refused.output
        assert "PostgreSQL is not gone" in refused.output


def does_nothing_without_a_word_about_the_loss(live: Live) -> None:
    unaccepted = live.dualstore("failover", "--to", "dynamodb", "--yes")
    assert unaccepted.exit_code == 1
    assert "writes acknowledged after" in unaccepted.output
    assert "give --accept-loss" in unaccepted.output
    copies = live.store.control_records()[Side.DYNAMODB]
    assert isinstance(copies, dict)
    assert not copies[live.table.physical].decides


def fails_over_once(live: Live) -> None:
    given = (*FAIL_OVER, "--by", "kim", "--reason", "it burnt")
    done = live.dualstore(*given)
    if "PostgreSQL is not gone" in done.output:  # somebody reached it at the last moment, and says so late
        done = live.dualstore(*given)
    assert done.exit_code == 0, done.output
    assert "lives, and does not reach PostgreSQL" in done.output
    assert ": confirmed" in done.output
    again = live.dualstore(*FAIL_OVER)
    assert again.exit_code == 0, again.output
    assert "failed over to DynamoDB by kim" in again.output


def goes_on_with_dynamodb(live: Live, ledger: Ledger) -> None:
    eventually(lambda: live.table.stage is Stage.SHADOW)
    position = live.table.status().position
    assert position.startswith("shadow (DynamoDB authoritative), failed over at ")
    assert position.endswith(", not reconciled")
    written = len(ledger.acknowledged)
    eventually(lambda: len(ledger.acknowledged) > written + 20)
    table = live.table.physical
    assert live.client.get_item(TableName=table, Key=key_of(0))["Item"] == item_of(0, 1)
    live.client.put_item(TableName=table, Item=item_of(1, 9))
    live.client.put_item(TableName=table, Item=item_of(50, 1))


def takes_no_write_of_anybody(live: Live) -> None:
    """PostgreSQL is back: the first process to reach it has told it."""
    fence = live.store._replication.fence
    eventually(lambda: fence.read_all()[live.table.physical].phase is Phase.MOVED, seconds=30)
    update = sa.text(f"UPDATE {live.table.mapping.table.name} SET name = name")
    with live.store.engine.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="pause"):
        connection.execute(update)


def is_reconciled_once(live: Live, export: Path) -> str:
    reconciled = live.dualstore("failover", "--reconcile", "--export", str(export))
    assert reconciled.exit_code == 0, reconciled.output
    again = live.dualstore("failover", "--reconcile")
    assert again.exit_code == 0, again.output
    assert "reconciled before" in again.output
    return str(reconciled.output)


def is_what_the_ledger_says(
    listed: list[tuple[int, str, str]], acknowledged: list[tuple[int, int]], unknown: set[tuple[int, int]]
) -> None:
    """All that was acknowledged while nobody sent it, and at most the one write that was under way."""
    assert 0 <= len(listed) - len(acknowledged) <= 1
    for sk in range(100, 110):
        numbers = [number for key, number in acknowledged if key == sk]
        of_key = [(name, kind) for key, name, kind in listed if key == sk]
        assert [kind for _, kind in of_key] == ["written over"] * (len(of_key) - 1) + ["written"]
        last = int(of_key[-1][0])
        assert len(of_key) == len(numbers) if last == numbers[-1] else (sk, last) in unknown


def test_a_process_that_is_stopped_through_it_all_writes_dynamodb_when_it_wakes_and_not_postgresql(
    deployment: Deployment, postgres: PostgresServer
) -> None:
    with ExitStack() as stack:
        with prepare(deployment, grants=GRANTS) as (store, served, _):
            table = served.physical
            ask(served, store, Stage.LIVE)
            sleeper = stack.enter_context(writing(deployment, table, 100, grants=GRANTS))
            eventually(lambda: len(sleeper.acknowledged) == KEYS, seconds=PATIENCE)
            sleeper.process.send_signal(signal.SIGSTOP)
            drained(store, served)
        # Nobody but the sleeper is left, and an operator who serves nothing: PostgreSQL is told nothing.
        operator = stack.enter_context(deployment.store(grants=GRANTS))
        operator._tables.configured = {NAME: ConfiguredTable(physical=table)}
        rows = outbox_rows(deployment, table)
        with stopped(postgres):
            foreseen = operator.foresee_failover(NAME)
            assert not operator.signs_of_life(NAME).postgres_lives
            record = operator.fail_over(foreseen, by="kim")
        assert operator._replication.fence.read_all()[table].decides
        written = dict(sleeper.acknowledged)
        sleeper.process.send_signal(signal.SIGCONT)
        eventually(lambda: len(sleeper.acknowledged.items() - written.items()) > 3, seconds=PATIENCE)
        # The sleeper has told it.
        eventually(lambda: operator._replication.fence.read_all()[table].epoch == record.epoch)
        sleeper.finish()
        # The write that was on its way when it was stopped may be done there, but is not acknowledged.
        assert outbox_rows(deployment, table) - rows <= 1
        refusals = ("InternalServerError", "ServiceUnavailable")
        assert all(any(code in error for code in refusals) for error in sleeper.errors)
        found = held_by_dynamodb(deployment, table)
        unreported = {sk for sk, number in sleeper.acknowledged.items() if found[sk] != number}
        assert len(unreported) <= 1, sleeper.errors  # one of unknown outcome, or the last
        assert all(int(found[sk]) > int(sleeper.acknowledged[sk]) for sk in unreported)
