"""A replay in several processes, since one interpreter has one core: each sends its share of the arrivals."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from dualstore.errors import Unavailable
from dualstore.rollout.load.replay import Replay, replay
from dualstore.rollout.load.tally import Tally
from dualstore.store import DualStore

_BEGIN_SECONDS = 60.0
_MORE_SECONDS = 60.0


def replay_in_processes(config: Path, table: str, planned: Replay, processes: int) -> Tally:
    """Replay in several processes that begin together.

    Args:
        config: the configuration, from which each opens a store of its own.
        table: the table's logical name.
        planned: what all of them send together; `writers` is of each.
        processes: how many.

    Raises:
        Unavailable: one of them has died; its output says why.
    """
    context = multiprocessing.get_context("spawn")  # threads and connections do not survive a fork
    together = context.Barrier(processes)
    ends = []
    started = []
    for number in range(processes):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(
            target=_share,
            args=(_Share(config, table, planned, number, processes), together, theirs),
            name=f"dualstore-load-{number}",
            daemon=True,
        )
        process.start()
        theirs.close()
        ends.append(ours)
        started.append(process)
    try:
        return reduce(Tally.plus, _tallies(ends, planned))
    finally:
        for process in started:
            process.join(1)
            process.kill()


def _tallies(ends: Sequence[Connection], planned: Replay) -> Sequence[Tally]:
    limit = planned.schedule().ends_seconds + _BEGIN_SECONDS + _MORE_SECONDS
    tallies = []
    for end in ends:
        try:
            if not end.poll(limit):
                raise Unavailable(
                    "a process of the load did not end in time; look at the load of this machine"
                )
            tallies.append(Tally.from_json(end.recv()))
        except EOFError:
            raise Unavailable("a process of the load has died; see its output above") from None
    return tallies


@dataclass(frozen=True, slots=True)
class _Share:
    """What one process has to know; see `replay`."""

    config: Path
    table: str
    planned: Replay
    number: int
    processes: int


def _share(mine: _Share, together: Barrier, result: Connection) -> None:
    with DualStore.from_config(mine.config) as store:
        store.table(mine.table)
        together.wait(_BEGIN_SECONDS)
        tally = replay(store, mine.table, mine.planned, number=mine.number, processes=mine.processes)
    result.send(tally.to_json())
