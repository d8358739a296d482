"""How two items differ, told without their values: top-level names, types, and the writes they come from."""

from collections.abc import Iterator
from uuid import UUID

from dualstore.items import STAMP, AttributeValue, Item, values_equal
from dualstore.telemetry.discrepancies import DiscrepancyKind, Versions

_STAMP_BYTES = 16
_OF_CONTENT = frozenset({DiscrepancyKind.VALUE, DiscrepancyKind.TYPE})


def differing_attributes(a: Item, b: Item) -> Iterator[tuple[str, bool]]:
    """The names of the attributes that differ, in order, each with whether a type does.

    Top-level names only: the names inside a map are often data (`members.<address>`). Types are compared in
    depth, along what both have.
    """
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b:
            yield name, False
        elif not values_equal(a[name], b[name]):
            yield name, _types_differ(a[name], b[name])


def _types_differ(a: AttributeValue, b: AttributeValue) -> bool:
    if a.keys() != b.keys():
        return True
    if "M" in a:
        common = a["M"].keys() & b["M"].keys()
        return any(_types_differ(a["M"][name], b["M"][name]) for name in common)
    return "L" in a and any(_types_differ(*pair) for pair in zip(a["L"], b["L"], strict=False))


def version_of(item: Item | None) -> str | None:
    """The stamp of an item as a UUID; None without one, or where somebody wrote something else there."""
    stamp = (item or {}).get(STAMP, {}).get("B")
    return str(UUID(bytes=bytes(stamp))) if stamp is not None and len(stamp) == _STAMP_BYTES else None


def versions_of(dynamodb: Item | None, postgres: Item | None) -> Versions:
    """Which writes the two sides show."""
    return Versions(version_of(dynamodb), version_of(postgres))


def kind_with(versions: Versions, kind: DiscrepancyKind) -> DiscrepancyKind:
    """The class of a difference once its versions are known.

    Each side shows, at any time, what some write has made. Where the two stamps differ one of the sides has
    not followed the other: `stale`. Which write came first, stamps do not tell (ADR 3), and need not.
    """
    both = None not in versions
    if kind in _OF_CONTENT and both and versions.dynamodb != versions.postgres:
        return DiscrepancyKind.STALE
    return kind
