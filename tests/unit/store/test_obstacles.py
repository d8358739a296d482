"""What stands in the way of each step, and that nothing unknown is taken for clear."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from dualstore.control import ControlRecord, Gate, Stop
from dualstore.errors import MirrorUnavailable
from dualstore.stages import Dials, Stage
from dualstore.store.obstacles import Witnesses, obstacles
from dualstore.stores.dynamo_description import TableDescription
from dualstore.stores.outbox import OutboxDepth

OFF = ControlRecord("orders-prod")
READY = ControlRecord("orders-prod", stage=Stage.SHADOW, loaded=True, verified=True, epoch=1)
LIVE = replace(READY, stage=Stage.LIVE, epoch=2)
RAMPDOWN = replace(LIVE, stage=Stage.RAMPDOWN)
CLEAR = TableDescription("orders-prod", active=True, stream_view="NEW_AND_OLD_IMAGES")
ABROAD = replace(CLEAR, other_regions=("eu-west-1",))
EMPTY = OutboxDepth()


@dataclass
class World:
    """Both databases as they answer; an exception among the answers is raised."""

    description: Any = CLEAR
    journal_keys: Any = 0
    relay_within: Any = True
    dirty_keys: Any = 0
    outbox: Any = EMPTY
    triggers_installed: Any = True
    hazards: Any = ()
    stop: Any = None
    asked: list[str] = field(default_factory=list)

    def obstacles(self, record: ControlRecord, target: Stage) -> list[str]:
        names = Witnesses.__dataclass_fields__
        return obstacles(record, target, Witnesses(**{name: self._ask(name) for name in names}))

    def _ask(self, name: str) -> Callable[..., Any]:
        def answer(*_: object) -> Any:
            self.asked.append(name)
            known = getattr(self, name)
            if isinstance(known, Exception):
                raise known
            return known

        return answer


STEPS = [
    (OFF, Stage.DUALWRITE),
    (READY, Stage.LIVE),
    (LIVE, Stage.SHADOW),
    (RAMPDOWN, Stage.COMPLETE),
]


@pytest.mark.parametrize(("record", "target"), STEPS)
def test_nothing_stands_in_the_way_of_a_table_that_is_ready(record, target):
    assert World().obstacles(record, target) == []


@pytest.mark.parametrize(
    ("record", "target"),
    [
        (replace(READY, stage=Stage.DUALWRITE), Stage.SHADOW),
        (READY, Stage.DUALWRITE),
        (replace(READY, stage=Stage.DUALWRITE), Stage.OFF),
        (LIVE, Stage.RAMPDOWN),
        (RAMPDOWN, Stage.LIVE),
        (LIVE, Stage.LIVE),
        (replace(LIVE, stage=Stage.COMPLETE), Stage.COMPLETE),
    ],
)
def test_a_step_that_moves_nothing_asks_nobody(record, target):
    world = World(description=ABROAD, outbox=OutboxDepth(entries=9, oldest_age=timedelta(hours=1)))
    assert world.obstacles(record, target) == []
    assert world.asked == []


RECORDS = {
    "mirror-percent is 50": replace(READY, dials=Dials(mirror_percent=50)),
    'mirroring = "inline"': replace(READY, deferred=True),
    "dualstore backfill": replace(READY, loaded=False),
    "dualstore verify --repair`, or wait": replace(READY, suspects=frozenset({"p"})),
    "no verification has proved": replace(READY, verified=False),
    "the gate is shut": replace(READY, gate=Gate.SHUT),
}


@pytest.mark.parametrize("says", RECORDS)
def test_the_record_alone_can_stand_in_the_way_of_live_and_then_nobody_is_asked(says):
    world = World()
    (reason,) = world.obstacles(RECORDS[says], Stage.LIVE)
    assert says in reason
    assert world.asked == []


def test_a_gate_that_is_reopening_is_not_open():
    assert World().obstacles(replace(READY, gate=Gate.REOPENING), Stage.LIVE)


def test_all_that_the_record_says_is_told_at_once():
    worst = replace(
        READY,
        dials=Dials(mirror_percent=50),
        deferred=True,
        loaded=False,
        verified=False,
        suspects=frozenset("p"),
        gate=Gate.SHUT,
    )
    assert len(World().obstacles(worst, Stage.LIVE)) == 6


TO_LIVE = {
    "has no stream": {"description": replace(CLEAR, stream_view=None)},
    "view type KEYS_ONLY": {"description": replace(CLEAR, stream_view="KEYS_ONLY")},
    "view type NEW_IMAGE": {"description": replace(CLEAR, stream_view="NEW_IMAGE")},
    "replicated to eu-west-1": {"description": ABROAD},
    "not active": {"description": replace(CLEAR, active=False)},
    "7 key(s) wait in the journal": {"journal_keys": 7},
    "dualstore relay": {"relay_within": False},
    "3 key(s) are in doubt": {"dirty_keys": 3},
    "stopped by kim": {"stop": Stop("kim", 0.0)},
    "5 change(s) of an earlier time": {"outbox": OutboxDepth(entries=7, second_looks=2)},
    "lacks dualstore's triggers": {"triggers_installed": False},
    "a rule on the table": {"hazards": ["a rule on the table"]},
}


@pytest.mark.parametrize("says", TO_LIVE)
def test_the_databases_can_stand_in_the_way_of_live(says):
    (reason,) = World(**TO_LIVE[says]).obstacles(READY, Stage.LIVE)
    assert says in reason


BACK = {
    "behind the outbox": {"outbox": OutboxDepth(entries=1, oldest_age=timedelta(seconds=11))},
    "DynamoDB refuses 2 change(s)": {"outbox": OutboxDepth(entries=3, refused=2)},
    "lacks dualstore's triggers": {"triggers_installed": False},
    "replicated to eu-west-1": {"description": ABROAD},
    "not active": {"description": replace(CLEAR, active=False)},
}


@pytest.mark.parametrize("says", BACK)
def test_the_databases_can_stand_in_the_way_back(says):
    (reason,) = World(**BACK[says]).obstacles(LIVE, Stage.SHADOW)
    assert says in reason


def test_an_outbox_that_is_being_worked_off_and_a_missing_stream_do_not_stand_in_the_way_back():
    world = World(
        outbox=OutboxDepth(500, oldest_age=timedelta(seconds=2)),
        description=replace(CLEAR, stream_view=None),
    )
    assert world.obstacles(LIVE, Stage.SHADOW) == []


def test_a_request_that_may_still_be_carried_out_stands_in_the_way_back():
    (reason,) = World(outbox=OutboxDepth(2, second_looks=2)).obstacles(LIVE, Stage.SHADOW)
    assert "2 request(s)" in reason


def test_an_outbox_that_nobody_works_off_stands_in_the_way_of_complete():
    waiting = OutboxDepth(entries=9, oldest_age=timedelta(seconds=11))
    (reason,) = World(outbox=waiting).obstacles(RAMPDOWN, Stage.COMPLETE)
    assert "11 s behind" in reason
    assert (
        World(outbox=replace(waiting, oldest_age=timedelta(seconds=1))).obstacles(RAMPDOWN, Stage.COMPLETE)
        == []
    )


def test_a_global_table_is_not_mirrored():
    (reason,) = World(description=ABROAD).obstacles(OFF, Stage.DUALWRITE)
    assert "global table" in reason


FAILURES = [
    MirrorUnavailable("PostgreSQL secret"),
    ClientError({"Error": {"Code": "AccessDeniedException", "Message": "secret"}}, "DescribeTable"),
    EndpointConnectionError(endpoint_url="http://secret"),
    ValueError("secret"),
]


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize(("record", "target"), STEPS)
def test_what_cannot_be_looked_up_stands_in_the_way_and_nothing_escapes(record, target, failure):
    ready = World()
    ready.obstacles(record, target)
    for name in set(ready.asked):
        (reason, *others) = World(**{name: failure}).obstacles(record, target)
        assert "could not be looked up" in reason
        assert not others
        assert "secret" not in reason


def test_a_database_that_is_out_of_reach_is_asked_once_and_the_other_one_still():
    world = World(triggers_installed=MirrorUnavailable("away"), journal_keys=4)
    reasons = world.obstacles(READY, Stage.LIVE)
    assert [reason.partition(" (Mirror")[0] for reason in reasons] == [
        "the triggers of the mapped SQL table could not be looked up",
        "4 key(s) wait in the journal to be settled: wait for it, or run `dualstore repair`",
    ]
    assert world.asked == ["triggers_installed", "description", "journal_keys"]


def test_a_refusal_of_one_question_keeps_no_other_from_being_asked():
    world = World(
        description=ClientError({"Error": {"Code": "AccessDeniedException"}}, "DescribeTable"), journal_keys=4
    )
    denied, waiting = world.obstacles(READY, Stage.LIVE)
    assert "AccessDeniedException" in denied
    assert "4 key(s)" in waiting


@pytest.mark.parametrize(("record", "target"), STEPS)
def test_every_obstacle_says_what_to_do(record, target):
    world = World(
        description=replace(ABROAD, active=False, stream_view=None),
        journal_keys=1,
        relay_within=False,
        dirty_keys=1,
        outbox=OutboxDepth(entries=2, refused=1, oldest_age=timedelta(hours=1)),
        triggers_installed=False,
    )
    reasons = world.obstacles(record, target)
    assert reasons
    for reason in reasons:
        assert ":" in reason or ";" in reason
        assert not reason.endswith(".")
