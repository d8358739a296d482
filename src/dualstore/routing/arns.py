"""Requests that name a table by its ARN: said by the table's name, and answered by the ARN again.

Amazon DynamoDB API Reference: wherever an item operation takes a table's name, it takes its ARN; the response
then has the ARN, too.
"""

from collections.abc import Container, Iterable, Mapping
from typing import Any

from dualstore.errors import client_error, invalid
from dualstore.operations import Operation, Request, Response

# What an answer has by table, where a request does.
_BY_TABLE = ("Responses", "UnprocessedKeys", "UnprocessedItems", "ItemCollectionMetrics")


def name_in(table: str) -> str:
    """The name of a table, which may be given as its ARN; whose account and region that is of is not told."""
    return table.rpartition(":table/")[2]


def named_by_arn(tables: Iterable[Any], served: Container[str]) -> dict[str, str]:
    """The names of the served tables that are given as ARNs, by ARN; a malformed request's names are not."""
    return {
        table: name
        for table in tables
        if table not in served and isinstance(table, str) and (name := name_in(table)) in served
    }


def asked_by_name(operation: Operation, arns: Mapping[str, str]) -> Request:
    """The request with the names of tables in the place of their ARNs.

    Args:
        operation: as it was asked for.
        arns: the names by ARN; other tables stay as they are named.

    Raises:
        botocore.exceptions.ClientError: a batch has a table twice, by two names.
    """
    request = operation.request
    if "TableName" in request:
        return _named(request, arns)
    if "RequestItems" not in request:
        actions = [
            {kind: _named(body, arns) for kind, body in entry.items()} for entry in request["TransactItems"]
        ]
        return {**request, "TransactItems": actions}
    asked = _by_name(request["RequestItems"], arns)
    if len(asked) < len(request["RequestItems"]):
        twice = ", ".join(sorted(set(arns.values())))
        raise client_error(
            operation.name, invalid(f"a table is named twice, by its name and by its ARN, or by two: {twice}")
        )
    return {**request, "RequestItems": asked}


def answered_by_arn(operation: Operation, response: Response, arns: Mapping[str, str]) -> Response:
    """The response with the ARNs that the operation was asked for with; changes nothing that it is given."""
    names = {name: arn for arn, name in arns.items()}
    told = dict(response)
    if "TableName" not in operation.request:
        told |= {
            part: _by_name(told[part], names) for part in _BY_TABLE if isinstance(told.get(part), Mapping)
        }
    consumed = told.get("ConsumedCapacity")
    if isinstance(consumed, Mapping):
        told["ConsumedCapacity"] = _named(consumed, names)
    elif consumed is not None:
        told["ConsumedCapacity"] = [_named(each, names) for each in consumed]
    return told


def _named(part: Mapping[str, Any], names: Mapping[str, str]) -> Mapping[str, Any]:
    name = names.get(part.get("TableName", ""))
    return part if name is None else {**part, "TableName": name}


def _by_name(by_table: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {names.get(table, table): part for table, part in by_table.items()}
