"""Telemetry: frozen events, cells that count them in the process, and their way to OpenTelemetry."""

from dualstore.telemetry.discrepancies import (
    Discrepancy,
    DiscrepancyKind,
    DiscrepancyLog,
    DiscrepancySink,
)
from dualstore.telemetry.events import (
    OK,
    DirtySeen,
    Event,
    FellBack,
    FlagUnusable,
    GateSeen,
    GrantExpired,
    JournalSeen,
    MirrorFailed,
    OperationFinished,
    Role,
    Settled,
    ShadowCompared,
    ShadowDropped,
    StageSeen,
    Verdict,
)
from dualstore.telemetry.latency import Latencies
from dualstore.telemetry.otel import export
from dualstore.telemetry.recorder import Listener, Telemetry
from dualstore.telemetry.snapshot import OperationKey, Series, Snapshot

__all__ = [
    "OK",
    "DirtySeen",
    "Discrepancy",
    "DiscrepancyKind",
    "DiscrepancyLog",
    "DiscrepancySink",
    "Event",
    "FellBack",
    "FlagUnusable",
    "GateSeen",
    "GrantExpired",
    "JournalSeen",
    "Latencies",
    "Listener",
    "MirrorFailed",
    "OperationFinished",
    "OperationKey",
    "Role",
    "Series",
    "Settled",
    "ShadowCompared",
    "ShadowDropped",
    "Snapshot",
    "StageSeen",
    "Telemetry",
    "Verdict",
    "export",
]
