"""A confirmed difference between the two sides: one record, shared by shadow reads, verify and repair."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from threading import Lock
from typing import NamedTuple, TypeAlias
from uuid import UUID

from opentelemetry.trace import format_trace_id, get_current_span

logger = logging.getLogger(__name__)


class DiscrepancyKind(StrEnum):
    """In what way the sides differ."""

    MISSING_ON_POSTGRES = "missing_on_postgres"
    MISSING_ON_DYNAMODB = "missing_on_dynamodb"
    VALUE = "value"
    TYPE = "type"
    """An attribute is of another type: a number here, a string there."""
    STALE = "stale"
    """The sides show the work of different writes, and it stays so: one of them has not followed."""
    ORDER = "order"
    COUNT = "count"
    ERROR = "error"


class Finder(StrEnum):
    """What found a discrepancy."""

    SHADOW = "shadow"
    VERIFY = "verify"


class Versions(NamedTuple):
    """The stamps of an item on both sides, as UUIDs; None where there is no item, or no stamp."""

    dynamodb: str | None = None
    postgres: str | None = None


NO_VERSIONS = Versions()


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One difference that a second look confirmed. Holds no item's value.

    Attributes:
        table: the physical name of the DynamoDB table.
        key_hash: `items.key_hash` of the item's key, or the hash of the request where no one item differs.
        operation: what saw it last, such as `Query`, or `Verify`.
        kind: in what way the sides differ.
        paths: the top-level attributes that differed when it was last confirmed.
        first_seen: when it was first seen; with a time zone.
        last_seen: when it was last confirmed.
        count: how often it was confirmed.
        versions: which writes the sides show.
        of_request: whether it concerns the answer to a request, no one item.
        finder: what found it.
        trace_id: of the request that saw it last, as 32 hexadecimal characters, where it was traced.
        run_id: the verification that saw it last, if one did.
        repaired: whether the sides were found equal since.
        key: `items.key_bytes` of the item's key, for who repairs; kept out of every text, and recorded only
            by opt-in.
    """

    table: str
    key_hash: str
    operation: str
    kind: DiscrepancyKind
    paths: tuple[str, ...]
    first_seen: datetime
    last_seen: datetime
    count: int = 1
    versions: Versions = NO_VERSIONS
    of_request: bool = False
    finder: Finder = Finder.SHADOW
    trace_id: str | None = None
    run_id: UUID | None = None
    repaired: bool = False
    key: bytes | None = field(default=None, repr=False)

    @property
    def identity(self) -> tuple[str, str, DiscrepancyKind]:
        """What makes two records the same discrepancy seen twice, by whatever operation."""
        return self.table, self.key_hash, self.kind

    def merged(self, later: "Discrepancy") -> "Discrepancy":
        """This record after a later one of the same discrepancy."""
        return replace(
            later,
            first_seen=min(self.first_seen, later.first_seen),
            last_seen=max(self.last_seen, later.last_seen),
            count=self.count + later.count,
        )


def current_trace_id() -> str | None:
    """The trace that the present context belongs to, as 32 hexadecimal characters, if it does to any."""
    context = get_current_span().get_span_context()
    return format_trace_id(context.trace_id) if context.is_valid else None


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
        self._records: dict[tuple[str, str, DiscrepancyKind], Discrepancy] = {}
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
