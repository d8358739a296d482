"""Flags from LaunchDarkly: the real SDK against a service on the loopback interface."""

import logging
import time
from datetime import timedelta

import ldclient
import pytest
from ldclient import Config, LDClient
from ldclient.feature_store import InMemoryFeatureStore
from ldclient.impl.stubs import NullUpdateProcessor
from ldclient.interfaces import DataSourceState, FlagChange
from ldclient.versioned_data_kind import FEATURES, SEGMENTS
from pydantic import SecretStr

from dualstore.errors import ConfigurationError
from dualstore.flags import Connection, FlagProblem, Identity, LaunchDarklyFlags, ProblemKind, Requested
from dualstore.flags.launchdarkly import NAME
from dualstore.stages import Stage
from unit.flags.launchdarkly_service import flag, rollout

SDK_KEY = "sdk-key-canary"
STAGE, READ = "dualstore-orders-stage", "dualstore-orders-read-percent"
STAGES = ("off", "dualwrite", "shadow", "live", "rampdown", "complete")


def eventually(condition, *, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def connection(service, *, start_wait=timedelta(seconds=5)):
    return Connection(
        sdk_key=SecretStr(SDK_KEY),
        base_uri=service.url,
        stream_uri=service.url,
        events_uri=service.url,
        start_wait=start_wait,
    )


@pytest.fixture
def flags(launchdarkly):
    with LaunchDarklyFlags(connection(launchdarkly)) as following:
        yield following


def kinds(flags, key=READ):
    return {problem.kind for problem in flags.problems.present("orders") if problem.flag == key}


def test_stage_and_percentages_come_from_the_service(launchdarkly, flags):
    launchdarkly.put(
        flag(STAGE, *STAGES, serve=2),
        flag(READ, 0, 12.5, serve=1),
        flag("dualstore-orders-mirror-percent", 100),
        flag("dualstore-orders-shadow-percent", 5),
    )
    assert flags.requested("orders") == Requested(Stage.SHADOW, 12.5, 100.0, 5.0)


def test_a_change_is_heard_and_looked_up_afterwards(launchdarkly, flags):
    launchdarkly.put(flag(READ, 0, 10))
    assert flags.requested("orders").postgres_read_percent == 0
    launchdarkly.patch(flag(READ, 0, 10, serve=1))
    eventually(lambda: flags.requested("orders").postgres_read_percent == 10)


def test_a_change_of_another_flag_costs_no_evaluation(launchdarkly):
    """Counted by the problems of flags that are missing: each evaluation counts them again."""
    launchdarkly.put()
    with LaunchDarklyFlags(connection(launchdarkly)) as flags:
        flags.requested("orders")
        launchdarkly.patch(flag("theirs", True))
        launchdarkly.patch(flag(READ, 10))
        eventually(lambda: flags.requested("orders").postgres_read_percent == 10)
        assert set(flags.problems.counts().values()) == {1}


def test_a_flag_is_followed_again_when_what_it_depends_on_changes(launchdarkly, flags):
    gate = flag("theirs", False, True)
    depending = flag(READ, 0, 10, serve=1, prerequisites=[{"key": "theirs", "variation": 1}])
    launchdarkly.put(gate, depending)
    assert flags.requested("orders").postgres_read_percent == 0
    launchdarkly.patch({**gate, "fallthrough": {"variation": 1}})
    eventually(lambda: flags.requested("orders").postgres_read_percent == 10)


def test_a_deleted_flag_asks_for_nothing(launchdarkly, flags):
    launchdarkly.put(flag(STAGE, *STAGES, serve=1))
    assert flags.requested("orders").stage is Stage.DUALWRITE
    launchdarkly.delete(STAGE)
    eventually(lambda: flags.requested("orders").stage is None)
    assert kinds(flags, STAGE) == {ProblemKind.MISSING}


# Values that cannot be followed


@pytest.mark.parametrize(
    ("served", "kind"),
    [
        (flag(READ, "10"), ProblemKind.MALFORMED),
        (flag(READ, 101), ProblemKind.MALFORMED),
        (flag(READ, True), ProblemKind.MALFORMED),
        (flag(READ, 10, serve=7), ProblemKind.MALFORMED),
        (flag(READ, 10, on=False, offVariation=None), ProblemKind.OFF),
        (flag(READ, 0, 10, fallthrough=rollout(50, 50)), ProblemKind.SPLIT),
        (flag(READ, 0, 10, fallthrough=rollout(50, 50, kind="service")), ProblemKind.SPLIT),
        (flag("theirs", 10), ProblemKind.MISSING),
    ],
)
def test_a_value_that_cannot_be_followed_asks_for_nothing_and_says_why(launchdarkly, flags, served, kind):
    launchdarkly.put(served)
    assert flags.requested("orders").postgres_read_percent is None
    assert kinds(flags) == {kind}


def test_a_ramp_over_two_stages_is_split_and_both_ends_of_it_are_not(launchdarkly, flags, caplog):
    """LaunchDarkly's page ramps a migration flag by the kind `user` and keeps a weight for every stage."""
    launchdarkly.put(flag(STAGE, *STAGES, fallthrough=rollout(0, 100, 0, 0, 0, 0)))
    assert flags.requested("orders").stage is Stage.DUALWRITE, "not the first variation, which has no weight"
    launchdarkly.patch(flag(STAGE, *STAGES, fallthrough=rollout(0, 90, 10, 0, 0, 0)))
    eventually(lambda: flags.requested("orders").stage is None)
    assert any("one value to every context" in record.message for record in caplog.records)
    launchdarkly.patch(flag(STAGE, *STAGES, fallthrough=rollout(0, 0, 100, 0, 0, 0)))
    eventually(lambda: flags.requested("orders").stage is Stage.SHADOW)
    assert kinds(flags, STAGE) == set()


def test_a_target_of_one_process_is_split_too(launchdarkly):
    target = [{"contextKind": "service", "variation": 3, "values": ["orders-api"]}]
    launchdarkly.put(flag(STAGE, *STAGES, serve=2, contextTargets=target))
    with LaunchDarklyFlags(connection(launchdarkly), identity=Identity("service", "orders-api")) as flags:
        assert flags.requested("orders").stage is None
        assert kinds(flags, STAGE) == {ProblemKind.SPLIT}


def test_a_default_of_the_teams_own_client_is_no_request(launchdarkly):
    launchdarkly.put()
    config = Config(
        SDK_KEY,
        base_uri=launchdarkly.url,
        stream_uri=launchdarkly.url,
        send_events=False,
        defaults={STAGE: "off", READ: 0},
    )
    with LDClient(config) as client, LaunchDarklyFlags(client) as flags:
        assert flags.requested("orders") == Requested()
        assert kinds(flags) == {ProblemKind.MISSING}


def test_a_context_that_launchdarkly_does_not_allow_is_refused_by_name(launchdarkly):
    flags = LaunchDarklyFlags(connection(launchdarkly), identity=Identity("kind", "dualstore"))
    with flags, pytest.raises(ConfigurationError, match="context_kind"):
        flags.requested("orders")


# Boolean rollouts


def test_a_boolean_rollout_becomes_a_percentage_where_that_is_wanted(launchdarkly):
    launchdarkly.put(flag(READ, False, True, fallthrough=rollout(90, 10)))
    with LaunchDarklyFlags(connection(launchdarkly), key_contexts=True) as flags:
        # Three standard deviations of 1,000 draws at 10 percent.
        assert flags.requested("orders").postgres_read_percent == pytest.approx(10, abs=2.9)


def test_a_boolean_rollout_only_grows_and_ends_are_exact(launchdarkly):
    seen = []
    launchdarkly.put(flag(READ, False, True, fallthrough=rollout(100, 0)))
    with LaunchDarklyFlags(connection(launchdarkly), key_contexts=True) as flags:
        seen.append(flags.requested("orders").postgres_read_percent)
        for percent in (1, 10, 11, 50, 100):
            launchdarkly.patch(flag(READ, False, True, fallthrough=rollout(100 - percent, percent)))
            eventually(lambda: flags.requested("orders").postgres_read_percent != seen[-1])
            seen.append(flags.requested("orders").postgres_read_percent)
    assert seen == sorted(seen)
    assert (seen[0], seen[-1]) == (0.0, 100.0)


def test_a_boolean_rollout_is_the_same_percentage_in_every_process(launchdarkly):
    launchdarkly.put(flag(READ, False, True, fallthrough=rollout(70, 30)))
    with (
        LaunchDarklyFlags(connection(launchdarkly), key_contexts=True) as one,
        LaunchDarklyFlags(connection(launchdarkly), key_contexts=True) as other,
    ):
        assert one.requested("orders") == other.requested("orders")


def test_a_boolean_is_never_a_stage(launchdarkly):
    launchdarkly.put(flag(STAGE, False, True))
    with LaunchDarklyFlags(connection(launchdarkly), key_contexts=True) as flags:
        assert flags.requested("orders").stage is None
        assert kinds(flags, STAGE) == {ProblemKind.MALFORMED}


# The service comes and goes


def test_a_service_that_is_away_at_the_start_is_followed_when_it_comes(launchdarkly, caplog):
    launchdarkly.status = 503
    launchdarkly.put(flag(READ, 10))
    with LaunchDarklyFlags(connection(launchdarkly, start_wait=timedelta(0))) as flags:
        started = time.monotonic()
        assert flags.requested("orders") == Requested()
        assert time.monotonic() - started < 3, "the SDK's import takes most of a second"
        unreachable = FlagProblem(None, NAME, ProblemKind.UNREACHABLE)
        eventually(lambda: unreachable in flags.problems.present("orders"))
        launchdarkly.status = 200
        eventually(lambda: flags.requested("orders").postgres_read_percent == 10)
        eventually(lambda: unreachable not in flags.problems.present("orders"))
    assert sum(r.levelno == logging.WARNING and r.name.startswith("dualstore") and NAME in r.message
               for r in caplog.records) == 1  # fmt: skip


def test_the_flags_stay_while_the_service_is_away_or_talks_nonsense(launchdarkly, flags):
    launchdarkly.put(flag(READ, 10))
    assert flags.requested("orders").postgres_read_percent == 10
    launchdarkly.flags = {READ: flag(READ, 20, version=2)}
    launchdarkly.send("patch", '{"path": "/flags/')
    unreachable = FlagProblem(None, NAME, ProblemKind.UNREACHABLE)
    eventually(lambda: unreachable in flags.problems.present("orders"))
    assert flags.requested("orders").postgres_read_percent == 10
    eventually(lambda: flags.requested("orders").postgres_read_percent == 20, seconds=10)
    eventually(lambda: unreachable not in flags.problems.present("orders"))


def test_what_a_teams_feature_store_remembers_is_followed_only_once_the_service_was_reached():
    """The store outlives processes: it may hold a stage that the table has left since."""
    remembering = InMemoryFeatureStore()
    remembering.init({FEATURES: {STAGE: flag(STAGE, *STAGES, serve=2)}, SEGMENTS: {}})
    sinks = []

    def away(config, store, ready):
        sinks.append(config.data_source_update_sink)
        return NullUpdateProcessor(config, store, ready)

    config = Config("x", update_processor_class=away, send_events=False, feature_store=remembering)
    with LDClient(config, start_wait=0) as client, LaunchDarklyFlags(client) as flags:
        assert client.variation(STAGE, ldclient.Context.create("x"), None) == "shadow"
        assert flags.requested("orders") == Requested()
        assert kinds(flags, NAME) == {ProblemKind.UNREACHABLE}
        client._data_system._flag_change_listeners.notify(FlagChange(STAGE))
        assert flags.requested("orders") == Requested()
        (sink,) = sinks
        sink.init({FEATURES: {STAGE: flag(STAGE, *STAGES, serve=3, version=2)}, SEGMENTS: {}})
        sink.update_status(DataSourceState.VALID, None)
        assert flags.requested("orders").stage is Stage.LIVE
        assert not kinds(flags, NAME)


def test_the_wait_for_the_service_is_bounded(launchdarkly):
    launchdarkly.status = 503
    with LaunchDarklyFlags(connection(launchdarkly, start_wait=timedelta(milliseconds=300))) as flags:
        started = time.monotonic()
        assert flags.requested("orders") == Requested()
        assert time.monotonic() - started < 3
        assert kinds(flags, NAME) == {ProblemKind.UNREACHABLE}


# What is told to others


def test_probes_and_buckets_are_no_contexts_of_the_customers(launchdarkly):
    launchdarkly.put(flag(STAGE, *STAGES), flag(READ, False, True))
    with LaunchDarklyFlags(connection(launchdarkly), key_contexts=True) as flags:
        flags.requested("orders")
    eventually(lambda: launchdarkly.of_kind("summary"))
    contexts = [event["context"] for event in launchdarkly.of_kind("index")]
    assert contexts == [{"kind": "multi", "service": {"key": "dualstore"}, "user": {"key": "dualstore"}}]


def test_the_sdk_key_is_in_no_log_and_no_repr(launchdarkly, caplog):
    caplog.set_level(logging.DEBUG)
    given = connection(launchdarkly)
    with LaunchDarklyFlags(given) as flags:
        flags.requested("orders")
        said = repr(given) + repr(vars(flags)) + caplog.text
    assert SDK_KEY not in said


# Clients and threads


def sdk_clients_listening(client):
    return client.flag_tracker._FlagTrackerImpl__listeners.has_listeners()


def test_the_teams_own_client_is_used_and_left_open(launchdarkly):
    launchdarkly.put(flag(READ, 10))
    config = Config(SDK_KEY, base_uri=launchdarkly.url, stream_uri=launchdarkly.url, send_events=False)
    with LDClient(config) as client:
        with LaunchDarklyFlags(client) as flags:
            assert flags.requested("orders").postgres_read_percent == 10
            launchdarkly.patch(flag(READ, 20))
            eventually(lambda: flags.requested("orders").postgres_read_percent == 20)
        assert not sdk_clients_listening(client)
        assert client.variation(READ, ldclient.Context.create("x"), None) == 20


def test_a_closed_source_keeps_what_it_knew(launchdarkly):
    launchdarkly.put(flag(READ, 10))
    flags = LaunchDarklyFlags(connection(launchdarkly))
    assert launchdarkly.connected == 0, "a constructor does no I/O"
    flags.requested("orders")
    flags.close()
    assert flags.requested("orders").postgres_read_percent == 10
    assert flags.requested("carts") == Requested()
    flags.close()
