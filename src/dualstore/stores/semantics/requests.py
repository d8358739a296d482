"""What every request is checked for before anything is read: options, placeholders, tables."""

from collections.abc import Mapping

from dualstore.errors import RequestRejected, UnsupportedOperation, invalid
from dualstore.expressions import reject_unused
from dualstore.items import TableShape
from dualstore.operations import Request

_EXPRESSIONS = (
    "ConditionExpression",
    "UpdateExpression",
    "ProjectionExpression",
    "KeyConditionExpression",
    "FilterExpression",
)

# AWS, "Legacy conditional parameters": each says what an expression says now. Passing over one would
# carry out a write without its condition, so they are refused aloud.
_LEGACY = {
    "Expected": "ConditionExpression",
    "ConditionalOperator": "AND and OR in an expression",
    "AttributeUpdates": "UpdateExpression",
    "AttributesToGet": "ProjectionExpression",
    "KeyConditions": "KeyConditionExpression",
    "QueryFilter": "FilterExpression",
    "ScanFilter": "FilterExpression",
}

_CHOICES = {
    "ReturnConsumedCapacity": frozenset({"NONE", "TOTAL", "INDEXES"}),
    "ReturnItemCollectionMetrics": frozenset({"NONE", "SIZE"}),
    "ReturnValuesOnConditionCheckFailure": frozenset({"NONE", "ALL_OLD"}),
    "ReturnValues": frozenset({"NONE", "ALL_OLD", "ALL_NEW", "UPDATED_OLD", "UPDATED_NEW"}),
    "Select": frozenset({"ALL_ATTRIBUTES", "ALL_PROJECTED_ATTRIBUTES", "SPECIFIC_ATTRIBUTES", "COUNT"}),
}


def check_request(request: Request) -> None:
    """Reject options that DynamoDB does not know, and names and values that no expression uses.

    Raises:
        RequestRejected: as DynamoDB would.
        UnsupportedOperation: the request uses a legacy parameter.
    """
    for parameter in request.keys() & _LEGACY.keys():
        raise UnsupportedOperation(
            f"dualstore does not carry out the legacy parameter {parameter}; use {_LEGACY[parameter]}"
        )
    for parameter in request.keys() & _CHOICES.keys():
        if request[parameter] not in _CHOICES[parameter]:
            raise invalid(
                f"1 validation error detected: Value at '{parameter}' failed to satisfy constraint: "
                f"Member must satisfy enum value set: [{', '.join(sorted(_CHOICES[parameter]))}]"
            )
    reject_unused(
        request.get("ExpressionAttributeNames"),
        request.get("ExpressionAttributeValues"),
        *map(request.get, _EXPRESSIONS),
    )


def shape_named(shapes: Mapping[str, TableShape], table: str) -> TableShape:
    """The shape of a table by its physical name.

    Raises:
        RequestRejected: `ResourceNotFoundException`, there is no such table.
    """
    try:
        return shapes[table]
    except KeyError:
        raise RequestRejected("ResourceNotFoundException", "Requested resource not found") from None
