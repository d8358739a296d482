"""What may be tuned in one process's `DualStore`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from dualstore.config import Configuration, ShadowSettings
from dualstore.replication.mirroring import ReplicationTimes
from dualstore.replication.views import GrantTimes


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
        registers: whether the process may write, and is therefore to be seen by the others; see `Agent`.
        deferred_tables: logical names of the tables whose callers do not wait for the mirror.
        ttl_attributes: by logical name, the attribute by which a table's items expire, where neither DynamoDB
            nor the model tells.
    """

    bookkeeping_table: str = "dualstore"
    grants: GrantTimes = field(default_factory=GrantTimes)
    replication: ReplicationTimes = field(default_factory=ReplicationTimes)
    statement_timeout: timedelta = timedelta(seconds=2)
    repair_pause: timedelta = timedelta(seconds=1)
    shadow: ShadowSettings = field(default_factory=ShadowSettings)
    registers: bool = True
    deferred_tables: frozenset[str] = frozenset()
    ttl_attributes: Mapping[str, str] = field(default_factory=dict)


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
        deferred_tables=frozenset(
            name for name, table in configuration.tables.items() if table.mirroring == "deferred"
        ),
        ttl_attributes={
            name: table.ttl_attribute for name, table in configuration.tables.items() if table.ttl_attribute
        },
    )
