"""The source of flags that a configuration asks for."""

import os
from collections.abc import Callable
from datetime import timedelta

from pydantic import SecretStr

from dualstore.config import Configuration, FlagSettings, StaticFlagSettings
from dualstore.errors import ConfigurationError
from dualstore.flags.evaluation import Identity
from dualstore.flags.file import FileFlags
from dualstore.flags.launchdarkly import Connection, LaunchDarklyFlags
from dualstore.flags.migration_ops import Listen
from dualstore.flags.source import FlagProblem, FlagSource, Requested
from dualstore.flags.static import StaticFlags

SDK_KEY_VARIABLE = "LAUNCHDARKLY_SDK_KEY"


def flags_of(
    configuration: Configuration,
    *,
    on_problem: Callable[[FlagProblem], None] | None = None,
    listen: Listen | None = None,
) -> FlagSource:
    """The source of flags that `[flags]` names; does no I/O yet.

    Args:
        configuration: as loaded.
        on_problem: told of every flag without a usable value.
        listen: `Telemetry.listen`, from which LaunchDarkly's migration metrics are fed, where asked for.

    Raises:
        ConfigurationError: tables have static flags that would be overruled, or the SDK key is missing.
    """
    asked = {
        name: table.static
        for name, table in configuration.tables.items()
        if table.static != StaticFlagSettings()
    }
    settings = configuration.flags
    if settings.kind == "static":
        return StaticFlags({name: _requested(static) for name, static in asked.items()})
    if asked:
        raise ConfigurationError(
            f"tables.{min(asked)}.static: has no effect where flags.kind is '{settings.kind}'; "
            "remove it, or set the flags there"
        )
    if settings.kind == "file":
        return flag_file_of(settings, on_problem=on_problem)
    return LaunchDarklyFlags(
        Connection(
            sdk_key=_sdk_key(settings),
            base_uri=settings.base_uri,
            stream_uri=settings.stream_uri,
            events_uri=settings.events_uri,
            start_wait=timedelta(seconds=settings.start_wait_seconds),
        ),
        identity=identity_of(settings),
        key_contexts=settings.key_contexts,
        listen=listen if settings.migration_metrics else None,
        operations_per_second=settings.migration_metrics_per_second,
        on_problem=on_problem,
    )


def flag_file_of(
    settings: FlagSettings, *, on_problem: Callable[[FlagProblem], None] | None = None
) -> FileFlags:
    """The flag file of `[flags]`; does no I/O yet.

    Raises:
        ConfigurationError: there is none.
    """
    if settings.path is None:
        raise ConfigurationError("flags.path: names no flag file; set it")
    return FileFlags(
        settings.path,
        poll_interval=timedelta(seconds=settings.poll_interval_seconds),
        identity=identity_of(settings),
        key_contexts=settings.key_contexts,
        on_problem=on_problem,
    )


def identity_of(settings: FlagSettings) -> Identity:
    """As whom flags are evaluated."""
    return Identity(settings.context_kind, settings.context_key)


def _sdk_key(settings: FlagSettings) -> SecretStr:
    key = settings.sdk_key or SecretStr(os.environ.get(SDK_KEY_VARIABLE, ""))
    if not key.get_secret_value():
        raise ConfigurationError(
            f"flags.kind is 'launchdarkly' and there is no SDK key; put it into {SDK_KEY_VARIABLE}, "
            "or DUALSTORE_FLAGS__SDK_KEY, in the environment"
        )
    return key


def _requested(static: StaticFlagSettings) -> Requested:
    return Requested(static.stage, static.read_percent, static.mirror_percent, static.shadow_percent)
