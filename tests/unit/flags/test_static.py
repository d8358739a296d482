"""Flags that live in the process."""

import pytest

from dualstore.errors import ConfigurationError
from dualstore.flags import Requested, StaticFlags
from dualstore.stages import Stage


def test_a_table_that_nobody_named_is_asked_nothing():
    assert StaticFlags().requested("orders") == Requested(None, None, None, None)


def test_what_is_not_named_stays_and_none_takes_a_request_back():
    flags = StaticFlags({"orders": Requested(Stage.DUALWRITE, 10.0)})
    flags.set("orders", postgres_read_percent=20)
    assert flags.requested("orders") == Requested(Stage.DUALWRITE, 20.0)
    flags.set("orders", stage=None)
    assert flags.requested("orders") == Requested(None, 20.0)


@pytest.mark.parametrize(
    "wishes",
    [
        {"stage": "canary"},
        {"postgres_read_percent": 101},
        {"mirror_percent": True},
        {"shadow_percent": float("nan")},
        {"read_percent": 1},
    ],
)
def test_a_wish_that_no_flag_can_carry_is_refused_without_saying_its_value(wishes):
    flags = StaticFlags({"orders": Requested(Stage.OFF)})
    with pytest.raises(ConfigurationError) as refused:
        flags.set("orders", **wishes)
    assert "canary" not in str(refused.value)
    assert flags.requested("orders") == Requested(Stage.OFF)
