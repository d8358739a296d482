"""Looks for every mutant, and writes the page about them: `nox -s mutants`."""

import argparse
import multiprocessing
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from replication.mutants import MUTANTS, WITHOUT_A_MUTANT
from replication.scenarios import SCENARIOS

_PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "mutants.md"
_SEARCHES = 3


def searched(number: int) -> list[int | None]:
    """After how many schedules a mutant, named by its place, is found, from several starts."""
    mutant, starts = MUTANTS[number], range(0, 1_000_000 * _SEARCHES, 1_000_000)
    return [mutant.found_after(range(start, start + 3 * mutant.within)) for start in starts]


def search(processes: int, numbers: Sequence[int]) -> tuple[list[str], int]:
    """Look for mutants, each named by its place.

    Returns:
        Their rows of the table, and from how many starts some mutant was not found.
    """
    rows, missing = [], 0
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for number, counts in zip(numbers, pool.imap(searched, numbers), strict=True):
            mutant = MUTANTS[number]
            missed = sum(count is None for count in counts)
            median = statistics.median(3 * mutant.within if count is None else count for count in counts)
            shown = f"not found from {missed} of {len(counts)} starts" if missed else f"{median:,.0f}"
            rows.append(f"| {mutant.rule} | {mutant.removed} | `{mutant.scenario}` | {shown} |")
            missing += missed
            sys.stdout.write(f"{len(rows)} of {len(numbers)} {rows[-1]}\n")
            sys.stdout.flush()
    return rows, missing


def write_page(rows: Sequence[str]) -> None:
    """Write the page about all mutants."""
    _PAGE.write_text(
        _TEMPLATE.format(
            rows="\n".join(rows),
            without="\n".join(f"| {rule} | {what} | {why} |" for rule, what, why in WITHOUT_A_MUTANT),
            scenarios="\n".join(
                f"| `{name}` | {_one_line(play.__doc__)} |" for name, play in SCENARIOS.items()
            ),
        )
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


_TEMPLATE = """# What the simulation finds when a rule is taken away

`tests/replication` plays whole histories of the protocol on stores in memory: writers, readers, backfill,
verification, relay, sender, repair, sweepers and the moves of the authority take turns at every call of a
database, as a seeded chooser says, while answers get lost, requests arrive after their senders gave up,
processes sleep or die, and strangers write. At the end of each schedule three invariants must hold: no
acknowledged write is lost (I1), both sides hold the same (I2), and every read saw each write acknowledged
before it began (I6).

A simulation that finds nothing proves something only if it finds what is there. So the rules of the
protocol (numbered as in [replication](replication.md)) have mutants that lack them; the last column is
the median number of schedules, from three starts, after which an invariant breaks. `nox -s mutants`
writes this page anew; the tests look for those that are found soon, too. For the rules themselves
`nox -s simulate` plays a million schedules, and names every one that breaks something with the command
that plays it again.

| Rule | The mechanism that is missing | Scenario | Found after |
|---|---|---|---|
{rows}

## Rules without a mutant

| Rule | Mechanism | Why |
|---|---|---|
{without}

## The scenarios

| Scenario | What happens |
|---|---|
{scenarios}
"""


def main(arguments: Sequence[str]) -> int:
    """Carry out what the command line asks for; 1 where some mutant is not found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--scenario", choices=SCENARIOS, help="its mutants only; the page stays as it is")
    options = parser.parse_args(arguments)
    numbers = [number for number, mutant in enumerate(MUTANTS) if options.scenario in {None, mutant.scenario}]
    rows, missing = search(options.processes, numbers)
    if options.scenario is None:
        write_page(rows)
    return int(missing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
