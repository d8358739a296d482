"""The steps of the migration, with two faults on the way."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from dualstore import DualStore
from dualstore.cli.demo.databases import Databases
from dualstore.cli.demo.example import TABLE
from dualstore.cli.demo.fleet import Fleet, WorkerProcess
from dualstore.cli.demo.ledger import read_ledgers
from dualstore.cli.demo.proof import Check
from dualstore.cli.demo.sides import get_item, record_of_item, sql_records
from dualstore.cli.demo.timeline import Timeline, Tone
from dualstore.cli.demo.traffic import Tempo
from dualstore.cli.demo.watching import Watch
from dualstore.flags import FileFlags
from dualstore.replication.control import ControlRecord
from dualstore.stages import Stage
from dualstore.store import TableStatus

VICTIM = "victim"
FAULTS = ("outage", "crash")
"""The steps in which something is broken on purpose."""
_PATIENCE = timedelta(seconds=90)
_VERIFY_ATTEMPTS = 4
_RUSH_SECONDS = 0.4
_REST_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things take.

    Attributes:
        soak: how long each step is watched.
        outage: how long PostgreSQL is down.
        rushes: how often all callers rush at the same airports in the end.
        calls_per_second: what each thread of the service aims at.
        airports: how many to move; None takes all.
    """

    soak: timedelta
    outage: timedelta
    rushes: int
    calls_per_second: float
    airports: int | None


FULL = Pace(
    soak=timedelta(seconds=4.5),
    outage=timedelta(seconds=6),
    rushes=15,
    calls_per_second=18,
    airports=None,
)
FAST = Pace(
    soak=timedelta(seconds=0.8),
    outage=timedelta(seconds=2),
    rushes=8,
    calls_per_second=18,
    airports=2_000,
)

STEPS = {
    "before": "the service as it was: PynamoDB and nothing else",
    "off": "the models are bound while the service runs; DynamoDB alone is read and written",
    "dualwrite": "every write goes to DynamoDB, then to PostgreSQL",
    "backfill": "what was there before is copied, under traffic",
    "verify": "both sides are read whole and compared in both directions",
    "shadow": "every read is also run on the other side and compared, off the caller's path",
    "1 %": "PostgreSQL answers the reads of one partition key in a hundred",
    "10 %": "of one in ten; a key that was among the first stays",
    "50 %": "of one in two",
    "outage": "PostgreSQL crashes, stays away for a while, and comes back",
    "crash": "a process is killed after its write to DynamoDB, before its write to PostgreSQL",
    "0 %": "the reads are dialled back, as one would in an emergency",
    "50 % again": "and forward again",
    "100 %": "PostgreSQL answers every read by key; listings that both sides order differently stay",
    "rush": "all callers rush at the same four airports, again and again; both sides are compared after each",
    "drain": "the traffic ends, and what is in doubt is settled",
}


class Walk:
    """The steps of the migration, in order.

    Args:
        store: of this process, which gives the orders and runs backfill and verify.
        fleet: the service.
        databases: both databases.
        pace: how long things take.
        timeline: takes what happens.
    """

    def __init__(
        self, store: DualStore, fleet: Fleet, databases: Databases, *, pace: Pace, timeline: Timeline
    ) -> None:
        self._pace = pace
        self._databases = databases
        self._timeline = timeline
        self._store = store
        self._fleet = fleet
        self._table = store.table(TABLE)
        self._watch = Watch(timeline, self._table.status)
        self._verified = 0
        self._unexpected: list[str] = []
        self.checks: list[Check] = []

    def migrate(self, replace: Callable[[], WorkerProcess], rushed: Sequence[str]) -> None:
        """All steps, once the service is bound.

        Args:
            replace: starts a process in the place of the one that is killed.
            rushed: the airports that callers rush at.
        """
        with self._watch:
            self.mirror()
            self.dial_forward()
            self.survive_outage()
            self.survive_crash(replace)
            self.dial_back_and_forward()
            self.converge(rushed)
            self.drain()

    def on_dynamodb_alone(self) -> None:
        """The service without dualstore, then bound, at stage off."""
        with self._step("before"):
            self._soak()
        with self._step("off"):
            self._fleet.bind()
            self._note(f"{len(self._fleet.processes)} processes have bound their models between two calls")
            self._soak()

    def mirror(self) -> None:
        """Dual writes, the copy of what was there before, the comparison of all of it, shadow reads."""
        with self._step("dualwrite"):
            self._dial(stage=Stage.DUALWRITE)
            self._soak()
        with self._step("backfill"):
            self._backfill()
        with self._step("verify"):
            self._verify(repair=False)
        with self._step("shadow"):
            self._dial(stage=Stage.SHADOW)
            self._soak()

    def dial_forward(self) -> None:
        """More and more reads from PostgreSQL."""
        for percent in (1, 10, 50):
            with self._step(f"{percent} %"):
                self._dial(read_percent=percent)
                self._soak()

    def survive_outage(self) -> None:
        """PostgreSQL crashes and comes back."""
        with self._step("outage"):
            server = self._databases.stoppable
            if server is None:
                self._note("left out: this PostgreSQL is not ours to stop", Tone.FAULT)
                return
            self._timeline.postgres_up = False
            server.stop("immediate")
            self._note("PostgreSQL has been stopped, as by a crash", Tone.FAULT)
            time.sleep(self._pace.outage.total_seconds())
            waiting = self._timeline.standing.journal_entries
            server.start()
            self._timeline.postgres_up = True
            began = time.monotonic()
            self._note(f"PostgreSQL is back; {waiting} keys wait in the journal", Tone.FAULT)
            self._wait_until_quiet()
            self._note(
                f"repair has caught up, reads go to PostgreSQL again after {time.monotonic() - began:.1f} s",
                Tone.GOOD,
            )
            self._soak()

    def survive_crash(self, replace: Callable[[], WorkerProcess]) -> None:
        """A process dies between its two writes."""
        with self._step("crash"):
            victim = self._fleet.processes[VICTIM]
            victim.order("die")
            code = victim.wait()
            began = time.monotonic()
            self._note(
                f"process {victim.pid} was killed between its two writes (exit code {code})", Tone.FAULT
            )
            unanswered = self._unanswered(VICTIM)
            differing = self._differing(unanswered)
            self._note(
                f"of its {len(unanswered)} unanswered writes {len(differing)} reached DynamoDB alone",
                Tone.FAULT,
            )
            replacement = replace()
            self._watch.until(
                lambda status: bool(status.record.suspects),
                what="the dead process to be noticed",
                patience=_PATIENCE,
            )
            self._note(
                f"its silence was noticed after {time.monotonic() - began:.1f} s: reads go to DynamoDB",
                Tone.GOOD,
            )
            self._wait_until_quiet(expected=len(differing))
            if left := self._differing(unanswered):
                self._note(f"{len(left)} of its writes still differ", Tone.BAD)
            else:
                self._note("its last writes are on both sides; reads go to PostgreSQL again", Tone.GOOD)
            replacement.wait_for("bound")
            self._note("another process has taken its place")
            self._soak()

    def dial_back_and_forward(self) -> None:
        """Back to DynamoDB at once, then to PostgreSQL for good."""
        for name, percent in (("0 %", 0), ("50 % again", 50), ("100 %", 100)):
            with self._step(name):
                self._dial(read_percent=percent)
                self._soak()

    def converge(self, keys: Sequence[str]) -> None:
        """Writers meet on the same few airports within milliseconds; then both sides must agree."""
        with self._step("rush"):
            faults = []
            for number in range(1, self._pace.rushes + 1):
                self._fleet.turn(Tempo.RUSH)
                time.sleep(_RUSH_SECONDS)
                self._fleet.turn(Tempo.REST)
                faults += [f"{key}: differs after rush {number}" for key in self._differing_at_rest(keys)]
            self.checks.append(
                Check(
                    "after each rush of writers both sides agree",
                    "DynamoDB = PostgreSQL",
                    self._pace.rushes * len(keys),
                    "airports",
                    tuple(faults),
                )
            )
            self._note(
                f"{self._pace.rushes} rushes, {len(faults)} airports that differed afterwards",
                Tone.BAD if faults else Tone.GOOD,
            )

    def drain(self) -> None:
        """The end of the traffic, and of every doubt."""
        with self._step("drain"):
            self._fleet.stop()
            self._note("all processes have ended in order")
            self._wait_until_quiet()
            self._note("nothing is in doubt", Tone.GOOD)
        self.checks.append(
            Check(
                "verify found nothing but what the kill left behind",
                "DynamoDB = PostgreSQL",
                self._verified,
                "items",
                tuple(self._unexpected),
            )
        )

    def _step(self, name: str) -> Any:
        return self._timeline.step(name, STEPS[name])

    def _note(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        self._timeline.note(text, tone)

    def _soak(self) -> None:
        time.sleep(self._pace.soak.total_seconds())

    def _dial(self, *, stage: Stage | None = None, read_percent: float | None = None) -> None:
        """Asks by the flag file, as a flag owner would, and waits until every process has confirmed."""
        began = time.monotonic()
        if stage is not None:
            flag_file(self._store).set(TABLE, stage=stage)
        if read_percent is not None:
            flag_file(self._store).set(TABLE, postgres_read_percent=read_percent)

        def reached(record: ControlRecord) -> bool:
            return (stage is None or record.stage is stage) and (
                read_percent is None or record.dials.postgres_read_percent == read_percent
            )

        self._table.wait_until(reached, timeout=_PATIENCE)
        wish = f"stage {stage}" if stage is not None else f"read-percent {read_percent:g}"
        processes = len(self._table.status().confirmed)
        self._note(
            f"{wish} confirmed by {processes} processes in {time.monotonic() - began:.1f} s", Tone.GOOD
        )

    def _backfill(self) -> None:
        total = len(self._fleet.airports)
        result = self._table.backfill(
            progress=lambda progress: self._timeline.advance(
                "backfill", progress.items, total, progress.elapsed.total_seconds()
            )
        )
        done = result.totals
        seconds = done.elapsed.total_seconds()
        self._note(
            f"{done.items:,} items read, {done.inserted:,} inserted, {done.settled:,} settled, "
            f"{done.failed} failed, in {seconds:.1f} s ({done.items / max(seconds, 1e-9):,.0f}/s)",
            Tone.GOOD if result.succeeded else Tone.BAD,
        )

    def _verify(self, *, repair: bool, expected: int = 0) -> None:
        """Verifies until nothing is left unjudged: keys that change all the time are looked at again.

        Args:
            repair: whether to settle what differs.
            expected: how many items may differ, since a process was killed between their two writes.
        """
        for _ in range(_VERIFY_ATTEMPTS):
            found = self._table.verify(
                repair=repair,
                progress=lambda progress: self._timeline.advance(
                    "verify",
                    progress.items,
                    len(self._fleet.airports),
                    progress.elapsed.total_seconds(),
                ),
            )
            self._note(
                f"verify: {found.equal:,} equal, {found.difference_count} different, "
                f"{found.repaired} repaired, {found.moving} in motion",
                Tone.GOOD if found.proven else Tone.BAD,
            )
            self._verified += found.equal + found.difference_count
            if found.difference_count > expected:
                self._unexpected.append(
                    f"{found.difference_count} items differed where at most {expected} may"
                )
            if found.proven or found.difference_count > found.repaired:
                return

    def _wait_until_quiet(self, *, expected: int = 0) -> None:
        """Returns once nothing is in doubt; only a verification clears a process that fell silent."""

        def quiet(status: TableStatus) -> bool:
            if status.record.suspects:
                self._verify(repair=True, expected=expected)
            return not status.pending and status.dirty_keys == 0

        self._watch.until(quiet, what="repair to catch up", patience=_PATIENCE)

    def _unanswered(self, process: str) -> list[str]:
        """The keys of the process's writes whose outcome nobody was told."""
        entries = read_ledgers(self._fleet.ledgers)
        return [
            e.key
            for e in entries
            if e.writer.startswith(f"{process}-") and e.outcome == "unknown" and e.ended_ns is None
        ]

    def _differing_at_rest(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys that still differ when the last writes have had time to end."""
        deadline = time.monotonic() + _REST_PATIENCE_SECONDS
        while (differing := self._differing(keys)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return differing

    def _differing(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys whose item is not the same on both sides, read raw."""
        client = self._databases.dynamodb.client()
        differing = []
        with self._store.engine.connect() as connection:
            for key in keys:
                item = get_item(client, TABLE, key)
                row = sql_records(connection, TABLE, icao=key).get(key)
                if row != (None if item is None else record_of_item(item)):
                    differing.append(key)
        return differing


def flag_file(store: DualStore) -> FileFlags:
    """The flag file that the demo's own configuration names."""
    if not isinstance(store.flags, FileFlags):
        raise TypeError("the demo's own configuration asks for a flag file")
    return store.flags
