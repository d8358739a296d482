"""The source of flags that a configuration asks for."""

from collections.abc import Callable
from datetime import timedelta

from dualstore.config import Configuration, StaticFlagSettings
from dualstore.errors import ConfigurationError
from dualstore.flags.file import FileFlags
from dualstore.flags.source import FlagProblem, FlagSource, Requested
from dualstore.flags.static import StaticFlags


def flags_of(
    configuration: Configuration, *, on_problem: Callable[[FlagProblem], None] | None = None
) -> FlagSource:
    """The source of flags that `[flags]` names; does no I/O yet.

    Args:
        configuration: as loaded.
        on_problem: told of every flag without a usable value.

    Raises:
        ConfigurationError: tables have static flags that a flag file would overrule.
    """
    asked = {
        name: table.static
        for name, table in configuration.tables.items()
        if table.static != StaticFlagSettings()
    }
    settings = configuration.flags
    if settings.path is None or settings.kind == "static":
        return StaticFlags({name: _requested(static) for name, static in asked.items()})
    if asked:
        raise ConfigurationError(
            f"tables.{min(asked)}.static: has no effect where flags.kind is 'file'; "
            "remove it, or set the flags in the file"
        )
    poll_interval = timedelta(seconds=settings.poll_interval_seconds)
    return FileFlags(settings.path, poll_interval=poll_interval, on_problem=on_problem)


def _requested(static: StaticFlagSettings) -> Requested:
    return Requested(static.stage, static.read_percent, static.mirror_percent, static.shadow_percent)
