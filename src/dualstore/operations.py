"""The DynamoDB operations that applications ask for, as frozen values.

An operation keeps the request as its caller made it and parses a part of it only when somebody asks: a
store that speaks DynamoDB's protocol passes the request on, one that carries it out itself reads the trees.
The request shapes are those of the Amazon DynamoDB API Reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from dualstore.errors import UnsupportedOperation, invalid
from dualstore.expressions import (
    Condition,
    KeyCondition,
    Path,
    Update,
    condition,
    key_condition_of,
    key_predicate,
    projection,
    with_expressions,
)
from dualstore.expressions import update as update_expression
from dualstore.items import Item, Key, KeySchema, StoredItem, stored_item

Request = Mapping[str, Any]
Response = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Operation:
    """One call of the DynamoDB API.

    Attributes:
        request: the request's parameters as boto3's low-level client takes them; never changed.
    """

    request: Request

    name: ClassVar[str]
    reads: ClassVar[bool] = False

    @property
    def names(self) -> Mapping[str, str]:
        """ExpressionAttributeNames."""
        return self.request.get("ExpressionAttributeNames") or {}

    @property
    def values(self) -> Item:
        """ExpressionAttributeValues."""
        return self.request.get("ExpressionAttributeValues") or {}

    @property
    def tables(self) -> frozenset[str]:
        """The physical names of the DynamoDB tables that this operation touches; none where it names none."""
        table = self.request.get("TableName")
        return frozenset() if table is None else frozenset((table,))


class TableOperation(Operation):
    """An operation on one table."""

    @property
    def table(self) -> str:
        """The table's physical DynamoDB name."""
        return str(self.request["TableName"])

    @cached_property
    def projection(self) -> tuple[Path, ...] | None:
        """The paths to return, or None for all attributes."""
        text = self.request.get("ProjectionExpression")
        return None if text is None else projection(text, self.names)


class KeyedOperation(TableOperation):
    """An operation on one item."""

    @property
    def key(self) -> Key:
        """The primary key, as the caller gave it."""
        key: Key = self.request["Key"]
        return key


class GetItem(KeyedOperation):
    """Read one item by its key."""

    name = "GetItem"
    reads = True

    @property
    def consistent(self) -> bool:
        """Whether the caller asked for a strongly consistent read."""
        return bool(self.request.get("ConsistentRead"))


class ConditionalWrite(TableOperation):
    """A write of one item that may carry a condition."""

    @cached_property
    def condition(self) -> Condition | None:
        """What must hold of the old item, or None."""
        text = self.request.get("ConditionExpression")
        return None if text is None else condition(text, self.names, self.values)

    @property
    def return_values(self) -> str:
        """What the caller wants back: NONE, ALL_OLD, ALL_NEW, UPDATED_OLD or UPDATED_NEW."""
        return str(self.request.get("ReturnValues") or "NONE")

    @property
    def returns_old_on_refusal(self) -> bool:
        """Whether a failed condition hands out the old item."""
        return self.request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"


class PutItem(ConditionalWrite):
    """Write one whole item."""

    name = "PutItem"

    @property
    def item(self) -> Item:
        """The new item."""
        item: Item = self.request["Item"]
        return item

    @cached_property
    def stored(self) -> StoredItem:
        """The new item as DynamoDB would store it.

        Raises:
            RequestRejected: it would not.
        """
        return stored_item(self.item)


class DeleteItem(ConditionalWrite, KeyedOperation):
    """Delete one item."""

    name = "DeleteItem"


class UpdateItem(ConditionalWrite, KeyedOperation):
    """Change one item, or create it."""

    name = "UpdateItem"

    @cached_property
    def update(self) -> Update | None:
        """The changes, or None where only the key is to exist."""
        text = self.request.get("UpdateExpression")
        return None if text is None else update_expression(text, self.names, self.values)


class PagedRead(TableOperation):
    """Query and Scan: pages of items."""

    reads = True

    @property
    def index(self) -> str | None:
        """The index read, or None for the table itself."""
        return self.request.get("IndexName")

    @property
    def consistent(self) -> bool:
        """Whether the caller asked for strongly consistent reads."""
        return bool(self.request.get("ConsistentRead"))

    @property
    def limit(self) -> int | None:
        """The most items to *evaluate* (before the filter), or None."""
        return self.request.get("Limit")

    @property
    def start_key(self) -> Key | None:
        """ExclusiveStartKey: where the page before ended."""
        return self.request.get("ExclusiveStartKey")

    @property
    def select(self) -> str | None:
        """Which attributes, or COUNT."""
        return self.request.get("Select")

    @cached_property
    def filter(self) -> Condition | None:
        """What must hold of an item for it to be returned, or None."""
        text = self.request.get("FilterExpression")
        return None if text is None else condition(text, self.names, self.values, kind="FilterExpression")


class Query(PagedRead):
    """Read the items of one partition, in key order."""

    name = "Query"

    def key_condition(self, keys: KeySchema) -> KeyCondition:
        """Which partition and which range of its sort key.

        Args:
            keys: the key schema of the table or index that is read.

        Raises:
            RequestRejected: the expression is missing or not one that DynamoDB accepts.
        """
        return key_condition_of(self.key_predicate, keys)

    @cached_property
    def key_predicate(self) -> Condition:
        """The KeyConditionExpression, as far as it is understood without the key.

        Raises:
            RequestRejected: it is missing, or cannot be whatever the key.
        """
        text = self.request.get("KeyConditionExpression")
        if text is None:
            raise invalid(
                "Either the KeyConditions or KeyConditionExpression parameter must be specified in the "
                "request."
            )
        return key_predicate(text, self.names, self.values)

    @property
    def forward(self) -> bool:
        """Whether the sort key ascends."""
        return bool(self.request.get("ScanIndexForward", True))


class Scan(PagedRead):
    """Read all items of a table or index, or one segment of them."""

    name = "Scan"

    @property
    def segment(self) -> tuple[int, int] | None:
        """(Segment, TotalSegments), or None for the whole."""
        if self.request.get("TotalSegments") is None:
            return None
        return int(self.request.get("Segment") or 0), int(self.request["TotalSegments"])


class BatchGetItem(Operation):
    """Read up to 100 items by their keys."""

    name = "BatchGetItem"
    reads = True

    @property
    def tables(self) -> frozenset[str]:
        """The physical names of the tables read."""
        return frozenset(self.request.get("RequestItems") or ())


class BatchWriteItem(Operation):
    """Put and delete up to 25 items, each on its own."""

    name = "BatchWriteItem"

    @property
    def tables(self) -> frozenset[str]:
        """The physical names of the tables written."""
        return frozenset(self.request.get("RequestItems") or ())


class Transaction(Operation):
    """Up to 100 actions, all or none."""

    @property
    def actions(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """The actions in order, each as its kind (Get, Put, Update, Delete, ConditionCheck) and body."""
        entries = self.request.get("TransactItems") or ()
        return tuple((kind, body) for entry in entries for kind, body in entry.items())

    @property
    def tables(self) -> frozenset[str]:
        """The physical names of the tables touched."""
        return frozenset(body["TableName"] for _, body in self.actions if "TableName" in body)


class TransactGetItems(Transaction):
    """Read up to 100 items at one moment."""

    name = "TransactGetItems"
    reads = True


class TransactWriteItems(Transaction):
    """Write up to 100 items, all or none."""

    name = "TransactWriteItems"


OPERATIONS: dict[str, type[Operation]] = {
    operation.name: operation
    for operation in (
        GetItem, PutItem, UpdateItem, DeleteItem, Query, Scan,
        BatchGetItem, BatchWriteItem, TransactGetItems, TransactWriteItems,
    )
}  # fmt: skip


def parse(name: str, request: Request) -> Operation:
    """The operation of this name and request.

    Args:
        name: the DynamoDB API operation, such as `GetItem`.
        request: its parameters, as boto3's low-level client takes them. Legacy ones are said anew as
            expressions, so that everything that carries out operations knows but one language.

    Raises:
        UnsupportedOperation: dualstore does not carry out operations of this name.
    """
    operation = OPERATIONS.get(name)
    if operation is None:
        raise UnsupportedOperation(
            f"{name} is not an item operation that dualstore carries out; use one of {', '.join(OPERATIONS)}"
        )
    if operation is BatchGetItem:
        return operation(_batch_with_expressions(request))
    return operation(with_expressions(request))


def _batch_with_expressions(request: Request) -> Request:
    asked = request.get("RequestItems")
    if not isinstance(asked, Mapping):
        return request
    said = {
        table: with_expressions(part) if isinstance(part, Mapping) else part for table, part in asked.items()
    }
    return {**request, "RequestItems": said}
