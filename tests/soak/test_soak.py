"""Half a minute of the soak: the whole of it works, and finds nothing. `nox -s soak` runs it for longer."""

import json
import os
from pathlib import Path

import pytest

from dualstore.errors import ConfigurationError
from soak.run import Plan, soak

SEED = 7
SERVERS_REQUIRED = os.environ.get("DUALSTORE_REQUIRE_SERVERS") == "1"


@pytest.mark.timeout(400)
def test_nothing_is_lost_and_both_sides_are_equal_after_traffic_under_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "dualstore")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "dualstore")
    plan = Plan(
        seconds=15,
        seed=SEED,
        keys=4,
        processes=2,
        threads=2,
        relays=1,
        calls_per_second=8,
        fault_pause_seconds=(1.0, 4.0),
        longest_stop_seconds=6.0,
        stay_seconds=(0.2, 1.0),
    )
    try:
        figures = soak(plan, tmp_path / "soak")
    except ConfigurationError as missing:
        if SERVERS_REQUIRED:
            raise
        pytest.skip(str(missing))
    assert figures["clean"], json.dumps(figures, indent=2)
    assert figures["writes"]["acknowledged"] > 100, figures["writes"]
    assert sum(figures["faults"].values()) > 2, figures["faults"]
