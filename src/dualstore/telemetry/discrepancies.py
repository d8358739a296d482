"""A confirmed difference between the two sides: one record, shared by shadow reads, verify and repair."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from threading import Lock
from typing import TypeAlias

logger = logging.getLogger(__name__)


class DiscrepancyKind(StrEnum):
    """In what way the sides differ."""

    MISSING_ON_POSTGRES = "missing_on_postgres"
    MISSING_ON_DYNAMODB = "missing_on_dynamodb"
    VALUE = "value"
    ORDER = "order"
    COUNT = "count"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One difference that a second look confirmed. Holds no item's value and no plain key.

    Attributes:
        table: the physical name of the DynamoDB table.
        key_hash: `items.key_hash` of the item's key, or the hash of the request where no one item differs.
        operation: the operation that saw it, such as `Query`.
        kind: in what way the sides differ.
        paths: the attributes that differed when it was last confirmed.
        first_seen: when it was first seen; with a time zone.
        last_seen: when it was last confirmed.
        count: how often it was confirmed.
    """

    table: str
    key_hash: str
    operation: str
    kind: DiscrepancyKind
    paths: tuple[str, ...]
    first_seen: datetime
    last_seen: datetime
    count: int = 1

    @property
    def identity(self) -> tuple[str, str, str, DiscrepancyKind]:
        """What makes two records the same discrepancy seen twice."""
        return self.table, self.key_hash, self.operation, self.kind

    def merged(self, later: "Discrepancy") -> "Discrepancy":
        """This record after a later one of the same discrepancy."""
        return replace(
            self,
            paths=later.paths,
            last_seen=max(self.last_seen, later.last_seen),
            count=self.count + later.count,
        )


DiscrepancySink: TypeAlias = Callable[[Discrepancy], None]
"""Takes each confirmed discrepancy, every time that it is confirmed."""


class DiscrepancyLog:
    """A sink in memory: one record per discrepancy, each logged once.

    Args:
        limit: the most discrepancies to keep; what comes after is counted only.
    """

    def __init__(self, *, limit: int = 10_000) -> None:
        self._limit = limit
        self._lock = Lock()
        self._records: dict[tuple[str, str, str, DiscrepancyKind], Discrepancy] = {}
        self._left_out = 0

    def __call__(self, discrepancy: Discrepancy) -> None:
        """Take a record."""
        with self._lock:
            known = self._records.get(discrepancy.identity)
            if known is not None:
                self._records[discrepancy.identity] = known.merged(discrepancy)
                return
            if len(self._records) >= self._limit:
                self._left_out += 1
                return
            self._records[discrepancy.identity] = discrepancy
        logger.warning(
            "Discrepancy in table %s: %s, key %s, seen by %s, attributes: %s",
            discrepancy.table,
            discrepancy.kind,
            discrepancy.key_hash,
            discrepancy.operation,
            ", ".join(discrepancy.paths) or "-",
        )

    @property
    def left_out(self) -> int:
        """How many records there was no room for."""
        return self._left_out

    def records(self) -> list[Discrepancy]:
        """Every discrepancy so far, the first seen first."""
        with self._lock:
            return list(self._records.values())
