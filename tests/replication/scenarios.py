"""Scenarios: what a chooser plays through, and the invariants that it is to break."""

from collections.abc import Callable
from datetime import timedelta
from unittest.mock import patch

from dualstore.replication.lane_round import SendingLimits
from dualstore.replication.sender import SenderOptions
from dualstore.stages import Stage
from dualstore.stores.memory import operations
from replication.fleet import Fleet
from replication.histories import History
from replication.simulation import Choose, Faults, SleepyClock

Scenario = Callable[[Choose], list[str]]
"""Plays one schedule, and names the invariants that do not hold at its end."""

LOST = ("request", "reply")
LATE = ("request", "reply", "zombie", "duplicate", "slow", "late")


def dense(choose: Choose) -> list[str]:
    """Two writers, a backfill and a repair on one key; answers get lost on both sides."""
    history = History(choose, Faults(9, LOST), Faults(9, LOST))
    history.spawn("writer 1", history.writer(3))
    history.spawn("writer 2", history.writer(3))
    history.spawn("backfill", history.backfill)
    history.spawn("repair", history.repair)
    history.run()
    return history.violations()


def late_mirror(choose: Choose) -> list[str]:
    """As `dense`, and requests to the mirror come late, twice, or after their senders gave up."""
    history = History(choose, Faults(9, LOST), Faults(5, LATE), pauses=2)
    history.spawn("writer 1", history.writer(3))
    history.spawn("writer 2", history.writer(3))
    history.spawn("backfill", history.backfill)
    history.spawn("repair", history.repair)
    history.run()
    return history.violations()


def crashing(choose: Choose) -> list[str]:
    """A writer dies anywhere; its key is settled when its death has been noticed."""
    history = History(choose, Faults(9, LOST), Faults(9, LOST), crashes=1, pauses=1)
    history.spawn("writer 1", history.writer(3), mortal=True)
    history.spawn("writer 2", history.writer(3), mortal=True)
    history.spawn("repair", history.repair)
    history.run()
    return history.violations()


def streamed(choose: Choose) -> list[str]:
    """A rogue, and late requests to the authority: what only the stream tells of."""
    history = History(choose, Faults(5, LATE), Faults(9, LATE), streamed=True, crashes=1, pauses=2)
    history.spawn("writer 1", history.writer(3), mortal=True)
    history.spawn("writer 2", history.writer(2))
    history.spawn("rogue", history.rogue)
    history.spawn("backfill", history.backfill)
    history.run()
    return history.violations()


def recreation(choose: Choose) -> list[str]:
    """A deleted item is created and deleted again while somebody settles its key; nothing fails."""
    history = History(choose)
    history.put()
    history.delete()
    history.spawn("writer 1", history.put)
    history.spawn("writer 2", history.delete)
    history.spawn("relay", history.settle)
    history.run()
    return history.violations()


def pruning(choose: Choose) -> list[str]:
    """A writer falls asleep between the authority's reply and its mirror write, until tombstones are gone."""
    history = History(choose, clock_type=SleepyClock, pauses=1)
    history.scheduler.spawn("prune", history.prune, background=True)
    history.spawn("writer 1", history.put)
    history.scheduler.spawn(
        "writer 2", lambda: (history.settle(), history.delete(), history.scheduler.sleep(90))
    )
    history.run()
    return history.violations()


def preloaded(choose: Choose) -> list[str]:
    """A rogue changes an item that is on both sides, before any relay is there; then it is copied."""
    history = History(choose)
    history.spawn("writer", history.writer(2))
    history.spawn("rogue", lambda: (history.put(), history.rogue((0, 2))))
    history.run()
    history.backfill()
    return history.violations()


def rewriting(choose: Choose) -> list[str]:
    """An item expires; then somebody deletes it in vain, while a slow settler still knows it."""
    history = History(choose)
    history.put()
    history.delete()
    history.spawn("writer 1", history.put)
    history.spawn("writer 2", lambda: (history.rogue((1,)), history.delete()))
    history.run()
    return history.violations()


def journalled(choose: Choose) -> list[str]:
    """The mirror is gone most of the time: failures go to the journal while two repairs work it off."""
    history = History(choose, Faults(), Faults(2, ("request",)))
    history.spawn("writer 1", history.writer(2))
    history.spawn("writer 2", history.writer(2))
    for number in range(2):
        history.spawn(f"repair {number}", lambda: [history.repair() for _ in range(2)])
    history.run()
    return history.violations()


def counting(choose: Choose) -> list[str]:
    """Three increments whose replies get lost, overtaken by at most one other update.

    Two others would hide that the first attempt was carried out: the item remembers its own stamp and the
    one before.
    """
    history = History(choose, Faults(3, LOST), Faults(9, LOST))
    reliable = history.mirroring_through(history.authority_through(Faults()))
    history.spawn("writer 1", lambda: [history.count() for _ in range(3)])
    history.spawn("writer 2", lambda: history.count(reliable))
    history.run()
    return ["I1"] * history.miscounted + ["I2"] * (not history.converged)


def creating(choose: Choose) -> list[str]:
    """One create, its reply lost: it must not be refused by its own first attempt."""
    history = History(choose, Faults(2, ("reply",)))
    history.spawn("writer", history.create)
    history.run()
    return ["I1"] * history.refused + history.violations()


def dialled(choose: Choose) -> list[str]:
    """Three processes under `shadow`, all reads dialled to the mirror; both databases lose answers."""
    fleet = Fleet(choose, Faults(14, LOST), Faults(7, LOST), pauses=2)
    for number in range(2):
        member = fleet.member(f"process {number}")
        member.spawn("writer", member.writer(2))
        member.spawn("reader", member.reader(2))
    third = fleet.member("process 2")
    third.spawn("reader", third.reader(3))
    third.spawn("repair", lambda: [third.repair_once() for _ in range(2)])
    fleet.run()
    return fleet.violations()


def transacting(choose: Choose) -> list[str]:
    """Two processes write by transactions whose answers get lost; there is no relay to help."""
    fleet = Fleet(choose, Faults(3, LOST), Faults(9, LOST))
    for number in range(2):
        member = fleet.member(f"process {number}")
        member.spawn("writer", lambda mine=member: [mine.transact() for _ in range(3)])
    member.spawn("reader", member.reader(2))
    fleet.run()
    return fleet.violations()


def outage(choose: Choose) -> list[str]:
    """As `dialled`, with PostgreSQL away most of the time: what fails goes to journal and gate."""
    fleet = Fleet(choose, Faults(9, ("slow", "late")), Faults(2, ("request",)), pauses=1)
    writer = fleet.member("process 0")
    writer.spawn("writer", writer.writer(2))
    reader = fleet.member("process 1", reliable=True)
    reader.spawn("reader", reader.reader(5))
    reader.spawn("repair", lambda: [reader.repair_once() for _ in range(2)])
    fleet.run()
    return fleet.violations()


def slow_agents(choose: Choose) -> list[str]:
    """As `outage`; what the reader's agent asks of DynamoDB takes long, PostgreSQL answers it at once."""
    fleet = Fleet(choose, Faults(3, ("late",)), Faults(2, ("request",)))
    writer = fleet.member("writer")
    writer.reaches(dynamo=Faults(), postgres=fleet.postgres_faults)
    writer.spawn("writer", writer.writer(3, (writer.put,)))
    reader = fleet.member("reader")
    reader.reaches(dynamo=fleet.dynamo_faults, postgres=Faults())
    reader.spawn("reader", reader.reader(6))
    writer.spawn("repair", lambda: [writer.repair_once() for _ in range(3)])
    fleet.run()
    return fleet.violations()


def outward(choose: Choose) -> list[str]:
    """PostgreSQL is the authority; two processes work off the outbox; requests come late or twice."""
    sending = SenderOptions(lease=timedelta(seconds=2))
    fleet = Fleet(choose, Faults(3, LATE), Faults(20, LOST), stage=Stage.LIVE, pauses=3, sending=sending)
    for number in range(2):
        sender = fleet.member(f"sender {number}")
        sender.spawn("sender", sender.sending, background=True)
    writer = fleet.member("writer", reliable=True)
    writer.process.pausable = False
    writer.spawn("writer", writer.writer(6))
    fleet.run()
    return fleet.violations()


def creations(choose: Choose) -> list[str]:
    """As `outward`, with nothing but creations and deletions; hardly any is answered at once."""
    sending = SenderOptions(lease=timedelta(seconds=2))
    fleet = Fleet(choose, Faults(2, ("zombie", "reply")), stage=Stage.LIVE, pauses=2, sending=sending)
    for number in range(2):
        sender = fleet.member(f"sender {number}")
        sender.spawn("sender", sender.sending, background=True)
    writer = fleet.member("writer", reliable=True)
    writer.process.pausable = False
    writer.spawn("writer", writer.writer(8, (writer.put, writer.delete)))
    fleet.run()
    return fleet.violations()


def sleeping_senders(choose: Choose) -> list[str]:
    """As `outward`; the senders sleep beyond their leases, and items come back with equal content."""
    sending = SenderOptions(lease=timedelta(seconds=1))
    fleet = Fleet(choose, Faults(4, ("zombie", "slow")), stage=Stage.LIVE, pauses=12, sending=sending)
    for number in range(2):
        sender = fleet.member(f"sender {number}")
        sender.spawn("sender", sender.sending, background=True)
    writer = fleet.member("writer", reliable=True)
    writer.process.pausable = False
    writer.spawn("writer", writer.writer(8, (writer.toggle, writer.toggle, writer.delete)))
    fleet.run()
    return fleet.violations()


def everything_late(choose: Choose) -> list[str]:
    """As `outward`, with a crash, a relay, and faults everywhere."""
    sending = SenderOptions(lease=timedelta(seconds=2))
    fleet = Fleet(
        choose,
        Faults(5, LATE),
        Faults(9, LATE),
        stage=Stage.LIVE,
        crashes=1,
        pauses=2,
        streamed=True,
        sending=sending,
    )
    for number in range(2):
        member = fleet.member(f"process {number}", mortal=number == 0)
        member.spawn("writer", member.writer(3))
        member.spawn("sender", member.sending, background=True)
    member.spawn("relay", member.relaying, background=True)
    member.spawn("reader", member.reader(2))
    fleet.run()
    return fleet.violations()


def forgotten_tokens(choose: Choose) -> list[str]:
    """As `outward`, but DynamoDB forgets tokens sooner than requests are lost for good."""
    limits = SendingLimits(resent_for=timedelta(seconds=8), second_look_after=timedelta(seconds=60))
    fleet = Fleet(
        choose, Faults(3, ("zombie", "reply")), stage=Stage.LIVE, sending=SenderOptions(limits=limits)
    )
    member = fleet.member("process 0")
    member.spawn("sender", member.sending, background=True)
    other = fleet.member("process 1", reliable=True)
    other.spawn("writer", lambda: [(other.put(), other.think(), other.delete(), other.think()) for _ in "12"])
    with patch.object(operations, "_TOKEN_LIFETIME_SECONDS", 12.0):
        fleet.run()
    return fleet.violations()


def flipping(choose: Choose) -> list[str]:
    """The authority moves to PostgreSQL, and back, under writes, reads, faults and pauses."""
    fleet = Fleet(choose, Faults(12, LATE), Faults(12, LATE), pauses=2, streamed=True)
    for number in range(2):
        member = fleet.member(f"process {number}")
        member.spawn("writer", member.writer(3))
        member.spawn("reader", member.reader(2))
        member.spawn("sender", member.sending, background=True)
    member.spawn("relay", member.relaying, background=True)
    member.spawn("repair", member.repairing, background=True)
    fleet.scheduler.spawn("operator", fleet.operator(Stage.LIVE, Stage.SHADOW))
    fleet.run()
    return fleet.violations()


def moving_on(choose: Choose) -> list[str]:
    """As `flipping`, and a process may die, or sleep until it is given up and verified away."""
    fleet = Fleet(choose, Faults(12, LATE), Faults(16, LATE), crashes=1, pauses=3, streamed=True)
    for number in range(2):
        member = fleet.member(f"process {number}", mortal=number == 0)
        member.spawn("writer", member.writer(4))
    steady = fleet.member("process 2", reliable=True)
    steady.process.pausable = False
    steady.spawn("reader", steady.reader(3))
    for act in (steady.sending, steady.relaying, steady.repairing, steady.verifying):
        steady.spawn(act.__name__, act, background=True)
    fleet.scheduler.spawn("operator", fleet.operator(Stage.LIVE, Stage.SHADOW))
    fleet.run()
    return fleet.violations()


def late_to_live(choose: Choose) -> list[str]:
    """The authority moves to PostgreSQL; one process, with a relay and a reader, is slow to see it."""
    fleet = Fleet(choose, streamed=True)
    slow = fleet.member("slow", polls=(1.5, 3.0))
    slow.spawn("relay", slow.relaying, background=True)
    slow.spawn("reader", slow.reader(5))
    writer = fleet.member("writer")
    writer.spawn("writer", writer.writer(6, (writer.put, writer.delete)))
    writer.spawn("sender", writer.sending, background=True)
    fleet.scheduler.spawn("operator", fleet.operator(Stage.LIVE))
    fleet.run()
    return fleet.violations()


def late_to_return(choose: Choose) -> list[str]:
    """The authority moves back to DynamoDB; a process with sender, relay and reader is slow to see it."""
    fleet = Fleet(choose, Faults(), Faults(3, LOST), stage=Stage.LIVE, streamed=True)
    slow = fleet.member("slow", polls=(3.0, 9.0), reliable=True)
    slow.spawn("relay", slow.relaying, background=True)
    slow.spawn("sender", slow.sending, background=True)
    slow.spawn("reader", slow.reader(5))
    writer = fleet.member("writer")
    writer.spawn("writer", writer.writer(6, (writer.put, writer.delete)))
    fleet.scheduler.spawn("operator", fleet.operator(Stage.SHADOW))
    fleet.run()
    return fleet.violations()


def draining(choose: Choose) -> list[str]:
    """The authority moves to PostgreSQL while mirror writes fail and somebody goes around dualstore."""
    fleet = Fleet(choose, Faults(), Faults(3, LOST), streamed=True)
    member = fleet.member("writer")
    member.spawn("writer", member.writer(4, (member.put, member.delete)))
    steady = fleet.member("steady", reliable=True)
    for act in (steady.repairing, steady.relaying, steady.sending):
        steady.spawn(act.__name__, act, background=True)
    for number in range(3):
        fleet.scheduler.spawn(f"rogue {number}", fleet.rogue)
    fleet.scheduler.spawn("operator", fleet.operator(Stage.LIVE))
    fleet.run()
    return fleet.violations()


def given_up(choose: Choose) -> list[str]:
    """A process is stopped until it is taken for dead and verified away, and the authority has moved."""
    fleet = Fleet(choose, pauses=2, streamed=True)
    fleet.scheduler.lengths = (40.0,)
    steady = fleet.member("steady")
    victim = fleet.member("victim")
    victim.spawn("writer", victim.writer(3, (victim.put, victim.transact)))
    victim.spawn("reader", victim.reader(3))
    steady.process.pausable = False
    for act in (steady.sending, steady.relaying, steady.repairing, steady.verifying):
        steady.spawn(act.__name__, act, background=True)
    steady.spawn("reader", lambda: [(fleet.scheduler.sleep(6), steady.read()) for _ in range(8)])
    fleet.scheduler.spawn("operator", lambda: (fleet.scheduler.sleep(15), fleet.operator(Stage.LIVE)()))
    fleet.run()
    return fleet.violations()


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        dense,
        late_mirror,
        crashing,
        streamed,
        recreation,
        pruning,
        preloaded,
        rewriting,
        journalled,
        counting,
        creating,
        dialled,
        transacting,
        outage,
        slow_agents,
        outward,
        creations,
        sleeping_senders,
        everything_late,
        forgotten_tokens,
        flipping,
        moving_on,
        late_to_live,
        late_to_return,
        draining,
        given_up,
    )
}
