"""What a comparison of one table leaves out: ignored attributes, expired items, a normaliser's own choice."""

import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from dualstore.items import AttributeValue, Item, without_stamps
from dualstore.mapping.expiry import has_expired

Normaliser: TypeAlias = Callable[[Item], Item]
"""Gives back an item as it is to be compared: a copy of its own, which it may change."""

_Tree = dict[str, Any]


class NormaliserFailed(Exception):  # noqa: N818 - named for what happened
    """A normaliser raised, or gave back no item. Says only how: its words may hold a value."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What counts as equal in one table, beyond what DynamoDB itself holds equal.

    Attributes:
        ignore: attributes that are not compared: `updated_at`, or `meta.etag` inside of a map; a list on the
            way is gone through element by element. A top-level name with dots in it is meant first.
        normalise: the team's own function, called with each item that is not equal at first sight.
        ttl_attribute: the attribute by which items expire. DynamoDB deletes late, so an item that has expired
            and that one side lacks is no difference.
        now: tells the time, in seconds since the epoch.
    """

    ignore: tuple[str, ...] = ()
    normalise: Normaliser | None = None
    ttl_attribute: str | None = None
    now: Callable[[], float] = time.time
    _ignored: _Tree = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_ignored", _tree(self.ignore))

    def seen(self, item: Item) -> Item:
        """An item as it is to be compared; never the caller's own, where anything was changed.

        Raises:
            NormaliserFailed: the normaliser raised.
        """
        item = without_stamps(item)
        if self.normalise is not None:
            item = _normalised(self.normalise, item)
        if not self._ignored:
            return item
        return _without(
            {name: value for name, value in item.items() if name not in self.ignore}, self._ignored
        )

    def has_expired(self, item: Item) -> bool:
        """Whether DynamoDB may have deleted an item by now, or may yet do so."""
        return self.ttl_attribute is not None and has_expired(item, self.ttl_attribute, now=self.now())


def _normalised(normalise: Normaliser, item: Item) -> Item:
    try:
        normalised = normalise(deepcopy(item))
    except Exception as error:  # noqa: BLE001 - somebody else's function: whatever it does, nobody suffers
        raise NormaliserFailed(type(error).__name__) from None
    if not isinstance(normalised, dict):
        raise NormaliserFailed(f"gave back {type(normalised).__name__}, no item")
    return normalised


def _tree(paths: tuple[str, ...]) -> _Tree:
    """Paths as nested dictionaries, in which an empty one is a path's end."""
    tree: _Tree = {}
    for path in sorted(paths, key=len):
        *way, last = path.split(".")
        branch = tree
        for step in way:
            branch = branch.setdefault(step, {})
        branch.setdefault(last, {})
    return tree


def _without(entries: Mapping[str, AttributeValue], ignored: _Tree) -> Item:
    return {
        name: _inside(value, ignored[name]) if name in ignored else value
        for name, value in entries.items()
        if ignored.get(name) != {}
    }


def _inside(value: AttributeValue, ignored: _Tree) -> AttributeValue:
    if "M" in value:
        return {"M": _without(value["M"], ignored)}
    if "L" in value:
        return {"L": [_inside(element, ignored) for element in value["L"]]}
    return value


NO_RULES = Rules()
