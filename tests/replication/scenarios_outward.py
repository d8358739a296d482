"""Scenarios of whole processes, PostgreSQL being the authority, or becoming it."""

from datetime import timedelta
from unittest.mock import patch

from dualstore.replication.lane_round import SendingLimits
from dualstore.replication.sender import SenderOptions
from dualstore.stages import Stage
from dualstore.stores.memory import operations
from replication.failing_over import Break
from replication.fleet import Fleet
from replication.histories import KEYS
from replication.simulation import Choose
from replication.wires import LATE, LOST, Faults


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


def cut_stream(choose: Choose) -> list[str]:
    """The stream, being the journal of a writer without PostgreSQL, is cut; then the authority is to move."""
    fleet = Fleet(choose, streamed=True, stream_is_journal=True)
    writer = fleet.member("writer")
    writer.reaches(dynamo=Faults(), postgres=Faults(1, ("request",)))
    writer.spawn("writer", writer.writer(3, (writer.put, writer.delete)))
    steady = fleet.member("steady")
    steady.spawn_in_background(steady.relaying, steady.keeping_house, steady.repairing, steady.sending)
    steady.spawn("reader", steady.reader(3))
    fleet.scheduler.spawn("vandal", fleet.cut_stream)
    fleet.scheduler.spawn("operator", lambda: (fleet.scheduler.sleep(12), fleet.operator(Stage.LIVE)()))
    fleet.run()
    return fleet.violations()


def deferred_moves(choose: Choose) -> list[str]:
    """A process that mirrors late ends, and the authority is to move; its queue must not come after that."""
    fleet = Fleet(choose, Faults(12, LOST), Faults(6, LATE), pauses=3, streamed=True)
    late = fleet.member("late", deferring=True)
    late.spawn("writer", late.writer(4, (late.put, late.delete)))
    late.spawn("end", lambda: (fleet.scheduler.sleep(3), late.end_deferring()))
    steady = fleet.member("steady", reliable=True)
    steady.spawn("writer", steady.writer(3))
    steady.spawn_in_background(steady.relaying, steady.repairing, steady.sending, steady.verifying)
    fleet.scheduler.spawn("operator", fleet.operator(Stage.LIVE, Stage.SHADOW))
    fleet.run()
    return fleet.violations()


def expiring_live(choose: Choose) -> list[str]:
    """Items expire while the authority moves, there and back; the sweepers of two processes are at it."""
    first = (Stage.SHADOW, Stage.LIVE)[choose(2)]
    other = Stage.LIVE if first is Stage.SHADOW else Stage.SHADOW
    fleet = Fleet(
        choose, Faults(16, LATE), Faults(16, LATE), stage=first, pauses=2, streamed=True, expiring=True
    )
    for number in range(2):
        member = fleet.member(f"process {number}")
        member.spawn(
            "writer", member.writer(4, (member.put_expiring, member.put_expiring, member.set, member.put))
        )
        member.spawn("reader", member.reader(2))
        member.spawn_in_background(member.keeping_house, member.sending)
    member.spawn_in_background(member.relaying, member.repairing)
    fleet.scheduler.spawn("DynamoDB", fleet.expire, background=True)
    fleet.scheduler.spawn("operator", lambda: (fleet.scheduler.sleep(4), fleet.operator(other, first)()))
    fleet.run()
    return fleet.violations()


def many_keys_move(choose: Choose) -> list[str]:
    """As `many_keys`, with a relay, while the authority moves there and back."""
    fleet = Fleet(choose, Faults(14, LATE), Faults(14, LATE), pauses=2, streamed=True, keys=KEYS[:2])
    for number in range(2):
        member = fleet.member(f"process {number}")
        member.spawn("writer", member.writer(3, (member.batch, member.transact, member.put, member.delete)))
        member.spawn("reader", member.reader(2, member.read_batch))
        member.spawn_in_background(member.sending)
    member.spawn_in_background(member.relaying, member.repairing)
    fleet.scheduler.spawn("operator", fleet.operator(Stage.LIVE, Stage.SHADOW))
    fleet.run()
    return fleet.violations()


def sweeping(choose: Choose) -> list[str]:
    """PostgreSQL is the authority; an expired row is written anew while a sweeper is about to delete it."""
    fleet = Fleet(choose, Faults(), Faults(3, ("slow",)), stage=Stage.LIVE, expiring=True)
    writer = fleet.member("writer", reliable=True)
    writer.spawn(
        "writer",
        lambda: [
            (writer.put_expiring(), fleet.scheduler.sleep(3), writer.think(), writer.put(), writer.think())
            for _ in range(2)
        ],
    )
    sweeper = fleet.member("sweeper")
    sweeper.spawn_in_background(sweeper.keeping_house, sweeper.sending)
    fleet.scheduler.spawn("DynamoDB", fleet.expire, background=True)
    fleet.run()
    return fleet.violations()


def failing_over(choose: Choose) -> list[str]:
    """PostgreSQL is lost, or said to be; DynamoDB takes over; what was lost is listed when it is back."""
    fleet = Fleet(
        choose,
        Faults(12, LOST),
        Faults(16, LOST),
        stage=Stage.LIVE,
        pauses=3,
        failing_over=True,
        sending=SenderOptions(lease=timedelta(seconds=2)),
    )
    for number in range(2):
        member = fleet.member(f"process {number}")
        member.spawn("writer", member.writer(8))
        member.spawn("reader", member.reader(8))
        member.spawn_in_background(member.sending)
    operator = fleet.member("operator", reliable=True)
    operator.process.pausable = False
    operator.spawn_in_background(operator.repairing)
    operator.spawn("failover", Break(fleet, operator).act)
    fleet.run()
    return fleet.violations()
