"""The series of a metric, as PromQL and as CloudWatch ask for them.

Names in Prometheus are those of "Prometheus and OpenMetrics compatibility" (OpenTelemetry specification).
"""

import re
from dataclasses import dataclass

from dualstore.telemetry.emf import NAMESPACE, dimensions_of
from dualstore.telemetry.names import ATTRIBUTES, Kind, Metric

TABLES, WINDOW = '=~"$table"', "$__rate_interval"
"""What Grafana puts in: the tables that are chosen, and a window that suits the zoom."""

_UNITS = {"s": "_seconds", "%": "_percent", "{item}/s": "_per_second"}


def prometheus_name(metric: Metric, suffix: str = "") -> str:
    """A metric's name in Prometheus: its unit and, of a counter, `_total` are part of it."""
    unit = "" if re.fullmatch(r"\{\w+\}", metric.unit) else _UNITS[metric.unit]
    total = "_total" if metric.kind is Kind.COUNTER else ""
    return metric.name.replace(".", "_") + unit + total + suffix


def label(name: str) -> str:
    """The name in Prometheus of the attribute that a metric's label is exported as."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", ATTRIBUTES[name])


@dataclass(frozen=True)
class Series:
    """The series of one metric, some labels of which are to have some values.

    Attributes:
        metric: the metric.
        by: the labels to tell apart; the table always is.
        where: by label a condition as PromQL writes it, such as `="mismatch"`.
    """

    metric: Metric
    by: tuple[str, ...] = ()
    where: tuple[tuple[str, str], ...] = ()

    def selected(self, table: str, suffix: str = "") -> str:
        """The selector."""
        matchers = [f"{label('table')}{table}"] if table else []
        matchers += [f"{label(name)}{condition}" for name, condition in self.where]
        return f"{prometheus_name(self.metric, suffix)}{{{','.join(matchers)}}}"

    def grouped(self, *more: str) -> str:
        """What to aggregate by."""
        return f"by ({', '.join([*more, *(label(name) for name in ('table', *self.by))])})"

    def rate(self, table: str, window: str) -> str:
        """How often a second."""
        return f"sum {self.grouped()} (rate({self.selected(table)}[{window}]))"

    def quantile(self, quantile: float, table: str, window: str) -> str:
        """A quantile of a histogram."""
        buckets = f"rate({self.selected(table, '_bucket')}[{window}])"
        return f"histogram_quantile({quantile}, sum {self.grouped('le')} ({buckets}))"

    def worst(self, table: str, how: str = "max") -> str:
        """A gauge over all processes."""
        return f"{how} {self.grouped()} ({self.selected(table)})"

    def search(self, statistic: str) -> str:
        """The series in CloudWatch, as the embedded metric format publishes them."""
        left_out = set() if "outcome" in self.by else {ATTRIBUTES["outcome"]}
        own = [name for name in dimensions_of(self.metric)[0] if name not in left_out]
        dimensions = ",".join([NAMESPACE, *(f'"{name}"' for name in own)])
        where = "".join(
            f' "{ATTRIBUTES[name]}"={condition.lstrip("=")}'
            for name, condition in self.where
            if condition.startswith('="')
        )
        named = f'MetricName="{self.metric.name}"{where}'
        return f"SEARCH('{{{dimensions}}} {named}', '{statistic}', 60)"


def rate(*series: Series) -> list[tuple[str, str]]:
    """Counters, by how often a second they grow; in CloudWatch a minute."""
    return [(each.rate(TABLES, WINDOW), each.search("Sum")) for each in series]


def quantiles(series: Series) -> list[tuple[str, str]]:
    """A histogram, by its quantiles."""
    return [
        (series.quantile(quantile, TABLES, WINDOW), series.search(f"p{quantile * 100:g}"))
        for quantile in (0.5, 0.95, 0.99)
    ]


def worst(*series: Series, how: str = "max") -> list[tuple[str, str]]:
    """Gauges, by the worst of any process."""
    statistic = {"max": "Maximum", "min": "Minimum", "sum": "Sum"}[how]
    return [(each.worst(TABLES, how), each.search(statistic)) for each in series]
