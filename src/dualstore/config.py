"""Configuration: `dualstore.toml` overlaid by environment variables, checked before any I/O."""

import os
import tomllib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from dualstore.errors import ConfigurationError
from dualstore.stages import Stage

DEFAULT_FILE = "dualstore.toml"
ENVIRONMENT_PREFIX = "DUALSTORE_"
NESTING_DELIMITER = "__"

Percent = Annotated[float, Field(ge=0, le=100)]
LogicalName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
ImportPath = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")]

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


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


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


class DynamoSettings(_Section):
    """`[dynamodb]`: how DynamoDB is reached; credentials come from boto3's own chain."""

    endpoint_url: str | None = None
    region: str | None = None
    bookkeeping_table: str = "dualstore"
    connect_timeout_seconds: PositiveFloat = 1.0
    read_timeout_seconds: PositiveFloat = 5.0
    max_pool_connections: PositiveInt = 50


class PostgresSettings(_Section):
    """`[postgres]`: how PostgreSQL is reached, and how long anything may take there.

    Attributes:
        reader_url: of read replicas, which then answer eventually consistent reads where PostgreSQL is the
            authority.
        iam: whether to sign in to RDS, Aurora or RDS Proxy with tokens of IAM.
    """

    url: Annotated[SecretStr, AfterValidator(_postgres_url)]
    reader_url: Annotated[SecretStr, AfterValidator(_postgres_url)] | None = None
    pool_size: PositiveInt = 10
    max_overflow: NonNegativeInt = 10
    pool_timeout_seconds: PositiveFloat = 1.0
    connect_timeout_seconds: PositiveFloat = 2.0
    statement_timeout_seconds: PositiveFloat = 2.0
    iam: bool = False

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


class FlagSettings(_Section):
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


class ControlSettings(_Section):
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


class RelaySettings(_Section):
    """`[relay]`: what `dualstore relay` goes by.

    Attributes:
        lease_seconds: another relay takes over what one held that fell silent, after so long.
    """

    lease_seconds: PositiveFloat = 15.0


class ShadowSettings(_Section):
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


class TelemetrySettings(_Section):
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


class BreakerSettings(_Section):
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


class BackfillSettings(_Section):
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


class MonitorSettings(_Section):
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


class AlertSettings(_Section):
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


class SignalSettings(_Section):
    """One of `[tables.<name>.monitor.signals]`: what is not named stays as it is by default.

    Attributes:
        enter: a window that is surely above this speaks for an alarm.
        leave: a window that is not above this speaks for its end.
        samples: a window of fewer says nothing.
        rolls_back: whether an alarm takes traffic off PostgreSQL.
    """

    enter: float | None = None
    leave: float | None = None
    samples: PositiveInt | None = None
    rolls_back: bool | None = None


class CloudWatchSettings(_Section):
    """One of `[[tables.<name>.monitor.cloudwatch]]`: a metric that is read beside the fleet's figures.

    Attributes:
        name: of the signal, for `signals` and alerts.
        namespace: as `AWS/DynamoDB`.
        metric: as `ReadThrottleEvents`.
        dimensions: as `{TableName = "orders-prod"}`.
        statistic: of the last minute that there is any of.
        enter: above this it speaks for an alarm.
        leave: not above this it speaks for its end.
        rolls_back: whether an alarm takes traffic off PostgreSQL.
    """

    name: LogicalName
    namespace: str
    metric: str
    dimensions: dict[str, str] = Field(default_factory=dict)
    statistic: Literal["Average", "Sum", "Maximum", "Minimum", "SampleCount"] = "Average"
    enter: float
    leave: float
    rolls_back: bool = False


class TableMonitorSettings(_Section):
    """`[tables.<name>.monitor]`: when figures of one table are alarms, and what is done then.

    Attributes:
        rollback: whether reads go back by one step of the dial, all at once, or an alarm is told only.
        signals: by name, thresholds that differ from the default.
        cloudwatch: metrics that are read beside the fleet's figures.
    """

    rollback: Literal["step", "zero", "none"] = "step"
    signals: dict[str, SignalSettings] = {}
    cloudwatch: tuple[CloudWatchSettings, ...] = ()


class RecordingSettings(_Section):
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


class TableRecordingSettings(_Section):
    """`[tables.<name>.recording]`: whether a table's operations are recorded; never a key, never a value.

    Attributes:
        percent: the share of them that is.
    """

    percent: Percent = 0.0


class CohortSettings(_Section):
    """`[tables.<name>.cohorts]`: cohorts whose reads do not go by the percentage; `always_off` wins.

    Attributes:
        always_on: read PostgreSQL as soon as it may be read, at 0 % too.
        always_off: do not read PostgreSQL while it is the mirror, at 100 % neither.
    """

    always_on: tuple[str, ...] = ()
    always_off: tuple[str, ...] = ()


class StaticFlagSettings(_Section):
    """`[tables.<name>.static]`: stage and dials of one table, where `flags.kind` is `static`."""

    stage: Stage | None = None
    read_percent: Percent | None = None
    mirror_percent: Percent | None = None
    shadow_percent: Percent | None = None


class TableShadowSettings(_Section):
    """`[tables.<name>.shadow]`: what the comparison of one table leaves out.

    Attributes:
        ignore: attributes by name, or by a path through maps, as `meta.etag`.
        normalise: a function that gives back an item as it is to be compared, as `package.module:name`.
    """

    ignore: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = ()
    normalise: ImportPath | None = None


class EntitySettings(_Section):
    """One of `[[tables.<name>.entities]]`: a model with a SQL table of its own, of several behind one table.

    Attributes:
        model: the PynamoDB model, as `package.module:Name`.
        row: its SQLAlchemy model.
        where: which items are the model's, in a form of `dualstore.mapping.Entity`.
    """

    model: ImportPath
    row: ImportPath
    where: dict[str, Any] = Field(default_factory=lambda: {"discriminator": True})


class TableSettings(_Section):
    """`[tables.<name>]`: one table, by its logical name.

    Attributes:
        model: the PynamoDB model, as `package.module:Name`.
        row: the SQLAlchemy model, or None where the table has none of its own.
        entities: the models, where several have SQL tables of their own behind one DynamoDB table.
        physical_name: the DynamoDB table's name, where it is not the one in the model.
        mirroring: whether callers wait for the mirror, too.
        ttl_attribute: the attribute by which items expire, where DynamoDB does not tell.
        stale_reads: whether DynamoDB may answer eventually consistent reads while PostgreSQL, the authority,
            does not.
    """

    model: ImportPath | None = None
    row: ImportPath | None = None
    physical_name: str | None = None
    mirroring: Literal["inline", "deferred"] = "inline"
    ttl_attribute: Annotated[str, StringConstraints(min_length=1)] | None = None
    stale_reads: bool = False
    static: StaticFlagSettings = StaticFlagSettings()
    cohorts: CohortSettings = CohortSettings()
    shadow: TableShadowSettings = TableShadowSettings()
    monitor: TableMonitorSettings = TableMonitorSettings()
    recording: TableRecordingSettings = TableRecordingSettings()
    entities: tuple[EntitySettings, ...] = ()

    @model_validator(mode="after")
    def _is_found(self) -> "TableSettings":
        if self.entities and (self.model or self.row):
            raise ValueError("model and row belong into its entities, where it has several")
        if self.entities:
            return self
        if self.model is None and self.physical_name is None:
            raise ValueError('needs model = "package.module:Model", or physical_name where there is no model')
        return self


class Configuration(_Section):
    """Everything that can be configured. `Configuration.model_json_schema()` describes it to editors.

    Attributes:
        environment: what this deployment is. `staging` is where a load test may run and a rollback be
            rehearsed; a plan that says another than the configuration is refused.
    """

    environment: Literal["production", "staging"] | None = None
    dynamodb: DynamoSettings = DynamoSettings()
    postgres: PostgresSettings
    flags: FlagSettings = FlagSettings()
    control: ControlSettings = ControlSettings()
    relay: RelaySettings = RelaySettings()
    shadow: ShadowSettings = ShadowSettings()
    breaker: BreakerSettings = BreakerSettings()
    backfill: BackfillSettings = BackfillSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    monitor: MonitorSettings = MonitorSettings()
    alerts: AlertSettings = AlertSettings()
    recording: RecordingSettings = RecordingSettings()
    tables: dict[LogicalName, TableSettings] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _recordings_have_a_place(self) -> "Configuration":
        if self.recording.directory is None:
            for name, table in self.tables.items():
                if table.recording.percent:
                    raise ValueError(f"tables.{name}.recording.percent needs recording.directory")
        return self


class _Sources(BaseSettings, Configuration):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Merges what the file says (passed in) with the environment, which wins."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter=NESTING_DELIMITER,
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - unused: no second file
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - unused: secrets come by variable
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return env_settings, init_settings


def load(path: str | Path | None = None) -> Configuration:
    """Read and check the configuration.

    Environment variables win over the file: `DUALSTORE_POSTGRES__URL` is `url` in `[postgres]`.

    Args:
        path: the TOML file. None reads `dualstore.toml` of the working directory where there is one,
            and else the environment alone. A relative `flags.path` is relative to this file.

    Raises:
        ConfigurationError: names the file or variable, the dotted key and what to do; never a value.
    """
    file = Path(DEFAULT_FILE if path is None else path)
    document = _document(file, required=path is not None)
    try:
        merged = _Sources(**{"postgres": {}, **document})
    except ValidationError as invalid:
        raise ConfigurationError(_explained(invalid, file)) from None
    except SettingsError as invalid:
        # Its cause quotes the variable's text, which may be a secret.
        raise ConfigurationError(
            f"{ENVIRONMENT_PREFIX}…: {invalid}; set single keys, as in DUALSTORE_POSTGRES__URL"
        ) from None
    return Configuration(**dict(merged))


def _document(file: Path, *, required: bool) -> dict[str, Any]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if required:
            raise ConfigurationError(f"{file}: no such file; create it or name another one") from None
        return {}
    except OSError as error:
        raise ConfigurationError(
            f"{file}: cannot be read ({error.strerror}); check its permissions"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "not UTF-8"
        raise ConfigurationError(f"{file}: not a TOML document: {reason}; correct that place") from None
    flags = document.get("flags")
    if isinstance(flags, dict) and isinstance(flags.get("path"), str):
        flags["path"] = str(file.parent / flags["path"])
    recording = document.get("recording")
    if isinstance(recording, dict) and isinstance(recording.get("directory"), str):
        recording["directory"] = str(file.parent / recording["directory"])
    return document


def _explained(invalid: ValidationError, file: Path) -> str:
    """One line per mistake: where, what, how to mend it."""
    errors = invalid.errors(include_input=False, include_context=False, include_url=False)
    return "\n".join(_explained_error(error, file) for error in errors)


_REMEDY: Mapping[str, str] = {
    "missing": "set it there, or as {variable} in the environment",
    "extra_forbidden": "remove it, or correct its spelling",
    "string_pattern_mismatch": 'write letters, digits, - and _ (a model as "package.module:Name")',
}


def _explained_error(error: ErrorDetails, file: Path) -> str:
    steps = [str(step) for step in error["loc"] if step != "[key]"]
    key = ".".join(steps) or "the whole document"
    variable = ENVIRONMENT_PREFIX + NESTING_DELIMITER.join(steps).upper()
    is_set = any(name.upper() == variable for name in os.environ)
    source = f"environment variable {variable}" if is_set else str(file)
    remedy = _REMEDY.get(error["type"], "correct it").format(variable=variable)
    return f"{source}: {key}: {error['msg'].removeprefix('Value error, ')}; {remedy}"


def import_object(path: str, *, setting: str = "import path") -> Any:
    """Import what a configuration names as `package.module:Name`.

    Args:
        path: the module, a colon, and the name inside it (dots descend further).
        setting: the dotted key that the path came from, for the message.

    Raises:
        ConfigurationError: the path is malformed, the module cannot be imported or lacks the name.
    """
    module_name, colon, attributes = path.partition(":")
    if not (module_name and colon and attributes):
        raise ConfigurationError(f'{setting}: write it as "package.module:Name"')
    try:
        found: Any = import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{setting}: no module named {error.name}; install it, or start where it can be imported"
        ) from error
    except ImportError as error:
        raise ConfigurationError(f"{setting}: importing {module_name} failed; see the cause above") from error
    for attribute in attributes.split("."):
        try:
            found = getattr(found, attribute)
        except AttributeError:
            raise ConfigurationError(
                f"{setting}: {module_name} has no {attributes}; check the name"
            ) from None
    return found
