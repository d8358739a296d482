"""A service under traffic, its relay, and a migration plan beside them, on two real databases."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from click.testing import CliRunner
from pynamodb.exceptions import PynamoDBException
from sqlalchemy.schema import CreateTable

from dualstore import DualStore, schema
from dualstore.cli import main
from dualstore.config import import_object, load
from dualstore.flags import setter_of
from dualstore.rollout import (
    Ended,
    EventKind,
    PlanEvent,
    Tools,
    carrying_out,
    events_of,
    load_plan,
    run,
)
from dualstore.stores.postgres_plans import PostgresPlans
from integration.deployment import REGION, Deployment

NAME = "orders"
ITEMS = 40
_PAUSE_SECONDS = 0.004
_PATIENCE_SECONDS = 150
_SCRIPT = [sys.executable, str(Path(__file__).with_name("restoring.py"))]

STEPS = """
plan: {plan}
environment: staging
tables: [orders]
patience: 60s
gates: {{mismatch_percent: 5, error_percent: 5, latency_increase_percent: null, p95_ms: 5000}}
stages:
  - stage: pre-deployment
    steps:
      - verify_database_connection
      - {{step: backup_dynamodb, method: lines, folder: ., name: before}}
      - {{step: run_schema_migrations, command: {create}}}
  - stage: data-migration
    steps:
      - start_dual_writing
      - migrate_historical_data
      - {{step: verify_data_integrity, repair: true}}
  - stage: traffic-shift
    steps:
      - enable_feature_flag
      - {{step: gradual_traffic_increase, schedule: [10, 100], soak: 300ms}}
      - {{step: monitor_error_rates, soak: 300ms}}
      - {{step: flip_authority, approval: required, soak: 300ms}}
  - stage: cleanup
    steps:
      - rampdown
      - {{step: verify_all_traffic_postgres, soak: 1s}}
      - {{step: stop_dual_writing, approval: four-eyes}}
      - {{step: backup_verification, scratch_url_variable: DUALSTORE_SCRATCH_URL, command: {restore}}}
"""


@dataclass
class Traffic:
    """What callers do, and what was acknowledged.

    Attributes:
        written: the last number acknowledged of each item.
        errors: what callers saw that they should not have.
    """

    model: Any
    written: dict[int, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    reads: int = 0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._write, self._read)]

    def __enter__(self) -> Self:
        for sk in range(ITEMS):
            self._put(sk, 0)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _put(self, sk: int, number: int) -> None:
        self.model(f"p{sk % 10}", sk, name=str(number)).save(add_version_condition=False)
        self.written[sk] = number

    def _write(self) -> None:
        number = 0
        while not self._stop.wait(_PAUSE_SECONDS * 10):
            number += 1
            self._carefully(lambda: self._put(number % ITEMS, number))  # noqa: B023 - called at once

    def _read(self) -> None:
        number = 0
        while not self._stop.wait(_PAUSE_SECONDS):
            number += 1
            sk = number % ITEMS
            known = self.written[sk]
            self._carefully(lambda: self._get(sk, known))  # noqa: B023 - called at once

    def _get(self, sk: int, known: int) -> None:
        found = int(self.model.get(f"p{sk % 10}", sk, consistent_read=True).name)
        self.reads += 1
        if found < known:
            self.errors.append(f"read {found} of item {sk} after {known} was acknowledged")

    def _carefully(self, call: Any) -> None:
        try:
            call()
        except PynamoDBException as error:
            self.errors.append(f"{type(error).__name__}: {error}")


@dataclass
class Migrating:
    """A deployment with a service, and the command line beside it.

    Attributes:
        deployment: the two databases.
        table: the physical name.
        folder: of all files.
        store: the service's.
        traffic: the service's callers.
        name: the plan's.
    """

    deployment: Deployment
    table: str
    folder: Path
    store: DualStore
    traffic: Traffic
    name: str

    @property
    def plan(self) -> Path:
        return self.folder / "migration.yml"

    def dualstore(self, *arguments: str, kill: str = "never") -> "subprocess.Popen[str]":
        """The command line, under way, in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "integration.planning", kill, *arguments],
            cwd=self.folder,
            env=_environment(self.folder),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def said(self, *arguments: str, code: int = 0) -> str:
        """What a command says, which ends with this exit code; carried out in this process."""
        outcome = CliRunner().invoke(main, [*arguments, "--config", str(self.folder / "dualstore.toml")])
        assert outcome.exit_code == code, outcome.output
        return outcome.output

    def killed(self, *arguments: str, at: str) -> None:
        """Run a command that is killed at an event."""
        process = self.dualstore(*arguments, kill=at)
        try:
            output, _ = process.communicate(timeout=_PATIENCE_SECONDS)
            assert process.returncode == -signal.SIGKILL, output
        finally:
            ended([process])

    def carried_out_by(self, who: str) -> Ended:
        """Carry the plan out beside everything else in this process, with a store of its own."""
        config = self.folder / "dualstore.toml"
        with DualStore.from_config(config) as store:
            tools = Tools(store=store, setter=setter_of(load(config)), who=who, folder=str(self.folder))
            with carrying_out(load_plan(self.plan), tools) as context:
                return run(context)

    def events(self) -> list[PlanEvent]:
        """The record of the plan."""
        return list(events_of(PostgresPlans(self.deployment.engine).events(self.name)))

    def of(self, kind: EventKind) -> list[PlanEvent]:
        """The events of a kind."""
        return [event for event in self.events() if event.kind is kind]

    def rows(self) -> dict[int, int]:
        """What PostgreSQL holds of each item."""
        table = self.store.table(NAME).mapping.table
        with self.deployment.engine.connect() as connection:
            found = connection.execute(sa.select(table.c.sk, table.c.name)).fetchall()
        return {int(sk): int(name) for sk, name in found}


@contextmanager
def migrating(deployment: Deployment, folder: Path, scratch_url: str) -> Iterator[Migrating]:
    """A service under traffic, at stage off, with its relay; the SQL table is yet to be created."""
    model, row = deployment.table()
    table = model.Meta.table_name
    row.__table__.drop(deployment.engine)
    deployment.dynamodb.update_table(
        TableName=table,
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    module = f"models_of_{table.replace('-', '_')}"
    (folder / f"{module}.py").write_text(
        "from integration.deployment import order_model, order_row\n"
        f"Order = order_model({table!r}, {deployment.endpoint_url!r})\n"
        f"OrderRow = order_row({table.replace('-', '_')!r})\n"
    )
    url = deployment.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    (folder / "dualstore.toml").write_text(_configuration(deployment, url, module))
    (folder / "flags.json").write_text('{"flagValues": {"dualstore-orders-stage": "off"}}')
    statement = CreateTable(row.__table__, if_not_exists=True).compile(deployment.engine)
    create = json.dumps([*_SCRIPT, "create", url, str(statement)])
    restore = json.dumps([*_SCRIPT, "restore", row.__table__.name, url, scratch_url])
    scratch = sa.create_engine(scratch_url.replace("://", "+psycopg://"), poolclass=sa.NullPool)
    schema.upgrade(scratch)
    row.__table__.create(scratch)
    (folder / "migration.yml").write_text(STEPS.format(plan=table, create=create, restore=restore))
    with ExitStack() as stack:
        stack.enter_context(_importing(folder))
        store = stack.enter_context(DualStore.from_config(folder / "dualstore.toml"))
        bound = import_object(f"{module}:Order")
        stack.enter_context(store.bound(bound, import_object(f"{module}:OrderRow")))
        stack.enter_context(_relaying(store))
        traffic = stack.enter_context(Traffic(bound))
        os.environ["DUALSTORE_SCRATCH_URL"] = scratch_url
        stack.callback(os.environ.pop, "DUALSTORE_SCRATCH_URL", None)
        yield Migrating(deployment, table, folder, store, traffic, name=table)


@contextmanager
def _importing(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextmanager
def _relaying(store: DualStore) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=lambda: store.relaying().run(stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _environment(folder: Path) -> dict[str, str]:
    found = [str(Path(__file__).parents[1]), str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))}


def _configuration(deployment: Deployment, url: str, module: str) -> str:
    return f"""
[postgres]
url = {json.dumps(url)}
connect_timeout_seconds = 20
[dynamodb]
endpoint_url = {json.dumps(deployment.endpoint_url)}
region = {json.dumps(REGION)}
bookkeeping_table = {json.dumps(deployment.bookkeeping)}
[control]
poll_interval_seconds = 0.1
[telemetry]
rollup_seconds = 0.3
[flags]
kind = "file"
path = "flags.json"
poll_interval_seconds = 0.1
[tables.{NAME}]
model = "{module}:Order"
row = "{module}:OrderRow"
"""


def ended(processes: Sequence["subprocess.Popen[str]"]) -> None:
    """End what still runs."""
    for process in processes:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
