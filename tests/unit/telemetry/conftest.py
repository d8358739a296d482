"""One example of every event."""

import pytest

from dualstore.stages import Dials, Side, Stage
from dualstore.telemetry import (
    BackfillSeen,
    BreakerSeen,
    DirtySeen,
    FellBack,
    FlagUnusable,
    GateSeen,
    GrantExpired,
    ItemUnmapped,
    JournalSeen,
    LanesSeen,
    MirrorFailed,
    OperationFinished,
    OutboxSeen,
    RecordRelayed,
    RelaySeen,
    RequestRefused,
    RogueChange,
    Role,
    Sent,
    ServedStale,
    Settled,
    ShadowCompared,
    ShadowDropped,
    ShadowNoise,
    ShadowShare,
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
        BreakerSeen("orders", Side.POSTGRES, role=Role.MIRROR, is_open=True),
        ServedStale("orders", "GetItem", "Unavailable"),
        GrantExpired("orders", "read"),
        FlagUnusable("orders", "dualstore-orders-stage", "missing"),
        ItemUnmapped("orders"),
        RequestRefused("orders", "jump"),
        ShadowCompared("orders", "GetItem", Verdict.EQUAL),
        ShadowNoise("orders", "GetItem", Verdict.EQUAL),
        ShadowShare("orders", 50.0),
        ShadowDropped("orders", "GetItem", "queue_full"),
        JournalSeen("orders", 3, 1.5),
        OutboxSeen("orders", 4, 0.5, 1),
        LanesSeen("orders", 16),
        Sent("orders", "created"),
        RecordRelayed("orders", "settled"),
        RogueChange("orders", "unstamped"),
        StreamGap("orders", "trimmed"),
        RelaySeen("orders", 2.5, 3),
        BackfillSeen("orders", items=7, rows_per_second=3.5, read_units=2.5, quarantined=1, pieces_left=4),
        DirtySeen("orders", 2),
        GateSeen("orders", is_open=True),
        StageSeen("orders", Stage.SHADOW, Dials(10.0)),
    ]
