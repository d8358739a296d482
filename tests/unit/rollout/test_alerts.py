"""Alerts: who is told what, and that no channel holds up whoever tells."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import boto3
import pytest
from moto import mock_aws

from dualstore.config import AlertSettings, CloudWatchSettings
from dualstore.errors import ConfigurationError
from dualstore.rollout.alerts import (
    Alert,
    Channel,
    Counts,
    Dispatch,
    Kind,
    LogChannel,
    calling,
    channels_of,
    pagerduty,
    sns,
    webhook,
)
from dualstore.rollout.alerts.channels import DeliveryError
from dualstore.rollout.cloudwatch import CloudWatch

SOON = timedelta(seconds=5)
OPENED = Alert("orders/errors", Kind.OPENED, "orders", "3 % of calls fail", "PostgreSQL's log", {"n": 1})
RECOVERED = Alert("orders/errors", Kind.RECOVERED, "orders", "errors is back to normal")


@contextmanager
def receiving(status: int = 200) -> Iterator[tuple[str, list[Any]]]:
    """A server that takes JSON, and where it is."""
    received: list[Any] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hook", received
        server.shutdown()
        thread.join()


def test_a_webhook_is_told_in_slacks_form_with_what_to_look_at_next() -> None:
    with receiving() as (url, received):
        webhook(url).deliver(OPENED, SOON)
    assert received == [
        {"text": "dualstore, table orders, opened: 3 % of calls fail\nLook at: PostgreSQL's log"}
    ]


def test_pagerduty_is_triggered_and_resolved_under_one_key() -> None:
    with receiving(202) as (url, received):
        for alert in (OPENED, RECOVERED):
            pagerduty("routing", url=url).deliver(alert, SOON)
    trigger, resolve = received
    assert [each["event_action"] for each in received] == ["trigger", "resolve"]
    assert trigger["dedup_key"] == resolve["dedup_key"] == "dualstore/orders/errors"
    assert trigger["payload"]["severity"] == "critical"
    assert "payload" not in resolve


def test_a_refusal_is_an_error_that_does_not_name_the_address() -> None:
    with receiving(403) as (url, _), pytest.raises(DeliveryError) as refused:
        webhook(url).deliver(OPENED, SOON)
    assert "hook" not in str(refused.value)


def test_the_log_is_told(caplog: pytest.LogCaptureFixture) -> None:
    for alert in (OPENED, RECOVERED):
        LogChannel().deliver(alert, SOON)
    assert [each.levelno for each in caplog.records] == [logging.ERROR, logging.WARNING]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(variable, "dualstore")
    with mock_aws():
        yield


@pytest.mark.usefixtures("aws")
def test_sns_is_told_by_its_own_client() -> None:
    topics, queues = boto3.client("sns", "us-east-1"), boto3.client("sqs", "us-east-1")
    topic = topics.create_topic(Name="alerts")["TopicArn"]
    queue = queues.create_queue(QueueName="alerts")["QueueUrl"]
    arn = queues.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    topics.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    sns(topic, topics).deliver(OPENED, SOON)
    (message,) = queues.receive_message(QueueUrl=queue)["Messages"]
    envelope = json.loads(message["Body"])
    assert envelope["Subject"] == "dualstore orders: opened"
    assert json.loads(envelope["Message"])["next_look"] == "PostgreSQL's log"


@pytest.mark.usefixtures("aws")
def test_cloudwatch_gives_the_last_value_of_each_metric_that_has_any() -> None:
    client = boto3.client("cloudwatch", "us-east-1")
    dimensions = [{"Name": "TableName", "Value": "orders"}]
    datum = {"MetricName": "ReadThrottleEvents", "Dimensions": dimensions, "Value": 7.0}
    client.put_metric_data(Namespace="AWS/DynamoDB", MetricData=[datum])
    settings = [
        CloudWatchSettings(
            name=name,
            namespace="AWS/DynamoDB",
            metric=metric,
            dimensions={"TableName": "orders"},
            statistic="Sum",
            enter=5,
            leave=1,
        )
        for name, metric in (("read-throttles", "ReadThrottleEvents"), ("other", "WriteThrottleEvents"))
    ]
    seen = CloudWatch(client).read(settings)
    assert {name: reading.value for name, reading in seen.items()} == {"read-throttles": 7.0}


# -- nobody is held up ---------------------------------------------------------------------------


class Hanging:
    """A channel that does not come back until it is let go."""

    name = "hanging"

    def __init__(self) -> None:
        self.let_go = threading.Event()

    def deliver(self, _alert: Alert, _timeout: timedelta) -> None:
        self.let_go.wait(30)


def test_a_channel_that_hangs_holds_up_neither_the_teller_nor_the_others() -> None:
    told: list[Alert] = []
    arrived = threading.Event()
    hanging = Hanging()
    channels: list[Channel] = [hanging, calling(lambda alert: (told.append(alert), arrived.set()))]
    dispatch = Dispatch(channels, waiting=2)
    try:
        for _ in range(10):
            dispatch.tell(OPENED)
        assert arrived.wait(10)
        assert dispatch.counts()["hanging"].dropped >= 7, "the queue is bounded, and says what it drops"
        assert dispatch.counts()["hanging"].told == 0
        began = time.monotonic()
        dispatch.close(patience=timedelta(seconds=0.1))
        assert time.monotonic() - began < 5
    finally:
        hanging.let_go.set()


def test_a_channel_that_fails_is_tried_again_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    tries: list[Alert] = []

    def fail(alert: Alert) -> None:
        tries.append(alert)
        raise ValueError("https://secret.example/hook")

    dispatch = Dispatch([calling(fail)])
    dispatch.tell(OPENED)
    dispatch.close()
    assert dispatch.counts()["call"] == Counts(failed=1)
    assert len(tries) in {1, 2, 3}
    assert "secret" not in caplog.text


def test_an_alert_that_fails_once_is_told_at_the_second_try() -> None:
    outcomes = [ValueError(), None]
    done = threading.Event()

    def once(_: Alert) -> None:
        if (outcome := outcomes.pop(0)) is not None:
            raise outcome
        done.set()

    dispatch = Dispatch([calling(once)])
    dispatch.tell(OPENED)
    assert done.wait(10)
    dispatch.close()
    assert dispatch.counts()["call"] == Counts(told=1)


# -- configuration -------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AlertSettings(webhook_url_variable="SLACK", pagerduty_key_variable="PD", call="json:dumps")
    monkeypatch.delenv("SLACK", raising=False)
    with pytest.raises(ConfigurationError, match=r"alerts.webhook_url_variable: .* SLACK is not set"):
        channels_of(settings, client_of=lambda *_: None)
    monkeypatch.setenv("SLACK", "https://hooks.example/1")
    monkeypatch.setenv("PD", "key")
    names = [each.name for each in channels_of(settings, client_of=lambda *_: None)]
    assert names == ["log", "webhook", "pagerduty", "call"]
