"""The steps that move the authority to PostgreSQL, back, and for good, with all that may break on the way."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from typing import Self

from dualstore.cli.demo.databases import enable_stream, out_of_reach, serves_stream
from dualstore.cli.demo.example import TABLE
from dualstore.cli.demo.hands import Hands
from dualstore.cli.demo.moments import Stretch
from dualstore.cli.demo.proof import Check
from dualstore.cli.demo.relaying import RelayProcess, lane_holders, outbox_entries
from dualstore.cli.demo.timeline import Tone

_RELAY_PATIENCE_SECONDS = 60.0


@dataclass
class Crossing:
    """The steps from `live` on, in order; a context manager that ends the relay.

    Args:
        hands: do what the steps ask for.
        relay: makes a relay process of a name.
        write_as_the_team: writes some airports past the service.
        team_keys: these airports.
    """

    hands: Hands
    relay: Callable[[str], RelayProcess]
    write_as_the_team: Callable[[], None]
    team_keys: Sequence[str]
    left_ns: int | None = None
    _ending: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.close()

    @property
    def is_possible(self) -> bool:
        """Whether the table's stream can be read, without which PostgreSQL cannot become the authority."""
        hands = self.hands
        enable_stream(hands.databases.dynamodb.client(), TABLE)
        return serves_stream(hands.databases.configuration, TABLE)

    def start_relay(self) -> RelayProcess:
        """A relay that is about to follow the stream."""
        return self._ending.enter_context(self.relay("relay-1"))

    def cross(self, relay: RelayProcess, rushed: Sequence[str]) -> None:
        """All these steps.

        Args:
            relay: that was started.
            rushed: the airports that callers rush at.
        """
        hands = self.hands
        self.follow(relay)
        self.begin()
        self.let_the_team_write()
        self.survive(relay)
        with hands.step("live rush"):
            hands.rush(rushed, where="PostgreSQL, then DynamoDB")
        with hands.step("back"):
            hands.wait_until_caught_up()
            hands.take_back("to show the way back")
            hands.soak()
            hands.verify(repair=False)
        with hands.step("live again"):
            self._go_live()
        with hands.step("rampdown"):
            hands.carry_out("verify_all_traffic_postgres")
        self.complete()

    def follow(self, relay: RelayProcess) -> None:
        """A relay follows the stream."""
        hands = self.hands
        with hands.step("relay"):
            relay.wait_until_it_relays()
            hands.note(f"process {relay.pid} follows the stream", Tone.GOOD)
            hands.soak()

    def begin(self) -> None:
        """PostgreSQL becomes the authority."""
        hands = self.hands
        with hands.step("live"):
            self._go_live()

    def _go_live(self) -> None:
        hands = self.hands
        with hands.at_rest():
            hands.wait_until_followed()
        hands.wait_until_quiet()  # on a busy machine a process may have been silent for too long
        hands.carry_out("flip_authority")

    def let_the_team_write(self) -> None:
        """Somebody writes SQL beside the service; the trigger sees it."""
        hands = self.hands
        with hands.step("SQL"):
            before = {key for key in self.team_keys if hands.differing([key])}
            self.write_as_the_team()
            began = time.monotonic()
            differing = hands.differing_at_rest(self.team_keys)
            seconds = time.monotonic() - began
            self.hands.checks.append(
                Check(
                    "what the team's own SQL writes reaches DynamoDB",
                    "PostgreSQL, then DynamoDB",
                    len(self.team_keys),
                    "airports",
                    tuple(f"{key}: differs" for key in {*before, *differing}),
                )
            )
            hands.note(
                f"{len(self.team_keys)} airports written past the service; in DynamoDB after {seconds:.1f} s",
                Tone.BAD if differing else Tone.GOOD,
            )

    def survive(self, relay: RelayProcess) -> None:
        """DynamoDB is out of reach, the relay dies, PostgreSQL crashes; then all come back."""
        hands = self.hands
        server = hands.databases.suspendable
        with ExitStack() as away:
            with hands.step("no mirror"):
                holders = self._lose_the_mirror(away, relay)
                killed_at = time.monotonic()
                time.sleep(hands.pace.outage.total_seconds())
                waiting = outbox_entries(hands.store.engine, TABLE)
                hands.note(f"{waiting} changes wait in the outbox; callers noticed nothing", Tone.GOOD)
            with hands.step("no authority"):
                self._lose_the_authority()
            with hands.step("catch up"):
                away.close()
                if server is not None:
                    hands.note("DynamoDB can be reached again", Tone.FAULT)
                self._take_over(holders, killed_at)
                began = time.monotonic()
                hands.wait_until_caught_up()
                seconds = time.monotonic() - began
                hands.note(f"DynamoDB is close behind again {seconds:.1f} s later", Tone.GOOD)
                hands.wait_until_quiet()
                hands.soak()

    def _lose_the_mirror(self, away: ExitStack, relay: RelayProcess) -> dict[int, str]:
        """DynamoDB falls silent, and the relay dies; another one starts. Who held which lane before."""
        hands = self.hands
        server = hands.databases.suspendable
        # With nothing on its way to DynamoDB: after a request whose fate is unknown, dualstore waits for
        # fifteen minutes before it lets DynamoDB decide again.
        with hands.at_rest():
            hands.wait_until_sent()
            holders = dict(lane_holders(hands.store.engine, TABLE))
            if server is None:
                hands.note("DynamoDB stays: it is not ours to put out of reach", Tone.FAULT)
            else:
                away.enter_context(out_of_reach(server))
                hands.timeline.dynamodb_up = False
                away.callback(setattr, hands.timeline, "dynamodb_up", True)
                hands.note("DynamoDB has fallen silent, as behind a broken network", Tone.FAULT)
            pid = relay.pid
            relay.kill()
            hands.note(f"the relay, process {pid}, was killed; it held {len(holders)} lanes", Tone.FAULT)
        self._ending.enter_context(self.relay("relay-2"))
        return holders

    def _lose_the_authority(self) -> None:
        hands = self.hands
        began_ns = time.monotonic_ns()
        if not hands.crash_postgres(lambda: time.sleep(hands.pace.outage.total_seconds())):
            return
        hands.away.append(Stretch("PostgreSQL was away", began_ns, time.monotonic_ns()))
        hands.note("PostgreSQL is back", Tone.FAULT)
        hands.soak()

    def _take_over(self, holders: dict[int, str], killed_at: float) -> None:
        """Waits until another relay holds every lane of the dead one."""
        hands = self.hands
        deadline = time.monotonic() + _RELAY_PATIENCE_SECONDS
        while True:
            now = lane_holders(hands.store.engine, TABLE)
            left = [lane for lane, holder in holders.items() if now.get(lane, holder) == holder]
            if not left or time.monotonic() > deadline:
                break
            time.sleep(0.1)
        hands.checks.append(
            Check(
                "another relay took over all lanes of the one that was killed",
                "outbox",
                len(holders),
                "lanes",
                tuple(f"lane {lane} is still the dead relay's" for lane in left),
            )
        )
        seconds = time.monotonic() - killed_at
        hands.note(
            f"another relay holds its lanes {seconds:.0f} s after it was killed",
            Tone.BAD if left else Tone.GOOD,
        )

    def complete(self) -> None:
        """The end of DynamoDB: both sides are equal once more, then it is left and goes away."""
        hands = self.hands
        server = hands.databases.suspendable
        with hands.step("complete"):
            with hands.at_rest():
                hands.wait_until_sent()
                self._compare_all()
                hands.carry_out("stop_dual_writing")
                self.left_ns = time.monotonic_ns()
            with nullcontext() if server is None else out_of_reach(server):
                hands.timeline.dynamodb_up = server is None
                if server is not None:
                    hands.note("DynamoDB has been put out of reach for good", Tone.FAULT)
                hands.soak()
                hands.soak()
                hands.fleet.stop()
                hands.note("all processes of the service have ended in order, without DynamoDB", Tone.GOOD)
            hands.timeline.dynamodb_up = True
            hands.carry_out("backup_verification")

    def _compare_all(self) -> None:
        """Every airport of both sides, read raw while callers rest."""
        hands = self.hands
        differing = hands.all_differing()
        hands.checks.append(
            Check(
                "both sides are equal when DynamoDB is left",
                "PostgreSQL, then DynamoDB",
                len(hands.fleet.airports),
                "airports",
                tuple(f"{key}: differs" for key in differing),
            )
        )
        hands.note(
            f"{len(hands.fleet.airports):,} airports compared at rest, {len(differing)} differ",
            Tone.BAD if differing else Tone.GOOD,
        )
