"""The source of flags that a configuration asks for."""

import pytest

from dualstore.config import Configuration, load
from dualstore.errors import ConfigurationError
from dualstore.flags import FileFlags, LaunchDarklyFlags, Requested, StaticFlags, flags_of
from dualstore.stages import Stage
from unit.flags.launchdarkly_service import flag

POSTGRES = {"url": "postgresql://db/app"}
STATIC = {"orders": {"model": "a:B", "static": {"stage": "shadow", "read_percent": 10}}}


def configured(**sections):
    return Configuration.model_validate({"postgres": POSTGRES, **sections})


def test_static_flags_come_from_the_tables():
    flags = flags_of(configured(tables=STATIC))
    assert isinstance(flags, StaticFlags)
    assert flags.requested("orders") == Requested(Stage.SHADOW, 10.0)
    assert flags.requested("carts") == Requested()


def test_a_flag_file_is_followed_where_it_is_named(tmp_path):
    flags = flags_of(configured(flags={"kind": "file", "path": tmp_path / "flags.json"}))
    assert isinstance(flags, FileFlags)
    assert flags.path == tmp_path / "flags.json"
    flags.close()


def test_static_flags_beside_a_flag_file_are_refused_rather_than_ignored(tmp_path):
    with pytest.raises(ConfigurationError, match=r"tables\.orders\.static"):
        flags_of(configured(flags={"kind": "file", "path": tmp_path / "flags.json"}, tables=STATIC))


def test_static_flags_beside_launchdarkly_are_refused_too(monkeypatch):
    monkeypatch.setenv("LAUNCHDARKLY_SDK_KEY", "key")
    with pytest.raises(ConfigurationError, match=r"tables\.orders\.static"):
        flags_of(configured(flags={"kind": "launchdarkly"}, tables=STATIC))


def test_launchdarkly_is_followed_with_the_key_of_either_variable(launchdarkly, monkeypatch, tmp_path):
    launchdarkly.put(flag("dualstore-orders-read-percent", 10))
    monkeypatch.chdir(tmp_path)
    uris = dict.fromkeys(("base_uri", "stream_uri", "events_uri"), launchdarkly.url)
    settings = {"kind": "launchdarkly", "start_wait_seconds": 5, **uris}
    for variable in ("LAUNCHDARKLY_SDK_KEY", "DUALSTORE_FLAGS__SDK_KEY"):
        monkeypatch.setenv(variable, "key")
        monkeypatch.setenv("DUALSTORE_POSTGRES__URL", POSTGRES["url"])
        key = {"sdk_key": load().flags.sdk_key}
        flags = flags_of(configured(flags={**settings, **key}))
        assert isinstance(flags, LaunchDarklyFlags)
        assert flags.requested("orders").postgres_read_percent == 10
        flags.close()
        monkeypatch.delenv(variable)
    with pytest.raises(ConfigurationError, match="LAUNCHDARKLY_SDK_KEY"):
        flags_of(configured(flags=settings))
