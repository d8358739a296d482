"""A DynamoDB for tests and the demo: a stand-in of our own, or any by endpoint URL."""

import contextlib
import importlib.metadata
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

import boto3
import botocore.exceptions
from botocore.config import Config

from dualstore.errors import ConfigurationError, Unavailable
from dualstore.testing.servers.dynoxide import PATH_VARIABLE, find_dynoxide
from dualstore.testing.servers.ports import HOST, HeldPort, hold_port
from dualstore.testing.servers.process import GuardedProcess, wait_until_answering

ENDPOINT_VARIABLE = "DUALSTORE_TEST_DYNAMODB_ENDPOINT"

_PATIENCE = timedelta(seconds=30)
_ONE_QUICK_TRY = Config(
    connect_timeout=1, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 1}
)
# What a stand-in takes for an account. AWS itself is reached with the user's own credentials.
_STAND_IN_ACCOUNT = {
    "region_name": "us-east-1",
    "aws_access_key_id": "dualstore",
    "aws_secret_access_key": "dualstore",
}

Engine = Literal["auto", "dynoxide", "ministack"]


class DynamoDB:
    """A DynamoDB that is reached by an endpoint URL; a context manager.

    Args:
        endpoint_url: of a stand-in (DynamoDB Local, LocalStack, ...), or AWS's own.
    """

    def __init__(self, endpoint_url: str) -> None:
        self.endpoint_url = endpoint_url
        self.engine = "endpoint"
        self.version = ""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.engine} {self.version} at {self.endpoint_url}>"

    def __enter__(self) -> Self:
        """Lists the tables once, to see that the server is there.

        Raises:
            ConfigurationError: the endpoint is not a URL.
            Unavailable: nothing answers there, or it answers with an error.
        """
        self._list_tables()
        return self

    def __exit__(self, *_: object) -> None: ...

    def client(self, **options: Any) -> Any:
        """A boto3 DynamoDB client of this server.

        Args:
            options: for `boto3.client`, such as `config`; they win over the stand-in's account.
        """
        is_aws = ".amazonaws.com" in self.endpoint_url
        account = {} if is_aws else _STAND_IN_ACCOUNT
        return boto3.client("dynamodb", endpoint_url=self.endpoint_url, **{**account, **options})

    def _list_tables(self) -> None:
        try:
            client = self.client(config=_ONE_QUICK_TRY)
        except ValueError as error:
            raise ConfigurationError(
                f"the DynamoDB endpoint is not a URL: {error}; see {ENDPOINT_VARIABLE}"
            ) from None
        with contextlib.closing(client):
            _answer_of(client)


def _answer_of(client: Any) -> None:
    try:
        client.list_tables(Limit=1)
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise Unavailable(f"DynamoDB does not answer: {error}") from error


@dataclass(frozen=True)
class _Program:
    """How one engine is run."""

    name: str
    version: str
    command: tuple[str, ...]
    environment: dict[str, str]


class DynamoDBServer(DynamoDB):
    """A DynamoDB stand-in of our own, on a free port of 127.0.0.1; a context manager.

    It ends with this process. It can be stopped and started again on the same port; without a
    `data_directory` it then starts empty.

    Args:
        engine: `dynoxide`, the closest to AWS (see `install_dynoxide`); `ministack`, which comes
            from PyPI; `auto`, the first of them that is there.
        data_directory: where tables are kept. dynoxide writes as it goes, ministack when it stops.
    """

    def __init__(self, *, engine: Engine = "auto", data_directory: Path | None = None) -> None:
        super().__init__("")
        self.engine = engine
        self._data_directory = data_directory
        self._scratch = Path()
        self._port: HeldPort | None = None
        self._process: GuardedProcess | None = None
        self._kept = False

    def __enter__(self) -> Self:
        """Starts the server and waits until it lists its tables.

        Raises:
            ConfigurationError: the engine is not installed.
            Unavailable: the server does not start; the message holds its log's end.
        """
        self._scratch = Path(tempfile.mkdtemp(prefix="dualstore-dynamodb-"))
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self._kept:
            self._end()

    @property
    def port(self) -> int | None:
        """The port, the same after a restart; None before the first start."""
        return None if self._port is None else self._port.number

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it is stopped."""
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> Path:
        """The file that takes the server's output."""
        return self._scratch / "log"

    @property
    def running(self) -> bool:
        """Whether the server's process runs."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Starts the server, on its former port if it had one; nothing happens if it runs.

        Raises:
            ConfigurationError: the engine is not installed.
            Unavailable: it does not start; the message holds its log's end.
        """
        if self.running:
            return
        if self._port is None:
            self._port = hold_port()
        port = self._port.number
        program = self._program(port)
        self.engine, self.version = program.name, program.version
        self.endpoint_url = f"http://{HOST}:{port}"
        self._process = GuardedProcess(
            program.command,
            log=self.log,
            environment={**os.environ, **program.environment},
            scratch=self._scratch,
        )
        self._process.start()
        try:
            with contextlib.closing(self.client(config=_ONE_QUICK_TRY)) as client:
                wait_until_answering(
                    self._process,
                    lambda: _answer_of(client),
                    name=f"{program.name} {program.version} on port {port}",
                    patience=_PATIENCE,
                )
        except BaseException:
            self._process.stop(signal.SIGTERM, patience=_PATIENCE)
            raise

    def stop(self) -> None:
        """Stops the server, and keeps its port."""
        if self._process is not None:
            self._process.stop(signal.SIGTERM, patience=_PATIENCE)

    def restart(self) -> None:
        """Stops the server and starts it again."""
        self.stop()
        self.start()

    def keep(self) -> None:
        """Lets the server run on when this context and this process end; SIGTERM ends it then."""
        if self._process is not None:
            self._process.keep()
            self._kept = True
        if self._port is not None:
            self._port.release()

    def _program(self, port: int) -> _Program:
        binary = None if self.engine == "ministack" else find_dynoxide()
        if binary is not None:
            return _dynoxide(binary, port, self._data_directory)
        if self.engine == "dynoxide":
            raise ConfigurationError(
                "dynoxide is not installed: call dualstore.testing.servers.install_dynoxide() "
                f"(it needs npm), or name the binary in {PATH_VARIABLE}"
            )
        return _ministack(port, self._scratch, self._data_directory)

    def _end(self) -> None:
        self.stop()
        if self._port is not None:
            self._port.release()
        shutil.rmtree(self._scratch, ignore_errors=True)


@contextlib.contextmanager
def dynamodb(endpoint_url: str | None = None, *, engine: Engine = "auto") -> Iterator[DynamoDB]:
    """The DynamoDB to test with: the user's own, else a stand-in started here.

    Args:
        endpoint_url: the user's; missing: the environment's `DUALSTORE_TEST_DYNAMODB_ENDPOINT`.
        engine: which stand-in to start otherwise.

    Yields:
        The server, with `endpoint_url`, `version` and `client`.

    Raises:
        ConfigurationError: the endpoint is not a URL; or there is none and no engine is installed.
        Unavailable: the server does not answer, or does not start.
    """
    endpoint_url = endpoint_url or os.environ.get(ENDPOINT_VARIABLE)
    with DynamoDB(endpoint_url) if endpoint_url else DynamoDBServer(engine=engine) as server:
        yield server


def _dynoxide(binary: Path, port: int, data_directory: Path | None) -> _Program:
    version = subprocess.run(  # noqa: S603 - the binary we are about to start
        [binary, "--version"], capture_output=True, text=True, check=False
    ).stdout.split()
    command = [str(binary), "--host", HOST, "--port", str(port)]
    if data_directory is not None:
        data_directory.mkdir(parents=True, exist_ok=True)
        command += ["--db-path", str(data_directory / "dynoxide.db")]
    return _Program("dynoxide", version[-1] if version else "?", tuple(command), {})


def _ministack(port: int, scratch: Path, data_directory: Path | None) -> _Program:
    if importlib.util.find_spec("ministack") is None:
        raise ConfigurationError(
            "there is no DynamoDB stand-in: pip install 'dualstore[demo]' brings ministack, "
            "dualstore.testing.servers.install_dynoxide() the better dynoxide; "
            f"or name an endpoint of your own in {ENDPOINT_VARIABLE}"
        )
    environment = {
        "BIND_HOST": HOST,
        "GATEWAY_PORT": str(port),
        "SERVICES": "dynamodb,dynamodbstreams",
        "LOG_LEVEL": "WARNING",
        # Otherwise it also listens for MQTT and SFTP, on fixed ports.
        "IOT_MTLS_ENABLED": "0",
        "SFTP_ENABLED": "0",
        # It removes the containers of any other ministack when it finds Docker.
        "DOCKER_HOST": f"unix://{scratch}/no-docker",
        "TMPDIR": str(scratch),
        "PERSIST_STATE": "0",
    }
    if data_directory is not None:
        environment |= {"PERSIST_STATE": "1", "STATE_DIR": str(data_directory)}
    return _Program(
        "ministack",
        importlib.metadata.version("ministack"),
        (sys.executable, "-m", "ministack"),
        environment,
    )
