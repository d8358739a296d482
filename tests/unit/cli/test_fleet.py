"""What `status` says of the fleet in words."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dualstore.cli.fleet import Shown, evidence_shown
from dualstore.stages import Dials, Stage
from dualstore.store.evidence import Evidence, Fleet

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def shown(share: float | None, dialled: float) -> str:
    evidence = Evidence(
        table="orders",
        stage=Stage.SHADOW,
        dials=Dials(0.0, 100.0, dialled),
        since=NOON,
        until=NOON + timedelta(minutes=1),
        comparisons=400,
        mismatches=0,
        lagging=0,
        unusable=0,
        dropped=0,
        fallbacks=0,
        mirror_failures=0,
        speeds=(),
    )
    fleet = Fleet("orders", timedelta(minutes=1), 2, (), {}, share)
    status = cast("Any", SimpleNamespace(logical="orders"))
    return evidence_shown(Shown(status, fleet, evidence))


def test_where_the_other_side_does_not_bear_what_is_dialled_status_says_what_is_compared() -> None:
    assert "19 % of the reads are compared, not 100 %" in shown(19.4, 100.0)


@pytest.mark.parametrize(("share", "dialled"), [(None, 100.0), (99.6, 100.0), (0.0, 0.0)])
def test_where_all_that_is_dialled_is_compared_status_says_nothing_of_it(
    share: float | None, dialled: float
) -> None:
    assert "are compared, not" not in shown(share, dialled)
