"""The dashboards and alerts of `deploy/`: they parse, and name only what is really exported."""

import json
import re
import subprocess
import sys
from pathlib import Path

import promql_parser
import pytest
import yaml
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

from dualstore.stages import Side
from dualstore.telemetry import OperationFinished, Role, Telemetry, export
from dualstore.telemetry.emf import EmfWriter

DEPLOY = Path(__file__).parents[3] / "deploy"

_SEARCH = re.compile(
    r"SEARCH\('\{(?P<dimensions>[^}]*)\} MetricName=\"(?P<metric>[^\"]+)\""
    r"(?P<where>( \"[^\"]+\"=\"[^\"]+\")*)', '(?P<statistic>Sum|Maximum|Minimum|p[\d.]+)', 60\)"
)


@pytest.fixture
def recorded(events):
    """A telemetry to which everything has happened, errors too, and not yet told to anybody."""

    def tell(telemetry):
        failed = OperationFinished("orders", "GetItem", Side.POSTGRES, Role.SHADOW, 0.001, "Unavailable")
        for event in [*events, failed]:
            telemetry.record(event)

    return tell


@pytest.fixture
def scraped(recorded):
    """The labels of each metric as Prometheus scrapes it from OpenTelemetry's exporter."""
    telemetry = Telemetry()
    provider = MeterProvider([PrometheusMetricReader()])
    export(telemetry, provider.get_meter("dualstore"))
    recorded(telemetry)
    labels = {}
    for family in REGISTRY.collect():
        for sample in family.samples:
            labels.setdefault(sample.name, set()).update(sample.labels)
    provider.shutdown()
    return labels


@pytest.fixture
def published(recorded):
    """(metric, dimensions) of everything that CloudWatch reads from the lines in its format."""
    telemetry, lines = Telemetry(), []
    writer = EmfWriter(telemetry, lines.append)
    recorded(telemetry)
    writer.flush()
    return {
        (directive["Namespace"], metric["Name"], frozenset(dimensions))
        for line in lines
        for directive in json.loads(line)["_aws"]["CloudWatchMetrics"]
        for metric in directive["Metrics"]
        for dimensions in directive["Dimensions"]
    }


def grafana_queries():
    dashboard = json.loads((DEPLOY / "grafana" / "dualstore.json").read_text())
    return {
        f"{panel['title']} {target['refId']}": target["expr"].replace("$__rate_interval", "5m")
        for panel in dashboard["panels"]
        for target in panel["targets"]
    }


def alert_rules():
    document = yaml.safe_load((DEPLOY / "prometheus" / "dualstore.rules.yaml").read_text())
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"]}


QUERIES = {**grafana_queries(), **{name: rule["expr"] for name, rule in alert_rules().items()}}


def selectors(expression):
    """Every selector of a query with the labels that it looks at, and those that its result is grouped by."""
    found, groups = [], set()

    def visit(node):
        if isinstance(node, promql_parser.VectorSelector):
            found.append((node.name, {matcher.name for matcher in node.matchers.matchers}))
        if isinstance(node, promql_parser.MatrixSelector):
            visit(node.vector_selector)
        if isinstance(node, promql_parser.AggregateExpr):
            groups.update(node.modifier.labels)
        children = [getattr(node, name, None) for name in ("expr", "lhs", "rhs")]
        for child in [*children, *getattr(node, "args", [])]:
            if child is not None:
                visit(child)

    visit(promql_parser.parse(expression))
    return found, groups


def test_the_queries_name_only_metrics_and_labels_that_prometheus_gets(scraped):
    for name, query in QUERIES.items():
        found, groups = selectors(query)
        assert found
        for metric, labels in found:
            assert metric in scraped, f"{metric} of {name}"
            assert labels <= scraped[metric], f"{metric} of {name}"
            assert groups <= scraped[metric], f"{metric} of {name}"


def test_every_metric_is_on_the_dashboard(scraped):
    shown = {metric for query in grafana_queries().values() for metric, _ in selectors(query)[0]}
    ours = {name for name in scraped if name.startswith(("dualstore_", "db_client"))}
    of_histogram = {"db_client_operation_duration_seconds_count", "db_client_operation_duration_seconds_sum"}
    assert {name for name in ours - shown if not name.endswith("_created")} == of_histogram


def test_every_alert_says_what_it_means_and_what_to_do():
    for name, rule in alert_rules().items():
        assert rule["annotations"]["summary"].count("{{ $labels.db_collection_name }}") == 1, name
        assert rule["annotations"]["description"], name
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert re.fullmatch(r"\d+[mh]", rule["for"]), name


def test_the_dashboard_of_cloudwatch_names_only_what_is_published(published):
    dashboard = json.loads((DEPLOY / "cloudwatch" / "dashboard.json").read_text())
    expressions = [
        metric["expression"] for each in dashboard["widgets"] for (metric,) in each["properties"]["metrics"]
    ]
    assert expressions
    for expression in expressions:
        found = _SEARCH.fullmatch(expression)
        assert found, expression
        namespace, *dimensions = found["dimensions"].split(",")
        named = frozenset(name.strip('"') for name in dimensions)
        assert (namespace, found["metric"], named) in published, expression
        assert set(re.findall(r' "([^"]+)"=', found["where"])) <= named


def test_the_alarms_of_cloudwatch_name_only_what_is_published(published):
    template = json.loads((DEPLOY / "cloudwatch" / "alarms.template.json").read_text())
    assert template["Resources"]
    for name, alarm in template["Resources"].items():
        properties = alarm["Properties"]
        dimensions = frozenset(each["Name"] for each in properties["Dimensions"])
        assert (properties["Namespace"], properties["MetricName"], dimensions) in published, name
        assert {each["Ref"] for each in properties["AlarmActions"]} <= template["Parameters"].keys()


def test_the_files_are_those_that_their_program_writes():
    checked = subprocess.run(
        [sys.executable, DEPLOY / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
