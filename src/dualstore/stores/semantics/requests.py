"""What every request is checked for before anything is read: options, placeholders, tables."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import NoReturn

from dualstore.errors import RequestRejected, invalid
from dualstore.expressions import EXPRESSION_PARAMETERS, LEGACY_PARAMETERS, reject_unused
from dualstore.items import TableShape
from dualstore.operations import Request

_EXPRESSIONS = (
    "ConditionExpression",
    "UpdateExpression",
    "ProjectionExpression",
    "KeyConditionExpression",
    "FilterExpression",
)

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
    """
    if legacy := request.keys() & LEGACY_PARAMETERS:
        _refuse_legacy(request, legacy)
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


def _refuse_legacy(request: Request, legacy: AbstractSet[str]) -> NoReturn:
    """Refuse legacy parameters that `parse` could not say as expressions: each of them says nothing."""
    named = ", ".join(sorted(legacy))
    expressions = ", ".join(sorted(request.keys() & EXPRESSION_PARAMETERS))
    if expressions:
        raise invalid(
            "Can not use both expression and non-expression parameters in the same request: "
            f"Non-expression parameters: {{{named}}} Expression parameters: {{{expressions}}}"
        )
    raise invalid(f"One or more parameter values were invalid: {named}")


def shape_named(shapes: Mapping[str, TableShape], table: str) -> TableShape:
    """The shape of a table by its physical name.

    Raises:
        RequestRejected: `ResourceNotFoundException`, there is no such table.
    """
    try:
        return shapes[table]
    except KeyError:
        raise RequestRejected("ResourceNotFoundException", "Requested resource not found") from None
