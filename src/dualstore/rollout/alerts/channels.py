"""Who is told of alerts: the log, SNS, a webhook as Slack takes it, PagerDuty, any callable."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

import urllib3

from dualstore.rollout.alerts.alert import Alert, Kind

logger = logging.getLogger(__name__)

PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
_SUBJECT_CHARACTERS = 100
_SUMMARY_CHARACTERS = 1024
_FAILED_FROM = 400

Delivery = Callable[[Alert, timedelta], None]
"""Tells an alert within a time, or raises."""


class DeliveryError(Exception):
    """A channel answered that it did not take an alert."""


class Channel(Protocol):
    """Somebody who is told of alerts."""

    @property
    def name(self) -> str:
        """Its name, in counts and logs."""
        ...

    def deliver(self, alert: Alert, timeout: timedelta) -> None:
        """Tell an alert within a time, or raise whatever comes."""
        ...


@dataclass(frozen=True, slots=True)
class _Named:
    name: str
    delivery: Delivery

    def deliver(self, alert: Alert, timeout: timedelta) -> None:
        self.delivery(alert, timeout)


class LogChannel:
    """Tells alerts to Python's logging: as an error, a recovery as a warning."""

    name = "log"

    def deliver(self, alert: Alert, timeout: timedelta) -> None:  # noqa: ARG002 - the protocol's
        """Log an alert."""
        level = logging.WARNING if alert.kind is Kind.RECOVERED else logging.ERROR
        logger.log(level, "%s", alert.text)


def calling(function: Callable[[Alert], object], *, name: str = "call") -> Channel:
    """Any callable, given the alert; it has to keep time by itself."""
    return _Named(name, lambda alert, _: (function(alert), None)[1])


def sns(topic_arn: str, client: Any) -> Channel:
    """An SNS topic: the subject for people, the message as JSON with `text`.

    Args:
        topic_arn: the topic.
        client: boto3's, with time limits of its own.
    """

    def deliver(alert: Alert, _timeout: timedelta) -> None:
        client.publish(
            TopicArn=topic_arn,
            # SNS, "Publish": ASCII, less than 100 characters, no line breaks.
            Subject=_ascii(f"dualstore {alert.table}: {alert.kind}"),
            Message=json.dumps({"text": alert.text, **alert.to_json()}),
        )

    return _Named("sns", deliver)


def webhook(url: str) -> Channel:
    """A webhook that takes `{"text": …}` as Slack's incoming webhooks do (and Mattermost's, and Teams')."""

    def deliver(alert: Alert, timeout: timedelta) -> None:
        _post(url, {"text": alert.text}, timeout)

    return _Named("webhook", deliver)


def pagerduty(routing_key: str, *, url: str = PAGERDUTY) -> Channel:
    """PagerDuty's Events API v2: a trigger, and a resolve under the same `dedup_key`."""

    def deliver(alert: Alert, timeout: timedelta) -> None:
        event: dict[str, Any] = {
            "routing_key": routing_key,
            "event_action": "resolve" if alert.kind is Kind.RECOVERED else "trigger",
            "dedup_key": f"dualstore/{alert.key}",
        }
        if alert.kind is not Kind.RECOVERED:
            event["payload"] = {
                "summary": alert.text[:_SUMMARY_CHARACTERS],
                "source": f"dualstore/{alert.table}",
                "severity": "critical",
                "custom_details": alert.to_json(),
            }
        _post(url, event, timeout)

    return _Named("pagerduty", deliver)


def _post(url: str, document: dict[str, Any], timeout: timedelta) -> None:
    """Post JSON once, within a time.

    Raises:
        DeliveryError: it was not taken; names the status alone.
        urllib3.exceptions.HTTPError: there was no answer.
    """
    with urllib3.PoolManager(retries=False) as http:
        response = http.request(
            "POST",
            url,
            body=json.dumps(document).encode(),
            headers={"Content-Type": "application/json"},
            timeout=urllib3.Timeout(total=timeout.total_seconds()),
            redirect=False,
        )
    if response.status >= _FAILED_FROM:
        raise DeliveryError(f"HTTP status {response.status}")


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()[: _SUBJECT_CHARACTERS - 1]
