"""What a copy takes with it from the command line: load limits, Spark, and indexes set aside."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import click

from dualstore.backfill import Crew
from dualstore.backfill.indexes import WithoutIndexes
from dualstore.backfill.load_limits import LoadLimits
from dualstore.backfill.spark import spark_context
from dualstore.errors import ConfigurationError, DualStoreError
from dualstore.store import MigratedTable
from dualstore.stores.postgres_indexes import Removable


def spark_if(options: Mapping[str, Any], table: str) -> AbstractContextManager[Any]:
    """The SparkContext where the engine is Spark, and something is to be copied."""
    if options["engine"] == "local":
        return nullcontext()
    if "-" in options["sources"]:
        raise ConfigurationError("standard input cannot be read by Spark's executors: give files")
    looks = options["dry_run"] or options["sample"] is not None or options["report_indexes"]
    return nullcontext() if looks else spark_context(table)


def limits_of(configured: LoadLimits, options: Mapping[str, Any]) -> LoadLimits:
    """What is configured, and what the command says otherwise; 0 is no limit."""
    asked = {
        "replication_lag": (options["max_replication_lag"], 1.0),
        "lock_wait": (options["max_lock_wait"], 1.0),
        "latency_p99": (options["max_p99"], 1e-3),
    }
    return replace(
        configured,
        **{
            name: timedelta(seconds=value * unit) if value else None
            for name, (value, unit) in asked.items()
            if value is not None
        },
    )


def without_indexes(migrated: MigratedTable, crew: Crew, *, drops: bool) -> Crew:
    """A crew that sets indexes aside where that is asked for, and puts back what is set aside."""
    logical = migrated.served.logical
    return WithoutIndexes(
        crew,
        migrated.indexes_aside,
        drops,
        dropped=partial(say, logical, "dropped"),
        restored=partial(say, logical, "put back"),
    )


@contextmanager
def told_of_indexes(migrated: MigratedTable) -> Iterator[None]:
    """Say, however the copy ends, that indexes are still set aside."""
    try:
        yield
    finally:
        aside = migrated.indexes_aside
        with suppress(DualStoreError):  # what the copy has ended with says more
            aside.runs.check()
            if aside.written_down() is not None:
                logical = migrated.served.logical
                click.echo(
                    f"{logical}: indexes or foreign keys are set aside: go on with the backfill, or "
                    f"`dualstore backfill restore-indexes {logical}`",
                    err=True,
                )


def say(table: str, what: str, each: Removable) -> None:
    """Say what became of an index or a foreign key."""
    click.echo(f"{table}: {what}: {each.name}", err=True)
