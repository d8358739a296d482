"""Scenarios of whole processes, DynamoDB being the authority."""

from dualstore.flags import Requested
from dualstore.stages import Dials, Stage
from replication.fleet import Fleet
from replication.histories import KEYS
from replication.simulation import Choose
from replication.wires import LATE, LOST, Faults


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


def listing(choose: Choose) -> list[str]:
    """Two keys, listed on the mirror, while writes to it fail: what is in doubt may be missing there."""
    fleet = Fleet(choose, Faults(14, LOST), Faults(6, LOST), pauses=1, keys=KEYS[:2])
    writer = fleet.member("writer")
    writer.spawn("writer", writer.writer(4, (writer.put, writer.delete)))
    reader = fleet.member("reader", reliable=True)
    reader.spawn("reader", reader.reader(4, reader.list))
    reader.spawn("batches", reader.reader(4, reader.read_batch))
    reader.spawn("repair", lambda: [reader.repair_once() for _ in range(2)])
    fleet.run()
    return fleet.violations()


def batches(choose: Choose) -> list[str]:
    """Nothing but batches over two keys, whose answers get lost; there is no relay to help."""
    fleet = Fleet(choose, Faults(2, LOST), Faults(9, LOST), keys=KEYS[:2])
    for number in range(2):
        member = fleet.member(f"process {number}")
        member.spawn("writer", member.writer(3, (member.batch,)))
        member.spawn("reader", member.reader(2))
    fleet.run()
    return fleet.violations()


def whole(choose: Choose) -> list[str]:
    """One process writes two keys by transactions, others list them on the mirror; nothing fails."""
    fleet = Fleet(choose, pauses=2, keys=KEYS[:2])
    writer = fleet.member("writer")
    writer.spawn("writer", writer.writer(4, (writer.transact,)))
    for number in range(2):
        reader = fleet.member(f"reader {number}")
        reader.spawn("reader", reader.reader(6, reader.list))
    fleet.run()
    return fleet.violations()


def many_keys(choose: Choose) -> list[str]:
    """Batches, partly unprocessed, and transactions over three keys among single writes; reads dialled."""
    fleet = Fleet(choose, Faults(10, LOST), Faults(8, LATE), crashes=1, pauses=2, keys=KEYS)
    for number in range(2):
        member = fleet.member(f"process {number}", mortal=number == 0)
        member.spawn("writer", member.writer(4, (member.batch, member.transact, member.put, member.delete)))
        member.spawn("reader", member.reader(2))
        member.spawn("batches", member.reader(2, member.read_batch))
    member.spawn_in_background(member.repairing)
    fleet.run()
    return fleet.violations()


def stream_as_journal(choose: Choose) -> list[str]:
    """Mirror writes fail while a relay follows: nothing is journalled, the stream is the journal."""
    fleet = Fleet(
        choose,
        Faults(12, LOST),
        Faults(2, ("request",)),
        crashes=1,
        pauses=2,
        streamed=True,
        stream_is_journal=True,
    )
    writer = fleet.member("writer", mortal=True)
    writer.spawn("writer", writer.writer(5, (writer.put, writer.put, writer.delete)))
    relay = fleet.member("relay", reliable=True)
    relay.spawn("reader", relay.reader(5))
    relay.spawn_in_background(relay.relaying, relay.keeping_house, relay.repairing)
    fleet.run()
    return fleet.violations()


def cut_off(choose: Choose) -> list[str]:
    """A writer that never reaches PostgreSQL leaves its writes to the stream; others read there."""
    fleet = Fleet(choose, streamed=True, stream_is_journal=True, pauses=1)
    writer = fleet.member("writer")
    writer.reaches(dynamo=Faults(), postgres=Faults(1, ("request",)))
    writer.spawn("writer", lambda: [(writer.put(), fleet.scheduler.sleep(3), writer.think()) for _ in "123"])
    steady = fleet.member("steady")
    steady.spawn("reader", steady.reader(9))
    steady.spawn_in_background(steady.relaying, steady.repairing)
    fleet.run()
    return fleet.violations()


def strangers(choose: Choose) -> list[str]:
    """Somebody changes an item and back under one stamp; a relay follows, and another process settles it."""
    fleet = Fleet(choose, Faults(), Faults(3, ("slow",)), streamed=True)
    member = fleet.member("process 0")
    member.spawn("writer", lambda: (member.put_black(), member.settle_once()))
    steady = fleet.member("process 1", reliable=True)
    steady.spawn_in_background(steady.relaying)
    fleet.scheduler.spawn("stranger", fleet.turncoat)
    fleet.run()
    return fleet.violations()


def thieves(choose: Choose) -> list[str]:
    """Somebody deletes items as they come, while a relay follows; answers of PostgreSQL take long."""
    fleet = Fleet(choose, Faults(), Faults(2, ("slow", "late")), streamed=True)
    member = fleet.member("process 0")
    member.spawn("writer", member.writer(2, (member.put,)))
    steady = fleet.member("process 1", reliable=True)
    steady.spawn_in_background(steady.relaying)
    fleet.scheduler.spawn("thief", fleet.thief)
    fleet.run()
    return fleet.violations()


def deferring(choose: Choose) -> list[str]:
    """Processes begin to mirror after they have answered, one may die; others mirror inline, or read."""
    fleet = Fleet(choose, Faults(12, LOST), Faults(9, LATE), crashes=1, pauses=2, keys=KEYS[:2])
    reader = fleet.member("reader")
    reader.spawn("reader", reader.reader(5))
    reader.spawn_in_background(reader.repairing)
    inline = fleet.member("inline")
    inline.spawn("writer", inline.writer(2))
    for number in range(2):
        member = fleet.member(f"deferring {number}", mortal=number == 0, deferring=True)
        member.spawn("writer", member.writer(4))
    fleet.run()
    return fleet.violations()


def expiring(choose: Choose) -> list[str]:
    """Items expire, DynamoDB being the authority, whether a relay follows the stream or not."""
    streamed = choose(2) == 1
    # Without a stream nobody would hear of what arrives at DynamoDB late.
    dynamo_faults = Faults(16, LATE if streamed else LOST)
    fleet = Fleet(choose, dynamo_faults, Faults(12, LATE), pauses=2, streamed=streamed, expiring=True)
    member = fleet.member("writer")
    member.spawn(
        "writer", member.writer(5, (member.put_expiring, member.put_expiring, member.set, member.delete))
    )
    sweeper = fleet.member("sweeper")
    sweeper.spawn("writer", sweeper.writer(2))
    sweeper.spawn_in_background(sweeper.keeping_house, sweeper.repairing)
    if streamed:
        sweeper.spawn_in_background(sweeper.relaying)
    fleet.scheduler.spawn("DynamoDB", fleet.expire, background=True)
    fleet.run()
    return fleet.violations()


def verified(choose: Choose) -> list[str]:
    """A process dies in the middle of a write, during a verification that takes long; there is no relay."""
    fleet = Fleet(choose, crashes=1, pauses=1, keys=KEYS[:2])
    for number in range(2):
        member = fleet.member(f"process {number}", mortal=number == 0)
        member.spawn("writer", member.writer(3, (member.put, member.delete)))
    member.spawn("reader", lambda: [(fleet.scheduler.sleep(6), member.read()) for _ in range(4)])
    verifier = fleet.member("verifier")
    verifier.reaches(dynamo=Faults(2, ("slow", "late")), postgres=Faults(2, ("slow", "late")))
    verifier.spawn("verify", lambda: (verifier.think(), verifier.verify_once()))
    fleet.run()
    return fleet.violations()


def copying(choose: Choose) -> list[str]:
    """Mirroring begins, and the history is copied, under writes; the copy may die and is taken up again."""
    dials = Dials()
    fleet = Fleet(
        choose,
        Faults(14, LOST),
        Faults(12, LOST),
        stage=Stage.OFF,
        dials=dials,
        loaded=False,
        crashes=1,
        pauses=2,
        keys=KEYS,
    )
    fleet.has_history()
    for number in range(2):
        member = fleet.member(f"process {number}")
        member.spawn("writer", member.writer(3, (member.put, member.delete, member.set)))
    copier = fleet.member("copier", mortal=True)
    copier.spawn("backfill", copier.backfilling)
    copier.spawn_in_background(copier.repairing)
    fleet.flags.asked = Requested(stage=Stage.DUALWRITE)
    fleet.run()
    return fleet.violations()


def copying_over(choose: Choose) -> list[str]:
    """As `copying`, over rows of some earlier time, whose items are gone or changed; it is dialled."""
    fleet = Fleet(choose, Faults(16, LOST), Faults(14, LOST), loaded=False, pauses=2, keys=KEYS)
    fleet.has_history()
    fleet.has_left_overs()
    for number in range(2):
        member = fleet.member(f"process {number}")
        member.spawn("writer", member.writer(2, (member.put, member.delete)))
    member.spawn("reader", member.reader(4))
    copier = fleet.member("copier")
    copier.spawn("backfill", copier.backfilling)
    copier.spawn_in_background(copier.repairing)
    fleet.run()
    return fleet.violations()


def copying_again(choose: Choose) -> list[str]:
    """A table that is read from PostgreSQL is copied once more, while items come and go."""
    fleet = Fleet(choose)
    copier = fleet.member("copier")
    writer = fleet.member("writer")
    reader = fleet.member("reader")
    writer.spawn("writer", lambda: [(writer.put(), writer.delete(), writer.think()) for _ in "123"])
    for number in range(2):
        reader.spawn(f"reader {number}", lambda: [(reader.read(), reader.clock.sleep(0.2)) for _ in range(9)])
    copier.spawn("backfill", lambda: (copier.think(), copier.backfilling()))
    fleet.run()
    return fleet.violations()


def copying_what_goes(choose: Choose) -> list[str]:
    """Items are deleted while they are copied; nothing fails."""
    fleet = Fleet(choose, loaded=False, pauses=1, keys=KEYS[:2])
    fleet.has_history()
    copier = fleet.member("copier")
    copier.spawn("backfill", copier.backfilling)
    member = fleet.member("writer")
    member.spawn("writer", member.writer(3, (member.delete,)))
    fleet.run()
    return fleet.violations()
