"""Who works on which airports: every writer its own, all of them the hubs and a few contended ones."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from dualstore.cli.demo.example import COUNTRIES, HUBS
from dualstore.cli.demo.proof import Kind
from dualstore.cli.demo.traffic import RUSHED_KEYS, Beat

OWNED_PER_WRITER = 24
CONTENDED = 6


def cast_beats(
    records: list[dict[str, Any]],
    *,
    processes: Mapping[str, int],
    calls_per_second: float,
    seed: int,
) -> dict[str, list[Beat]]:
    """Gives every thread of every process its beat.

    Args:
        records: the source data.
        processes: how many threads each process has, by its name.
        calls_per_second: what each thread aims at.
        seed: of the choice.
    """
    choice = random.Random(seed)  # noqa: S311 - a reproducible choice, not a secret
    keys = sorted(record["icao"] for record in records if record["icao"] not in HUBS)
    choice.shuffle(keys)
    contended, keys = tuple(keys[:CONTENDED]), keys[CONTENDED:]
    codes = tuple(sorted(record["iata"] for record in records if "iata" in record))
    beats: dict[str, list[Beat]] = {}
    for process, threads in processes.items():
        beats[process] = []
        for thread in range(threads):
            owned, keys = tuple(keys[:OWNED_PER_WRITER]), keys[OWNED_PER_WRITER:]
            beats[process].append(
                Beat(
                    writer=f"{process}-{thread + 1}",
                    owned=owned,
                    shared=HUBS,
                    contended=contended,
                    countries=COUNTRIES,
                    iata_codes=codes,
                    calls_per_second=calls_per_second,
                    seed=choice.randrange(2**32),
                )
            )
    return beats


def rushed_keys(beats: Mapping[str, list[Beat]]) -> tuple[str, ...]:
    """The airports that all writers write to in a rush."""
    (beat, *_) = (beat for cast in beats.values() for beat in cast)
    return beat.shared[:RUSHED_KEYS] + beat.contended[:RUSHED_KEYS]


def cast_team(
    records: list[dict[str, Any]], beats: Mapping[str, list[Beat]], *, count: int, seed: int
) -> tuple[str, ...]:
    """Chooses airports that only the team's own SQL writes to."""
    taken = kinds_of(beats, team=())
    choice = random.Random(seed)  # noqa: S311 - a reproducible choice, not a secret
    return tuple(choice.sample(sorted(r["icao"] for r in records if r["icao"] not in taken), count))


def kinds_of(beats: Mapping[str, list[Beat]], *, team: Sequence[str]) -> dict[str, Kind]:
    """The kind of every airport that takes writes.

    Args:
        beats: what the writers work on.
        team: the airports that the team's own SQL writes to.
    """
    kinds: dict[str, Kind] = dict.fromkeys(team, Kind.OWNED)
    for beat in (beat for cast in beats.values() for beat in cast):
        kinds |= dict.fromkeys(beat.owned, Kind.OWNED)
        kinds |= dict.fromkeys(beat.shared, Kind.SHARED)
        kinds |= dict.fromkeys(beat.contended, Kind.CONTENDED)
    return kinds
