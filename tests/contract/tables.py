"""A table under test: short calls, and answers that compare."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dualstore.items import normalized_item
from dualstore.operations import parse
from dualstore.stores import Store


def S(text: str) -> dict[str, str]:  # noqa: N802 - reads as DynamoDB writes it
    return {"S": text}


def N(number: object) -> dict[str, str]:  # noqa: N802 - reads as DynamoDB writes it
    return {"N": str(number)}


@contextmanager
def rejects(code: str = "ValidationException") -> Iterator[Any]:
    """The store refuses with this code; gives the exception."""
    with pytest.raises(ClientError) as caught:
        yield caught
    assert caught.value.response["Error"]["Code"] == code


def comparable(value: Any) -> Any:
    """A response or item with sets in order, so that `==` holds what DynamoDB holds equal."""
    if not isinstance(value, dict):
        return [comparable(each) for each in value] if isinstance(value, list) else value
    if len(value) == 1 and next(iter(value)) in {"SS", "NS", "BS"}:
        return normalized_item({"set": value})["set"]
    return {name: comparable(inner) for name, inner in value.items()}


class TableUnderTest:
    """One table in one store."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    def ask(self, operation: str, **request: Any) -> dict[str, Any]:
        """Carry out an operation, whatever its tables."""
        response = self.store.execute(parse(operation, request))
        return comparable({name: value for name, value in response.items() if name != "ResponseMetadata"})

    def call(self, operation: str, **request: Any) -> dict[str, Any]:
        """Carry out an operation on this table; `values` and `names` stand for the expression attributes."""
        for short, parameter in (("values", "Values"), ("names", "Names")):
            if short in request:
                request[f"ExpressionAttribute{parameter}"] = request.pop(short)
        return self.ask(operation, TableName=self.name, **request)

    def put(self, item: Any, **request: Any) -> dict[str, Any]:
        return self.call("PutItem", Item=item, **request)

    def get(self, key: Any, **request: Any) -> Any:
        """The item at a key, or None."""
        return self.call("GetItem", Key=key, **{"ConsistentRead": True, **request}).get("Item")

    def delete(self, key: Any, **request: Any) -> dict[str, Any]:
        return self.call("DeleteItem", Key=key, **request)

    def update(self, key: Any, expression: str | None = None, **request: Any) -> dict[str, Any]:
        if expression is not None:
            request["UpdateExpression"] = expression
        return self.call("UpdateItem", Key=key, **request)

    def updated(self, key: Any, expression: str, **request: Any) -> Any:
        """The item after an update."""
        return self.update(key, expression, ReturnValues="ALL_NEW", **request).get("Attributes")

    def query(self, condition: str, **request: Any) -> dict[str, Any]:
        return self.call("Query", KeyConditionExpression=condition, **request)

    def scan(self, **request: Any) -> dict[str, Any]:
        return self.call("Scan", **request)

    def pages(self, operation: str, **request: Any) -> list[dict[str, Any]]:
        """All pages of a Query or Scan."""
        found = [self.call(operation, **request)]
        while "LastEvaluatedKey" in found[-1]:
            start = found[-1]["LastEvaluatedKey"]
            found.append(self.call(operation, **{**request, "ExclusiveStartKey": start}))
        return found

    def all(self, operation: str, **request: Any) -> list[Any]:
        """The items of all pages of a Query or Scan."""
        return [item for page in self.pages(operation, **request) for item in page["Items"]]
