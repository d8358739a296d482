"""Configuration: `dualstore.toml` overlaid by environment variables, checked before any I/O."""

from dualstore.config.configuration import Configuration
from dualstore.config.forms import ImportPath, LogicalName, Percent
from dualstore.config.importing import import_object
from dualstore.config.loading import DEFAULT_FILE, ENVIRONMENT_PREFIX, NESTING_DELIMITER, load
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
from dualstore.config.tables import (
    CloudWatchSettings,
    CohortSettings,
    EntitySettings,
    SignalSettings,
    StaticFlagSettings,
    TableMonitorSettings,
    TableRecordingSettings,
    TableSettings,
    TableShadowSettings,
)

__all__ = [
    "DEFAULT_FILE",
    "ENVIRONMENT_PREFIX",
    "NESTING_DELIMITER",
    "AlertSettings",
    "BackfillSettings",
    "BreakerSettings",
    "CloudWatchSettings",
    "CohortSettings",
    "Configuration",
    "ControlSettings",
    "DynamoSettings",
    "EntitySettings",
    "FlagSettings",
    "ImportPath",
    "LogicalName",
    "MonitorSettings",
    "Percent",
    "PostgresSettings",
    "RecordingSettings",
    "RelaySettings",
    "ShadowSettings",
    "SignalSettings",
    "StaticFlagSettings",
    "TableMonitorSettings",
    "TableRecordingSettings",
    "TableSettings",
    "TableShadowSettings",
    "TelemetrySettings",
    "import_object",
    "load",
]
