"""Scenarios of one key and its writers, without the processes around them."""

from replication.histories import History
from replication.simulation import Choose, SleepyClock
from replication.wires import LATE, LOST, Faults


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
