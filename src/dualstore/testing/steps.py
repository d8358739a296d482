"""What may be done to a table, as values: requests with PynamoDB's conditions and actions in them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.projection import create_projection_expression
from pynamodb.expressions.update import Action, Update

from dualstore.items import AttributeValue, Item, Key
from dualstore.operations import Request

ItemRequest: TypeAlias = dict[str, Any]


class Expressions:
    """The expressions of one request, serialised by PynamoDB, and the names and values they share."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}
        self._texts: ItemRequest = {}

    def add(self, parameter: str, expression: Condition | Update | None) -> None:
        """Serialise a condition or an update under a parameter's name; nothing where there is none."""
        if expression is not None:
            self._texts[parameter] = expression.serialize(self._names, self._values)

    def project(self, paths: Sequence[str]) -> None:
        """Ask for some attributes only; for all where none is named."""
        if paths:
            self._texts["ProjectionExpression"] = create_projection_expression(list(paths), self._names)

    def request(self, **others: Any) -> ItemRequest:
        """The request with these expressions and other parameters; those that are None are left out."""
        names = {placeholder: name for name, placeholder in self._names.items()}
        whole = {
            **others,
            **self._texts,
            "ExpressionAttributeNames": names or None,
            "ExpressionAttributeValues": dict(self._values) or None,
        }
        return {parameter: value for parameter, value in whole.items() if value is not None}


@dataclass(frozen=True)
class Put:
    """PutItem.

    Attributes:
        item: what is written.
        condition: of the item before, or None.
        returns: ReturnValues.
    """

    name: ClassVar[str] = "PutItem"
    item: Item
    condition: Condition | None = None
    returns: str = "NONE"

    def request(self, table: str) -> Request:
        """The request on a table."""
        return self.part(table) | _returned(self.returns)

    def part(self, table: str) -> ItemRequest:
        """The request as a part of a transaction."""
        said = Expressions()
        said.add("ConditionExpression", self.condition)
        return said.request(TableName=table, Item=self.item)

    def touched(self) -> Sequence[Item]:
        """The keys that it may write, with or without other attributes."""
        return [self.item]


@dataclass(frozen=True)
class ChangeOf:
    """UpdateItem; attributes as for `Put`."""

    name: ClassVar[str] = "UpdateItem"
    key: Key
    actions: Sequence[Action]
    condition: Condition | None = None
    returns: str = "ALL_NEW"

    def request(self, table: str) -> Request:
        """The request on a table."""
        return self.part(table) | _returned(self.returns)

    def part(self, table: str) -> ItemRequest:
        """The request as a part of a transaction."""
        said = Expressions()
        said.add("ConditionExpression", self.condition)
        said.add("UpdateExpression", Update(*self.actions))
        return said.request(TableName=table, Key=self.key)

    def touched(self) -> Sequence[Item]:
        """The keys that it may write."""
        return [self.key]


@dataclass(frozen=True)
class Delete:
    """DeleteItem; attributes as for `Put`."""

    name: ClassVar[str] = "DeleteItem"
    key: Key
    condition: Condition | None = None
    returns: str = "NONE"

    def request(self, table: str) -> Request:
        """The request on a table."""
        return self.part(table) | _returned(self.returns)

    def part(self, table: str) -> ItemRequest:
        """The request as a part of a transaction."""
        said = Expressions()
        said.add("ConditionExpression", self.condition)
        return said.request(TableName=table, Key=self.key)

    def touched(self) -> Sequence[Item]:
        """The keys that it may write."""
        return [self.key]


@dataclass(frozen=True)
class Check:
    """The ConditionCheck of a transaction."""

    name: ClassVar[str] = "ConditionCheck"
    key: Key
    condition: Condition

    def part(self, table: str) -> ItemRequest:
        """The request as a part of a transaction."""
        said = Expressions()
        said.add("ConditionExpression", self.condition)
        return said.request(TableName=table, Key=self.key)

    def touched(self) -> Sequence[Item]:
        """None: it only looks."""
        return []


@dataclass(frozen=True)
class Get:
    """GetItem, consistent.

    Attributes:
        key: of the item.
        paths: ProjectionExpression; none: all attributes.
    """

    name: ClassVar[str] = "GetItem"
    key: Key
    paths: Sequence[str] = ()

    def request(self, table: str) -> Request:
        """The request on a table."""
        said = Expressions()
        said.project(self.paths)
        return said.request(TableName=table, Key=self.key, ConsistentRead=True)

    def touched(self) -> Sequence[Item]:
        """None: it only reads."""
        return []


@dataclass(frozen=True)
class Listing:
    """What Query and Scan have in common; they are followed page by page to the end.

    Attributes:
        index: the name of an index, or None for the table.
        ordered: whether no two of its items may change places.
        filtered: FilterExpression.
        limit: items to a page.
        paths: ProjectionExpression; none: all attributes.
    """

    index: str | None = None
    ordered: bool = field(default=False, kw_only=True)
    filtered: Condition | None = field(default=None, kw_only=True)
    limit: int | None = field(default=None, kw_only=True)
    paths: Sequence[str] = field(default=(), kw_only=True)

    def touched(self) -> Sequence[Item]:
        """None: it only reads."""
        return []


@dataclass(frozen=True)
class QueryOf(Listing):
    """Query.

    Attributes:
        partition: the name and the value of the partition key.
        sort: the condition on the sort key, and the name of the sort key where the items have an order.
        forward: ScanIndexForward.
    """

    name: ClassVar[str] = "Query"
    partition: tuple[str, AttributeValue] = ("", {})
    sort: Condition | None = None
    sort_name: str | None = None
    forward: bool = True

    def request(self, table: str) -> Request:
        """The request of the first page on a table."""
        said = Expressions()
        name, value = self.partition
        where = Path([name]) == value
        said.add("KeyConditionExpression", where if self.sort is None else where & self.sort)
        said.add("FilterExpression", self.filtered)
        said.project(self.paths)
        return said.request(
            TableName=table, IndexName=self.index, Limit=self.limit, ScanIndexForward=self.forward
        )


@dataclass(frozen=True)
class ScanOf(Listing):
    """Scan.

    Attributes:
        segments: into how many segments; each is read to its end.
    """

    name: ClassVar[str] = "Scan"
    segments: int | None = None

    def request(self, table: str) -> Request:
        """The request of the first page on a table, of its first segment."""
        said = Expressions()
        said.add("FilterExpression", self.filtered)
        said.project(self.paths)
        return said.request(
            TableName=table,
            IndexName=self.index,
            Limit=self.limit,
            Segment=None if self.segments is None else 0,
            TotalSegments=self.segments,
        )


@dataclass(frozen=True)
class BatchGet:
    """BatchGetItem, consistent."""

    name: ClassVar[str] = "BatchGetItem"
    keys: Sequence[Key]

    def request(self, table: str) -> Request:
        """The request on a table."""
        return {"RequestItems": {table: {"ConsistentRead": True, "Keys": list(self.keys)}}}

    def touched(self) -> Sequence[Item]:
        """None: it only reads."""
        return []


@dataclass(frozen=True)
class BatchWrite:
    """BatchWriteItem."""

    name: ClassVar[str] = "BatchWriteItem"
    writes: Sequence[Put | Delete]

    def request(self, table: str) -> Request:
        """The request on a table."""
        asked = [
            {"PutRequest": {"Item": each.item}}
            if isinstance(each, Put)
            else {"DeleteRequest": {"Key": each.key}}
            for each in self.writes
        ]
        return {"RequestItems": {table: asked}}

    def touched(self) -> Sequence[Item]:
        """The keys that it may write."""
        return [key for each in self.writes for key in each.touched()]


@dataclass(frozen=True)
class TransactGet:
    """TransactGetItems."""

    name: ClassVar[str] = "TransactGetItems"
    keys: Sequence[Key]

    def request(self, table: str) -> Request:
        """The request on a table."""
        return {"TransactItems": [{"Get": {"TableName": table, "Key": key}} for key in self.keys]}

    def touched(self) -> Sequence[Item]:
        """None: it only reads."""
        return []


_PART_NAMES: Mapping[type, str] = {Put: "Put", ChangeOf: "Update", Delete: "Delete", Check: "ConditionCheck"}


@dataclass(frozen=True)
class TransactWrite:
    """TransactWriteItems.

    Attributes:
        parts: in the order in which PynamoDB sends them: checks, deletes, puts, updates.
    """

    name: ClassVar[str] = "TransactWriteItems"
    parts: Sequence[Put | ChangeOf | Delete | Check]

    def request(self, table: str) -> Request:
        """The request on a table."""
        return {"TransactItems": [{_PART_NAMES[type(each)]: each.part(table)} for each in self.parts]}

    def touched(self) -> Sequence[Item]:
        """The keys that it may write."""
        return [key for each in self.parts for key in each.touched()]


Step: TypeAlias = (
    Put | ChangeOf | Delete | Get | QueryOf | ScanOf | BatchGet | BatchWrite | TransactGet | TransactWrite
)


def _returned(returns: str) -> ItemRequest:
    return {} if returns == "NONE" else {"ReturnValues": returns}
