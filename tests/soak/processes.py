"""The soak's processes: started, stopped, killed and replaced by their ids; none outlives the soak."""

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Self

from dualstore.testing.servers.process import GuardedProcess
from soak.recording import Pen
from soak.writer import Order

_PATIENCE = timedelta(seconds=40)
_TESTS = Path(__file__).parents[1]


def _python_path() -> str:
    """Where our own modules are found, and what we were given."""
    return os.pathsep.join(filter(None, (str(_TESTS), os.environ.get("PYTHONPATH"))))


@dataclass
class Member:
    """One process.

    Attributes:
        name: used once.
        command: what it runs.
        process: as it was started.
        stopped: whether it is suspended.
    """

    name: str
    command: Sequence[str]
    process: GuardedProcess
    stopped: bool = False

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self.process.pid is not None
        return self.process.pid


@dataclass
class Settings:
    """What all processes are given.

    Attributes:
        folder: takes their logs; the configuration and the rates of faults are there.
        ledgers: takes their ledgers.
        seed: of the soak.
        threads: of each writer.
        keys: of each partition.
        calls_per_second: of each thread.
    """

    folder: Path
    seed: int
    threads: int
    keys: int
    calls_per_second: float
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def configuration(self) -> Path:
        return self.folder / "dualstore.toml"

    @property
    def rates(self) -> Path:
        return self.folder / "rate"

    @property
    def ledgers(self) -> Path:
        return self.folder / "ledgers"


class Crew:
    """The writers and relays; a context manager that ends them.

    Args:
        settings: what they are given.
        pen: notes when each began and ended.
    """

    def __init__(self, settings: Settings, pen: Pen) -> None:
        self._settings = settings
        self._pen = pen
        self._lock = threading.RLock()
        self._count = 0
        self.writers: dict[int, Member] = {}
        self.relays: dict[int, Member] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for members in (self.writers, self.relays):
            for slot in list(members):
                self.end(members, slot)

    def start_writer(self, slot: int) -> None:
        """Start a writer that owns the keys of a slot."""
        with self._lock:
            name = self._name("writer", slot)
            settings = self._settings
            order = Order(
                name=name,
                slot=slot,
                threads=settings.threads,
                keys=settings.keys,
                calls_per_second=settings.calls_per_second,
                seed=settings.seed,
                configuration=str(settings.configuration),
                ledgers=str(settings.ledgers),
                rates=str(settings.rates),
            )
            self.writers[slot] = self._start(name, ["soak.writer", order.to_json()])

    def start_relay(self, slot: int) -> None:
        """Start a relay."""
        with self._lock:
            name, settings = self._name("relay", slot), self._settings
            command = ["soak.relay", name, str(settings.seed + self._count), str(settings.rates)]
            command += [str(settings.ledgers), "--config", str(settings.configuration)]
            self.relays[slot] = self._start(name, command)

    def wait_until_serving(self, patience_seconds: float) -> None:
        """Return once every process works.

        Raises:
            TimeoutError: one does not; the message names its log.
        """
        deadline = time.monotonic() + patience_seconds
        for member in (*self.writers.values(), *self.relays.values()):
            ledger = self._settings.ledgers / f"{member.name}.jsonl"
            while not ledger.exists() or '"serving"' not in ledger.read_text():
                if time.monotonic() > deadline or not member.process.running:
                    raise TimeoutError(f"{member.name} does not work; see its log {member.process.log}")
                time.sleep(0.1)

    def kill(self, members: dict[int, Member], slot: int) -> None:
        """End a process by SIGKILL, and note when it was gone."""
        member = members.pop(slot)
        os.kill(member.pid, signal.SIGKILL)
        member.process.stop(signal.SIGKILL, patience=_PATIENCE)
        self._pen.event("ended", name=member.name, how="SIGKILL")

    def stop(self, member: Member) -> None:
        """Suspend a process."""
        os.kill(member.pid, signal.SIGSTOP)
        member.stopped = True

    def go_on(self, member: Member) -> None:
        """Let a suspended process go on."""
        os.kill(member.pid, signal.SIGCONT)
        member.stopped = False

    def end(self, members: dict[int, Member], slot: int) -> None:
        """End a process in order."""
        member = members.pop(slot)
        if member.stopped:
            self.go_on(member)
        alive = member.process.running
        member.process.stop(signal.SIGTERM, patience=_PATIENCE)
        self._pen.event("ended", name=member.name, how="SIGTERM" if alive else "by itself")

    def end_writers(self) -> None:
        """End all writers in order, all at the same time."""
        threads = [
            threading.Thread(target=self.end, args=(self.writers, slot)) for slot in list(self.writers)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def dead(self) -> Iterator[tuple[dict[int, Member], int]]:
        """The processes that have ended though nobody ended them."""
        for members in (self.writers, self.relays):
            for slot, member in list(members.items()):
                if not member.process.running:
                    yield members, slot

    def victim(self, members: dict[int, Member], chance: random.Random) -> int | None:
        """One of the running processes, or None."""
        running = sorted(slot for slot, member in members.items() if not member.stopped)
        return chance.choice(running) if running else None

    def _name(self, kind: str, slot: int) -> str:
        self._count += 1
        return f"{kind}{slot}-{self._count}"

    def _start(self, name: str, command: Sequence[str]) -> Member:
        process = GuardedProcess(
            [sys.executable, "-m", *command],
            log=self._settings.folder / f"{name}.log",
            environment={**os.environ, **self._settings.environment, "PYTHONPATH": _python_path()},
            ending=signal.SIGKILL,
        )
        process.start()
        self._pen.event("started", name=name)
        return Member(name, command, process)
