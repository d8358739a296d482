"""Makes the dashboards and alert rules of this folder from its tables, and from dualstore's own metric names.

    python deploy/generate.py [--check]

`--check` writes nothing and exits with 1 where a file is not what would be written.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml
from alerts import ALERTS, Alert
from panels import PANELS
from series import label, prometheus_name

from dualstore.telemetry import names
from dualstore.telemetry.emf import NAMESPACE
from dualstore.telemetry.names import ATTRIBUTES

HERE = Path(__file__).parent


def grafana() -> dict[str, Any]:
    """The dashboard for Grafana."""
    tables = f"label_values({prometheus_name(names.STAGE)}, {label('table')})"
    source = {"type": "prometheus", "uid": "${datasource}"}
    variables = [
        {"name": "datasource", "type": "datasource", "query": "prometheus"},
        {
            "name": "table",
            "type": "query",
            "datasource": source,
            "query": {"query": tables, "refId": "tables"},
            "includeAll": True,
            "multi": True,
            "refresh": 2,
        },
    ]
    return {
        "uid": "dualstore",
        "title": "dualstore",
        "tags": ["dualstore"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": variables},
        "panels": [
            {
                "id": number + 1,
                "type": "timeseries",
                "title": panel.title,
                "description": panel.what,
                "datasource": source,
                "gridPos": {"x": number % 2 * 12, "y": number // 2 * 8, "w": 12, "h": 8},
                "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
                "targets": [
                    {"refId": chr(ord("A") + place), "datasource": source, "expr": expression}
                    for place, (expression, _) in enumerate(panel.queries)
                ],
            }
            for number, panel in enumerate(PANELS)
        ],
    }


def cloudwatch() -> dict[str, Any]:
    """The body of the dashboard for CloudWatch: all tables, as the embedded metric format publishes them."""
    return {
        "widgets": [
            {
                "type": "metric",
                "x": number % 2 * 12,
                "y": number // 2 * 6,
                "width": 12,
                "height": 6,
                "properties": {
                    "title": panel.title,
                    "view": "timeSeries",
                    "period": 60,
                    "metrics": [
                        [{"expression": expression, "id": f"e{place}"}]
                        for place, (_, expression) in enumerate(panel.queries)
                    ],
                },
            }
            for number, panel in enumerate(PANELS)
        ]
    }


def rules() -> dict[str, Any]:
    """The alert rules for Prometheus."""
    table = "{{ $labels." + label("table") + " }}"
    return {
        "groups": [
            {
                "name": "dualstore",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.rule,
                        "for": alert.lasts,
                        "labels": {"severity": alert.severity},
                        "annotations": {
                            "summary": alert.says.format(table=table),
                            "description": alert.do,
                        },
                    }
                    for alert in ALERTS
                ],
            }
        ]
    }


def alarms() -> dict[str, Any]:
    """The alarms for CloudWatch, as a CloudFormation template of one table."""
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "Alarms on one table that dualstore migrates (metrics in the embedded metric format)",
        "Parameters": {
            "Table": {"Type": "String", "Description": "The table's logical name"},
            "Topic": {"Type": "String", "Description": "The ARN of the SNS topic that is told"},
        },
        "Resources": {alert.name: _alarm(alert) for alert in ALERTS if alert.alarm is not None},
    }


def _alarm(alert: Alert) -> dict[str, Any]:
    assert alert.alarm is not None  # noqa: S101 - by the caller
    metric, where, statistic, threshold, minutes = alert.alarm
    dimensions = [{"Name": ATTRIBUTES["table"], "Value": {"Ref": "Table"}}]
    dimensions += [{"Name": ATTRIBUTES[name], "Value": value} for name, value in where.items()]
    return {
        "Type": "AWS::CloudWatch::Alarm",
        "Properties": {
            "AlarmDescription": f"{alert.says.format(table='the table')} {alert.do}",
            "Namespace": NAMESPACE,
            "MetricName": metric.name,
            "Dimensions": dimensions,
            "Statistic": statistic,
            "Period": 60,
            "EvaluationPeriods": minutes,
            "ComparisonOperator": "GreaterThanThreshold",
            "Threshold": threshold,
            "TreatMissingData": "notBreaching",
            "AlarmActions": [{"Ref": "Topic"}],
        },
    }


def _json(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"


def _yaml(document: Any) -> str:
    return "# Made by deploy/generate.py\n" + yaml.safe_dump(document, sort_keys=False, width=10_000)


FILES: dict[str, Callable[[], str]] = {
    "grafana/dualstore.json": lambda: _json(grafana()),
    "prometheus/dualstore.rules.yaml": lambda: _yaml(rules()),
    "cloudwatch/dashboard.json": lambda: _json(cloudwatch()),
    "cloudwatch/alarms.template.json": lambda: _json(alarms()),
}


def outdated() -> Iterable[str]:
    """The files that are not what would be written."""
    for name, made in FILES.items():
        file = HERE / name
        if not file.is_file() or file.read_text(encoding="utf-8") != made():
            yield name


def main() -> None:
    """Write the files, or see that they are as they would be written."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 on a difference")
    if parser.parse_args().check:
        stale = list(outdated())
        if stale:
            sys.exit(f"not as deploy/generate.py writes them: {', '.join(stale)}; run it")
        return
    for name, made in FILES.items():
        (HERE / name).write_text(made(), encoding="utf-8")


if __name__ == "__main__":
    main()
