"""What a backfill on Spark needs of a configured store: the configuration, sent to every executor."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from dualstore.backfill import Equipment
from dualstore.backfill.load_limits import LoadLimits
from dualstore.backfill.spark import Spark, shipped
from dualstore.config import load
from dualstore.store.copying import opened_equipment


def spark_crew(
    context: Any,
    config: Path,
    table: str,
    *,
    epoch: int,
    parameters: Mapping[str, Any],
    straight: bool,
    load_limits: LoadLimits | None = None,
) -> Spark:
    """Spark's executors as the workers of a backfill.

    Args:
        context: the SparkContext, whose driver this process is.
        config: the configuration. It is sent to the executors, and a flag file beside it; what it leaves to
            DUALSTORE_… variables has to be in their environment, too.
        table: the logical name.
        epoch: of the control record in force when dual writes were confirmed.
        parameters: of the source, which each executor makes again.
        straight: see `CopyOrder`.
        load_limits: see `CopyOrder`.
    """
    flags = load(config).flags.path
    opening = partial(
        _opened_on_executor,
        config.name,
        table,
        epoch=epoch,
        parameters=dict(parameters),
        straight=straight,
        load_limits=load_limits,
    )
    files = [config.absolute(), *([] if flags is None else [flags.absolute()])]
    return Spark(context, opening, files=tuple(files))


@contextmanager
def _opened_on_executor(name: str, table: str, **options: Any) -> Iterator[Equipment]:
    with opened_equipment(shipped(name), table, **options) as equipment:
        yield equipment
