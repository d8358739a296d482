"""CloudWatch's metrics beside the fleet's figures: what AWS itself sees of both databases."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from dualstore.config import CloudWatchSettings
from dualstore.rollout.thresholds import Reading

_PERIOD_SECONDS = 60
_BACK = timedelta(minutes=5)
"""Metrics arrive late, by a minute or two: the last one there is counts."""


class CloudWatch:
    """Reads metrics, all of a table in one request.

    Args:
        client: boto3's, with time limits of its own.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def read(self, metrics: Sequence[CloudWatchSettings]) -> dict[str, Reading]:
        """The last minute's value of each metric that has any, by the name of its signal.

        Source: GetMetricData, CloudWatch API reference.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: CloudWatch does not answer.
        """
        if not metrics:
            return {}
        # GetMetricData answers faster for whole periods.
        end = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(seconds=_PERIOD_SECONDS)
        answer = self._client.get_metric_data(
            MetricDataQueries=[_query(f"m{number}", each) for number, each in enumerate(metrics)],
            StartTime=end - _BACK,
            EndTime=end,
            ScanBy="TimestampDescending",
        )
        values = {each["Id"]: each["Values"] for each in answer["MetricDataResults"]}
        return {
            each.name: Reading(float(found[0]), float(found[0]))
            for number, each in enumerate(metrics)
            if (found := values.get(f"m{number}"))
        }


def _query(name: str, metric: CloudWatchSettings) -> dict[str, Any]:
    dimensions = [{"Name": key, "Value": value} for key, value in metric.dimensions.items()]
    return {
        "Id": name,
        "MetricStat": {
            "Metric": {
                "Namespace": metric.namespace,
                "MetricName": metric.metric,
                "Dimensions": dimensions,
            },
            "Period": _PERIOD_SECONDS,
            "Stat": metric.statistic,
        },
    }
