"""Compares the two sides' answers to one read, and only as far as DynamoDB promises an answer.

| Read | Compared |
|---|---|
| GetItem, TransactGetItems, BatchGetItem | item by item, by key; not the keys that a side left unprocessed |
| Query of a table | item by item and in order, up to where the shorter page ends |
| Query of an index | item by item, and the order of its sort keys; not the ties at a page's end |
| Scan, whole in one page on both sides | item by item |
| Scan, any other page | the items that both pages hold: each side scans in an order of its own |
| Select=COUNT | the count, where no page is cut |
| refusals | their codes |

Never compared: stamps, capacities, `ScannedCount`, how far a page goes (1 MB is measured on stored items,
which differ by their stamps), items without their key where a page is cut, and what the table's `Rules` leave
out. An expired item that one side lacks is no difference: DynamoDB deletes late.
"""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any

from dualstore.items import Item, Key, TableShape, canonical, key_bytes, key_hash, without_stamps
from dualstore.operations import (
    BatchGetItem,
    GetItem,
    Operation,
    PagedRead,
    Query,
    Response,
    Scan,
    TransactGetItems,
)
from dualstore.shadow.answers import Answer, Refusal
from dualstore.shadow.differences import differing_attributes
from dualstore.shadow.pages import Part, comparable_part, is_partial
from dualstore.shadow.rules import NO_RULES, Rules
from dualstore.stages import Side
from dualstore.telemetry.discrepancies import DiscrepancyKind

MAX_FINDINGS = 20
"""The most findings of one comparison: a page where everything differs says no more than that."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference between two answers.

    Attributes:
        table: the physical name of the table.
        key_hash: of the item's key, or of the request where no one item differs.
        kind: in what way the sides differ.
        paths: names of the attributes that differ. Top-level names only: the names inside a map are
            often data (`members.<address>`).
        key: the item's key, or None where no one item differs; kept out of every text.
    """

    table: str
    key_hash: str
    kind: DiscrepancyKind
    paths: tuple[str, ...] = ()
    key: Key | None = field(default=None, repr=False, compare=False)

    @property
    def identity(self) -> tuple[str, str, DiscrepancyKind]:
        """What makes it the same finding in another comparison."""
        return self.table, self.key_hash, self.kind


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found.

    Attributes:
        findings: the differences, at most `MAX_FINDINGS`.
        comparable: whether there was anything to compare at all.
    """

    findings: tuple[Finding, ...] = ()
    comparable: bool = True


def compare(
    operation: Operation,
    shapes: Mapping[str, TableShape],
    answers: Mapping[Side, Answer],
    *,
    rules: Mapping[str, Rules] | None = None,
    with_stamps: bool = False,
    limit: int | None = MAX_FINDINGS,
) -> Comparison:
    """Compare what the two sides answered to one read.

    Args:
        operation: the read, as its caller made it.
        shapes: the tables by physical name.
        answers: each side's answer.
        rules: what is left out, by the tables' physical names.
        with_stamps: whether items must have the same stamps too, and nothing is left out.
        limit: the most findings to give back; None for all.

    Raises:
        NormaliserFailed: a normaliser among the rules raised.
    """
    dynamodb, postgres = answers[Side.DYNAMODB], answers[Side.POSTGRES]
    look = _Look(operation, shapes, None if with_stamps else rules or {})
    if isinstance(dynamodb, Refusal) or isinstance(postgres, Refusal):
        return Comparison(() if dynamodb == postgres else (look.of_request(DiscrepancyKind.ERROR),))
    findings, comparable = _COMPARED[type(operation)](look, dynamodb, postgres)
    return Comparison(tuple(islice(findings, limit)), comparable=comparable)


_MISSING = {
    Side.DYNAMODB: DiscrepancyKind.MISSING_ON_DYNAMODB,
    Side.POSTGRES: DiscrepancyKind.MISSING_ON_POSTGRES,
}


class _Look:
    """Two answers of one read, looked at side by side.

    Args:
        operation: the read.
        shapes: the tables by physical name.
        rules: what is left out of each table; None compares everything, stamps too.
    """

    def __init__(
        self, operation: Operation, shapes: Mapping[str, TableShape], rules: Mapping[str, Rules] | None
    ) -> None:
        self.operation = operation
        self.shapes = shapes
        self._rules = rules

    def _seen(self, table: str, item: Item) -> Item:
        return item if self._rules is None else self._rules.get(table, NO_RULES).seen(item)

    def unexpired(self, table: str, items: Sequence[Item]) -> Sequence[Item]:
        """The items that both sides must hold: those whose time has not passed."""
        rules = (self._rules or {}).get(table, NO_RULES)
        return [item for item in items if not rules.has_expired(item)] if rules.ttl_attribute else items

    def of_request(self, kind: DiscrepancyKind) -> Finding:
        """A finding that concerns the answer as a whole."""
        return Finding(min(self.operation.tables), request_hash(self.operation), kind)

    def of_item(
        self, table: str, key: Item, dynamodb: Item | None, postgres: Item | None
    ) -> Iterator[Finding]:
        """The finding about one key, if there is one."""
        paths: tuple[str, ...] = ()
        if dynamodb is None or postgres is None:
            there = postgres if dynamodb is None else dynamodb
            if there is None or not self.unexpired(table, [there]):
                return
            kind = _MISSING[Side.DYNAMODB if dynamodb is None else Side.POSTGRES]
        else:
            differing = dict(self._differing(table, dynamodb, postgres))
            if not differing:
                return
            kind = DiscrepancyKind.TYPE if any(differing.values()) else DiscrepancyKind.VALUE
            paths = tuple(differing)
        keys = self.shapes[table].keys
        exact = {name: key[name] for name in keys.names}
        yield Finding(table, key_hash(keys, key), kind, paths, exact)

    def of_items(
        self, table: str, dynamodb: Sequence[Item], postgres: Sequence[Item], *, common_only: bool = False
    ) -> tuple[Iterable[Finding], bool]:
        """Findings about two collections of items, in no order, and whether anything was compared."""
        left, right = self._by_key(table, dynamodb), self._by_key(table, postgres)
        if left is None or right is None:
            if common_only or self.hides_expiry(table):
                return (), False
            return self._of_keyless(table, dynamodb, postgres), True
        keys = left.keys() & right.keys() if common_only else left.keys() | right.keys()
        findings = (
            finding
            for key in sorted(keys)
            for finding in self.of_item(table, left.get(key) or right[key], left.get(key), right.get(key))
        )
        return findings, bool(keys) or not (common_only and (left or right))

    def _by_key(self, table: str, items: Sequence[Item]) -> dict[bytes, Item] | None:
        """Items by their table key, or None where a projection has left it out."""
        keys = self.shapes[table].keys
        if not all(name in item for item in items for name in keys.names):
            return None
        return {key_bytes(keys, item): item for item in items}

    def hides_expiry(self, table: str) -> bool:
        """Whether a page leaves out the attribute by which its items expire."""
        name = (self._rules or {}).get(table, NO_RULES).ttl_attribute
        operation = self.operation
        if name is None or not isinstance(operation, PagedRead):
            return False
        projected, shape = operation.projection, self.shapes[table]
        if projected is not None:
            return (name,) not in projected
        index = shape.indexes.get(operation.index) if operation.index else None
        if index is None or index.projection == "ALL":
            return False
        return name not in {*shape.keys.names, *index.keys.names, *index.projection}

    def _of_keyless(
        self, table: str, dynamodb: Sequence[Item], postgres: Sequence[Item]
    ) -> Iterator[Finding]:
        dynamodb, postgres = self.unexpired(table, dynamodb), self.unexpired(table, postgres)
        if len(dynamodb) != len(postgres):
            yield self.of_request(DiscrepancyKind.COUNT)
        elif self._contents(table, dynamodb) != self._contents(table, postgres):
            yield self.of_request(DiscrepancyKind.VALUE)

    def _contents(self, table: str, items: Sequence[Item]) -> Counter[Hashable]:
        seen = (self._seen(table, item) for item in items)
        return Counter(frozenset((name, canonical(value)) for name, value in item.items()) for item in seen)

    def _differing(self, table: str, a: Item, b: Item) -> Iterator[tuple[str, bool]]:
        # Whatever the rules make of them, equal items stay equal.
        if a == b or (self._rules is not None and without_stamps(a) == without_stamps(b)):
            return iter(())
        return differing_attributes(self._seen(table, a), self._seen(table, b))


_Found = tuple[Iterable[Finding], bool]
"""Findings, and whether anything could be compared."""


def _compare_item(look: _Look, dynamodb: Response, postgres: Response) -> _Found:
    operation = look.operation
    assert isinstance(operation, GetItem)  # noqa: S101 - by the table below
    return look.of_item(operation.table, operation.key, dynamodb.get("Item"), postgres.get("Item")), True


def _compare_actions(look: _Look, dynamodb: Response, postgres: Response) -> _Found:
    operation = look.operation
    assert isinstance(operation, TransactGetItems)  # noqa: S101 - by the table below
    pairs = zip(operation.actions, dynamodb["Responses"], postgres["Responses"], strict=True)
    return (
        finding
        for (_, action), left, right in pairs
        for finding in look.of_item(action["TableName"], action["Key"], left.get("Item"), right.get("Item"))
    ), True


def _compare_batch(look: _Look, dynamodb: Response, postgres: Response) -> _Found:
    findings: list[Finding] = []
    comparable = False
    for table in sorted(look.operation.tables):
        left, right = dynamodb["Responses"].get(table, []), postgres["Responses"].get(table, [])
        unprocessed = any(table in (answer.get("UnprocessedKeys") or ()) for answer in (dynamodb, postgres))
        found, any_compared = look.of_items(table, left, right, common_only=unprocessed)
        findings += found
        comparable |= any_compared
    return findings, comparable


def _compare_page(look: _Look, dynamodb: Response, postgres: Response) -> _Found:
    operation = look.operation
    assert isinstance(operation, PagedRead)  # noqa: S101 - by the table below
    if operation.select == "COUNT":
        return _compare_count(look, dynamodb, postgres)
    part = comparable_part(operation, look.shapes[operation.table], dynamodb, postgres)
    found, comparable = look.of_items(
        operation.table, part.dynamodb, part.postgres, common_only=part.common_only
    )
    findings = list(found)
    if not findings and not _same_order(look, operation.table, part):
        findings = [look.of_request(DiscrepancyKind.ORDER)]
    return findings, comparable


def _same_order(look: _Look, table: str, part: Part) -> bool:
    """Whether the values that both sides promise to order by come in the same order."""
    name = part.ordered_by
    if name is None:
        return True
    sides = (look.unexpired(table, items) for items in (part.dynamodb, part.postgres))
    left, right = ([canonical(item[name]) for item in items] for items in sides)
    return left == right


def _compare_count(look: _Look, dynamodb: Response, postgres: Response) -> _Found:
    operation = look.operation
    assert isinstance(operation, PagedRead)  # noqa: S101 - by its only caller
    is_cut = "LastEvaluatedKey" in dynamodb or "LastEvaluatedKey" in postgres
    is_part = is_cut or (isinstance(operation, Scan) and is_partial(operation))
    if is_part or look.hides_expiry(operation.table):
        return (), False
    left, right = (_counted(look, operation.table, page) for page in (dynamodb, postgres))
    return (() if left == right else (look.of_request(DiscrepancyKind.COUNT),)), True


def _counted(look: _Look, table: str, page: Response) -> int:
    """A page's count, without expired items where the items themselves were asked for (`rechecks`)."""
    return len(look.unexpired(table, page["Items"])) if "Items" in page else int(page["Count"])


_COMPARED: dict[type[Operation], Callable[[_Look, Response, Response], _Found]] = {
    GetItem: _compare_item,
    BatchGetItem: _compare_batch,
    TransactGetItems: _compare_actions,
    Query: _compare_page,
    Scan: _compare_page,
}

_NOT_IN_HASH = frozenset({"ConsistentRead", "ReturnConsumedCapacity"})


def request_hash(operation: Operation) -> str:
    """A request as 16 hexadecimal characters: a 64-bit BLAKE2b digest, whatever its consistency."""
    request = {name: value for name, value in operation.request.items() if name not in _NOT_IN_HASH}
    text = json.dumps([operation.name, request], sort_keys=True, default=_plain)
    return blake2b(text.encode(), digest_size=8).hexdigest()


def _plain(value: Any) -> str:
    return bytes(value).hex() if isinstance(value, bytes | bytearray) else repr(value)
