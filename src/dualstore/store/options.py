"""What may be tuned in one process's `DualStore`."""

from dataclasses import dataclass, field
from datetime import timedelta

from dualstore.config import Configuration, ShadowSettings
from dualstore.replication.agent import GrantTimes
from dualstore.replication.mirroring import ReplicationTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be tuned; every default is safe.

    Attributes:
        bookkeeping_table: the DynamoDB table of control records, journal and processes.
        grants: how long a process may act on what it read.
        replication: limits of a mirrored write.
        statement_timeout: the longest that one round trip to PostgreSQL may take.
        repair_pause: the time between two rounds of background repair.
        shadow: the bounds of comparison reads.
    """

    bookkeeping_table: str = "dualstore"
    grants: GrantTimes = field(default_factory=GrantTimes)
    replication: ReplicationTimes = field(default_factory=ReplicationTimes)
    statement_timeout: timedelta = timedelta(seconds=2)
    repair_pause: timedelta = timedelta(seconds=1)
    shadow: ShadowSettings = field(default_factory=ShadowSettings)


def options_of(configuration: Configuration) -> Options:
    """The options that a configuration asks for."""
    control = configuration.control
    return Options(
        bookkeeping_table=configuration.dynamodb.bookkeeping_table,
        grants=GrantTimes(
            poll=timedelta(seconds=control.poll_interval_seconds),
            read=timedelta(seconds=control.read_grant_seconds),
            write=timedelta(seconds=control.write_grant_seconds),
        ),
        replication=ReplicationTimes(direct_window=timedelta(seconds=control.direct_write_window_seconds)),
        statement_timeout=timedelta(seconds=configuration.postgres.statement_timeout_seconds),
        shadow=configuration.shadow,
    )
