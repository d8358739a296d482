"""Flags set through LaunchDarkly's REST API as it is documented (on the loopback interface)."""

import logging

import pytest
from pydantic import SecretStr

from dualstore.config import Configuration
from dualstore.errors import ConfigurationError, Unavailable
from dualstore.flags import FileFlags, Identity, setter_of
from dualstore.flags.launchdarkly_api import LaunchDarklyApi
from dualstore.stages import Stage
from unit.flags.launchdarkly_service import TOKEN

STAGE, READ, SHADOW = (f"dualstore-orders-{suffix}" for suffix in ("stage", "read-percent", "shadow-percent"))
STAGES = ("off", "dualwrite", "shadow", "live", "rampdown", "complete")


def api(service, *, token=TOKEN, **parts):
    named = {"project": "shop", "environment": "production", "base_uri": service.url, **parts}
    return LaunchDarklyApi(SecretStr(token), **named)


def kinds(service):
    return [instruction["kind"] for _, patch in service.patches for instruction in patch["instructions"]]


def test_a_value_that_the_flag_has_is_served_to_everybody(launchdarkly):
    launchdarkly.rest_flag(READ, 0, 10, 50)
    launchdarkly.rest_flag(STAGE, *STAGES)
    api(launchdarkly).set("orders", stage=Stage.SHADOW, postgres_read_percent=10.0)
    assert (launchdarkly.served(STAGE), launchdarkly.served(READ)) == ("shadow", 10)
    assert kinds(launchdarkly) == ["updateFallthroughVariationOrRollout"] * 2


def test_a_number_that_the_flag_has_not_becomes_a_variation_first(launchdarkly):
    launchdarkly.rest_flag(READ, 0)
    api(launchdarkly).set("orders", postgres_read_percent=12.5)
    assert launchdarkly.served(READ) == 12.5
    api(launchdarkly).set("orders", postgres_read_percent=20.0)
    assert [variation["value"] for variation in launchdarkly.rest[READ]["variations"]] == [0, 12.5, 20]
    assert isinstance(launchdarkly.served(READ), int), "as people write it"


def test_a_flag_whose_targeting_is_off_is_turned_on(launchdarkly):
    launchdarkly.rest_flag(READ, 0, 10, on=False)
    api(launchdarkly).set("orders", postgres_read_percent=10)
    assert launchdarkly.rest[READ]["environments"]["production"]["on"]


def test_a_migration_flag_gets_a_rollout_of_one_stage_by_its_own_kind(launchdarkly):
    launchdarkly.rest_flag(STAGE, *STAGES, migrates="service")
    api(launchdarkly).set("orders", stage="dualwrite")
    assert launchdarkly.served(STAGE) == {**dict.fromkeys(STAGES, 0), "dualwrite": 100_000}
    served = launchdarkly.rest[STAGE]["environments"]["production"]["fallthrough"]
    assert served["rollout"]["contextKind"] == "service"


def test_a_migration_flag_that_ramps_by_another_kind_is_refused(launchdarkly):
    """Its contexts would get the first stage, whatever is served."""
    launchdarkly.rest_flag(STAGE, *STAGES, migrates="device")
    with pytest.raises(ConfigurationError, match='context_kind = "device"'):
        api(launchdarkly).set("orders", stage="dualwrite")
    api(launchdarkly, identity=Identity("device")).set("orders", stage="dualwrite")


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ({"rules": [{"clauses": []}]}, "rules"),
        ({"targets": [{"values": ["a"], "variation": 0}]}, "targets"),
        ({"contextTargets": [{"values": ["a"], "variation": 0, "contextKind": "x"}]}, "contextTargets"),
        ({"prerequisites": [{"key": "theirs", "variation": 0}]}, "prerequisites"),
        ({"kind": "boolean"}, "boolean"),
    ],
)
def test_a_flag_that_its_default_rule_does_not_decide_is_left_alone(launchdarkly, parts, told):
    launchdarkly.rest_flag(READ, 0, 10, **parts)
    with pytest.raises(ConfigurationError, match=told):
        api(launchdarkly).set("orders", postgres_read_percent=10)
    assert launchdarkly.patches == []


def test_targets_without_a_key_are_none(launchdarkly):
    launchdarkly.rest_flag(READ, 0, 10, contextTargets=[{"values": [], "variation": 0}])
    api(launchdarkly).set("orders", postgres_read_percent=10)
    assert launchdarkly.served(READ) == 10


def test_nothing_is_changed_where_one_of_the_flags_is_missing(launchdarkly):
    launchdarkly.rest_flag(STAGE, *STAGES)
    with pytest.raises(ConfigurationError, match=f"{SHADOW}.*404.*create the flag"):
        api(launchdarkly).set("orders", stage="dualwrite", shadow_percent=5)
    assert launchdarkly.patches == []


def test_what_was_set_can_be_put_back(launchdarkly):
    launchdarkly.rest_flag(READ, 0, 10, on=False)
    rolled = {"rollout": {"variations": [{"variation": 1, "weight": 100_000}], "contextKind": "service"}}
    launchdarkly.rest_flag(STAGE, *STAGES, migrates="service", fallthrough=rolled)
    put_back = api(launchdarkly).set("orders", stage="shadow", postgres_read_percent=5)
    assert launchdarkly.served(READ) == 5
    put_back()
    assert launchdarkly.served(READ) == 0
    assert not launchdarkly.rest[READ]["environments"]["production"]["on"]
    assert launchdarkly.served(STAGE) == {"dualwrite": 100_000}


def test_a_change_that_fails_half_way_is_put_back(launchdarkly):
    launchdarkly.rest_flag(STAGE, *STAGES)
    broken = launchdarkly.rest_flag(READ, 0, migrates="user")
    with pytest.raises(ConfigurationError, match="400"):
        api(launchdarkly).set("orders", stage="shadow", postgres_read_percent=10)
    assert launchdarkly.served(STAGE) == "off"
    assert [variation["value"] for variation in broken["variations"]] == [0]


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (400, ConfigurationError, "scheduled changes"),
        (401, ConfigurationError, "LAUNCHDARKLY_API_TOKEN"),
        (403, ConfigurationError, "role"),
        (404, ConfigurationError, "create the flag"),
        (405, ConfigurationError, "approvals"),
        (409, Unavailable, "somebody else"),
        (429, Unavailable, "7 seconds"),
        (500, Unavailable, "try again"),
        (302, Unavailable, "302"),
    ],
)
def test_a_refusal_says_what_to_do(launchdarkly, status, kind, told):
    launchdarkly.status, launchdarkly.message = status, "its own words"
    launchdarkly.headers = {"Location": launchdarkly.url, "Retry-After": "7"}
    with pytest.raises(kind, match=told) as refused:
        api(launchdarkly).set("orders", postgres_read_percent=10)
    assert "its own words" in str(refused.value)
    assert READ in str(refused.value)


def test_a_token_of_another_account_is_refused_and_shown_nowhere(launchdarkly, caplog):
    caplog.set_level(logging.DEBUG)
    launchdarkly.rest_flag(READ, 0, 10)
    setter = api(launchdarkly, token="another-canary")
    with pytest.raises(ConfigurationError, match="401") as refused:
        setter.set("orders", postgres_read_percent=10)
    assert launchdarkly.tokens == ["another-canary"]
    assert "canary" not in str(refused.value) + caplog.text + repr(vars(setter))


def test_an_api_that_is_away_is_unavailable(launchdarkly):
    with pytest.raises(Unavailable, match="does not answer"):
        api(launchdarkly, base_uri="http://127.0.0.1:9").set("orders", postgres_read_percent=10)


def test_an_environment_that_is_not_there_is_named(launchdarkly):
    launchdarkly.rest_flag(READ, 0, 10)
    with pytest.raises(ConfigurationError, match="no environment test"):
        api(launchdarkly, environment="test").set("orders", postgres_read_percent=10)


@pytest.mark.parametrize("wishes", [{"stage": "canary"}, {"shadow_percent": 101}, {"stage": None}])
def test_a_wish_that_no_flag_can_carry_never_reaches_the_service(launchdarkly, wishes):
    with pytest.raises(ConfigurationError):
        api(launchdarkly).set("orders", **wishes)
    assert launchdarkly.tokens == []


# Who sets the flags of a configuration


def configured(**flags):
    return Configuration.model_validate({"postgres": {"url": "postgresql://db/app"}, "flags": flags})


def test_the_setter_is_where_the_flags_are_kept(launchdarkly, monkeypatch, tmp_path):
    monkeypatch.setenv("LAUNCHDARKLY_API_TOKEN", TOKEN)
    launchdarkly.rest_flag(READ, 0, 10)
    there = {"project": "shop", "environment": "production", "api_uri": launchdarkly.url}
    setter_of(configured(kind="launchdarkly", **there)).set("orders", postgres_read_percent=10)
    assert launchdarkly.served(READ) == 10
    assert isinstance(setter_of(configured(kind="file", path=tmp_path / "flags.json")), FileFlags)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"kind": "static"}, "tables.<name>.static"),
        ({"kind": "launchdarkly", "project": "shop"}, "flags.environment"),
        ({"kind": "launchdarkly", "project": "shop", "environment": "production"}, "LAUNCHDARKLY_API_TOKEN"),
    ],
)
def test_what_is_missing_to_set_flags_is_named(monkeypatch, flags, told):
    monkeypatch.delenv("LAUNCHDARKLY_API_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match=told):
        setter_of(configured(**flags))
