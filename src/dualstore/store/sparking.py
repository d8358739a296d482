"""What Spark needs of a configured store to copy or compare: the configuration, sent to every executor."""

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
from dualstore.store.proving import ProofOrder, opened_verification, opened_with
from dualstore.verify import BulkVerify, compare_pieces


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
    opening = partial(
        _opened_on_executor,
        config.name,
        table,
        epoch=epoch,
        parameters=dict(parameters),
        straight=straight,
        load_limits=load_limits,
    )
    return Spark(context, opening, files=_sent(config))


def verifying_spark(context: Any, config: Path, table: str, order: ProofOrder) -> Spark:
    """Spark's executors as the workers of a full comparison.

    Args:
        context: see `spark_crew`.
        config: see `spark_crew`.
        table: the logical name.
        order: what is asked for.

    Raises:
        ConfigurationError: the order has no source.
    """
    opening = partial(_verifying_on_executor, config.name, table, **opened_with(order))
    return Spark(context, opening, files=_sent(config), working=compare_pieces)


def _sent(config: Path) -> tuple[Path, ...]:
    flags = load(config).flags.path
    return (config.absolute(), *([] if flags is None else [flags.absolute()]))


@contextmanager
def _opened_on_executor(name: str, table: str, **options: Any) -> Iterator[Equipment]:
    with opened_equipment(shipped(name), table, **options) as equipment:
        yield equipment


@contextmanager
def _verifying_on_executor(name: str, table: str, **options: Any) -> Iterator[BulkVerify]:
    with opened_verification(shipped(name), table, **options) as verification:
        yield verification
