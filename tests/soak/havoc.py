"""What is done to the processes and the databases while they work, by a seed."""

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from dualstore.testing.servers import DynamoDBServer, PostgresServer
from soak.processes import Crew, Settings
from soak.recording import Pen, now_ns

QUIET_RATE, STORM_RATE = 0.01, 0.25
# A restart loses the records that no relay has read yet, as AWS never does (docs/reference/stand-ins.md).
FORGETS_STREAMS = frozenset({"ministack"})
_NO_SESSIONS = (
    "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


class Havoc(threading.Thread):
    """Breaks one thing after the other, and mends it; ends with everything mended.

    Args:
        seed: of its choices.
        crew: the processes.
        postgres: the server.
        dynamodb: the server.
        dsn: libpq's, of the database.
        settings: says where the rate of botocore's faults is kept.
        pen: notes each fault.
        pause_seconds: between two faults, from and to.
        longest_seconds: that a process is stopped.
    """

    def __init__(
        self,
        seed: int,
        *,
        crew: Crew,
        postgres: PostgresServer,
        dynamodb: DynamoDBServer,
        dsn: str,
        settings: Settings,
        pen: Pen,
        pause_seconds: tuple[float, float],
        longest_seconds: float,
    ) -> None:
        super().__init__(name="havoc", daemon=True)
        self._random = random.Random(f"{seed}/havoc")
        self._crew = crew
        self._postgres = postgres
        self._dynamodb = dynamodb
        self._dsn = dsn
        self._settings = settings
        self._pen = pen
        self._pause = pause_seconds
        self._longest = longest_seconds
        self._stopping = threading.Event()
        self._peace = threading.Lock()
        self.failure: Exception | None = None
        self._faults: dict[Callable[[], None], int] = {
            self._kill_writer: 4,
            self._stop_writer: 5,
            self._kill_relay: 3,
            self._stop_relay: 3,
            self._crash_postgres: 3,
            self._cut_connections: 4,
            self._freeze_dynamodb: 3,
            self._storm: 5,
        }
        if dynamodb.engine not in FORGETS_STREAMS:
            self._faults[self._restart_dynamodb] = 2

    def run(self) -> None:
        """Break and mend until told to stop."""
        faults, weights = list(self._faults), list(self._faults.values())
        while not self._stopping.wait(self._random.uniform(*self._pause)):
            (fault,) = self._random.choices(faults, weights)
            with self._peace:
                if self._stopping.is_set():
                    return
                try:
                    fault()
                except Exception as error:  # noqa: BLE001 - reported by the soak, which cannot go on as planned
                    self.failure = error
                    self._pen.event("havoc failed", fault=fault.__name__, error=repr(error))
                    return
                self.replace_dead()

    def end(self) -> None:
        """Stop breaking; returns once everything is mended."""
        self._stopping.set()
        self.join()

    @contextmanager
    def peace(self) -> Iterator[None]:
        """Break nothing within."""
        with self._peace:
            yield

    def replace_dead(self) -> None:
        """Replace processes that ended by themselves; the judge hears of them."""
        for members, slot in self._crew.dead():
            self._pen.event("died by itself", name=members[slot].name)
            self._crew.end(members, slot)
            self._replace(members, slot)

    @contextmanager
    def _noted(self, fault: str) -> Iterator[None]:
        began = now_ns()
        self._pen.event("fault", fault=fault)
        try:
            yield
        finally:
            self._pen.event("mended", fault=fault, since=began)

    def _replace(self, members: object, slot: int) -> None:
        (self._crew.start_writer if members is self._crew.writers else self._crew.start_relay)(slot)

    def _kill_writer(self) -> None:
        self._kill(self._crew.writers, "writer killed")

    def _kill_relay(self) -> None:
        self._kill(self._crew.relays, "relay killed")

    def _kill(self, members: dict, fault: str) -> None:  # type: ignore[type-arg]
        slot = self._crew.victim(members, self._random)
        if slot is None:
            return
        with self._noted(fault):
            self._crew.kill(members, slot)
            self._rest(0.1, 2.0)
            self._replace(members, slot)

    def _stop_writer(self) -> None:
        self._suspend(self._crew.writers, "writer stopped")

    def _stop_relay(self) -> None:
        self._suspend(self._crew.relays, "relay stopped")

    def _suspend(self, members: dict, fault: str) -> None:  # type: ignore[type-arg]
        slot = self._crew.victim(members, self._random)
        if slot is None:
            return
        with self._noted(fault):
            self._crew.stop(members[slot])
            try:
                self._rest(0.5, self._longest)
            finally:
                self._crew.go_on(members[slot])

    def _crash_postgres(self) -> None:
        with self._noted("PostgreSQL crashed"):
            self._postgres.stop("immediate")
            try:
                self._rest(0.1, 4.0)
            finally:
                self._postgres.start()

    def _cut_connections(self) -> None:
        with (
            self._noted("connections cut"),
            psycopg.connect(self._dsn, autocommit=True, connect_timeout=2) as connection,
        ):
            for _ in range(self._random.randint(1, 6)):
                pids = [pid for (pid,) in connection.execute(_NO_SESSIONS)]
                for pid in self._random.sample(pids, min(len(pids), self._random.randint(1, 4))):
                    connection.execute("SELECT pg_terminate_backend(%s)", [pid])
                self._rest(0.02, 0.3)

    def _freeze_dynamodb(self) -> None:
        pid = self._dynamodb.pid
        assert pid is not None
        with self._noted("DynamoDB stopped"):
            began = now_ns()
            os.kill(pid, signal.SIGSTOP)
            try:
                self._rest(0.3, min(8.0, self._longest))
            finally:
                os.kill(pid, signal.SIGCONT)
                self._pen.event("DynamoDB goes on", since=began)

    def _restart_dynamodb(self) -> None:
        with self._noted("DynamoDB restarted"):
            self._dynamodb.stop()
            try:
                self._rest(0.1, 3.0)
            finally:
                self._dynamodb.start()

    def _storm(self) -> None:
        with self._noted("storm of DynamoDB errors"):
            self._settings.rates.write_text(f"{STORM_RATE}")
            try:
                self._rest(1.0, 5.0)
            finally:
                self._settings.rates.write_text(f"{QUIET_RATE}")

    def _rest(self, least: float, most: float) -> None:
        time.sleep(self._random.uniform(least, most))
