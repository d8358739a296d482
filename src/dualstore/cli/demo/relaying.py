"""The demo's relay: `dualstore relay` as a process of its own, which may be killed and replaced."""

import os
import signal
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Self

import sqlalchemy as sa

from dualstore.cli.demo.example import example_folder
from dualstore.errors import Unavailable
from dualstore.testing.servers.process import GuardedProcess

_PATIENCE = timedelta(seconds=60)
_LOOK_SECONDS = 0.05
_WAITING = "SELECT count(*) FROM dualstore.outbox WHERE table_name = :table AND done_at IS NULL"
_LANES = "SELECT lane, holder FROM dualstore.lanes WHERE table_name = :table AND until > clock_timestamp()"


class RelayProcess:
    """The process that a service's team would run beside it; a context manager that ends it.

    Args:
        name: what its log is called.
        configuration: the `dualstore.toml` that it is given.
        folder: takes its log.
    """

    def __init__(self, name: str, *, configuration: Path, folder: Path) -> None:
        self.name = name
        paths = [str(example_folder()), os.environ.get("PYTHONPATH", "")]
        run = "from dualstore.cli import main; main()"
        self._process = GuardedProcess(
            [sys.executable, "-c", run, "relay", "--config", str(configuration)],
            log=folder / f"{name}.log",
            environment={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            ending=signal.SIGTERM,
        )

    def __enter__(self) -> Self:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop(signal.SIGTERM, patience=_PATIENCE)

    @property
    def pid(self) -> int | None:
        """The process's id; None once it has been ended."""
        return self._process.pid

    def kill(self) -> None:
        """Ends it by SIGKILL: it gives nothing back."""
        self._process.stop(signal.SIGKILL, patience=_PATIENCE)

    def wait_until_it_relays(self) -> None:
        """Returns once it has opened its store.

        Raises:
            Unavailable: it ended or was silent for too long; the message holds the end of its log.
        """
        deadline = time.monotonic() + _PATIENCE.total_seconds()
        while "relaying" not in self._process.log_tail():
            if not self._process.running or time.monotonic() > deadline:
                raise Unavailable(
                    f"{self.name} does not relay; the end of its log:\n{self._process.log_tail()}"
                )
            time.sleep(_LOOK_SECONDS)


def outbox_entries(engine: sa.Engine, table: str) -> int:
    """How many changes wait in a table's outbox."""
    with engine.connect() as connection:
        waiting: int = connection.execute(sa.text(_WAITING), {"table": table}).scalar_one()
    return waiting


def lane_holders(engine: sa.Engine, table: str) -> Mapping[int, str]:
    """Who holds each lane of a table's outbox; lanes without a holder are left out."""
    with engine.connect() as connection:
        return {row.lane: row.holder for row in connection.execute(sa.text(_LANES), {"table": table})}
