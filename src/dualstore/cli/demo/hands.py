"""What the steps of the walk share: the plan, and how to wait, verify, compare and say so."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from dualstore import DualStore
from dualstore.cli.demo.databases import Databases
from dualstore.cli.demo.example import TABLE
from dualstore.cli.demo.fleet import Fleet
from dualstore.cli.demo.ledger import read_ledgers
from dualstore.cli.demo.moments import Stretch
from dualstore.cli.demo.planned import PlannedMigration
from dualstore.cli.demo.proof import Check
from dualstore.cli.demo.sides import (
    get_item,
    record_of_item,
    records_of_items,
    scan_items,
    sql_records,
)
from dualstore.cli.demo.steps import DRAIN, TO_AUTHORITY, TO_READS, Pace
from dualstore.cli.demo.timeline import Timeline, Tone
from dualstore.cli.demo.traffic import Tempo
from dualstore.cli.demo.watching import Watch
from dualstore.rollout import Progress
from dualstore.rollout import Step as PlanStep
from dualstore.store import TableStatus

PATIENCE = timedelta(seconds=90)
_VERIFY_ATTEMPTS = 4
_RUSH_SECONDS = 0.4
_REST_PATIENCE_SECONDS = 15.0
_CLOSE = timedelta(seconds=5)
_STEPS: Mapping[str, str] = {**TO_READS, **TO_AUTHORITY, **DRAIN}
_PROGRESS = {"migrate_historical_data": "backfill"}
"""What progress is called; all other that there is is of a verification."""


class Hands:
    """What a step of the walk can do.

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
        self.pace = pace
        self.databases = databases
        self.timeline = timeline
        self.store = store
        self.fleet = fleet
        self.table = store.table(TABLE)
        self.watch = Watch(timeline, self.table.status)
        self.plan = PlannedMigration(
            store, databases.configuration, announce=timeline.note, progressed=self._progressed
        )
        self.checks: list[Check] = []
        self.moves: list[Stretch] = []
        self.away: list[Stretch] = []
        self._verified = 0
        self._unexpected: list[str] = []

    def step(self, name: str) -> Any:
        """Everything inside belongs to this step."""
        return self.timeline.step(name, _STEPS[name])

    def note(self, text: str, tone: Tone = Tone.PLAIN) -> None:
        """Says what happened."""
        self.timeline.note(text, tone)

    def soak(self) -> None:
        """Lets the traffic go on for as long as a step is watched."""
        time.sleep(self.pace.soak.total_seconds())

    def carry_out(self, last: str) -> None:
        """Carries the plan out up to this step, whose id it is.

        Raises:
            IllegalTransition: a check or a gate said no.
        """
        with self._moving():
            self.plan.carry_out(last)

    def take_back(self, reason: str) -> None:
        """Takes the plan's last step back that has changed anything."""
        with self._moving():
            back = self.plan.take_back(reason)
        steps = ", ".join(step.step for step in back.steps)
        self.note(f"{steps}: taken back in {back.duration.total_seconds():.1f} s ({reason})", Tone.GOOD)

    @contextmanager
    def _moving(self) -> Iterator[None]:
        """Notes when the authority moved, if it did."""
        began_ns, authority = time.monotonic_ns(), self.table.view.record.authority
        yield
        self.store.refresh()
        record = self.table.view.record
        if record.authority is not authority:
            number = sum(move.name.startswith(f"to {record.stage}") for move in self.moves) + 1
            name = f"to {record.stage}" if number == 1 else f"to {record.stage} ({number})"
            self.moves.append(Stretch(name, began_ns, time.monotonic_ns()))

    def _progressed(self, step: PlanStep, _: str, progress: Progress) -> None:
        self._advance(_PROGRESS.get(step.action, "verify"), progress)

    def _advance(self, what: str, progress: Progress) -> None:
        total = len(self.fleet.airports)
        self.timeline.advance(what, progress.items, total, progress.elapsed.total_seconds())

    def verify(self, *, repair: bool, expected: int = 0) -> None:
        """Verifies until nothing is left unjudged: keys that change all the time are looked at again.

        Args:
            repair: whether to settle what differs.
            expected: how many items may differ, since a process was killed between their two writes.
        """
        for _ in range(_VERIFY_ATTEMPTS):
            found = self.table.verify(
                repair=repair, progress=lambda progress: self._advance("verify", progress)
            )
            self.note(
                f"verify: {found.equal:,} equal, {found.difference_count} different, "
                f"{found.repaired} repaired, {found.moving} in motion",
                Tone.GOOD if found.proven else Tone.BAD,
            )
            self._count_verified(found.equal, found.difference_count, expected=expected)
            if found.proven or found.difference_count > found.repaired:
                return

    def verify_by_plan(self) -> None:
        """Has the plan compare both sides."""
        self.carry_out("verify_data_integrity")
        found = self.plan.seen("verify_data_integrity", TABLE)
        equal, different = found["equal"], found["different"]
        self._count_verified(equal, different, expected=0)
        self.note(f"verify: {equal:,} equal, {different} different", Tone.BAD if different else Tone.GOOD)

    def _count_verified(self, equal: int, different: int, *, expected: int) -> None:
        self._verified += equal + different
        if different > expected:
            self._unexpected.append(f"{different} items differed where at most {expected} may")

    def backfill(self) -> None:
        """Has the plan copy the history."""
        began = time.monotonic()
        self.carry_out("migrate_historical_data")
        seconds = time.monotonic() - began
        found = self.plan.seen("migrate_historical_data", TABLE)
        self.note(
            f"{found['items']:,} items read, {found['inserted']:,} inserted, {found['settled']:,} settled, "
            f"{found['failed']} failed, in {seconds:.1f} s ({found['items'] / seconds:,.0f}/s)",
            Tone.GOOD,
        )

    def wait_until_quiet(self, *, expected: int = 0) -> None:
        """Returns once nothing is in doubt; only a verification clears a process that fell silent."""

        def quiet(status: TableStatus) -> bool:
            if status.record.suspects:
                self.verify(repair=True, expected=expected)
            return not status.pending and status.dirty_keys == 0

        self.watch.until(quiet, what="repair to catch up", patience=PATIENCE)

    def wait_until_sent(self) -> None:
        """Returns once DynamoDB has been brought after every change in the outbox."""

        def sent(status: TableStatus) -> bool:
            return status.outbox is not None and status.outbox.entries == 0

        self.watch.until(sent, what="the outbox to be worked off", patience=PATIENCE)

    def wait_until_caught_up(self) -> None:
        """Returns once DynamoDB is close behind PostgreSQL, whose writes go on."""

        def caught_up(status: TableStatus) -> bool:
            return status.outbox is not None and status.outbox.oldest_age < _CLOSE

        self.watch.until(caught_up, what="the outbox to be worked off", patience=PATIENCE)

    def wait_until_followed(self) -> None:
        """Returns once a relay is known to be close behind the table's stream."""

        def followed(status: TableStatus) -> bool:
            return status.stream_lag is not None and status.stream_lag < _CLOSE

        self.watch.until(followed, what="the relay to catch up", patience=PATIENCE)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Has all callers rest, and waits until their last calls have ended; afterwards they go on."""
        self.fleet.rest()
        try:
            yield
        finally:
            self.fleet.turn(Tempo.STEADY)

    def rush(self, keys: Sequence[str], *, where: str) -> None:
        """Writers meet on the same few airports within milliseconds; then both sides must agree.

        Args:
            keys: the airports that callers rush at.
            where: which way changes go, for the check.
        """
        faults = []
        for number in range(1, self.pace.rushes + 1):
            self.fleet.turn(Tempo.RUSH)
            time.sleep(_RUSH_SECONDS)
            self.fleet.rest()
            faults += [f"{key}: differs after rush {number}" for key in self.differing_at_rest(keys)]
        self.fleet.turn(Tempo.STEADY)
        examined = self.pace.rushes * len(keys)
        claim = "after each rush of writers both sides agree"
        self.checks.append(Check(claim, where, examined, "airports", tuple(faults)))
        self.note(
            f"{self.pace.rushes} rushes, {len(faults)} airports that differed afterwards",
            Tone.BAD if faults else Tone.GOOD,
        )

    def drain(self) -> None:
        """The end of the traffic, and of every doubt."""
        with self.step("drain"):
            self.fleet.stop()
            self.note("all processes have ended in order")
            self.wait_until_quiet()
            self.note("nothing is in doubt", Tone.GOOD)
        self.checks.append(
            Check(
                "verify found nothing but what the kill left behind",
                "DynamoDB = PostgreSQL",
                self._verified,
                "items",
                tuple(self._unexpected),
            )
        )

    def unanswered(self, process: str) -> list[str]:
        """The keys of the process's writes whose outcome nobody was told."""
        return [
            e.key
            for e in read_ledgers(self.fleet.ledgers)
            if e.writer.startswith(f"{process}-") and e.outcome == "unknown" and e.ended_ns is None
        ]

    def differing_at_rest(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys that still differ when the last writes have had time to end."""
        deadline = time.monotonic() + _REST_PATIENCE_SECONDS
        while (differing := self.differing(keys)) and time.monotonic() < deadline:
            time.sleep(0.1)
        return differing

    def differing(self, keys: Sequence[str]) -> list[str]:
        """Those of the keys whose item is not the same on both sides, read raw."""
        client = self.databases.dynamodb.client()
        differing = []
        with self.store.engine.connect() as connection:
            for key in keys:
                item = get_item(client, TABLE, key)
                row = sql_records(connection, TABLE, icao=key).get(key)
                if row != (None if item is None else record_of_item(item)):
                    differing.append(key)
        return differing

    def all_differing(self) -> list[str]:
        """The airports that are not the same on both sides, each read raw and whole."""
        items = records_of_items(scan_items(self.databases.dynamodb.client(), TABLE))
        with self.store.engine.connect() as connection:
            rows = sql_records(connection, TABLE)
        return sorted(key for key in {*items, *rows} if items.get(key) != rows.get(key))

    def crash_postgres(self, meanwhile: Callable[[], None]) -> bool:
        """Has PostgreSQL crash, and starts it again.

        Args:
            meanwhile: what to do while it is away.

        Returns:
            Whether it was ours to stop.
        """
        server = self.databases.stoppable
        if server is None:
            self.note("left out: this PostgreSQL is not ours to stop", Tone.FAULT)
            return False
        self.plan.let_go()
        self.timeline.postgres_up = False
        server.stop("immediate")
        self.note("PostgreSQL has been stopped, as by a crash", Tone.FAULT)
        meanwhile()
        server.start()
        self.timeline.postgres_up = True
        return True
