"""What may be tuned in one process's `DualStore`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import SecretStr

from dualstore.backfill.load_limits import LoadLimits
from dualstore.config import (
    BackfillSettings,
    BreakerSettings,
    Configuration,
    MonitorSettings,
    RecordingSettings,
    ShadowSettings,
    TableSettings,
    TableShadowSettings,
    TelemetrySettings,
    import_object,
)
from dualstore.replication.mirroring import ReplicationTimes
from dualstore.replication.views import GrantTimes
from dualstore.routing import BreakerLimits, ReadRules
from dualstore.routing.guard import GuardLimits
from dualstore.shadow import Rules
from dualstore.stores.quarantine import Form


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be tuned; every default is safe.

    Attributes:
        bookkeeping_table: the DynamoDB table of control records, journal and processes.
        grants: how long a process may act on what it read.
        replication: limits of a mirrored write.
        relay_lease: how long a relay that fell silent keeps its lanes and shards from the others.
        statement_timeout: the longest that one round trip to PostgreSQL may take.
        repair_pause: the time between two rounds of background repair.
        shadow: the bounds of comparison reads.
        telemetry: what is told of this process, and how often.
        registers: whether the process may write, and is therefore to be seen by the others; see `Agent`.
        deferred_tables: logical names of the tables whose callers do not wait for the mirror.
        ttl_attributes: by logical name, the attribute by which a table's items expire, where neither DynamoDB
            nor the model tells.
        comparisons: by logical name, what the comparison of a table's reads leaves out.
        reads: by logical name, what is configured about a table's reads.
        breaker: when reads leave PostgreSQL alone where something else may answer them.
        guard: when a process leaves the mirror alone by its own figures; None: it does not look.
        quarantine: what is kept of an item that a backfill cannot load.
        quarantine_key: with which it is encrypted.
        load_limits: what a backfill asks of PostgreSQL at most.
        free_bytes: how much room PostgreSQL has, where that is configured.
        db_instance: the RDS or Aurora instance whose room CloudWatch tells.
        recording: where operations are recorded, for load tests, and how much of them.
        recorded_percents: by logical name, the share of a table's operations that is.
    """

    bookkeeping_table: str = "dualstore"
    grants: GrantTimes = field(default_factory=GrantTimes)
    replication: ReplicationTimes = field(default_factory=ReplicationTimes)
    relay_lease: timedelta = timedelta(seconds=15)
    statement_timeout: timedelta = timedelta(seconds=2)
    repair_pause: timedelta = timedelta(seconds=1)
    shadow: ShadowSettings = field(default_factory=ShadowSettings)
    telemetry: TelemetrySettings = field(default_factory=TelemetrySettings)
    registers: bool = True
    deferred_tables: frozenset[str] = frozenset()
    ttl_attributes: Mapping[str, str] = field(default_factory=dict)
    comparisons: Mapping[str, Rules] = field(default_factory=dict)
    reads: Mapping[str, ReadRules] = field(default_factory=dict)
    breaker: BreakerLimits = field(default_factory=BreakerLimits)
    guard: GuardLimits | None = field(default_factory=GuardLimits)
    quarantine: Form = Form.PLAIN
    quarantine_key: str | None = field(default=None, repr=False)
    load_limits: LoadLimits = field(default_factory=LoadLimits)
    free_bytes: int | None = None
    db_instance: str | None = None
    recording: RecordingSettings = field(default_factory=RecordingSettings)
    recorded_percents: Mapping[str, float] = field(default_factory=dict)


def options_of(configuration: Configuration) -> Options:
    """The options that a configuration asks for."""
    control = configuration.control
    return Options(
        bookkeeping_table=configuration.dynamodb.bookkeeping_table,
        grants=GrantTimes(
            poll=timedelta(seconds=control.poll_interval_seconds),
            read=timedelta(seconds=control.read_grant_seconds),
            write=timedelta(seconds=control.write_grant_seconds),
            move=timedelta(seconds=control.move_seconds),
            patience=timedelta(seconds=control.patience_seconds),
        ),
        replication=ReplicationTimes(direct_window=timedelta(seconds=control.direct_write_window_seconds)),
        relay_lease=timedelta(seconds=configuration.relay.lease_seconds),
        statement_timeout=timedelta(seconds=configuration.postgres.statement_timeout_seconds),
        shadow=configuration.shadow,
        telemetry=configuration.telemetry,
        deferred_tables=frozenset(
            name for name, table in configuration.tables.items() if table.mirroring == "deferred"
        ),
        ttl_attributes={
            name: table.ttl_attribute for name, table in configuration.tables.items() if table.ttl_attribute
        },
        comparisons={name: _rules(name, table.shadow) for name, table in configuration.tables.items()},
        reads={name: _read_rules(table) for name, table in configuration.tables.items()},
        breaker=_breaker_limits(configuration.breaker),
        guard=_guard_limits(configuration.monitor),
        quarantine=Form(configuration.backfill.quarantine),
        quarantine_key=_secret(configuration.backfill.quarantine_key),
        load_limits=_load_limits(configuration.backfill),
        free_bytes=configuration.backfill.free_bytes,
        db_instance=configuration.backfill.db_instance,
        recording=configuration.recording,
        recorded_percents={
            name: table.recording.percent
            for name, table in configuration.tables.items()
            if table.recording.percent
        },
    )


def _load_limits(settings: BackfillSettings) -> LoadLimits:
    return LoadLimits(
        replication_lag=_limit(settings.replication_lag_seconds),
        lock_wait=_limit(settings.lock_wait_seconds),
        latency_p99=_limit((settings.latency_p99_ms or 0) / 1000),
    )


def _limit(seconds: float) -> timedelta | None:
    return timedelta(seconds=seconds) if seconds else None


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()


def _read_rules(table: TableSettings) -> ReadRules:
    return ReadRules(
        always_on=frozenset(table.cohorts.always_on),
        always_off=frozenset(table.cohorts.always_off),
        stale_reads=table.stale_reads,
    )


def _guard_limits(settings: MonitorSettings) -> GuardLimits | None:
    if not settings.guard:
        return None
    return GuardLimits(
        error_percent=settings.guard_error_percent,
        mismatch_percent=settings.guard_mismatch_percent,
        samples=settings.guard_samples,
    )


def _breaker_limits(settings: BreakerSettings) -> BreakerLimits:
    return BreakerLimits(
        window=timedelta(seconds=settings.window_seconds),
        least_bad=settings.least_bad,
        bad_percent=settings.bad_percent,
        slow=timedelta(seconds=settings.slow_seconds),
        probes=settings.probes,
    )


def _rules(name: str, settings: TableShadowSettings) -> Rules:
    place = settings.normalise
    normalise = None if place is None else import_object(place, setting=f"tables.{name}.shadow.normalise")
    return Rules(ignore=settings.ignore, normalise=normalise)
