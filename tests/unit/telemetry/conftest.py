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
    MirrorFailed,
    OperationFinished,
    Role,
    Settled,
    ShadowCompared,
    ShadowDropped,
    StageSeen,
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
        DirtySeen("orders", 2),
        GateSeen("orders", is_open=True),
        StageSeen("orders", Stage.SHADOW, Dials(10.0)),
    ]
