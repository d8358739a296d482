"""What the tests of a replay share."""

import pytest

from unit.rollout.load.clocks import WaitedTime


@pytest.fixture
def clock() -> WaitedTime:
    return WaitedTime()
