"""One example of every event."""

import pytest

from dualstore.stages import Dials, Side, Stage
from dualstore.telemetry import (
    DirtySeen,
    FellBack,
    FlagUnusable,
    GateSeen,
    GrantExpired,
    JournalSeen,
    LanesSeen,
    MirrorFailed,
    OperationFinished,
    OutboxSeen,
    RecordRelayed,
    RelaySeen,
    RogueChange,
    Role,
    Sent,
    Settled,
    ShadowCompared,
    ShadowDropped,
    StageSeen,
    StreamGap,
    Verdict,
)


@pytest.fixture
def events():
    return [
        OperationFinished("orders", "GetItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.001),
        MirrorFailed("orders", "PutItem", "timeout"),
        Settled("orders", "journal", "changed"),
        FellBack("orders", "Query", "dirty"),
        GrantExpired("orders", "read"),
        FlagUnusable("orders", "dualstore-orders-stage", "missing"),
        ShadowCompared("orders", "GetItem", Verdict.EQUAL),
        ShadowDropped("orders", "GetItem", "queue_full"),
        JournalSeen("orders", 3, 1.5),
        OutboxSeen("orders", 4, 0.5, 1),
        LanesSeen("orders", 16),
        Sent("orders", "created"),
        RecordRelayed("orders", "settled"),
        RogueChange("orders", "unstamped"),
        StreamGap("orders", "trimmed"),
        RelaySeen("orders", 2.5, 3),
        DirtySeen("orders", 2),
        GateSeen("orders", is_open=True),
        StageSeen("orders", Stage.SHADOW, Dials(10.0)),
    ]
