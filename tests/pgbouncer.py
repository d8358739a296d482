"""The store contract of PostgreSQL through PgBouncer's transaction pooling: `nox -s pgbouncer`.

Two transactions of one connection run on different connections of the server, and a statement that one of
them has prepared is another's. What asks for a session of its own is not run here: temporary tables, LISTEN,
settings of a connection, and the tests that look for one.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dualstore.testing.servers import PostgresServer
from dualstore.testing.servers.cluster import DSN_VARIABLE
from dualstore.testing.servers.ports import HOST, hold_port

EXCHANGES = "tests/integration/postgres/test_exchanges.py"
CHOSEN = (
    "tests/contract",
    f"{EXCHANGES}::test_a_statement_that_is_refused_for_an_altered_table_is_prepared_anew[False]",
    f"{EXCHANGES}::test_a_table_that_is_altered_under_prepared_statements_fails_no_read",
)
OF_POSTGRES = "postgres or complete or live or altered"
CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={port} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 8
max_client_conn = 500
max_prepared_statements = 200
server_idle_timeout = 20
logfile = {folder}/pgbouncer.log
"""


@contextmanager
def pooled(server: PostgresServer, program: str) -> Iterator[str]:
    """The DSN of a pooler in front of a server."""
    parts = conninfo_to_dict(server.dsn)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # it does not run as root
        path, port = Path(folder, "pgbouncer.ini"), hold_port()
        path.write_text(CONFIGURATION.format(**parts, listen=port.number, folder=folder))
        command = [program, "-q", *(("-u", "nobody") if os.getuid() == 0 else ()), str(path)]
        pooler = subprocess.Popen(command)
        try:
            dsn = make_conninfo(host=HOST, port=port.number, user=parts["user"], dbname="postgres")
            _wait_for(dsn)
            yield dsn
        finally:
            pooler.terminate()
            pooler.wait()
            port.release()


def _wait_for(dsn: str) -> None:
    ends = time.monotonic() + 30
    while True:
        try:
            psycopg.connect(dsn, connect_timeout=2).close()
        except psycopg.OperationalError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)
        else:
            return


def main(arguments: list[str]) -> int:
    """Run the tests, or those that are named; pytest's exit code."""
    program = shutil.which("pgbouncer")
    if program is None:
        sys.exit("pgbouncer is not installed; it has to be 1.21 or later, which keeps prepared statements")
    settings = {"fsync": "off", "max_connections": "200"}
    with PostgresServer(settings=settings) as server, pooled(server, program) as dsn:
        command = [sys.executable, "-m", "pytest", "-k", OF_POSTGRES, *(arguments or CHOSEN)]
        return subprocess.run(command, check=False, env={**os.environ, DSN_VARIABLE: dsn}).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
