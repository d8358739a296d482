"""Telemetry of whole stores on real databases: every metric is fed, and no value and no key is ever told."""

import json
import logging
from contextlib import ExitStack, suppress
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pynamodb.exceptions import PutError

from dualstore import DualStore
from dualstore.cli.fleet import Shown, document
from dualstore.config import TelemetrySettings
from dualstore.flags import Requested, StaticFlags
from dualstore.stages import Dials, Side, Stage
from dualstore.store.evidence import render
from dualstore.stores.outbox import LANES
from dualstore.telemetry import Role, Telemetry, export, names
from dualstore.telemetry.emf import EmfWriter
from dualstore.telemetry.figures import Work
from integration.deployment import QUICK, Deployment, bring_to, eventually
from integration.test_flip import relaying, with_stream

CANARY = "canary-7f3a91"
SHADOW = Requested(stage=Stage.SHADOW, postgres_read_percent=50.0)


class Observed:
    """A store with OpenTelemetry's SDK and everything that it tells, and the lines for CloudWatch."""

    def __init__(self, deployment: Deployment, flags: StaticFlags, **changed):
        self.reader, self.exporter = InMemoryMetricReader(), InMemorySpanExporter()
        self.meters, self.traces = MeterProvider([self.reader]), TracerProvider()
        self.traces.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.traces.get_tracer("service")
        self.telemetry = Telemetry(span_percent=100, tracer=self.tracer)
        export(self.telemetry, self.meters.get_meter("dualstore"))
        self.lines = []
        self.emf = EmfWriter(self.telemetry, self.lines.append)
        self.store = DualStore(
            engine=deployment.engine,
            dynamodb=deployment.clients,
            flags=flags,
            options=replace(
                QUICK,
                bookkeeping_table=deployment.bookkeeping,
                telemetry=TelemetrySettings(rollup_seconds=0.2),
                **changed,
            ),
            telemetry=self.telemetry,
        )

    def metrics(self):
        data = json.loads(self.reader.get_metrics_data().to_json())
        scopes = [scope for resource in data["resource_metrics"] for scope in resource["scope_metrics"]]
        return {metric["name"]: metric for scope in scopes for metric in scope["metrics"]}

    def spans(self):
        return [json.loads(span.to_json()) for span in self.exporter.get_finished_spans()]


@pytest.fixture
def served(deployment):
    """A store at stage shadow, half of its reads dialled, whose items and keys hold canaries."""
    model, row = deployment.table()
    name = model.Meta.table_name
    flags = StaticFlags()
    observed = Observed(deployment, flags)
    with ExitStack() as stack:
        store = stack.enter_context(observed.store)
        stack.callback(observed.traces.shutdown)
        stack.callback(observed.meters.shutdown)
        store.bind(model, row)
        bring_to(store, name, SHADOW)
        yield observed, model, name


def work(observed, model):
    """Reads and writes in every way, some refused, all with canaries for keys and values."""
    with observed.tracer.start_as_current_span("request"):
        for n in range(40):
            model(f"{CANARY}-{n}", n, name=f"{CANARY}-name", lines=[CANARY], tags={CANARY}).save()
        for n in range(40):
            found = model.get(f"{CANARY}-{n}", n)
            found.update([model.name.set(f"{CANARY}-{n}-other")])
            list(model.query(f"{CANARY}-{n}"))
        list(model.batch_get([(f"{CANARY}-{n}", n) for n in range(5)]))
        list(model.scan(model.name == CANARY))
        with observed.store.transact_write() as transaction:
            transaction.save(model(f"{CANARY}-transaction", 1, name=CANARY))
        with suppress(PutError):
            model(f"{CANARY}-1", 1, name=CANARY).save(model.name == CANARY)
        # The SQL model does not take them: DynamoDB answers for PostgreSQL, which is asked for half of them.
        for n in range(40):
            model(f"{CANARY}-refused-{n}", 1, n=2_000_000, name=CANARY).save()
            model.get(f"{CANARY}-refused-{n}", 1)


def test_evidence_and_fleet_are_those_of_all_processes(served, deployment):
    observed, model, name = served
    work(observed, model)
    with deployment.store(StaticFlags({name: SHADOW})) as other:
        repository = other.repository(model)
        for n in range(40):
            repository.get(f"{CANARY}-{n}", n)
        for store in (observed.store, other):
            store._shadow.drain(timedelta(seconds=20))
            store.report()
        own = observed.telemetry.snapshot().count(names.SHADOW_COMPARED, verdict="equal")
        evidence, fleet = other.evidence(name), other.fleet(name)
    assert evidence.comparisons > own
    assert evidence.dials == Dials(50.0, 100.0, 100.0)
    assert evidence.mismatches == 0 < evidence.mismatch_bound < 3.1 / evidence.comparisons
    assert fleet.processes == 2
    assert {(each.work, each.side, each.role) for each in fleet.worked} >= {
        (Work.READ, Side.DYNAMODB, Role.AUTHORITATIVE),
        (Work.WRITE, Side.POSTGRES, Role.MIRROR),
    }


def test_a_step_of_the_dials_begins_the_evidence_anew(served):
    observed, model, name = served
    work(observed, model)
    eventually(lambda: observed.store.evidence(name).comparisons >= 40)
    observed.store.flags.set(name, postgres_read_percent=60.0)
    observed.store.table(name).wait_until(lambda record: record.dials.postgres_read_percent == 60)
    observed.store.report()
    assert observed.store.evidence(name).comparisons < 40


def test_what_a_store_does_feeds_the_metrics(served):
    observed, model, _ = served
    work(observed, model)
    observed.store._shadow.drain(timedelta(seconds=20))
    present = {
        names.DURATION,
        names.OPERATIONS,
        names.MIRROR_FAILURES,
        names.SETTLES,
        names.FALLBACKS,
        names.SHADOW_COMPARED,
        names.SHADOW_EFFECTIVE,
        names.JOURNAL_DEPTH,
        names.JOURNAL_AGE,
        names.DIRTY_KEYS,
        names.GATE_OPEN,
        names.STAGE,
        names.POSTGRES_READ_PERCENT,
        names.MIRROR_PERCENT,
        names.SHADOW_PERCENT,
    }
    observed.store._maintenance.round()
    assert {metric.name for metric in present} - observed.metrics().keys() == set()
    systems = {
        (point["attributes"]["db.system.name"], point["attributes"]["dualstore.role"])
        for point in observed.metrics()[names.DURATION.name]["data"]["data_points"]
    }
    assert systems >= {
        ("aws.dynamodb", "authoritative"),
        ("postgresql", "mirror"),
        ("postgresql", "shadow"),
        ("aws.dynamodb", "shadow"),
    }


@pytest.fixture
def relayed(deployment):
    """A store at stage shadow whose table has a stream, with a relay, and its table's name."""
    model, row = deployment.table()
    name = model.Meta.table_name
    with_stream(deployment, name)
    flags = StaticFlags()
    observed = Observed(deployment, flags)
    with ExitStack() as stack:
        store = stack.enter_context(observed.store)
        stack.callback(observed.traces.shutdown)
        stack.callback(observed.meters.shutdown)
        store.bind(model, row)
        stack.callback(store.unbind, model)
        store.prepare()
        stack.enter_context(relaying(store))
        table = bring_to(store, name, SHADOW)
        assert table.verify(repair=True).proven
        yield observed, model, table


def test_what_relay_outbox_and_flags_do_feeds_the_metrics(relayed, deployment):
    """The life of a table around the move of its authority, with what operators get wrong."""
    observed, model, table = relayed
    flags, counted = observed.store.flags, observed.telemetry.snapshot
    deployment.dynamodb.put_item(
        TableName=table.physical,
        Item={"pk": {"S": f"{CANARY}-rogue"}, "sk": {"N": "1"}, "name": {"S": CANARY}},
    )
    eventually(lambda: counted().count(names.ROGUE_CHANGES, table=table.served.logical, kind="unstamped"))
    eventually(lambda: counted().count(names.RELAY_RECORDS, verdict="settled"))
    eventually(lambda: counted().gauge(names.RELAY_SHARDS, table=table.served.logical))

    flags.set(table.served.logical, stage=Stage.COMPLETE)
    eventually(lambda: counted().count(names.FLAG_REFUSALS, reason="jump"))
    flags.set(table.served.logical, stage=Stage.LIVE)
    table.wait_until(lambda record: record.stage is Stage.LIVE, timeout=timedelta(seconds=60))

    model(f"{CANARY}-live", 1, name=CANARY).save()
    model.get(f"{CANARY}-live", 1)
    eventually(lambda: counted().count(names.SENT, verdict="created"))
    sql = table.physical.replace("-", "_")
    with deployment.engine.begin() as connection:  # an item that DynamoDB does not take: above 400 KB
        connection.execute(
            sa.text(f"INSERT INTO {sql} (pk, sk, name) VALUES ('{CANARY}-large', 1, repeat('x', 500000))")
        )
    eventually(lambda: counted().count(names.SENT, verdict="refused"))
    eventually(lambda: (counted().gauge(names.OUTBOX_REFUSED) or 0) > 0, seconds=30)
    eventually(lambda: counted().gauge(names.OUTBOX_LANES) == LANES, seconds=30)

    fed = {
        names.RELAY_RECORDS,
        names.RELAY_LAG,
        names.RELAY_SHARDS,
        names.ROGUE_CHANGES,
        names.FLAG_REFUSALS,
        names.OUTBOX_DEPTH,
        names.OUTBOX_AGE,
        names.OUTBOX_REFUSED,
        names.OUTBOX_LANES,
        names.SENT,
    }
    told = observed.metrics()
    assert {metric.name for metric in fed} - told.keys() == set()
    assert told[names.STAGE.name]["data"]["data_points"][0]["value"] == list(Stage).index(Stage.LIVE)
    assert CANARY not in json.dumps(told)


def test_a_flag_that_cannot_be_followed_feeds_its_metric(deployment, tmp_path):
    """The store of a configuration, on the real SDK and a flag file."""
    (tmp_path / "flags.json").write_text(json.dumps({"flagValues": {"dualstore-orders-stage": "sideways"}}))
    url = deployment.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    (tmp_path / "dualstore.toml").write_text(
        f"""
        [dynamodb]
        endpoint_url = "{deployment.endpoint_url}"
        region = "us-east-1"
        bookkeeping_table = "{deployment.bookkeeping}"
        [postgres]
        url = "{url}"
        [flags]
        kind = "file"
        path = "{tmp_path / "flags.json"}"
        """
    )
    model, row = deployment.table()
    with DualStore.from_config(tmp_path / "dualstore.toml") as store, store.bound(model, row, name="orders"):
        counted = store.telemetry.snapshot
        eventually(lambda: counted().count(names.FLAG_PROBLEMS, table="orders", problem="malformed"))
        assert store.table("orders").stage is Stage.OFF


def test_the_spans_of_a_request_are_one_trace(served):
    observed, model, _ = served
    work(observed, model)
    observed.store._shadow.drain(timedelta(seconds=20))
    spans = observed.spans()
    (request,) = [span for span in spans if span["name"] == "request"]
    assert {span["context"]["trace_id"] for span in spans} == {request["context"]["trace_id"]}
    attributes = [span["attributes"] for span in spans]
    assert {(each.get("db.system.name"), each.get("dualstore.role")) for each in attributes} >= {
        ("aws.dynamodb", "authoritative"),
        ("postgresql", "mirror"),
        ("postgresql", "shadow"),
    }
    events = {event["name"] for span in spans for event in span["events"]}
    assert {"dualstore.mirror.failure", "dualstore.fallback"} <= events


def test_nothing_that_is_told_holds_a_value_or_a_key(served, deployment, caplog):
    caplog.set_level(logging.DEBUG, logger="dualstore")
    observed, model, name = served
    work(observed, model)
    eventually(lambda: observed.store.evidence(name).comparisons >= 40)
    with deployment.engine.begin() as connection:  # a difference to be found, and told of
        sql = name.replace("-", "_")
        connection.execute(sa.text(f"UPDATE {sql} SET name = '{CANARY}-planted' WHERE sk < 20"))
    with observed.tracer.start_as_current_span("request"):
        for n in range(20):
            model.get(f"{CANARY}-{n}", n)
    observed.store._shadow.drain(timedelta(seconds=20))
    observed.store.report()
    observed.emf.flush()
    status = observed.store.table(name).status()
    evidence, fleet = observed.store.evidence(name), observed.store.fleet(name)
    with deployment.engine.begin() as connection:
        kept = connection.scalars(sa.text("SELECT row_to_json(rollup)::text FROM dualstore.rollup")).all()
        records = connection.scalars(
            sa.text("SELECT row_to_json(d)::text FROM dualstore.discrepancies d")
        ).all()
    told = {
        "metrics": json.dumps(observed.metrics()),
        "spans": json.dumps(observed.spans()),
        "logs": "\n".join(record.getMessage() + str(record.exc_text or "") for record in caplog.records),
        "rollup": "\n".join(kept),
        "discrepancies": "\n".join(records),
        "CloudWatch": "\n".join(observed.lines),
        "status": json.dumps(document(Shown(status, fleet, evidence))) + render(evidence),
        "snapshot": str(observed.telemetry.snapshot()),
    }
    assert all(told.values()), "nothing was told, so nothing was proven"
    assert evidence.mismatches, "the planted difference was not even looked at"
    assert {place for place, text in told.items() if CANARY in text} == set()
