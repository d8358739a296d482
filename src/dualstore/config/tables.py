"""The sections of one table, under `[tables.<name>]`."""

from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, StringConstraints, model_validator

from dualstore.config.forms import ImportPath, LogicalName, Percent, Section
from dualstore.stages import Stage


class SignalSettings(Section):
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


class CloudWatchSettings(Section):
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


class TableMonitorSettings(Section):
    """`[tables.<name>.monitor]`: when figures of one table are alarms, and what is done then.

    Attributes:
        rollback: whether reads go back by one step of the dial, all at once, or an alarm is told only.
        signals: by name, thresholds that differ from the default.
        cloudwatch: metrics that are read beside the fleet's figures.
    """

    rollback: Literal["step", "zero", "none"] = "step"
    signals: dict[str, SignalSettings] = {}  # noqa: RUF012 - pydantic copies it
    cloudwatch: tuple[CloudWatchSettings, ...] = ()


class TableRecordingSettings(Section):
    """`[tables.<name>.recording]`: whether a table's operations are recorded; never a key, never a value.

    Attributes:
        percent: the share of them that is.
    """

    percent: Percent = 0.0


class CohortSettings(Section):
    """`[tables.<name>.cohorts]`: cohorts whose reads do not go by the percentage; `always_off` wins.

    Attributes:
        always_on: read PostgreSQL as soon as it may be read, at 0 % too.
        always_off: do not read PostgreSQL while it is the mirror, at 100 % neither.
    """

    always_on: tuple[str, ...] = ()
    always_off: tuple[str, ...] = ()


class StaticFlagSettings(Section):
    """`[tables.<name>.static]`: stage and dials of one table, where `flags.kind` is `static`."""

    stage: Stage | None = None
    read_percent: Percent | None = None
    mirror_percent: Percent | None = None
    shadow_percent: Percent | None = None


class TableShadowSettings(Section):
    """`[tables.<name>.shadow]`: what the comparison of one table leaves out.

    Attributes:
        ignore: attributes by name, or by a path through maps, as `meta.etag`.
        normalise: a function that gives back an item as it is to be compared, as `package.module:name`.
    """

    ignore: tuple[Annotated[str, StringConstraints(min_length=1)], ...] = ()
    normalise: ImportPath | None = None


class EntitySettings(Section):
    """One of `[[tables.<name>.entities]]`: a model with a SQL table of its own, of several behind one table.

    Attributes:
        model: the PynamoDB model, as `package.module:Name`.
        row: its SQLAlchemy model.
        where: which items are the model's, in a form of `dualstore.mapping.Entity`.
    """

    model: ImportPath
    row: ImportPath
    where: dict[str, Any] = Field(default_factory=lambda: {"discriminator": True})


class TableSettings(Section):
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
