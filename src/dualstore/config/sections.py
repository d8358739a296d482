"""The sections of a deployment: both databases, flags, and what works beside the tables."""

from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    StringConstraints,
    model_validator,
)

from dualstore.config.forms import ImportPath, Percent, Section

_PROTECTED_MODES = {"require", "verify-ca", "verify-full"}
_POSTGRES_SCHEMES = ("postgresql+psycopg://", "postgresql://", "postgres://")


def _postgres_url(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith(_POSTGRES_SCHEMES):
        raise ValueError("must start with postgresql://")
    return url


def _protected_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in {"127.0.0.1", "localhost"}:
        raise ValueError("must start with https://, since a token is sent there")
    return url


def _obstacle_to_tokens(url: str) -> str | None:
    parts = urlsplit(url)
    modes = parse_qs(parts.query).get("sslmode", ["require"])
    if not parts.username:
        return "the URL must name a user"
    if parts.password is not None:
        return "take the password out of the URL"
    if modes[-1] not in _PROTECTED_MODES:
        return "the URL's sslmode must be require, verify-ca or verify-full"
    return None


def _with_driver(url: SecretStr) -> str:
    return "postgresql+psycopg://" + url.get_secret_value().partition("://")[2]


class DynamoSettings(Section):
    """`[dynamodb]`: how DynamoDB is reached; credentials come from boto3's own chain."""

    endpoint_url: str | None = None
    region: str | None = None
    bookkeeping_table: str = "dualstore"
    connect_timeout_seconds: PositiveFloat = 1.0
    read_timeout_seconds: PositiveFloat = 5.0
    max_pool_connections: PositiveInt = 50


class PostgresSettings(Section):
    """`[postgres]`: how PostgreSQL is reached, and how long anything may take there.

    Attributes:
        reader_url: of read replicas, which then answer eventually consistent reads where PostgreSQL is the
            authority.
        iam: whether to sign in to RDS, Aurora or RDS Proxy with tokens of IAM.
        prepared_statements: whether statements that come again are prepared; not behind a pooler that gives
            each transaction another connection and does not keep them.
    """

    url: Annotated[SecretStr, AfterValidator(_postgres_url)]
    reader_url: Annotated[SecretStr, AfterValidator(_postgres_url)] | None = None
    pool_size: PositiveInt = 10
    max_overflow: NonNegativeInt = 10
    pool_timeout_seconds: PositiveFloat = 1.0
    connect_timeout_seconds: PositiveFloat = 2.0
    statement_timeout_seconds: PositiveFloat = 2.0
    iam: bool = False
    prepared_statements: bool = True

    @model_validator(mode="after")
    def _tokens_fit(self) -> "PostgresSettings":
        for url in (self.url, self.reader_url) if self.iam else ():
            if url is not None and (obstacle := _obstacle_to_tokens(url.get_secret_value())):
                raise ValueError(f"iam = true signs in with tokens of IAM: {obstacle}")
        return self

    @property
    def sqlalchemy_url(self) -> str:
        """The URL with SQLAlchemy's psycopg 3 driver named. Holds the password: never print it."""
        return _with_driver(self.url)

    @property
    def sqlalchemy_reader_url(self) -> str | None:
        """Likewise of the reader endpoint, where there is one."""
        return None if self.reader_url is None else _with_driver(self.reader_url)


class FlagSettings(Section):
    """`[flags]`: where stage and dials come from.

    Attributes:
        sdk_key: LaunchDarkly's; LAUNCHDARKLY_SDK_KEY is looked at, too.
        start_wait_seconds: how long the first table waits for LaunchDarkly; it stays as recorded meanwhile.
        context_kind, context_key: as whom flags are evaluated.
        key_contexts: whether a percentage may be a boolean flag with a percentage rollout.
        migration_metrics: whether LaunchDarkly is told of operations.
        project, environment: by key, where `dualstore dial` sets flags.
    """

    kind: Literal["static", "file", "launchdarkly"] = "static"
    path: Path | None = None
    poll_interval_seconds: PositiveFloat = 0.25
    sdk_key: SecretStr | None = None
    base_uri: str | None = None
    stream_uri: str | None = None
    events_uri: str | None = None
    start_wait_seconds: Annotated[float, Field(ge=0, le=5)] = 0.0
    context_kind: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")] = "service"
    context_key: Annotated[str, StringConstraints(min_length=1)] = "dualstore"
    key_contexts: bool = False
    migration_metrics: bool = False
    migration_metrics_per_second: PositiveInt = 100
    project: str | None = None
    environment: str | None = None
    api_uri: Annotated[str, AfterValidator(_protected_url)] = "https://app.launchdarkly.com"

    @model_validator(mode="after")
    def _file_has_path(self) -> "FlagSettings":
        if self.kind == "file" and self.path is None:
            raise ValueError("kind 'file' needs flags.path, the flag file")
        if self.kind != "launchdarkly" and self.migration_metrics:
            raise ValueError("migration_metrics needs kind 'launchdarkly'")
        if self.context_kind in {"kind", "multi"}:
            raise ValueError("context_kind: LaunchDarkly keeps 'kind' and 'multi' for itself")
        return self


class ControlSettings(Section):
    """`[control]`: how long a process may act on what it last read of the control record.

    Attributes:
        read_grant_seconds: δ of the design, the life of a grant to read the mirror.
        write_grant_seconds: the life of a grant to write.
        direct_write_window_seconds: how long after a definite reply the writer may write to the mirror.
        move_seconds: how long writes may pause for a move of the authority, before it is given up.
        patience_seconds: how long an operation waits while writes pause, before its caller is asked to try
            again.
    """

    poll_interval_seconds: PositiveFloat = 0.4
    read_grant_seconds: PositiveFloat = 1.0
    write_grant_seconds: PositiveFloat = 10.0
    direct_write_window_seconds: PositiveFloat = 30.0
    move_seconds: PositiveFloat = 5.0
    patience_seconds: PositiveFloat = 8.0

    @model_validator(mode="after")
    def _grant_outlives_poll(self) -> "ControlSettings":
        if self.poll_interval_seconds >= self.read_grant_seconds:
            raise ValueError("poll_interval_seconds must be shorter than read_grant_seconds")
        if self.read_grant_seconds > self.write_grant_seconds:
            raise ValueError("read_grant_seconds must not be longer than write_grant_seconds")
        if self.move_seconds >= self.patience_seconds:
            raise ValueError("move_seconds must be shorter than patience_seconds: writes wait for the move")
        return self


class RelaySettings(Section):
    """`[relay]`: what `dualstore relay` goes by.

    Attributes:
        lease_seconds: another relay takes over what one held that fell silent, after so long.
    """

    lease_seconds: PositiveFloat = 15.0


class ShadowSettings(Section):
    """`[shadow]`: the bounds of the reads that run on the other side for comparison, and what is kept.

    Attributes:
        against: what a read is compared with: the other side, or the same side, asked again.
        latency_limit_seconds: a mean latency of comparison reads beyond which fewer are made.
        batch_keys: how many GetItems are asked together at most.
        linger_seconds: how long a worker waits for more of them.
        plain_keys: whether discrepancies are recorded with their keys, not hashes alone.
        retention_days: how long after it was last seen a discrepancy stays recorded.
        discrepancies_per_table: how many are recorded at most.
        raise_on_mismatch: for tests: compare in the caller's thread, and raise there.
    """

    queue_size: PositiveInt = 1_000
    workers: PositiveInt = 2
    timeout_seconds: PositiveFloat = 5.0
    rechecks: PositiveInt = 3
    recheck_pause_seconds: PositiveFloat = 0.2
    against: Literal["other", "same"] = "other"
    latency_limit_seconds: PositiveFloat = 1.0
    batch_keys: Annotated[int, Field(ge=1, le=100)] = 50
    linger_seconds: Annotated[float, Field(ge=0)] = 0.1
    plain_keys: bool = False
    retention_days: PositiveFloat = 30.0
    discrepancies_per_table: PositiveInt = 10_000
    raise_on_mismatch: bool = False


class TelemetrySettings(Section):
    """`[telemetry]`: what is told, and how often.

    Attributes:
        span_percent: the share of all traces in which operations get spans of their own.
        rollup_seconds: the pause between two reports of this process to the fleet's figures.
        emf: where CloudWatch's embedded metric format goes, for what collects the output of the process.
        emf_seconds: the pause between two reports in that format.
    """

    span_percent: Percent = 3.0
    rollup_seconds: PositiveFloat = 5.0
    emf: Literal["none", "stdout", "stderr"] = "none"
    emf_seconds: PositiveFloat = 60.0


class BreakerSettings(Section):
    """`[breaker]`: when reads leave PostgreSQL alone where something else may answer them.

    Attributes:
        window_seconds: reads count for so long, and for twice that at most.
        least_bad: it opens on no fewer bad reads.
        bad_percent: the share of bad reads at which it opens, of their number or of the time they took.
        slow_seconds: a read that takes so long is a bad one.
        probes: so many good probes in a row close it.
    """

    window_seconds: PositiveFloat = 10.0
    least_bad: PositiveInt = 5
    bad_percent: Annotated[float, Field(gt=0, le=100)] = 50.0
    slow_seconds: PositiveFloat = 0.5
    probes: PositiveInt = 3


class BackfillSettings(Section):
    """`[backfill]`: what is kept of items that cannot be loaded, and how much PostgreSQL has to bear.

    Attributes:
        quarantine: whether the item is kept as it came, encrypted, or not at all.
        quarantine_key: a key of Fernet, with which it is encrypted; set it in the environment.
        replication_lag_seconds: loading pauses while a replica lags by more; 0: it does not.
        lock_wait_seconds: it pauses while a session waits longer for a lock; 0: it does not.
        latency_p99_ms: it pauses while the application's operations on PostgreSQL take longer.
        free_bytes: how much room PostgreSQL has, where nothing else can tell.
        db_instance: the RDS or Aurora instance whose room CloudWatch tells.
    """

    quarantine: Literal["plain", "encrypted", "redacted"] = "plain"
    quarantine_key: SecretStr | None = None
    replication_lag_seconds: NonNegativeFloat = 10.0
    lock_wait_seconds: NonNegativeFloat = 1.0
    latency_p99_ms: PositiveFloat | None = None
    free_bytes: PositiveInt | None = None
    db_instance: Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")] | None = None


class MonitorSettings(Section):
    """`[monitor]`: how often `dualstore monitor` looks, and what each process watches by itself.

    Attributes:
        window_seconds: figures are judged in stretches of this length.
        windows: so many of the last windows have to speak for an alarm.
        of: which are looked at; an alarm ends when none of them keeps it up.
        look_seconds: the pause between two looks.
        guard: whether a process by itself stops to ask PostgreSQL, the mirror, while its own figures are bad.
        guard_error_percent: the share of its dialled reads that fail, in a window, from which it does.
        guard_mismatch_percent: the share of its compared reads that differ, from which it does.
        guard_samples: a window of fewer reads says nothing.
    """

    window_seconds: PositiveFloat = 20.0
    windows: PositiveInt = 3
    of: PositiveInt = 5
    look_seconds: PositiveFloat = 5.0
    guard: bool = True
    guard_error_percent: Percent = 20.0
    guard_mismatch_percent: Percent = 5.0
    guard_samples: PositiveInt = 50

    @model_validator(mode="after")
    def _windows_are_there(self) -> "MonitorSettings":
        if self.windows > self.of:
            raise ValueError("windows must not be more than `of`, the windows that are looked at")
        if self.window_seconds * self.of > 240:  # noqa: PLR2004 - figures are folded after five minutes
            raise ValueError("window_seconds times `of` must be at most 240: older figures are added up")
        return self


class AlertSettings(Section):
    """`[alerts]`: who is told by `dualstore monitor`. Secrets are named by environment variable.

    Attributes:
        log: whether Python's logging is told.
        sns_topic_arn: a topic of SNS.
        webhook_url_variable: the variable that holds a webhook's URL, as Slack gives it.
        pagerduty_key_variable: the variable that holds a routing key of PagerDuty's Events API v2.
        call: a function that is given each alert, as `package.module:name`.
        timeout_seconds: for one try at one alert.
        again_minutes: after so long an alert that is still open is told again.
    """

    log: bool = True
    sns_topic_arn: str | None = None
    webhook_url_variable: str | None = None
    pagerduty_key_variable: str | None = None
    call: ImportPath | None = None
    timeout_seconds: PositiveFloat = 5.0
    again_minutes: PositiveFloat = 60.0


class RecordingSettings(Section):
    """`[recording]`: where operations are recorded, for load tests; see `[tables.<name>.recording]`.

    Attributes:
        directory: where the files go; None: nothing is recorded.
        rotate_bytes: a file that has become so large is followed by another.
        limit_bytes: the most that the directory's recordings take; then recording ends.
        queue_keys: the most keys that wait to be written; what comes beyond is dropped and counted.
        flush_seconds: what was recorded is in the file after so long.
        secret: processes with the same one recognise the same keys; else each has a salt of its own.
    """

    directory: Path | None = None
    rotate_bytes: PositiveInt = 16_777_216
    limit_bytes: PositiveInt = 268_435_456
    queue_keys: PositiveInt = 20_000
    flush_seconds: PositiveFloat = 5.0
    secret: SecretStr | None = None
