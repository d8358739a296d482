"""How much room a PostgreSQL has, where anybody can tell: by CloudWatch, or on this machine's disk."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy import Engine, Table

from dualstore.errors import ConfigurationError, Unavailable
from dualstore.stores.postgres_transaction import transaction

_LATELY = timedelta(minutes=15)
_PERIOD = timedelta(minutes=1)
_POSTMASTER_SECONDS = 5


@dataclass(frozen=True, slots=True)
class FreeStorage:
    """Room for the rows of a copy, or for its temporary tables alone.

    Attributes:
        size_bytes: how much is free.
        told_by: who says so, for a person.
        temporary: whether it holds temporary tables and no rows, as the local storage of an Aurora instance
            does: the rows go to the cluster volume, which grows by itself.
    """

    size_bytes: int
    told_by: str
    temporary: bool = False


# Aurora User Guide, "Amazon CloudWatch metrics for Amazon Aurora", and RDS's: an instance has one of the two.
_METRICS = {"FreeStorageSpace": False, "FreeLocalStorage": True}


def free_by_cloudwatch(cloudwatch: Any, instance: str) -> FreeStorage:
    """What CloudWatch lately said of an RDS or Aurora instance; the least of the last quarter of an hour.

    Args:
        cloudwatch: a boto3 client.
        instance: the DB instance identifier; of Aurora, the writer's.

    Raises:
        ConfigurationError: CloudWatch knows nothing of it, or may not be asked.
        Unavailable: CloudWatch does not answer.
    """
    now = datetime.now(UTC)
    for metric, temporary in _METRICS.items():
        try:
            points = cloudwatch.get_metric_statistics(
                Namespace="AWS/RDS",
                MetricName=metric,
                Dimensions=[{"Name": "DBInstanceIdentifier", "Value": instance}],
                StartTime=now - _LATELY,
                EndTime=now + _PERIOD,
                Period=int(_PERIOD.total_seconds()),
                Statistics=["Minimum"],
            )["Datapoints"]
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise ConfigurationError(
                f"backfill.db_instance: CloudWatch does not tell of {instance} ({code}): grant "
                "cloudwatch:GetMetricStatistics, or set backfill.free_bytes instead"
            ) from error
        except BotoCoreError as error:
            raise Unavailable(f"CloudWatch does not answer ({type(error).__name__}); try again") from error
        if points:
            least = min(point["Minimum"] for point in points)
            return FreeStorage(int(least), f"CloudWatch's {metric} of {instance}", temporary)
    raise ConfigurationError(
        f"backfill.db_instance: CloudWatch has neither {' nor '.join(_METRICS)} of an instance {instance}: "
        "correct the identifier (of Aurora, the writer instance's)"
    )


def size_of(engine: Engine, tables: Sequence[Table]) -> int:
    """What SQL tables and their indexes take already, in bytes; 0 of what is not there.

    Args:
        engine: PostgreSQL.
        tables: the tables.
    """
    quote = engine.dialect.identifier_preparer.format_table
    names = [quote(table) for table in tables]
    with transaction(engine, "Looking how large the SQL tables are") as cursor:
        cursor.execute(
            "SELECT coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint"
            " FROM unnest(%s::text[]) AS name",
            [names],
        )
        (size,) = cursor.fetchone() or (0,)
    return int(size)


def free_on_this_machine(engine: Engine) -> FreeStorage | None:
    """The room on the disk of a server that runs on this machine; None where it runs elsewhere.

    A data directory of the same name may be another server's: only one whose `postmaster.pid` tells of the
    start of the server that answers is its own.

    Args:
        engine: PostgreSQL.
    """
    with transaction(engine, "Looking where the server keeps its data") as cursor:
        cursor.execute(
            "SELECT current_setting('data_directory', true),"
            " extract(epoch FROM pg_postmaster_start_time())::bigint"
            " WHERE pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')"
        )
        row = cursor.fetchone()
    if row is None or not row[0]:
        return None
    folder = Path(row[0])
    try:
        began = int((folder / "postmaster.pid").read_text().splitlines()[2])
        free = shutil.disk_usage(folder).free
    except (OSError, ValueError, IndexError):
        return None
    if abs(began - row[1]) > _POSTMASTER_SECONDS:
        return None
    return FreeStorage(free, f"the disk of {folder}")
