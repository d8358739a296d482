"""Which pages of items one side may answer while another page of the listing is answered by the other.

PynamoDB makes a cursor from any item in the middle of a page, so a cursor cannot carry a mark of its side.
"""

from itertools import pairwise

from dualstore.items import Index, Key, TableShape, values_equal
from dualstore.operations import PagedRead, Query, Response


def index_of(shape: TableShape, operation: PagedRead) -> Index | None:
    """The index that is read; None where it is the table itself.

    Raises:
        KeyError: the table has no such index, as far as is known.
    """
    return None if operation.index is None else shape.indexes[operation.index]


def is_ordered(shape: TableShape, operation: PagedRead) -> bool:
    """Whether both sides list in the same order, so that a page may follow on either.

    A partition of the table is ordered by its sort key; one of an index too, where no two of its items can
    tie, because the index's own keys hold the table's.

    Raises:
        KeyError: as `index_of`.
    """
    if not isinstance(operation, Query):
        return False
    index = index_of(shape, operation)
    return index is None or set(shape.keys.names) <= set(index.keys.names)


def stands_alone(index: Index, operation: PagedRead, response: Response) -> bool:
    """Whether a page of an index is the whole partition, in the only order that there is.

    Then a listing that goes on from any of its items, on either side, misses nothing and repeats nothing.
    """
    if "LastEvaluatedKey" in response:
        return False
    items = response.get("Items", ())
    if operation.select == "COUNT" or len(items) < 2:  # noqa: PLR2004 - two can tie
        return True
    sort = index.keys.sort
    if sort is None or any(sort.name not in item for item in items):
        return False
    return not any(values_equal(one[sort.name], next_[sort.name]) for one, next_ in pairwise(items))


def partition_of(shape: TableShape, operation: Query) -> Key | None:
    """The partition of the *table* that a Query reads, as a key of that one attribute; None: of several.

    Raises:
        RequestRejected, KeyError: the request is one that DynamoDB refuses.
    """
    index = index_of(shape, operation)
    if index is None:
        keys = shape.keys
    elif index.keys.partition == shape.keys.partition:
        keys = index.keys
    else:
        return None
    return {keys.partition.name: operation.key_condition(keys).partition}


def is_global(shape: TableShape, operation: PagedRead) -> bool:
    """Whether a global index is read, or one of which nothing is known: it has no consistent reads.

    Amazon DynamoDB Developer Guide, "Read consistency".
    """
    index = operation.index
    return index is not None and (index not in shape.indexes or shape.indexes[index].is_global)
