"""How much of two pages can be compared: pages end at different places, and ties have no order."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dualstore.items import AttributeValue, Item, TableShape, canonical, compare
from dualstore.operations import PagedRead, Query, Response, Scan


@dataclass(frozen=True, slots=True)
class Part:
    """The comparable part of two pages.

    Attributes:
        dynamodb: the items of DynamoDB's page.
        postgres: the items of PostgreSQL's page.
        common_only: whether an item that only one page holds proves nothing.
        ordered_by: the attribute that every item has and both sides must order by, or None.
    """

    dynamodb: Sequence[Item]
    postgres: Sequence[Item]
    common_only: bool = False
    ordered_by: str | None = None


def comparable_part(operation: PagedRead, shape: TableShape, dynamodb: Response, postgres: Response) -> Part:
    """What two pages have to agree on.

    Args:
        operation: the Query or Scan that both answer.
        shape: its table.
        dynamodb: DynamoDB's page.
        postgres: PostgreSQL's page.
    """
    left, right = dynamodb.get("Items", []), postgres.get("Items", [])
    ends = [page["LastEvaluatedKey"] for page in (dynamodb, postgres) if page.get("LastEvaluatedKey")]
    if isinstance(operation, Query):
        return _part_of_query(operation, shape, (left, right), ends)
    assert isinstance(operation, Scan)  # noqa: S101 - there are two kinds of pages
    return Part(left, right, common_only=bool(ends) or is_partial(operation))


def is_partial(scan: Scan) -> bool:
    """Whether a Scan asks for a part of the table: which part that is, each side decides for itself."""
    return scan.start_key is not None or scan.segment is not None


def _part_of_query(
    query: Query, shape: TableShape, items: tuple[Sequence[Item], Sequence[Item]], ends: Sequence[Item]
) -> Part:
    index = shape.indexes.get(query.index) if query.index else None
    keys = index.keys if index else shape.keys
    if keys.sort is None:
        # A partition of such a table is one item; one of such an index is all ties.
        cut = index is not None and bool(ends or query.start_key)
        return Part(*items, common_only=cut)
    sort = keys.sort.name
    if not all(sort in item for page in (*items, ends) for item in page):
        return Part(*items, common_only=bool(ends))
    is_before = _before(query)
    left, right = items
    for end in ends:
        inside = _inside(end[sort], is_before, with_ties=index is None)
        left, right = ([item for item in page if inside(item[sort])] for page in (left, right))
    if index is not None and query.start_key is not None:
        tied = canonical(query.start_key[sort])
        left, right = ([item for item in page if canonical(item[sort]) != tied] for page in (left, right))
    return Part(left, right, ordered_by=sort)


def _before(query: Query) -> Callable[[AttributeValue, AttributeValue], bool]:
    if query.forward:
        return lambda a, b: compare(a, b) < 0
    return lambda a, b: compare(a, b) > 0


def _inside(
    end: AttributeValue, is_before: Callable[[AttributeValue, AttributeValue], bool], *, with_ties: bool
) -> Callable[[AttributeValue], bool]:
    """Whether a sort key lies before a page's end; the end itself only where nothing else can tie with it."""
    if with_ties:
        return lambda value: not is_before(end, value)
    return lambda value: is_before(value, end)
