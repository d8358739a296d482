"""Tallies that processes send and the demo adds up."""

import json

from dualstore.cli.demo.measures import Meter, Tally, side_tally
from dualstore.cli.demo.moments import Failure
from dualstore.stages import Side
from dualstore.telemetry import Role, ShadowCompared, Telemetry, Verdict


def test_a_tally_survives_the_way_through_json():
    meter = Meter()
    meter.call("get", 0.003)
    meter.call("save", 1.5)
    meter.count("own reads", 3)
    meter.failed(Failure.of(ValueError(), began_ns=1))
    tally = meter.take()
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))) == tally


def test_what_was_taken_is_not_taken_again():
    meter = Meter()
    meter.call("get", 0.003)
    assert meter.take().waited().count == 1
    assert meter.take() == Tally()


def test_the_tallies_of_two_processes_add_up():
    meters = Meter(), Meter()
    for meter, seconds in zip(meters, (0.001, 0.2), strict=True):
        meter.call("get", seconds)
        meter.count("stale reads")
    total = Tally()
    for meter in meters:
        total += meter.take()
    assert total.waited(["get"]).count == 2
    assert total.worst_seconds == 0.2
    assert total.counts["stale reads"] == 2


def test_telemetry_is_told_apart_by_side_and_kind_of_work():
    telemetry = Telemetry()
    telemetry.operation("airports", "GetItem", Side.POSTGRES, Role.MIRROR, 0.001)
    telemetry.operation("airports", "PutItem", Side.POSTGRES, Role.MIRROR, 0.001)
    telemetry.operation("airports", "Query", Side.POSTGRES, Role.SHADOW, 0.001)
    telemetry.operation("airports", "PutItem", Side.DYNAMODB, Role.AUTHORITATIVE, 0.002)
    telemetry.operation("airports", "PutItem", Side.POSTGRES, Role.MIRROR, 0.00001, "MirrorUnavailable")
    telemetry.record(ShadowCompared("airports", "Query", Verdict.MISMATCH))
    tally = side_tally(telemetry.snapshot())
    assert {work: latencies.count for work, latencies in tally.sides.items()} == {
        "PostgreSQL reads": 1,
        "PostgreSQL writes": 1,
        "PostgreSQL shadow reads": 1,
        "DynamoDB writes": 1,
    }
    assert tally.counts["mismatches"] == tally.counts["compared"] == 1
