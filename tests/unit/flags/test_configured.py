"""The source of flags that a configuration asks for."""

import pytest

from dualstore.config import Configuration
from dualstore.errors import ConfigurationError
from dualstore.flags import FileFlags, Requested, StaticFlags, flags_of
from dualstore.stages import Stage

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
