"""The order of an index whose sort key has a SQL type that orders otherwise, made in Python."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cmp_to_key, lru_cache

from dualstore.expressions import matches
from dualstore.items import Item, compare, item_size_bytes
from dualstore.stores.semantics import MAX_PAGE_SIZE_BYTES, PagePlan

_log = logging.getLogger(__name__)
_UNSORTABLE = (
    "it reads and sorts a whole partition, since the SQL type of the sort key orders otherwise than "
    "DynamoDB; map the attribute to Text(collation='C'), Numeric or LargeBinary"
)


def sorted_page(planned: PagePlan, items: Iterable[Item]) -> Iterator[Item]:
    """The items of a Query's range from its start on, in order; no more of them than a page can hold.

    Args:
        planned: a Query of an index with a sort key.
        items: the items of the partition, in any order.
    """
    warn_once(planned.shape.name, planned.operation.index, _UNSORTABLE)
    sort = planned.keys.sort
    asked = planned.key_condition
    if sort is None or asked is None:
        raise AssertionError("only the sort key of an index can be out of order")
    names = (sort.name, *planned.shape.keys.names)
    direction = 1 if planned.forward else -1

    def compared(a: Item, b: Item) -> int:
        return direction * _compare(names, a, b)

    start = planned.start_key
    page: list[Item] = []
    size_bytes = 0
    for item in items:
        if asked.sort is not None and not matches(asked.sort, item[sort.name]):
            continue
        if start is not None and compared(item, start) <= 0:
            continue
        page.append(item)
        size_bytes += _entry_size_bytes(planned, item)
        if size_bytes > 2 * MAX_PAGE_SIZE_BYTES:
            page.sort(key=cmp_to_key(compared))
            size_bytes = _cut(planned, page)
    yield from sorted(page, key=cmp_to_key(compared))


def _compare(names: Sequence[str], a: Item, b: Item) -> int:
    return next((order for name in names if (order := compare(a[name], b[name]))), 0)


def _cut(planned: PagePlan, page: list[Item]) -> int:
    """Take off what cannot be on the page any more; the bytes that are left."""
    size_bytes = 0
    for count, item in enumerate(page, 1):
        size_bytes += _entry_size_bytes(planned, item)
        if size_bytes >= MAX_PAGE_SIZE_BYTES:
            del page[count:]
            break
    return size_bytes


def _entry_size_bytes(planned: PagePlan, item: Item) -> int:
    held = planned.projected
    return item_size_bytes(item if held is None else {name: item[name] for name in item.keys() & held})


@lru_cache
def warn_once(table: str, index: str | None, why: str) -> None:
    """Say in the log that Queries of an index are slow; once in a process."""
    _log.warning("every Query of index %r of table %r is slow: %s", index, table, why)
