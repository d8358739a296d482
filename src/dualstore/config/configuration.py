"""Everything that can be configured, as one value."""

from typing import Literal

from pydantic import Field, model_validator

from dualstore.config.forms import LogicalName, Section
from dualstore.config.sections import (
    AlertSettings,
    BackfillSettings,
    BreakerSettings,
    ControlSettings,
    DynamoSettings,
    FlagSettings,
    MonitorSettings,
    PostgresSettings,
    RecordingSettings,
    RelaySettings,
    ShadowSettings,
    TelemetrySettings,
)
from dualstore.config.tables import TableSettings


class Configuration(Section):
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
