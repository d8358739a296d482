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
which differ by their stamps), and items without their key where a page is cut.
"""

import json
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from typing import Any

from dualstore.items import Item, TableShape, canonical, key_bytes, key_hash, values_equal, without_stamps
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
from dualstore.shadow.pages import Part, comparable_part, is_partial
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
    """

    table: str
    key_hash: str
    kind: DiscrepancyKind
    paths: tuple[str, ...] = ()

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
    with_stamps: bool = False,
    limit: int | None = MAX_FINDINGS,
) -> Comparison:
    """Compare what the two sides answered to one read.

    Args:
        operation: the read, as its caller made it.
        shapes: the tables by physical name.
        answers: each side's answer.
        with_stamps: whether items must have the same stamps too.
        limit: the most findings to give back; None for all.
    """
    dynamodb, postgres = answers[Side.DYNAMODB], answers[Side.POSTGRES]
    look = _Look(operation, shapes, with_stamps=with_stamps)
    if isinstance(dynamodb, Refusal) or isinstance(postgres, Refusal):
        return Comparison(() if dynamodb == postgres else (look.of_request(DiscrepancyKind.ERROR),))
    findings, comparable = _COMPARED[type(operation)](look, dynamodb, postgres)
    return Comparison(tuple(islice(findings, limit)), comparable=comparable)


class _Look:
    """Two answers of one read, looked at side by side."""

    def __init__(self, operation: Operation, shapes: Mapping[str, TableShape], *, with_stamps: bool) -> None:
        self.operation = operation
        self.shapes = shapes
        self._seen: Callable[[Item], Item] = (lambda item: item) if with_stamps else without_stamps

    def of_request(self, kind: DiscrepancyKind) -> Finding:
        """A finding that concerns the answer as a whole."""
        return Finding(min(self.operation.tables), request_hash(self.operation), kind)

    def of_item(
        self, table: str, key: Item, dynamodb: Item | None, postgres: Item | None
    ) -> Iterator[Finding]:
        """The finding about one key, if there is one."""
        if dynamodb is None and postgres is None:
            return
        paths: tuple[str, ...] = ()
        if dynamodb is None:
            kind = DiscrepancyKind.MISSING_ON_DYNAMODB
        elif postgres is None:
            kind = DiscrepancyKind.MISSING_ON_POSTGRES
        else:
            kind = DiscrepancyKind.VALUE
            paths = self._differing(dynamodb, postgres)
            if not paths:
                return
        yield Finding(table, key_hash(self.shapes[table].keys, key), kind, paths)

    def of_items(
        self, table: str, dynamodb: Sequence[Item], postgres: Sequence[Item], *, common_only: bool = False
    ) -> tuple[Iterable[Finding], bool]:
        """Findings about two collections of items, in no order, and whether anything was compared."""
        left, right = self._by_key(table, dynamodb), self._by_key(table, postgres)
        if left is None or right is None:
            return ((), False) if common_only else (self._of_keyless(dynamodb, postgres), True)
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

    def _of_keyless(self, dynamodb: Sequence[Item], postgres: Sequence[Item]) -> Iterator[Finding]:
        if len(dynamodb) != len(postgres):
            yield self.of_request(DiscrepancyKind.COUNT)
        elif Counter(map(self._content, dynamodb)) != Counter(map(self._content, postgres)):
            yield self.of_request(DiscrepancyKind.VALUE)

    def _content(self, item: Item) -> Hashable:
        return frozenset((name, canonical(value)) for name, value in self._seen(item).items())

    def _differing(self, a: Item, b: Item) -> tuple[str, ...]:
        a, b = self._seen(a), self._seen(b)
        if a == b:
            return ()
        return tuple(
            name
            for name in sorted(a.keys() | b.keys())
            if name not in a or name not in b or not values_equal(a[name], b[name])
        )


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
    if not findings and not _same_order(part):
        findings = [look.of_request(DiscrepancyKind.ORDER)]
    return findings, comparable


def _same_order(part: Part) -> bool:
    """Whether the values that both sides promise to order by come in the same order."""
    name = part.ordered_by
    if name is None:
        return True
    left, right = ([canonical(item[name]) for item in items] for items in (part.dynamodb, part.postgres))
    return left == right


def _compare_count(look: _Look, dynamodb: Response, postgres: Response) -> _Found:
    operation = look.operation
    is_cut = "LastEvaluatedKey" in dynamodb or "LastEvaluatedKey" in postgres
    if is_cut or (isinstance(operation, Scan) and is_partial(operation)):
        return (), False
    return (() if dynamodb["Count"] == postgres["Count"] else (look.of_request(DiscrepancyKind.COUNT),)), True


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
