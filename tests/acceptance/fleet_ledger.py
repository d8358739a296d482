"""What the writers of a fleet have begun, and what they were told is done; no database knows of it.

Each item has one writer, which counts its versions up from 1. The version tells the whole item, also that
there is none; so what a reader sees is right if it is of a version that was not overtaken before the read
began, and was begun before it ended.
"""

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

DELETING = 5
"""Every version that this divides is a deletion, version 0 (before the first) included."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an item is."""

    pk: str
    sk: int


def is_deletion(version: int) -> bool:
    return version % DELETING == 0


def attributes_of(place: Place, version: int) -> dict[str, Any]:
    """What an item holds at a version; an answer that mixes two versions has not these attributes."""
    return {
        "name": f"{place.pk}/{place.sk}",
        "n": version,
        "tags": {f"v{version}", "tag"},
        "lines": [version, f"{version}"],
    }


class Ledger:
    """Two numbers for each place, in a file that all processes map: the version begun, and the one done.

    Only the writer of a place writes them; a number of eight bytes is never seen half written.

    Args:
        path: the file; made if it is not there.
        places: the places, the same in every process.
    """

    def __init__(self, path: Path, places: Sequence[Place]) -> None:
        self._index = {place: 2 * number for number, place in enumerate(places)}
        size = 16 * len(places)
        with path.open("a+b") as file:
            if path.stat().st_size < size:
                file.truncate(size)
            self._map = mmap.mmap(file.fileno(), size)
        self._numbers = memoryview(self._map).cast("Q")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._numbers.release()
        self._map.close()

    def begin(self, place: Place, version: int) -> None:
        """Note that a version is about to be written."""
        self._numbers[self._index[place]] = version

    def finish(self, place: Place, version: int) -> None:
        """Note that a version was acknowledged."""
        self._numbers[self._index[place] + 1] = version

    def begun(self, place: Place) -> int:
        return self._numbers[self._index[place]]

    def done(self, place: Place) -> int:
        return self._numbers[self._index[place] + 1]

    def objection(self, place: Place, found: dict[str, Any] | None, since: int) -> str | None:
        """What is wrong with what a read that has just ended saw of a place, or None.

        Args:
            place: the item's place.
            found: its attributes, but for the key; None where there was no item.
            since: `done` from before the read.
        """
        until = self.begun(place)
        if found is None:
            if any(is_deletion(version) for version in range(since, until + 1)):
                return None
            return f"no item {place}, though versions {since} to {until} are none"
        version = found.get("n")
        if not isinstance(version, int) or found != attributes_of(place, version) or is_deletion(version):
            return f"an item {place} that nobody wrote: {found}"
        if version < since:
            return f"version {version} of {place} after {since} was acknowledged"
        return None if version <= until else f"version {version} of {place}, begun was {until} only"
