"""The answers to reads: how fresh they must be, and as they are given out, without stamps."""

from collections.abc import Mapping
from typing import Any

from dualstore.items import Item, without_stamps
from dualstore.operations import BatchGetItem, Operation, Response, TransactGetItems


def hide_stamps(response: Response) -> None:
    """Take the bookkeeping attributes out of every item of a read's response."""
    if "Item" in response:
        response["Item"] = without_stamps(response["Item"])
    elif "Items" in response:
        response["Items"] = [without_stamps(item) for item in response["Items"]]
    elif "Responses" in response:
        response["Responses"] = _hidden(response["Responses"])


def _hidden(responses: Any) -> Any:
    """The responses of a BatchGetItem (items by table) or a TransactGetItems (one entry an action)."""
    if isinstance(responses, Mapping):
        return {table: [without_stamps(item) for item in items] for table, items in responses.items()}
    return [_hidden_in_entry(entry) for entry in responses]


def _hidden_in_entry(entry: dict[str, Item]) -> dict[str, Item]:
    return {**entry, "Item": without_stamps(entry["Item"])} if "Item" in entry else entry


def is_eventual(operation: Operation) -> bool:
    """Whether the caller is content with an answer that misses the latest writes."""
    if isinstance(operation, BatchGetItem):
        asked = operation.request["RequestItems"].values()
        return not any(part.get("ConsistentRead") for part in asked)
    return not isinstance(operation, TransactGetItems) and not operation.request.get("ConsistentRead")
