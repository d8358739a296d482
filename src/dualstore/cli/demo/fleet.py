"""The demo's service as seen from outside: its processes, the orders they take, the tallies they send."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Self, cast

from dualstore.cli.demo.evidence import LEDGERS
from dualstore.cli.demo.measures import Tally
from dualstore.cli.demo.traffic import Beat, Tempo
from dualstore.cli.demo.worker import Specification
from dualstore.errors import Unavailable

_PATIENCE = timedelta(seconds=60)


class WorkerProcess:
    """One process of the service.

    Args:
        specification: what it does.
        folder: takes its specification and its log.
        on_tally: told of each tally, in a thread of its own.
    """

    def __init__(
        self,
        specification: Specification,
        *,
        folder: Path,
        on_tally: Callable[[Tally], None],
    ) -> None:
        self.name = specification.name
        self.log = folder / f"{self.name}.log"
        self._on_tally = on_tally
        self._said: dict[str, threading.Event] = {
            name: threading.Event() for name in ("serving", "bound", "resting", "stopped")
        }
        path = folder / f"{self.name}.json"
        path.write_text(specification.to_json(), encoding="utf-8")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-m", "dualstore.cli.demo.worker", str(path)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                bufsize=1,
                start_new_session=True,  # Ctrl-C reaches us alone, who then end it in order
            )
        self._orders = cast("IO[str]", self._process.stdin)  # pipes, as asked for
        self._reports = cast("IO[str]", self._process.stdout)
        self._listener = threading.Thread(target=self._listen, name=f"listener of {self.name}", daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self._process.poll() is None

    def order(self, order: str) -> None:
        """Gives an order; one to a process that is gone is lost."""
        if self.running:
            with suppress(BrokenPipeError):
                self._orders.write(f"{order}\n")

    def rest(self) -> None:
        """Orders its callers to rest, which is so once it says `resting`."""
        self._said["resting"].clear()
        self.order(Tempo.REST)

    def wait_for(self, event: str) -> None:
        """Returns once the process has said this.

        Raises:
            Unavailable: it ended or was silent for too long; the message names its log.
        """
        deadline = time.monotonic() + _PATIENCE.total_seconds()
        while not self._said[event].wait(0.05):
            if not self.running or time.monotonic() > deadline:
                raise Unavailable(f"worker {self.name} did not say {event!r}; see its log {self.log}")

    def wait(self, patience: timedelta = _PATIENCE) -> int:
        """The exit code, once the process has ended and said all; it is killed when patience ends."""
        try:
            self._process.wait(patience.total_seconds())
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        with suppress(BrokenPipeError):
            self._orders.close()
        return self._process.returncode

    def _listen(self) -> None:
        with self._reports:
            for line in self._reports:
                with suppress(json.JSONDecodeError):  # it was killed inside a line
                    self._hear(json.loads(line))

    def _hear(self, report: dict[str, Any]) -> None:
        if report["event"] == "tally":
            self._on_tally(Tally.from_json(report["tally"]))
        else:
            self._said[report["event"]].set()


class Fleet:
    """All processes of the service; a context manager that ends those that still run.

    Args:
        folder: takes specifications, logs and, in `ledgers`, what was written.
        configuration: the `dualstore.toml` that the processes bind with; they inherit our environment.
        airports: the ICAO codes that were loaded.
        on_tally: told of each tally of any process.
    """

    def __init__(
        self,
        *,
        folder: Path,
        configuration: Path,
        airports: Sequence[str],
        on_tally: Callable[[Tally], None],
    ) -> None:
        self.ledgers = folder / LEDGERS
        self._folder = folder
        self._configuration = configuration
        self.airports = tuple(airports)
        self._on_tally = on_tally
        self.processes: dict[str, WorkerProcess] = {}

    def __enter__(self) -> Self:
        self.ledgers.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        running = [process for process in self.processes.values() if process.running]
        for process in running:
            process.order("stop")
        for process in running:
            process.wait()

    def launch(self, name: str, beats: Sequence[Beat], *, bound: bool) -> WorkerProcess:
        """Starts a process: it serves callers at once if it is bound, else when it is told to."""
        specification = Specification(
            name=name,
            configuration=self._configuration,
            ledgers=self.ledgers,
            airports=self.airports,
            beats=tuple(beats),
            bound=bound,
        )
        process = WorkerProcess(specification, folder=self._folder, on_tally=self._on_tally)
        self.processes[name] = process
        return process

    def serve(self) -> None:
        """Lets every process serve callers, and waits until they do."""
        for process in self.processes.values():
            process.order("serve")
        for process in self.processes.values():
            process.wait_for("serving")

    def bind(self) -> None:
        """Makes every process bind its models while it serves, and waits until they have."""
        for process in self.processes.values():
            process.order("bind")
        for process in self.processes.values():
            process.wait_for("bound")

    def turn(self, tempo: Tempo) -> None:
        """Turns the dial of every process."""
        for process in self.processes.values():
            process.order(tempo)

    def rest(self) -> None:
        """Has all callers rest, and waits until their last calls have ended."""
        resting = [process for process in self.processes.values() if process.running]
        for process in resting:
            process.rest()
        for process in resting:
            process.wait_for("resting")

    def stop(self) -> None:
        """Ends all processes in order: calls are finished, the store is closed."""
        running = [process for process in self.processes.values() if process.running]
        for process in running:
            process.order("stop")
        for process in running:
            process.wait_for("stopped")
            process.wait()
