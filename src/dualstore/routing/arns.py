"""Requests that name a table by its ARN: said by the table's name, and answered by the ARN again.

Amazon DynamoDB API Reference: wherever an item operation takes a table's name, it takes its ARN; the response
then has the ARN, too. The ARN may be of another account ("Cross-account access with resource-based
policies"): a table of the same name there is another table, and so is a replica in another region. Those are
not served.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any, TypeAlias

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import RequestRejected, client_error, invalid
from dualstore.operations import Operation, Request, Response

ArnOf: TypeAlias = Callable[[str], str | None]
"""Gives the ARN of a served table, by its name; None where it says nothing of whose table it is."""

_NOBODY = "000000000000"
"""The account of a stand-in's tables."""

# What an answer has by table, where a request does.
_BY_TABLE = ("Responses", "UnprocessedKeys", "UnprocessedItems", "ItemCollectionMetrics")


def name_in(table: str) -> str:
    """The name of a table, which may be given as its ARN; whose account and region that is of is not told."""
    return table.rpartition(":table/")[2]


class OwnArns:
    """The ARNs of served tables, each asked for when a request first names a table of its name by an ARN.

    Args:
        describe: gives the ARN that DynamoDB has for a table's name, if it has any.
    """

    def __init__(self, describe: Callable[[str], str | None]) -> None:
        self._describe = describe
        self._known: dict[str, str | None] = {}

    def __call__(self, name: str) -> str | None:
        """The ARN of a table; None for a stand-in's, whose requests come with anybody's.

        Raises:
            botocore.exceptions.ClientError: whose the table is cannot be told: DynamoDB does not answer, or
                this role may not describe the table.
        """
        try:
            return self._known[name]
        except KeyError:
            pass
        try:
            arn = self._describe(name)
        except (ClientError, BotoCoreError) as error:
            raise client_error("DescribeTable", _untold(name, error)) from error
        self._known[name] = None if arn is None or f":{_NOBODY}:" in arn else arn
        return self._known[name]


def _untold(name: str, error: Exception) -> RequestRejected:
    return RequestRejected(
        "ServiceUnavailable",
        f"table {name} was named by an ARN, and whether that is the served table's own could not be told "
        f"({type(error).__name__}); nothing was done. Allow dynamodb:DescribeTable, or use the table's name",
    )


def named_by_arn(tables: Iterable[Any], served: Container[str], arn_of: ArnOf) -> dict[str, str]:
    """The names of the served tables that are given as ARNs, by ARN; a malformed request's names are not.

    Args:
        tables: what a request names.
        served: the served tables' names.
        arn_of: their ARNs; whatever is named by another is another table.
    """
    return {
        table: name
        for table in tables
        if table not in served
        and isinstance(table, str)
        and (name := name_in(table)) in served
        and arn_of(name) in {None, table}
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
