"""How much may be put aside before a run stops, and another try of what was."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from dualstore.errors import ConfigurationError, MirrorRefused
from dualstore.items import Key
from dualstore.stores.postgres_quarantine import PostgresQuarantine

_LIMIT = re.compile(r"(\d+)|(\d+(?:\.\d+)?)%")
# A share of less than that says nothing about the table.
_LEAST_ITEMS = 1000


@dataclass(frozen=True, slots=True)
class QuarantineLimit:
    """The most items that a run may put aside.

    Attributes:
        items: their number; None for no limit.
        percent: their share of the items read, once a thousand have been; None for no limit.
    """

    items: int | None = None
    percent: float | None = None

    def __str__(self) -> str:
        if self.items is not None:
            return f"{self.items:,}"
        return "no limit" if self.percent is None else f"{self.percent:g}%"

    @classmethod
    def of(cls, text: str | None) -> Self:
        """The limit of a text: a number, or a percentage as `0.5%`.

        Raises:
            ConfigurationError: it is neither.
        """
        if text is None:
            return cls()
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise ConfigurationError(f"max-quarantine is a number, or a share as 0.5%; {text} is neither")
        items, percent = match.groups()
        return cls(int(items)) if items is not None else cls(percent=float(percent))

    def is_passed(self, rejected: int, items: int) -> bool:
        """Whether more was put aside than may be."""
        if self.items is not None:
            return rejected > self.items
        return self.percent is not None and items >= _LEAST_ITEMS and rejected * 100 > self.percent * items


@dataclass(frozen=True, slots=True)
class Retried:
    """What became of the items in quarantine.

    Attributes:
        closed: both sides hold the same for their keys now.
        refused: the SQL table still does not take them.
        without_key: nobody knows which items of the table they are: run another backfill.
    """

    closed: int = 0
    refused: int = 0
    without_key: int = 0


def retry(quarantine: PostgresQuarantine, settle: Callable[[Key], object]) -> Retried:
    """Settle the keys in quarantine from the authority, never from what was kept of their items.

    Args:
        quarantine: of the table.
        settle: settles one key.

    Raises:
        MirrorFenced: PostgreSQL is not the mirror of the table.
        Unavailable: a database does not answer; try again.
    """
    closed = refused = without_key = 0
    for page in quarantine.entries():
        settled = []
        for entry in page:
            if entry.key is None:
                without_key += 1
                continue
            try:
                settle(entry.key)
            except MirrorRefused:
                refused += 1
            else:
                settled.append(entry)
        quarantine.close(settled)
        closed += len(settled)
    return Retried(closed, refused, without_key)
