"""Plays schedules in volume, and keeps the table of mutants: `nox -s simulate`, `nox -s mutants`."""

import argparse
import multiprocessing
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from replication.environment import simulated
from replication.histories import seeded
from replication.mutants import MUTANTS
from replication.scenarios import SCENARIOS

_BLOCK = 250
_PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "mutants.md"
_SEARCHES = 3


@dataclass(frozen=True)
class Block:
    """Some schedules of a scenario, and those among them that broke an invariant."""

    scenario: str
    first: int
    size: int
    broken: tuple[tuple[int, tuple[str, ...]], ...] = ()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def play(block: Block) -> Block:
    """Play a block of schedules."""
    seeds = range(block.first, block.first + block.size)
    with simulated():
        played = ((seed, tuple(SCENARIOS[block.scenario](seeded(seed)))) for seed in seeds)
        return replace(block, broken=tuple((seed, broken) for seed, broken in played if broken))


def blocks(schedules: int, scenarios: Sequence[str], first: int) -> Iterator[Block]:
    """So many schedules, the same number of each scenario."""
    each = -(-schedules // len(scenarios))
    for start in range(0, each, _BLOCK):
        for name in scenarios:
            yield Block(name, first + start, min(_BLOCK, each - start))


def simulate(schedules: int, processes: int, scenarios: Sequence[str], first: int) -> int:
    """Play schedules on several processes, and print the rate and every schedule that broke something."""
    started, played, failures = time.monotonic(), 0, 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for block in pool.imap_unordered(play, blocks(schedules, scenarios, first)):
            played += block.size
            failures += len(block.broken)
            for seed, violations in block.broken:
                _say(f"{block.scenario}: schedule {seed} breaks {', '.join(violations)}")
            if played // 20_000 > (played - block.size) // 20_000:
                _say(
                    f"{played:,} schedules, {played / (time.monotonic() - started):,.0f} a second", flush=True
                )
    seconds = time.monotonic() - started
    _say(f"{played:,} schedules in {seconds:,.0f} s on {processes} processes: {failures} break an invariant")
    return min(failures, 1)


def searched(number: int) -> list[int | None]:
    """After how many schedules a mutant, named by its place, is found, from several starts."""
    mutant, starts = MUTANTS[number], range(0, 1_000_000 * _SEARCHES, 1_000_000)
    return [mutant.found_after(range(start, start + 3 * mutant.within)) for start in starts]


def table_of_mutants(processes: int) -> int:
    """Look for every mutant, and write the page about them."""
    rows, missing = [], 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for mutant, counts in zip(MUTANTS, pool.imap(searched, range(len(MUTANTS))), strict=True):
            missed = sum(count is None for count in counts)
            median = statistics.median(3 * mutant.within if count is None else count for count in counts)
            shown = f"not found from {missed} of {len(counts)} starts" if missed else f"{median:,.0f}"
            rows.append(f"| {mutant.rule} | {mutant.removed} | `{mutant.scenario}` | {shown} |")
            missing += missed
            _say(rows[-1])
    scenarios = [f"| `{name}` | {_first_sentence(play_.__doc__)} |" for name, play_ in SCENARIOS.items()]
    _PAGE.write_text(_TEMPLATE.format(rows="\n".join(rows), scenarios="\n".join(scenarios)))
    return min(missing, 1)


def _first_sentence(text: str | None) -> str:
    return " ".join((text or "").split())


_TEMPLATE = """# What the simulation finds when a rule is taken away

`tests/replication` plays whole histories of the protocol on stores in memory: writers, readers, backfill,
relay, repair and the moves of the authority take turns at every call of a database, as a seeded chooser
says, while answers get lost, requests arrive after their senders gave up, processes sleep or die, and
strangers write. At the end of each schedule three invariants must hold: no acknowledged write is lost
(I1), both sides hold the same (I2), and every read saw each write acknowledged before it began (I6).

A simulation that finds nothing proves something only if it finds what is there. So the rules of the
protocol (numbered as in [replication](replication.md)) have mutants that lack them; the last column is
the median number of schedules, from three starts, after which an invariant breaks. `nox -s mutants`
writes this page anew; the tests look for each one, too. For the rules themselves `nox -s simulate` plays
a million schedules.

| Rule | The mechanism that is missing | Scenario | Found after |
|---|---|---|---|
{rows}

Some checks are second lines of defence: with one of them alone taken away no schedule was found that
breaks an invariant. They are the second look at the grant, after a mirror's answer (a read that began
under a grant began before any write that it could miss was acknowledged); the epoch counted up by a move,
beside role and stamps; each alone of stream, journal and dirty keys drained before a move; the stamps of
a transaction derived from its token (a call repeats its request as it was); the two steps in which the
gate reopens (missed once in thousands of schedules); suspects, while the stream is followed; the fence of
what is put into the outbox, beside that of the look before it (tests/contract has it). What only a real
PostgreSQL can show (locks and snapshots, rule 9; `pg_snapshot_xmin`, rule 4) is tested there.

## The scenarios

| Scenario | What happens |
|---|---|
{scenarios}
"""


def main(arguments: Sequence[str]) -> int:
    """Carry out what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutants", action="store_true", help="write docs/explanation/mutants.md")
    parser.add_argument("--schedules", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scenario", action="append", choices=sorted(SCENARIOS), help="default: all")
    parser.add_argument("--first", type=int, default=0, help="the number of the first schedule")
    options = parser.parse_args(arguments)
    if options.mutants:
        return table_of_mutants(options.processes)
    return simulate(options.schedules, options.processes, options.scenario or list(SCENARIOS), options.first)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
