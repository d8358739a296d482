"""What a verification finds: differences that hold no values, and the counts around them."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from dualstore.items import STAMP, Item, Key, canonical, items_equal, without_stamps
from dualstore.shadow.differences import differing_attributes, kind_with, versions_of
from dualstore.telemetry import DiscrepancyKind, Versions
from dualstore.telemetry.discrepancies import NO_VERSIONS


class Finding(StrEnum):
    """What the two sides hold for one key, compared."""

    EQUAL = "equal"
    STAMP = "stamp"
    """The same content, written by different writes."""
    VALUE = "value"
    MISSING_ON_POSTGRES = "missing_on_postgres"
    MISSING_ON_DYNAMODB = "missing_on_dynamodb"
    EXPIRED = "expired"
    """A row whose time has passed: DynamoDB may have deleted its item, and the row is yet to be swept."""
    MOVING = "moving"
    """The key did not hold still for long enough to be judged."""
    OVERFLOW = "overflow"
    """A row whose overflow is no map of attributes, or holds one that has its own column."""
    VERSION = "version"
    """A row whose revision or stamp is none that dualstore gave."""
    DUPLICATE = "duplicate"
    """A key with rows in two SQL tables."""
    MISPLACED = "misplaced"
    """An item that stands in the SQL table of another entity."""
    LATER = "later"
    """Changed since the moment that was compared with."""
    UNDECIDED = "undecided"
    """Other than at the moment that was compared with, and nothing tells whether it was changed since."""

    @property
    def is_difference(self) -> bool:
        """Whether an application could tell the sides apart."""
        return self not in _NO_DIFFERENCE


_NO_DIFFERENCE = frozenset(
    {
        *(Finding.EQUAL, Finding.STAMP, Finding.EXPIRED, Finding.MOVING),
        *(Finding.LATER, Finding.UNDECIDED),
    }
)


def compare_sides(dynamodb: Item | None, postgres: Item | None) -> Finding:
    """Compare what both sides hold for one key: sets without order, numbers by value, `_dsp` left out."""
    if dynamodb is None or postgres is None:
        if dynamodb is not None:
            return Finding.MISSING_ON_POSTGRES
        return Finding.EQUAL if postgres is None else Finding.MISSING_ON_DYNAMODB
    if not items_equal(dynamodb, postgres):
        return Finding.VALUE
    return Finding.EQUAL if dynamodb.get(STAMP) == postgres.get(STAMP) else Finding.STAMP


@dataclass(frozen=True, slots=True)
class Observation:
    """What was found for one key at one moment, in a form that two moments can be compared by.

    Attributes:
        finding: what the comparison found.
        paths: the top-level attributes in which the items differ; empty unless both sides hold the item.
        state: differs where the item on DynamoDB or the row's revision does.
        versions: which writes the sides show.
        kind: the class of a difference, as discrepancies are recorded; None where there is none.
    """

    finding: Finding
    paths: tuple[str, ...]
    state: Hashable
    versions: Versions = NO_VERSIONS
    kind: DiscrepancyKind | None = None


def observe_pair(
    dynamodb: Item | None,
    postgres: Item | None,
    *,
    revision: Hashable,
    has_expired: Callable[[Item], bool] = lambda _: False,
) -> Observation:
    """Compare one key's items, and remember what they were without keeping them.

    Args:
        dynamodb: the item on DynamoDB, or None.
        postgres: the item on PostgreSQL, or None.
        revision: the revision of the row and tombstone, which changes with every write to the key.
        has_expired: whether an item's time to live has passed.
    """
    finding = compare_sides(dynamodb, postgres)
    if finding is Finding.MISSING_ON_DYNAMODB and postgres is not None and has_expired(postgres):
        return Observation(Finding.EXPIRED, (), None)
    if finding is Finding.EQUAL:
        return Observation(finding, (), None)
    differing: dict[str, bool] = {}
    if dynamodb is not None and postgres is not None:
        differing = dict(differing_attributes(without_stamps(dynamodb), without_stamps(postgres)))
    versions = versions_of(dynamodb, postgres)
    held = None if dynamodb is None else hash(canonical({"M": dynamodb}))
    return Observation(
        finding,
        tuple(differing),
        (held, revision),
        versions,
        _kind(finding, versions, types_differ=any(differing.values())),
    )


def _kind(finding: Finding, versions: Versions, *, types_differ: bool) -> DiscrepancyKind | None:
    """The class that a difference is recorded under, the same as a comparison of reads gives it."""
    if not finding.is_difference:
        return None
    if finding is Finding.VALUE and types_differ:
        return kind_with(versions, DiscrepancyKind.TYPE)
    return kind_with(versions, DiscrepancyKind(finding.value))


@dataclass(frozen=True, slots=True)
class Difference:
    """A key whose items differ, and stay so.

    Attributes:
        key_hash: names the key without saying it (`items.key_hash`).
        finding: how the sides differ.
        paths: the top-level attributes that differ, for `Finding.VALUE`.
        repaired: whether the sides were found equal after the key had been settled.
        key: the key itself, for whoever repairs; kept out of every text.
    """

    key_hash: str
    finding: Finding
    paths: tuple[str, ...] = ()
    repaired: bool = False
    key: Key = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """The result of one verification.

    Attributes:
        run_id: its row in `dualstore.runs`.
        table: the table's physical DynamoDB name.
        items_dynamodb: how many items the Scan read.
        rows_postgres: how many rows the SQL table held after it.
        equal: keys with the same content on both sides.
        stamps_only: those of them that were last written by different writes.
        differences: the first differences found; there may be more.
        difference_count: how many there are.
        repaired: how many of them are equal since they were settled.
        moving: keys that did not hold still for long enough to be judged.
        expired: rows without an item, whose time to live has passed; they are no differences.
        unreadable: lines of the source that are no items; they count as differences.
        unmapped: rows that no entity of the mapping matches; they are no differences.
        later: keys that were changed since the moment that was compared with; nothing is said of them.
        undecided: keys of which nothing tells whether they were changed since that moment.
        started: when the verification began.
        finished: when it ended.
        context: what whoever started it wanted to find again, as it was then.
        suspects: what makes the table suspect still, though all its items were compared as they are now: it
            arose meanwhile, or the comparison did not prove both sides equal.
        disturbed: whether the history was copied anew meanwhile, or writes passed PostgreSQL by, which may
            have changed what was compared.
    """

    run_id: UUID
    table: str
    items_dynamodb: int
    rows_postgres: int
    equal: int
    stamps_only: int
    differences: tuple[Difference, ...]
    difference_count: int
    repaired: int
    moving: int
    expired: int = 0
    unreadable: int = 0
    unmapped: int = 0
    later: int = 0
    undecided: int = 0
    started: datetime
    finished: datetime
    context: Mapping[str, Any] = field(default_factory=dict)
    suspects: frozenset[str] = frozenset()
    disturbed: bool = False

    @property
    def success_rate(self) -> float:
        """The share of the keys compared that were found equal, before any repair; 1.0 for no keys."""
        return self.equal / self._compared if self._compared else 1.0

    def passes(self, threshold: float) -> bool:
        """Whether enough of the keys are equal: the success rate, once repairs count, reaches a threshold.

        Never where they are in doubt all the same.

        Args:
            threshold: a share; with 1.0 every key has to be known to be equal.
        """
        if threshold >= 1.0:
            return self.proven
        if self.in_doubt:
            return False
        return not self._compared or (self.equal + self.repaired) / self._compared >= threshold

    @property
    def proven(self) -> bool:
        """Whether every key is known to be equal now: no difference is left, none unjudged, and no doubt."""
        return self.all_equal and not self.in_doubt

    @property
    def all_equal(self) -> bool:
        """Whether every key was found equal when it was looked at, whatever came into doubt meanwhile."""
        return self.difference_count == self.repaired and not (self.moving or self.undecided)

    @property
    def in_doubt(self) -> bool:
        """Whether something happened after which only another verification can tell."""
        return bool(self.suspects) or self.disturbed

    @property
    def _compared(self) -> int:
        return self.equal + self.difference_count + self.moving + self.undecided
