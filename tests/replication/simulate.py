"""Plays schedules in volume: `nox -s simulate`.

Cheap scenarios are played more often than dear ones, but not as much more often as they are cheaper: of two,
one of which takes four times as long, it gets half as many schedules, and twice the time.
"""

import argparse
import math
import multiprocessing
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace

from replication.environment import simulated
from replication.histories import seeded
from replication.scenarios import SCENARIOS

_PROBED = 20
_BLOCK_SECONDS = 0.5
_PROGRESS_SECONDS = 30.0


@dataclass(frozen=True)
class Block:
    """Some schedules of a scenario; once they are played, how long that took, and what was broken.

    Attributes:
        scenario: its name.
        first: the number of the first schedule.
        size: how many.
        seconds: of the processor.
        broken: the schedules that broke an invariant, and which.
    """

    scenario: str
    first: int
    size: int
    seconds: float = 0.0
    broken: tuple[tuple[int, str], ...] = ()


@dataclass
class Played:
    """What has been played of one scenario.

    Attributes:
        next: the number of the schedule to go on with.
        schedules, seconds, broken: so far.
    """

    next: int
    schedules: int = 0
    seconds: float = 0.0
    broken: int = 0

    def add(self, block: Block) -> None:
        self.schedules += block.size
        self.seconds += block.seconds
        self.broken += len(block.broken)

    @property
    def seconds_each(self) -> float:
        """What a schedule costs; a guess before the first."""
        return self.seconds / self.schedules if self.schedules else 0.01

    def block(self, scenario: str, most: int, size: int | None = None) -> Block:
        """The next schedules: so many, or as many as are worth sending over."""
        wanted = size or max(1, round(_BLOCK_SECONDS / self.seconds_each))
        block = Block(scenario, self.next, min(wanted, most))
        self.next += block.size
        return block


@dataclass
class Volume:
    """Schedules of some scenarios, up to a number, or for a time.

    Attributes:
        schedules: how many at most.
        minutes: how long at most.
        first: the number of the first schedule of each scenario.
    """

    scenarios: Sequence[str]
    schedules: int
    minutes: float = math.inf
    first: int = 0
    played: Mapping[str, Played] = field(init=False)
    _asked: int = 0
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.played = {name: Played(self.first) for name in self.scenarios}

    def blocks(self) -> Iterator[Block]:
        """A few schedules of each, then always some of the scenario that is furthest behind its share."""
        for name in self.scenarios:
            if self._asked < self.schedules:
                yield self._taken(name, _PROBED)
        while self._asked < self.schedules and self.seconds < 60 * self.minutes:
            behind = min(self.scenarios, key=self._share_had)
            yield self._taken(behind, None)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def _taken(self, name: str, size: int | None) -> Block:
        each = max(1, -(-self.schedules // len(self.scenarios)))
        block = self.played[name].block(name, self.schedules - self._asked, size and min(size, each))
        self._asked += block.size
        return block

    def _share_had(self, name: str) -> float:
        played = self.played[name]
        return (played.next - self.first) * math.sqrt(played.seconds_each)


def play(block: Block) -> Block:
    """Play a block of schedules."""
    began = time.process_time()
    broken = []
    with simulated():
        for seed in range(block.first, block.first + block.size):
            try:
                violations = SCENARIOS[block.scenario](seeded(seed))
            except Exception as error:  # noqa: BLE001 - a schedule that cannot be played is to be told, too
                violations = [f"the simulation itself ({type(error).__name__}: {error})"]
            if violations:
                broken.append((seed, ", ".join(violations)))
    return replace(block, seconds=time.process_time() - began, broken=tuple(broken))


def simulate(volume: Volume, processes: int) -> int:
    """Play schedules on several processes.

    Prints every schedule that breaks something, with the command that plays it again, and a table in the end.

    Returns:
        1 where an invariant was broken, else 0.
    """
    told_at = 0.0
    blocks, under_way = volume.blocks(), set[Future[Block]]()
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(under_way) < 2 * processes and (block := next(blocks, None)) is not None:
                under_way.add(pool.submit(play, block))
            if not under_way:
                break
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                _take_note(volume, future.result())
            if volume.seconds - told_at > _PROGRESS_SECONDS:
                told_at = volume.seconds
                _say(_progress(volume))
    for line in _table(volume, processes):
        _say(line)
    return min(1, sum(each.broken for each in volume.played.values()))


def _take_note(volume: Volume, block: Block) -> None:
    volume.played[block.scenario].add(block)
    for seed, violations in block.broken:
        again = f"nox -s simulate -- --scenario {block.scenario} --first {seed} --schedules 1"
        _say(f"{block.scenario}: schedule {seed} breaks {violations}. Again: {again}")


def _progress(volume: Volume) -> str:
    schedules = sum(each.schedules for each in volume.played.values())
    broken = sum(each.broken for each in volume.played.values())
    rate = schedules / volume.seconds
    left = min((volume.schedules - schedules) / max(rate, 1e-9), 60 * volume.minutes - volume.seconds)
    return f"{schedules:,} schedules, {rate:,.0f} a second, {broken} broken; {left / 60:,.0f} minutes left"


def _table(volume: Volume, processes: int) -> Iterator[str]:
    yield f"{'scenario':<20} {'schedules':>10} {'a second':>9} {'broken':>7}"
    for name, each in volume.played.items():
        yield f"{name:<20} {each.schedules:>10,} {1 / each.seconds_each:>9,.0f} {each.broken:>7,}"
    schedules = sum(each.schedules for each in volume.played.values())
    broken = sum(each.broken for each in volume.played.values())
    yield (
        f"{schedules:,} schedules in {volume.seconds / 60:,.1f} minutes on {processes} processes: "
        f"{broken:,} break an invariant"
    )


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """Carry out what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="default: all")
    parser.add_argument("--first", type=int, default=0, help="the number of the first schedule of each")
    options = parser.parse_args(arguments)
    volume = Volume(
        options.scenario or list(SCENARIOS), options.schedules, minutes=options.minutes, first=options.first
    )
    return simulate(volume, options.processes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
