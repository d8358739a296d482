"""Configuration from a file and the environment (files in a temporary folder only)."""

import json
import os
import traceback

import pytest

from dualstore.config import Configuration, TableSettings, import_object, load
from dualstore.errors import ConfigurationError
from dualstore.stages import Stage

SECRET = "canary-password"
URL = f"postgresql://app:{SECRET}@db/app"
POSTGRES = f'[postgres]\nurl = "{URL}"\n'


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in list(os.environ):
        if name.upper().startswith("DUALSTORE_"):
            monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def file(tmp_path):
    return tmp_path / "dualstore.toml"


def refused(file, text):
    file.write_text(text)
    with pytest.raises(ConfigurationError) as error:
        load(file)
    shown = "".join(traceback.format_exception(error.value))
    assert SECRET not in shown
    return str(error.value)


def test_the_url_is_the_only_thing_that_must_be_set(file):
    file.write_text(POSTGRES)
    configuration = load(file)
    assert configuration.postgres.url.get_secret_value() == URL
    assert configuration.control.read_grant_seconds == 1.0
    assert configuration.control.write_grant_seconds == 10.0
    assert configuration.dynamodb.bookkeeping_table == "dualstore"
    assert configuration.tables == {}


def test_the_environment_wins_over_the_file_key_by_key(file, environment):
    file.write_text(
        POSTGRES + "pool_size = 7\nstatement_timeout_seconds = 3\n[tables.orders]\nmodel = 'a.b:C'"
    )
    environment.setenv("DUALSTORE_POSTGRES__POOL_SIZE", "8")
    environment.setenv("DUALSTORE_TABLES__ORDERS__STATIC__STAGE", "shadow")
    environment.setenv("DUALSTORE_REQUIRE_SERVERS", "1")
    configuration = load(file)
    assert (configuration.postgres.pool_size, configuration.postgres.statement_timeout_seconds) == (8, 3)
    assert configuration.tables["orders"].static.stage is Stage.SHADOW
    assert configuration.tables["orders"].model == "a.b:C"


def test_without_a_file_the_environment_is_enough(tmp_path, environment):
    environment.chdir(tmp_path)
    environment.setenv("DUALSTORE_POSTGRES__URL", URL)
    assert load().postgres.url.get_secret_value() == URL


def test_the_default_file_is_read_where_there_is_one(file, environment):
    environment.chdir(file.parent)
    file.write_text(POSTGRES + "pool_size = 3")
    assert load().postgres.pool_size == 3


def test_the_secret_is_in_no_text_of_the_configuration(file):
    file.write_text(POSTGRES)
    configuration = load(file)
    assert SECRET not in f"{configuration} {configuration!r} {configuration.model_dump_json()}"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_sqlalchemy_is_given_the_driver_by_name(file, scheme):
    file.write_text(f'[postgres]\nurl = "{scheme}://u:p%40:/@h:5/d?x=y"')
    assert load(file).postgres.sqlalchemy_url == "postgresql+psycopg://u:p%40:/@h:5/d?x=y"


def test_a_flag_file_is_relative_to_the_configuration_that_names_it(file):
    file.write_text(POSTGRES + '[flags]\nkind = "file"\npath = "flags.json"')
    assert load(file).flags.path == file.parent / "flags.json"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ["postgres.url", "DUALSTORE_POSTGRES__URL"]),
        (f'[postgres]\nurl = "{SECRET}"', ["postgres.url", "postgresql://"]),
        (f'[postgres]\nurl = "{URL}', ["not a TOML document"]),
        (POSTGRES + f'ulr = "{URL}"', ["postgres.ulr", "spelling"]),
        (f'postgres = "{URL}"', ["postgres:"]),
        (POSTGRES + "[flags]\nmigration_metrics = true", ["flags", "launchdarkly"]),
        (POSTGRES + '[flags]\ncontext_kind = "multi"', ["flags", "context_kind", "'multi'"]),
        (POSTGRES + '[flags]\napi_uri = "http://launchdarkly.example"', ["flags.api_uri", "https://"]),
        (POSTGRES + f'[flags]\nkind = "{SECRET}"', ["flags.kind", "'static', 'file' or 'launchdarkly'"]),
        (POSTGRES + '[flags]\nkind = "file"', ["flags.path"]),
        (POSTGRES + "[control]\npoll_interval_seconds = 1", ["control", "read_grant_seconds"]),
        (POSTGRES + "[control]\nread_grant_seconds = 11", ["control", "write_grant_seconds"]),
        (POSTGRES + "[control]\nmove_seconds = 8", ["control", "patience_seconds"]),
        (POSTGRES + "[dynamodb]\nread_timeout_seconds = 0", ["dynamodb.read_timeout_seconds"]),
        (POSTGRES + "[tables.orders]", ["tables.orders", "package.module:Model", "physical_name"]),
        (POSTGRES + '[tables.orders]\nmodel = "a.b"', ["tables.orders.model", "package.module:Name"]),
        (POSTGRES + '[tables."or ders"]\nmodel = "a:B"', ["tables.or ders"]),
        (
            POSTGRES + '[tables.o]\nmodel = "a:B"\nstatic.stage = "on"',
            ["tables.o.static.stage", "'dualwrite'"],
        ),
        (POSTGRES + '[tables.o]\nmodel = "a:B"\nstatic.read_percent = 101', ["tables.o.static.read_percent"]),
    ],
)
def test_a_mistake_is_named_by_file_key_and_remedy_but_never_by_value(file, text, told):
    message = refused(file, text)
    assert str(file) in message
    for part in told:
        assert part in message


def test_every_mistake_is_told_at_once(file):
    message = refused(file, POSTGRES + "[control]\nx = 1\n[shadow]\ny = 2")
    assert "control.x" in message
    assert "shadow.y" in message


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("DUALSTORE_POSTGRES__URL", SECRET, "DUALSTORE_POSTGRES__URL"),
        ("dualstore_shadow__workers", SECRET, "DUALSTORE_SHADOW__WORKERS"),
        ("DUALSTORE_POSTGRES", SECRET, "DUALSTORE_"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(file, environment, variable, value, told):
    environment.setenv(variable, value)
    message = refused(file, POSTGRES)
    assert told in message
    assert str(file) not in message


def test_a_file_that_is_asked_for_must_exist(tmp_path):
    with pytest.raises(ConfigurationError, match=r"absent\.toml: no such file"):
        load(tmp_path / "absent.toml")


def test_a_file_that_is_not_utf8_is_named(file):
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="not UTF-8"):
        load(file)


def test_the_configuration_describes_itself_as_json_schema():
    schema = Configuration.model_json_schema()
    assert set(Configuration.model_fields) == set(schema["properties"])
    assert {"postgres", "flags", "breaker", "tables"} <= set(schema["properties"])
    assert json.dumps(schema)


def test_an_object_is_imported_by_module_and_name():
    assert import_object("dualstore.config:TableSettings.model_validate") == TableSettings.model_validate


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("dualstore.config", "package.module:Name"),
        (":x", "package.module:Name"),
        ("dualstore.absent:X", "no module named dualstore.absent"),
        ("dualstore.config:Absent", "has no Absent"),
    ],
)
def test_an_import_that_fails_names_the_setting(path, told):
    with pytest.raises(ConfigurationError, match=r"tables\.orders\.model") as error:
        import_object(path, setting="tables.orders.model")
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("url", "obstacle"),
    [
        ("postgresql://db.example/app", "must name a user"),
        ("postgresql://me:aVerySecretWord@db.example/app", "take the password out"),
        ("postgresql://me@db.example/app?sslmode=prefer", "sslmode must be"),
    ],
)
def test_a_url_that_tokens_of_iam_do_not_fit_is_refused(tmp_path, url, obstacle):
    file = tmp_path / "dualstore.toml"
    file.write_text(f'[postgres]\nurl = "{url}"\niam = true\n')
    with pytest.raises(ConfigurationError, match=obstacle) as refused:
        load(file)
    assert "aVerySecretWord" not in str(refused.value)


def test_a_url_with_a_user_and_tls_takes_tokens(tmp_path):
    file = tmp_path / "dualstore.toml"
    file.write_text('[postgres]\nurl = "postgresql://me@db.example/app?sslmode=verify-full"\niam = true\n')
    assert load(file).postgres.iam
