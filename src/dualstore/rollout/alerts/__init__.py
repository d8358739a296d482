"""Alerts: what is told, to whom, and that telling it holds nothing up."""

from dualstore.rollout.alerts.alert import Alert, Kind
from dualstore.rollout.alerts.channels import Channel, Delivery, LogChannel, calling, pagerduty, sns, webhook
from dualstore.rollout.alerts.configured import channels_of
from dualstore.rollout.alerts.dispatch import Counts, Dispatch

__all__ = [
    "Alert",
    "Channel",
    "Counts",
    "Delivery",
    "Dispatch",
    "Kind",
    "LogChannel",
    "calling",
    "channels_of",
    "pagerduty",
    "sns",
    "webhook",
]
