"""A monitor as a configuration describes it: what is watched, who is told, what is set."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from dualstore.config import Configuration, SignalSettings, TableMonitorSettings, load
from dualstore.errors import ConfigurationError
from dualstore.flags import FlagSetter, setter_of
from dualstore.rollout.alerts import Dispatch, channels_of
from dualstore.rollout.cloudwatch import CloudWatch
from dualstore.rollout.context import Tools
from dualstore.rollout.monitor import MigrationMonitor, Times, Watch
from dualstore.rollout.reaction import Overridden, Reacting
from dualstore.rollout.thresholds import DEFAULTS, Signal, Threshold, Thresholds
from dualstore.store import DualStore
from dualstore.stores.postgres_monitor import PostgresMonitor

_NEVER = Threshold(float("inf"), float("inf"), rolls_back=True)


class _NoSetter:
    """Where the flags cannot be set from here; a rollback then stops reads in the control record."""

    def __init__(self, why: str) -> None:
        self._why = why

    def set(self, table: str, **_: Any) -> Callable[[], None]:  # noqa: ARG002 - the protocol's
        """Refuses."""
        raise ConfigurationError(self._why)


@contextmanager
def watching(path: Path | None, *, who: str) -> Iterator[MigrationMonitor]:
    """The monitor of a configuration, with a store of its own, for as long as the block runs.

    Args:
        path: the configuration.
        who: in whose name it rolls back.

    Raises:
        ConfigurationError: the configuration is wrong; the message names the place and the fix.
    """
    configuration = load(path)
    watches = {name: watch_of(configuration, name) for name in configuration.tables}
    dispatch = Dispatch(
        channels_of(configuration.alerts, client_of=_client_of(configuration)),
        timeout=timedelta(seconds=configuration.alerts.timeout_seconds),
    )
    overridden: list[Overridden] = []

    def around(flags: Any) -> Overridden:
        overridden.append(Overridden(flags))
        return overridden[0]

    with DualStore.from_config(path, around_flags=around) as store:
        tools = Tools(store=store, setter=_setter_of(configuration), who=who)
        reacting = Reacting(tools=tools, overridden=overridden[0], kept=PostgresMonitor(store.engine))
        metered = any(watch.cloudwatch for watch in watches.values())
        client = _client_of(configuration)("cloudwatch", timedelta(seconds=5)) if metered else None
        try:
            yield MigrationMonitor(
                reacting,
                watches,
                dispatch,
                times=times_of(configuration),
                cloudwatch=None if client is None else CloudWatch(client),
            )
        finally:
            dispatch.close()


def times_of(configuration: Configuration) -> Times:
    """When a monitor looks; processes hand their figures in a moment after a window has ended."""
    settings = configuration.monitor
    return Times(
        window=timedelta(seconds=settings.window_seconds),
        settle=timedelta(seconds=2 * configuration.telemetry.rollup_seconds),
        look=timedelta(seconds=settings.look_seconds),
        again=timedelta(minutes=configuration.alerts.again_minutes),
    )


def watch_of(configuration: Configuration, name: str) -> Watch:
    """What is watched of a table.

    Raises:
        ConfigurationError: a signal is not known, or would be left before it is entered.
    """
    settings = configuration.tables[name].monitor
    place = f"tables.{name}.monitor"
    known = {**DEFAULTS, Signal.SERVICE_LEVEL: _NEVER}
    try:
        signals: dict[str, Threshold] = {**known, **_metered(settings)}
        for signal, changed in settings.signals.items():
            if signal not in signals:
                raise ConfigurationError(
                    f"{place}.signals.{signal}: no such signal; known: {', '.join(sorted(signals))}"
                )
            signals[signal] = _changed(signals[signal], changed)
        thresholds = Thresholds(signals, windows=configuration.monitor.windows, of=configuration.monitor.of)
    except ValueError as wrong:
        raise ConfigurationError(f"{place}: {wrong}; correct it") from None
    return Watch(thresholds, how=settings.rollback, cloudwatch=settings.cloudwatch)


def _metered(settings: TableMonitorSettings) -> Mapping[str, Threshold]:
    return {
        each.name: Threshold(each.enter, each.leave, rolls_back=each.rolls_back)
        for each in settings.cloudwatch
    }


def _changed(threshold: Threshold, settings: SignalSettings) -> Threshold:
    """A threshold with what is named of it changed; where only `enter` is, it is left there, too."""
    enter = threshold.enter if settings.enter is None else settings.enter
    leave = min(threshold.leave, enter) if settings.leave is None else settings.leave
    return Threshold(
        enter,
        leave,
        samples=settings.samples or threshold.samples,
        rolls_back=threshold.rolls_back if settings.rolls_back is None else settings.rolls_back,
    )


def _setter_of(configuration: Configuration) -> FlagSetter:
    try:
        return setter_of(configuration)
    except ConfigurationError as wrong:
        return _NoSetter(str(wrong))


def _client_of(configuration: Configuration) -> Callable[[str, timedelta], Any]:
    def client(service: str, timeout: timedelta) -> Any:
        seconds = timeout.total_seconds()
        limits = Config(connect_timeout=seconds, read_timeout=seconds, retries={"total_max_attempts": 1})
        return boto3.client(service, region_name=configuration.dynamodb.region, config=limits)

    return client
