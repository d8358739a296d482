"""The channels that a configuration names; addresses that are secrets come from the environment."""

import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

from dualstore.config import AlertSettings, import_object
from dualstore.errors import ConfigurationError
from dualstore.rollout.alerts.channels import Channel, LogChannel, calling, pagerduty, sns, webhook

ClientOf = Callable[[str, timedelta], Any]
"""A boto3 client of a service, whose calls end within a time."""


def channels_of(settings: AlertSettings, *, client_of: ClientOf) -> list[Channel]:
    """The channels of `[alerts]`; does no I/O yet.

    Args:
        settings: as configured.
        client_of: makes clients of AWS.

    Raises:
        ConfigurationError: a variable that is named is not set, or the callable cannot be imported.
    """
    return list(_channels(settings, client_of))


def _channels(settings: AlertSettings, client_of: ClientOf) -> Iterator[Channel]:
    if settings.log:
        yield LogChannel()
    if settings.sns_topic_arn is not None:
        client = client_of("sns", timedelta(seconds=settings.timeout_seconds))
        yield sns(settings.sns_topic_arn, client)
    if settings.webhook_url_variable is not None:
        yield webhook(_secret(settings.webhook_url_variable, "webhook_url_variable"))
    if settings.pagerduty_key_variable is not None:
        yield pagerduty(_secret(settings.pagerduty_key_variable, "pagerduty_key_variable"))
    if settings.call is not None:
        yield calling(import_object(settings.call, setting="alerts.call"))


def _secret(variable: str, key: str) -> str:
    value = os.environ.get(variable, "")
    if not value:
        raise ConfigurationError(
            f"alerts.{key}: the environment variable {variable} is not set; put the secret there"
        )
    return value
