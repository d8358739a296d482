"""The steps of the migration up to where PostgreSQL answers every read, with two faults on the way."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dualstore.cli.demo.fleet import WorkerProcess
from dualstore.cli.demo.hands import PATIENCE, Hands
from dualstore.cli.demo.steps import VICTIM
from dualstore.cli.demo.timeline import Tone


@dataclass(frozen=True, slots=True)
class Walk:
    """The first steps of the migration, in order; DynamoDB decides every write.

    Args:
        hands: do what the steps ask for.
    """

    hands: Hands

    def migrate(self, replace: Callable[[], WorkerProcess]) -> None:
        """All these steps, once the service is bound, but for the rush.

        Args:
            replace: starts a process in the place of the one that is killed.
        """
        self.mirror()
        self.dial_forward(10, 50)
        self.survive_outage()
        self.survive_crash(replace)
        self.dial_back_and_forward()

    def rush(self, rushed: Sequence[str]) -> None:
        """All callers at once, while DynamoDB decides.

        Args:
            rushed: the airports that callers rush at.
        """
        with self.hands.step("rush"):
            self.hands.rush(rushed, where="DynamoDB, then PostgreSQL")

    def on_dynamodb_alone(self) -> None:
        """The service without dualstore, then bound, at stage off."""
        hands = self.hands
        with hands.step("before"):
            hands.soak()
        with hands.step("prepare"):
            hands.carry_out("run_schema_migrations")
        with hands.step("off"):
            hands.fleet.bind()
            hands.note(f"{len(hands.fleet.processes)} processes have bound their models between two calls")
            hands.soak()

    def mirror(self) -> None:
        """Dual writes, the copy of what was there before, the comparison of all of it, shadow reads."""
        hands = self.hands
        with hands.step("dualwrite"):
            hands.carry_out("start_dual_writing")
            hands.soak()
        with hands.step("backfill"):
            hands.backfill()
        with hands.step("verify"):
            hands.verify_by_plan()
        with hands.step("shadow"):
            hands.carry_out("enable_feature_flag")
            hands.soak()

    def dial_forward(self, *percents: int) -> None:
        """More and more reads from PostgreSQL."""
        for percent in percents:
            with self.hands.step(f"{percent} %"):
                self.hands.carry_out(f"gradual_traffic_increase/{percent}")

    def survive_outage(self) -> None:
        """PostgreSQL crashes and comes back."""
        hands = self.hands
        with hands.step("outage"):
            waiting = 0

            def meanwhile() -> None:
                nonlocal waiting
                time.sleep(hands.pace.outage.total_seconds())
                waiting = hands.timeline.standing.journal_entries

            if not hands.crash_postgres(meanwhile):
                return
            began = time.monotonic()
            hands.note(f"PostgreSQL is back; {waiting} keys wait in the journal", Tone.FAULT)
            hands.wait_until_quiet()
            seconds = time.monotonic() - began
            hands.note(f"repair has caught up, reads go to PostgreSQL again after {seconds:.1f} s", Tone.GOOD)
            hands.soak()

    def survive_crash(self, replace: Callable[[], WorkerProcess]) -> None:
        """A process dies between its two writes."""
        hands = self.hands
        with hands.step("crash"):
            victim = hands.fleet.processes[VICTIM]
            victim.order("die")
            code = victim.wait()
            began = time.monotonic()
            hands.note(
                f"process {victim.pid} was killed between its two writes (exit code {code})", Tone.FAULT
            )
            unanswered = hands.unanswered(VICTIM)
            differing = hands.differing(unanswered)
            hands.note(
                f"of its {len(unanswered)} unanswered writes {len(differing)} reached DynamoDB alone",
                Tone.FAULT,
            )
            replacement = replace()
            hands.watch.until(
                lambda status: bool(status.record.suspects),
                what="the dead process to be noticed",
                patience=PATIENCE,
            )
            hands.note(
                f"its silence was noticed after {time.monotonic() - began:.1f} s: reads go to DynamoDB",
                Tone.GOOD,
            )
            hands.wait_until_quiet(expected=len(differing))
            if left := hands.differing(unanswered):
                hands.note(f"{len(left)} of its writes still differ", Tone.BAD)
            else:
                hands.note("its last writes are on both sides; reads go to PostgreSQL again", Tone.GOOD)
            replacement.wait_for("bound")
            hands.note("another process has taken its place")
            hands.soak()

    def dial_back_and_forward(self) -> None:
        """Back to DynamoDB, then to PostgreSQL for good."""
        hands = self.hands
        with hands.step("0 %"):
            while hands.table.status().record.dials.postgres_read_percent:
                hands.take_back("as in an emergency")
            hands.soak()
        with hands.step("50 % again"):
            hands.carry_out("gradual_traffic_increase/50")
        with hands.step("100 %"):
            hands.carry_out("monitor_error_rates")
