"""A write of any kind as one step between reading its items and writing them."""

import hashlib
import json
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from dualstore.errors import RequestRejected
from dualstore.items import Item, Key, TableShape, without_stamps
from dualstore.operations import (
    BatchWriteItem,
    ConditionalWrite,
    DeleteItem,
    Operation,
    PutItem,
    Response,
    TransactWriteItems,
    UpdateItem,
)
from dualstore.stores.semantics.batches import batch_write_response, batch_writes
from dualstore.stores.semantics.capacity import Units, add_capacity_by_table, item_read_units
from dualstore.stores.semantics.collections import Collection, collections_asked
from dualstore.stores.semantics.requests import shape_of
from dualstore.stores.semantics.transactions import transact_write, transact_write_response, transact_writes
from dualstore.stores.semantics.writes import Written, checked_key, key_in, write


class WritePlan(NamedTuple):
    """A write whose request is sound, before its items have been read.

    Attributes:
        writes: the writes of one item that it is made of.
        keys: the key of each.
        decide: what becomes of the items that were found, in the order of `writes`. It refuses with
            `RequestRejected`, and has no effect.
        respond: the answer, from what was decided.
        collections: the item collections of which the caller wants to know the size (see `tell_collections`).
        token: the ClientRequestToken under which a repetition is recognised, or None.
        digest: of what a repetition must have in common with it; empty where there is no token.
        respond_again: the answer to a repetition, from the items that it finds.
    """

    writes: Sequence[ConditionalWrite]
    keys: Sequence[Key]
    decide: Callable[[Sequence[Item | None]], Sequence[Written]]
    respond: Callable[[Sequence[Written]], Response]
    collections: Sequence[Collection] = ()
    token: str | None = None
    digest: bytes = b""
    respond_again: Callable[[Sequence[Item | None]], Response] = lambda _: {}

    def decide_unstamped(self, olds: Sequence[Item | None]) -> Sequence[Written]:
        """As `decide`, as if no item carried a stamp: conditions, sizes and answers know of none."""
        return self.decide([None if old is None else without_stamps(old) for old in olds])

    def check_repetition(self, digest: bytes | None) -> None:
        """Refuse to take this write for a repetition of another one.

        Args:
            digest: of the write that was carried out under this token; None where only the token is known.

        Raises:
            RequestRejected: it was another one.
        """
        if digest is not None and digest != self.digest:
            raise RequestRejected(
                "IdempotentParameterMismatchException",
                "The ClientRequestToken was used for a transaction with other actions",
            )


def plan_write(operation: Operation, shapes: Mapping[str, TableShape]) -> WritePlan:
    """Check the request of an operation that writes.

    Args:
        operation: PutItem, UpdateItem, DeleteItem, BatchWriteItem or TransactWriteItems.
        shapes: of the tables, by physical name.

    Raises:
        RequestRejected: the request is one that DynamoDB would refuse whatever the items are.
    """
    return _PLANS[type(operation)](operation, shapes)


def _plan_one(operation: ConditionalWrite, shapes: Mapping[str, TableShape]) -> WritePlan:
    shape = shape_of(shapes, operation)
    return WritePlan(
        writes=(operation,),
        keys=(checked_key(operation, shape),),
        decide=lambda olds: (write(operation, shape, olds[0]),),
        respond=lambda outcomes: outcomes[0].response,
        collections=collections_asked(operation, (operation,), shapes),
    )


def _plan_batch(operation: BatchWriteItem, shapes: Mapping[str, TableShape]) -> WritePlan:
    writes = batch_writes(operation, shapes)
    return WritePlan(
        writes=writes,
        keys=_keys(writes, shapes),
        decide=lambda olds: [
            write(each, shapes[each.table], old) for each, old in zip(writes, olds, strict=True)
        ],
        respond=lambda outcomes: batch_write_response(
            operation, shapes, [(each.table, outcome) for each, outcome in zip(writes, outcomes, strict=True)]
        ),
        collections=collections_asked(operation, writes, shapes),
    )


def _plan_transaction(operation: TransactWriteItems, shapes: Mapping[str, TableShape]) -> WritePlan:
    writes = transact_writes(operation, shapes)
    plan = WritePlan(
        writes=writes,
        keys=_keys(writes, shapes),
        decide=lambda olds: transact_write(writes, shapes, olds),
        respond=lambda outcomes: transact_write_response(operation, shapes, writes, outcomes),
        collections=collections_asked(operation, writes, shapes),
    )
    token = operation.request.get("ClientRequestToken")
    if token is None:
        return plan
    return plan._replace(
        token=token,
        digest=_digest(operation.request["TransactItems"]),
        respond_again=lambda items: _repeated(operation, writes, items),
    )


def _keys(writes: Sequence[ConditionalWrite], shapes: Mapping[str, TableShape]) -> list[Key]:
    return [key_in(shapes[each.table], each) for each in writes]


_PLANS: Mapping[type[Operation], Callable[[Any, Mapping[str, TableShape]], WritePlan]] = {
    PutItem: _plan_one,
    UpdateItem: _plan_one,
    DeleteItem: _plan_one,
    BatchWriteItem: _plan_batch,
    TransactWriteItems: _plan_transaction,
}


def _repeated(
    operation: TransactWriteItems, writes: Sequence[ConditionalWrite], items: Sequence[Item | None]
) -> Response:
    """The answer to a repetition: it costs what reading the items costs.

    AWS, API Reference, TransactWriteItems, ClientRequestToken: "the subsequent calls return the number of
    read capacity units consumed in reading the item".
    """
    response: Response = {}
    units = (
        (each.table, Units(item_read_units(item, consistent=True)))
        for each, item in zip(writes, items, strict=True)
    )
    add_capacity_by_table(response, operation.request, units, transactional="ReadCapacityUnits")
    return response


def _digest(actions: Sequence[Any]) -> bytes:
    """A digest that two lists of actions share when they ask for the same.

    The order of names in a map and of members in a set says nothing: the same program sends them in another
    order after a restart.
    """
    return hashlib.blake2b(json.dumps(_ordered(actions)).encode(), digest_size=16).digest()


def _ordered(value: Any) -> Any:
    """The value as lists, for JSON; each kind is told from the others."""
    if isinstance(value, Mapping):
        if len(value) == 1 and next(iter(value)) in {"SS", "NS", "BS"}:
            ((kind, members),) = value.items()
            return ["set", kind, sorted(map(json.dumps, map(_ordered, members)))]
        return ["map", *([name, _ordered(inner)] for name, inner in sorted(value.items()))]
    if isinstance(value, list | tuple):
        return ["list", *map(_ordered, value)]
    if isinstance(value, bytes | bytearray | memoryview):
        return ["bytes", b64encode(value).decode()]
    return value
