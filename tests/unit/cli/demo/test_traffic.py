"""The callers of the demo: they rest once their last call has ended, and not before."""

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dualstore.cli.demo.measures import Meter
from dualstore.cli.demo.traffic import Beat, Caller, Dial, Tempo

KEY = "EGLL"
BEAT = Beat(
    writer="writer",
    owned=(KEY,),
    shared=(KEY,),
    contended=(KEY,),
    countries=("GB",),
    iata_codes=("LHR",),
    calls_per_second=1_000,
    seed=1,
)


class SlowDao:
    """Its first read is answered; every later call waits until it is let go on."""

    def __init__(self) -> None:
        self.called, self.let_go = threading.Event(), threading.Event()
        self._is_warm = False

    def get(self, *_: Any, **__: Any) -> Any:
        if self._is_warm:
            return self._hang()
        self._is_warm = True
        return SimpleNamespace(attribute_values={})

    def __getattr__(self, name: str) -> Any:
        return self._hang

    def _hang(self, *_: Any, **__: Any) -> Any:
        self.called.set()
        assert self.let_go.wait(60)
        raise LookupError


@pytest.fixture
def calling(tmp_path: Path) -> Iterator[SimpleNamespace]:
    """A caller at work, its DAO and its dial."""
    dao, dial, stop = SlowDao(), Dial(), threading.Event()
    caller = Caller(
        BEAT,
        dao=dao,
        airport=SimpleNamespace,
        conflict=ValueError,
        not_found=LookupError,
        source={KEY: frozenset({("icao", KEY), ("name", "Heathrow")})},
        ledgers=tmp_path,
        meter=Meter(),
        dial=dial,
        stop=stop,
    )
    caller.start()
    yield SimpleNamespace(caller=caller, dao=dao, dial=dial)
    dao.let_go.set()
    stop.set()
    caller.join(60)


def test_a_caller_rests_when_its_last_call_has_ended(calling: SimpleNamespace):
    assert calling.dao.called.wait(60)
    calling.dial.tempo = Tempo.REST
    assert not calling.caller.resting.wait(0.2)
    calling.dao.let_go.set()
    assert calling.caller.resting.wait(60)
