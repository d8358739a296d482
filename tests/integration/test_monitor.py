"""A monitor beside a fleet under traffic: what is planted is told and rolled back; a false alarm is not."""

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa
from botocore.exceptions import ClientError
from click.testing import CliRunner

from dualstore import DualStore, Stage
from dualstore.cli import main
from dualstore.config import TelemetrySettings
from dualstore.errors import IllegalTransition, Unavailable
from dualstore.flags import Requested, StaticFlags
from dualstore.replication.transitions import next_step
from dualstore.rollout import EventKind, Tools, events_of, parse_plan
from dualstore.rollout.alerts import Alert, Dispatch, Kind, calling
from dualstore.rollout.monitor import MigrationMonitor, Times, Watch
from dualstore.rollout.reaction import Overridden, Reacting
from dualstore.rollout.thresholds import DEFAULTS, Signal, Threshold, Thresholds
from dualstore.stages import Side
from dualstore.store import MigratedTable
from dualstore.stores.postgres_monitor import PostgresMonitor, RollbackRow
from dualstore.stores.postgres_plans import PostgresPlans
from dualstore.stores.postgres_rollup import PostgresRollup, step_of
from dualstore.telemetry import Latencies, Role
from dualstore.telemetry.figures import Doer, Done, Figures, Work
from dualstore.telemetry.latency import LatencyCell
from dualstore.telemetry.rollup import Window as RollupWindow
from integration.commands import CREDENTIALS, CommandLine
from integration.deployment import Deployment, bring_to
from integration.test_flip import names, relaying, with_stream
from integration.writing import NAME, item_of, key_of

KEYS, READERS = 20, 2
TIMES = Times(
    window=timedelta(seconds=0.5),
    settle=timedelta(seconds=0.6),
    look=timedelta(seconds=0.2),
    again=timedelta(hours=1),
)
STATED_SECONDS = 15.0
"""Three windows, one that is cut, the settling, a look, the dial and its confirmation; and a busy machine."""
THRESHOLDS = Thresholds(
    {
        **DEFAULTS,
        # What this process counts besides, on a busy machine, says nothing.
        Signal.LATENCY: Threshold(200.0, 200.0, samples=250, rolls_back=True),
        Signal.ERRORS: Threshold(1.0, 0.5, samples=5, rolls_back=True),
        Signal.FALLBACKS: Threshold(5.0, 1.0, samples=5, rolls_back=True),
    },
    windows=3,
    of=4,
)


class Setter:
    """Sets flags, as a file or LaunchDarkly would; may be out of reach."""

    def __init__(self, flags: StaticFlags) -> None:
        self._flags = flags
        self.out_of_reach = False

    def set(self, table: str, **wishes: Any) -> Callable[[], None]:
        if self.out_of_reach:
            raise Unavailable("LaunchDarkly does not answer")
        before = self._flags.requested(table)
        self._flags.set(table, **wishes)
        was = {wish: getattr(before, wish) for wish in wishes}
        return lambda: (self._flags.set(table, **was), None)[1]


@dataclass
class Traffic:
    """Callers of a table: what was acknowledged to them, and what they should not have seen."""

    store: DualStore
    table: str
    acknowledged: dict[int, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._client = self.store.client()
        self._stop = threading.Event()

    @contextmanager
    def under_way(self) -> Iterator[None]:
        for sk in range(KEYS):
            self._write(sk, 0)
        threads = [threading.Thread(target=self._all, args=(self._write, 0.02))]
        threads += [threading.Thread(target=self._all, args=(self._read, 0.002)) for _ in range(READERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def _all(self, act: Callable[[int, int], None], pause_seconds: float) -> None:
        for number in itertools.count(1):
            try:
                act(number % KEYS, number)
            except ClientError as error:
                self.errors.append(error.response["Error"]["Code"])
            if self._stop.wait(pause_seconds):
                return

    def _write(self, sk: int, number: int) -> None:
        self._client.put_item(TableName=self.table, Item=item_of(sk, number))
        self.acknowledged[sk] = number

    def _read(self, sk: int, _number: int) -> None:
        self._client.get_item(TableName=self.table, Key=key_of(sk), ConsistentRead=True)


@dataclass
class Watched:
    """A table under traffic, and its monitor."""

    deployment: Deployment
    store: DualStore
    table: MigratedTable
    flags: StaticFlags
    setter: Setter
    monitor: MigrationMonitor
    traffic: Traffic
    alerts: list[Alert]
    kept: PostgresMonitor

    @property
    def sql(self) -> str:
        return str(self.table.mapping.table.name)

    def execute(self, *statements: str) -> None:
        with self.deployment.engine.begin() as connection:
            for statement in statements:
                connection.execute(sa.text(statement))

    def rollbacks(self) -> Sequence[RollbackRow]:
        return self.kept.rollbacks(self.table.physical)

    def told(self, kind: Kind, signal: str) -> bool:
        return any(
            alert.kind is kind and alert.key.startswith(f"{self.table.physical}/{signal}")
            for alert in self.alerts
        )

    def until(self, holds: Callable[[], bool], *, seconds: float = STATED_SECONDS) -> float:
        """Look again and again until something holds; how long that took."""
        began = time.monotonic()
        while not holds():
            (seen,) = self.monitor.look()
            assert time.monotonic() - began < seconds, f"not in time; seen: {json.dumps(seen.to_json())}"
            time.sleep(TIMES.look.total_seconds())
        return time.monotonic() - began

    def reads_go_back_to(self, percent: float) -> float:
        """How long until the dial of the whole fleet stands there."""
        took = self.until(lambda: self.table.dials.postgres_read_percent == percent)
        self.table.wait_until(lambda record: record.dials.postgres_read_percent == percent)
        return took

    def dial(self, percent: float) -> None:
        self.flags.set(NAME, postgres_read_percent=percent)
        self.table.wait_until(lambda record: record.dials.postgres_read_percent == percent)

    def nothing_is_lost(self) -> None:
        """DynamoDB holds what was acknowledged last of each key."""
        scanned = self.deployment.dynamodb.scan(TableName=self.table.physical, ConsistentRead=True)["Items"]
        found = names({(item["pk"]["S"], item["sk"]["N"]): item for item in scanned})
        assert found == {sk: str(number) for sk, number in self.traffic.acknowledged.items()}


def _refuse(_: Alert) -> None:
    raise OSError("this channel is dead")


@pytest.fixture
def watched(deployment: Deployment) -> Iterator[Watched]:
    """PostgreSQL answers all reads of a table, and DynamoDB decides."""
    model, row = deployment.table()
    with_stream(deployment, model.Meta.table_name)
    flags, alerts = StaticFlags(), list[Alert]()
    with ExitStack() as stack:
        store = stack.enter_context(
            deployment.store(
                flags,
                telemetry=TelemetrySettings(rollup_seconds=0.2),
                guard=None,
            )
        )
        store.bind(model, row, name=NAME)
        store.prepare()
        stack.callback(store.unbind, model)
        stack.enter_context(relaying(store))
        table = bring_to(store, NAME, Requested(stage=Stage.SHADOW, postgres_read_percent=100.0))
        overridden = Overridden(flags)
        beside = stack.enter_context(deployment.store(overridden, guard=None))
        beside.repository(model, row, name=NAME)
        setter = Setter(flags)
        tools = Tools(store=beside, setter=setter, who="monitor")
        kept = PostgresMonitor(deployment.engine)
        # Two channels that are dead, each in its way, stop no rollback.
        ended = threading.Event()
        dispatch = Dispatch(
            [calling(_refuse), calling(lambda _: (ended.wait(), None)[1]), calling(alerts.append)]
        )
        stack.callback(dispatch.close)
        stack.callback(ended.set)
        monitor = MigrationMonitor(
            Reacting(tools=tools, overridden=overridden, kept=kept),
            {NAME: Watch(THRESHOLDS)},
            dispatch,
            times=TIMES,
        )
        traffic = Traffic(store, table.physical)
        yield Watched(deployment, store, table, flags, setter, monitor, traffic, alerts, kept)


@contextmanager
def reporting(watched: Watched, figures: Figures) -> Iterator[None]:
    """Another process of the fleet, which hands in what it has counted under today's dials."""
    kept, stop = PostgresRollup(watched.deployment.engine), threading.Event()
    step = step_of(watched.table.view.record)

    def report() -> None:
        while not stop.wait(0.15):
            now = time.monotonic()
            window = RollupWindow(uuid4(), watched.table.physical, step, now - 0.15, now, figures)
            kept.add([window], process="another")

    thread = threading.Thread(target=report)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def latencies(count: int, milliseconds: float) -> Latencies:
    cell = LatencyCell()
    for _ in range(count):
        cell.add(milliseconds / 1_000)
    return cell.read()


def reads(
    role: Role = Role.MIRROR, *, count: int = 300, postgres_ms: float = 2.0, errors: int = 0, **counts: int
) -> Figures:
    """As many reads of each side, as a process counts them."""
    done = {
        Doer(Work.READ, Side.DYNAMODB, Role.SHADOW): Done(latencies(count, 2.0)),
        Doer(Work.READ, Side.POSTGRES, role): Done(latencies(count, postgres_ms), errors),
    }
    return Figures(done, counts)


PLAN = """
plan: {name}
tables: [orders]
stages:
  - stage: data-migration
    steps: [start_dual_writing, migrate_historical_data]
  - stage: traffic-shift
    steps:
      - enable_feature_flag
      - {{step: gradual_traffic_increase, schedule: [40, 100]}}
"""


def under_a_plan(watched: Watched) -> str:
    """Record that a plan has put the traffic where it is; its name."""
    plan, plans = parse_plan(PLAN.format(name=watched.table.physical)), PostgresPlans(watched.store.engine)
    plans.keep(plan.name, plan.digest, plan.content)
    for step in plan.steps:
        for kind in (EventKind.STARTED, EventKind.FINISHED):
            plans.append(plan.name, kind, by="Ada", step=step.id, attempt=1)
    return plan.name


PLANTED = (
    (Signal.LATENCY, reads(postgres_ms=20.0), "slower than DynamoDB's", 40.0),
    (Signal.MISMATCHES, reads(mismatch=30, equal=270), "compared reads differ", 25.0),
    (Signal.ERRORS, reads(errors=100), "calls fail", 10.0),
)


@pytest.mark.timeout(300)
def test_what_is_planted_is_told_and_rolled_back_step_by_step_and_nothing_is_lost(watched: Watched) -> None:
    before, plan = 100.0, under_a_plan(watched)
    with watched.traffic.under_way():
        for number, (signal, figures, said, percent) in enumerate(PLANTED, 1):
            with reporting(watched, figures):
                watched.reads_go_back_to(percent)
            watched.until(lambda number=number: len(watched.rollbacks()) == number)
            rolled = watched.rollbacks()[0]
            assert (rolled.by, rolled.began["read_percent"]) == ("monitor", before)
            assert rolled.ended is not None
            assert rolled.ended["read_percent"] == percent
            before = percent
            assert said in rolled.reason
            assert signal in rolled.evidence["signals"]
        for signal, *_ in PLANTED:
            watched.until(lambda signal=signal: watched.told(Kind.RECOVERED, signal))
            assert watched.told(Kind.OPENED, signal)
        assert watched.told(Kind.ROLLED_BACK, "rolled back")
        events = list(events_of(PostgresPlans(watched.store.engine).events(plan)))
        (halted,) = [event for event in events if event.kind is EventKind.HALTED]
        assert (halted.by, halted.evidence["signals"]) == ("monitor", ["latency"])
        assert [event.step for event in events if event.kind is EventKind.ROLLED_BACK] == [
            "gradual_traffic_increase/100"
        ]
        assert "dualstore plan resume" in watched.rollbacks()[-1].outcome
        assert len(watched.rollbacks()) == len(PLANTED), "what was seen under other dials takes nothing back"
    assert watched.traffic.errors == []
    watched.nothing_is_lost()


@pytest.mark.timeout(300)
def test_a_false_alarm_is_neither_told_nor_rolled_back(watched: Watched) -> None:
    with reporting(watched, reads(postgres_ms=20.0)):
        time.sleep(0.3)  # less than a window, in two of them at most
    with reporting(watched, reads(count=20, postgres_ms=20.0)):  # too few, for much longer
        calm_until = time.monotonic() + 3.5
        watched.until(lambda: time.monotonic() > calm_until)
    assert watched.alerts == []
    assert watched.rollbacks() == []
    assert watched.table.dials.postgres_read_percent == 100.0


@pytest.mark.timeout(300)
def test_where_the_flags_are_out_of_reach_reads_are_stopped_and_callers_notice_nothing(
    watched: Watched,
) -> None:
    watched.setter.out_of_reach = True
    with watched.traffic.under_way():
        watched.execute(f"ALTER TABLE {watched.sql} RENAME TO {watched.sql}_gone")  # every read fails
        try:
            watched.until(lambda: watched.table.view.record.stopped is not None)
        finally:
            watched.execute(f"ALTER TABLE {watched.sql}_gone RENAME TO {watched.sql}")
        stopped = watched.table.view.record.stopped
        assert stopped is not None
        assert stopped.by == "monitor"
        watched.until(lambda: bool(watched.rollbacks()))
        assert "stop orders --release" in watched.rollbacks()[0].outcome
        signals = (Signal.ERRORS, Signal.FALLBACKS)
        watched.until(lambda: any(watched.told(Kind.OPENED, signal) for signal in signals))
    assert watched.traffic.errors == []
    watched.nothing_is_lost()


@pytest.mark.timeout(300)
def test_at_live_dynamodb_decides_again_with_nothing_lost_though_the_flags_are_out_of_reach(
    watched: Watched,
) -> None:
    assert watched.table.verify(repair=True).proven
    watched.dial(0.0)
    watched.flags.set(NAME, stage=Stage.LIVE)
    watched.table.wait_until(lambda record: record.stage is Stage.LIVE)
    watched.setter.out_of_reach = True  # nobody can be asked: the monitor moves the authority by itself
    with watched.traffic.under_way():
        with reporting(watched, reads(Role.AUTHORITATIVE, postgres_ms=20.0)):
            watched.until(lambda: watched.table.stage is Stage.SHADOW, seconds=2 * STATED_SECONDS)
        assert watched.rollbacks()[0].began["stage"] == "live"
        assert watched.table.view.record.stopped is not None
        # Going forward again needs a person: what the flags still ask for is refused.
        with pytest.raises(IllegalTransition, match="stopped by monitor"):
            next_step(watched.table.view.record, Requested(stage=Stage.LIVE), reads_stopped=True)
    assert watched.traffic.errors == []
    watched.nothing_is_lost()


def test_two_monitors_tell_an_alert_once_and_one_of_them_leads(deployment: Deployment) -> None:
    kept, evidence = PostgresMonitor(deployment.engine), dict[str, Any]()
    again: Mapping[str, Any] = {"again": timedelta(hours=1)}
    assert kept.open_alert("orders/errors", NAME, "it fails", evidence, **again)
    assert not kept.open_alert("orders/errors", NAME, "it fails", evidence, **again)
    assert kept.open_alerts(NAME) == {"orders/errors"}
    assert kept.close_alert("orders/errors")
    assert not kept.close_alert("orders/errors")
    assert kept.open_alert("orders/errors", NAME, "again", evidence, **again)
    assert kept.open_alert("orders/errors", NAME, "still", evidence, again=timedelta(0)), "it is told again"
    assert kept.close_alert("orders/errors")
    with kept.leading() as first:
        assert first is not None
        assert first.holds()
        with kept.leading() as second:
            assert second is None
    with kept.leading() as third:
        assert third is not None


@pytest.mark.timeout(300)
def test_the_command_looks_once_and_ends_with_what_it_found(watched: Watched, tmp_path: Path) -> None:
    config = tmp_path / "dualstore.toml"
    dualstore = CommandLine(watched.deployment, watched.table.physical, tmp_path)
    dualstore("stop", "--help")  # writes the configuration, and makes its models importable
    seconds = "\n[monitor]\nwindow_seconds = 0.5\n[telemetry]\nrollup_seconds = 0.3\n"
    config.write_text(f"{config.read_text()}\n{seconds}[tables.{NAME}.monitor]\nrollback = 'none'\n")

    def once() -> tuple[int, dict[str, Any]]:
        arguments = ["monitor", "--once", "--json", "--config", str(config)]
        outcome = CliRunner(env=CREDENTIALS).invoke(main, arguments)
        return outcome.exit_code, json.loads(outcome.stdout)

    code, calm = once()
    assert (code, calm["alarms"], calm["position"]["read_percent"]) == (0, [], 100.0)
    with reporting(watched, reads(errors=100)):
        ends = time.monotonic() + STATED_SECONDS
        while (answer := once())[0] == 0 and time.monotonic() < ends:  # until enough windows have passed
            time.sleep(TIMES.window.total_seconds())
    code, seen = answer
    assert code == 1
    assert "errors" in seen["alarms"]
    assert seen["rollback"] is None
    assert watched.table.dials.postgres_read_percent == 100.0, "it was told to tell only"
