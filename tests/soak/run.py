"""One soak from its first process to the verdict."""

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from botocore.config import Config

from dualstore import DualStore
from dualstore.schema.unmapped import create_unmapped
from dualstore.testing.servers import DynamoDBServer, PostgresServer
from soak.figures import figures_of
from soak.havoc import QUIET_RATE, Havoc
from soak.judge import judge
from soak.processes import Crew, Settings
from soak.recording import Effect, Pen, now_ns, read_ledger
from soak.sides import dynamodb_items, postgres_items, waiting
from soak.strangers import Strangers
from soak.tables import DESCRIPTION, ORDERS, PARCELS, TABLES, OrderRow, Place, register_item
from soak.walk import Walk
from soak.watch import watching

_CONFIGURATION = """\
[postgres]
url = {postgres}

[dynamodb]
endpoint_url = {endpoint}
region = "us-east-1"

[flags]
kind = "file"
path = "flags.json"
poll_interval_seconds = 0.1

[control]
poll_interval_seconds = 0.25
write_grant_seconds = {write_grant}

[tables.orders]
model = "soak.tables:Order"
row = "soak.tables:OrderRow"

[tables.parcels]
physical_name = "parcels"
"""
WRITE_GRANT_SECONDS = 4.0
_LOADED_WITHIN_SECONDS = 120.0
"""The history is copied within this however short the soak is: a busy machine is no finding."""
_FLAGS = {
    f"dualstore-{table}-{flag}": value
    for table in TABLES
    for flag, value in (
        ("stage", "off"),
        ("read-percent", 0),
        ("mirror-percent", 100),
        ("shadow-percent", 20),
    )
}
_CONVERGENCE_SECONDS, _START_SECONDS = 180.0, 120.0
_ONE_TRY = Config(connect_timeout=1, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 1})


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a soak is to be.

    Attributes:
        seconds: of traffic, from the first write to the last.
        seed: of all choices.
        keys: in each partition.
        processes: that write.
        threads: of each.
        relays: processes that relay.
        calls_per_second: of each thread.
        faults: whether anything is broken.
        fault_pause_seconds: between two faults, from and to.
        longest_stop_seconds: for which a process is suspended.
        stay_seconds: at each stage, from and to.
        patience_seconds: for one step to another stage.
    """

    seconds: float
    seed: int
    keys: int = 8
    processes: int = 3
    threads: int = 3
    relays: int = 2
    calls_per_second: float = 10.0
    faults: bool = True
    fault_pause_seconds: tuple[float, float] = (1.5, 6.0)
    longest_stop_seconds: float = 15.0
    stay_seconds: tuple[float, float] = (1.0, 5.0)
    patience_seconds: float = 60.0


def soak(plan: Plan, folder: Path) -> dict[str, Any]:
    """Run a soak, and return its figures.

    Args:
        plan: what it is to be.
        folder: takes logs and ledgers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared_memory = Path("/dev/shm")  # DynamoDB's stand-in waits for its disk at each write
    with (
        tempfile.TemporaryDirectory(dir=shared_memory if shared_memory.is_dir() else None) as scratch,
        PostgresServer(settings={"fsync": "off"}) as postgres,
        DynamoDBServer(data_directory=Path(scratch)) as dynamodb,
    ):
        url = postgres.create_database("soak")
        return _Soak(plan, folder, postgres, dynamodb, url.replace("+psycopg", "")).run()


class _Soak:
    def __init__(
        self, plan: Plan, folder: Path, postgres: PostgresServer, dynamodb: DynamoDBServer, dsn: str
    ) -> None:
        self._plan = plan
        self._postgres = postgres
        self._dynamodb = dynamodb
        self._dsn = dsn
        self._client = dynamodb.client(config=_ONE_TRY)
        self._settings = Settings(
            folder=folder,
            seed=plan.seed,
            threads=plan.threads,
            keys=plan.keys,
            calls_per_second=plan.calls_per_second,
        )

    def run(self) -> dict[str, Any]:
        self._prepare()
        settings = self._settings
        with Pen(settings.ledgers, "soak") as pen, contextlib.ExitStack() as stack:
            self._load_history(pen)
            crew = stack.enter_context(Crew(settings, pen))
            for slot in range(self._plan.processes):
                crew.start_writer(slot)
            for slot in range(self._plan.relays):
                crew.start_relay(slot)
            store = stack.enter_context(DualStore.from_config(settings.configuration, registers=False))
            converged, walk = self._drive(crew, store, pen)
            theirs, ours = dynamodb_items(self._client), postgres_items(self._dsn)
        _keep(settings.folder / "sides.json", theirs, ours)
        ledger = read_ledger(settings.ledgers)
        deaths = {e["name"]: e["at"] for e in ledger.events if e["event"] == "ended"}
        verdict = judge(ledger, theirs, ours, deaths=deaths)
        return figures_of(self._plan, ledger, verdict, walk.tally, converged)

    def _drive(self, crew: Crew, store: DualStore, pen: Pen) -> tuple[Mapping[str, Any], Walk]:
        plan = self._plan
        strangers = Strangers(dsn=self._dsn, client=self._client, pen=pen, keys=plan.keys, seed=plan.seed)
        havoc = Havoc(
            plan.seed,
            crew=crew,
            postgres=self._postgres,
            dynamodb=self._dynamodb,
            dsn=self._dsn,
            settings=self._settings,
            pen=pen,
            pause_seconds=plan.fault_pause_seconds,
            longest_seconds=plan.longest_stop_seconds,
        )
        walk = Walk(
            store,
            seed=plan.seed,
            pen=pen,
            strangers=strangers,
            havoc=havoc,
            stay_seconds=plan.stay_seconds,
            patience_seconds=plan.patience_seconds,
        )
        crew.wait_until_serving(_START_SECONDS)
        deadline = time.monotonic() + plan.seconds
        try:
            with _writing_too(strangers), watching(self._client, self._dsn, pen):
                if plan.faults:
                    self._settings.rates.write_text(f"{QUIET_RATE}")
                    havoc.start()
                walk.load(time.monotonic() + max(plan.seconds, _LOADED_WITHIN_SECONDS))
                walk.go_on(deadline)
        finally:
            if havoc.ident is not None:
                havoc.end()
            self._settings.rates.write_text("0")
        if havoc.failure is not None:
            raise havoc.failure
        crew.end_writers()
        return self._converge(walk, store, pen), walk

    def _converge(self, walk: Walk, store: DualStore, pen: Pen) -> Mapping[str, Any]:
        """Wait until both sides are equal by themselves, then have a verification say so."""
        began = time.monotonic()
        equal_after = None
        while equal_after is None and time.monotonic() - began < _CONVERGENCE_SECONDS:
            theirs, ours = dynamodb_items(self._client), postgres_items(self._dsn)
            if theirs == ours and not waiting(self._dsn)["dirty keys"]:
                equal_after = time.monotonic() - began
                break
            time.sleep(0.1)
        theirs, ours = dynamodb_items(self._client), postgres_items(self._dsn)
        different = sorted(str(p) for p in {*theirs, *ours} if theirs.get(p) != ours.get(p))
        records = {name: repr(walk.record(store.table(name))) for name in TABLES}
        pen.event("traffic has ended", equal_after=equal_after, different=different, records=records)
        proven = all(self._proven(walk, store, name, pen) for name in TABLES)
        return {
            "seconds until both sides were equal": equal_after,
            "keys that differed before the last verification": different,
            "verification proved both sides equal": proven,
            "left waiting": waiting(self._dsn),
        }

    def _proven(self, walk: Walk, store: DualStore, name: str, pen: Pen) -> bool:
        for _ in range(10):
            if walk.prove(store.table(name)):
                return True
            time.sleep(1)
        return False

    def _prepare(self) -> None:
        settings = self._settings
        settings.ledgers.mkdir()
        settings.rates.write_text("0")
        (settings.folder / "flags.json").write_text(json.dumps({"flagValues": _FLAGS}))
        settings.configuration.touch(mode=0o600)
        settings.configuration.write_text(
            _CONFIGURATION.format(
                postgres=json.dumps(self._dsn),
                endpoint=json.dumps(self._dynamodb.endpoint_url),
                write_grant=WRITE_GRANT_SECONDS,
            )
        )
        for table in TABLES:
            self._client.create_table(TableName=table, **DESCRIPTION)
        engine = sa.create_engine(self._dsn.replace("postgresql://", "postgresql+psycopg://"))
        with DualStore.from_config(settings.configuration, registers=False) as store:
            store.prepare()
            OrderRow.__table__.create(engine)  # type: ignore[attr-defined]
            create_unmapped(engine, store.table(PARCELS).mapping)
            store.prepare()  # the tables are there now, and get their triggers
        engine.dispose()

    def _load_history(self, pen: Pen) -> None:
        """What was there before dualstore: items without stamps, noted as written by the soak itself."""
        for table in TABLES:
            for kind in ("old-0", "hot-0", "own-0-0"):
                for sk in range(self._plan.keys):
                    place, token = Place(table, kind, sk), f"pold.{table}.{kind}.{sk}"
                    number = pen.intend("history", "off", [Effect(place, token)])
                    self._client.put_item(TableName=table, Item=register_item(place, token))
                    pen.conclude(number, "acknowledged")
        pen.event("history", orders=ORDERS, at_ns=now_ns(), pid=os.getpid())


def _keep(path: Path, theirs: Mapping[Place, Any], ours: Mapping[Place, Any]) -> None:
    """Both sides as they were judged, for whoever looks into a finding."""
    sides = {"DynamoDB": theirs, "PostgreSQL": ours}
    path.write_text(
        json.dumps({side: {str(p): i for p, i in items.items()} for side, items in sides.items()})
    )


@contextlib.contextmanager
def _writing_too(strangers: Strangers) -> Iterator[None]:
    strangers.start()
    try:
        yield
    finally:
        strangers.end()
