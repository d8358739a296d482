"""A boto3-client-shaped object, and a boto3 resource, whose item operations are routed."""

from collections.abc import Callable
from typing import Any

from botocore import xform_name
from botocore.awsrequest import AWSResponse

from dualstore.errors import UnsupportedOperation
from dualstore.operations import OPERATIONS, Response
from dualstore.router import Router

_ITEM_OPERATIONS = {xform_name(name): name for name in OPERATIONS}
_STATEMENTS = frozenset({"execute_statement", "batch_execute_statement", "execute_transaction"})


class RoutedClient:
    """boto3's low-level DynamoDB client, routed where an operation concerns a served table.

    The ten item operations and their paginators go through the router; everything else (`exceptions`,
    `meta`, `describe_table`, ...) is the wrapped client's own.

    Args:
        client: a boto3 DynamoDB client; carries out what is not routed.
        router: carries out the rest.
    """

    def __init__(self, client: Any, router: Router) -> None:
        self._client = client
        self._router = router

    def __getattr__(self, name: str) -> Any:
        if name in _STATEMENTS:
            raise _unsupported(name)
        operation = _ITEM_OPERATIONS.get(name)
        return getattr(self._client, name) if operation is None else self._call(name, operation)

    def get_paginator(self, operation_name: str) -> Any:
        """A paginator over the routed operation, as `client.get_paginator("query")` gives it."""
        paginator = self._client.get_paginator(operation_name)
        if operation_name in _ITEM_OPERATIONS:
            # botocore builds paginators around a bound method and has no public way to give another.
            paginator._method = getattr(self, operation_name)  # noqa: SLF001
        return paginator

    def _call(self, method: str, operation: str) -> Callable[..., Response]:
        def call(**request: Any) -> Response:
            if self._router.serves(_tables_of(operation, request)):
                return self._router.execute(operation, request)
            response: Response = getattr(self._client, method)(**request)
            return response

        call.__name__ = method
        return call


def route_resource(resource: Any, router: Router) -> Any:
    """Let a router answer a boto3 resource, `boto3.resource("dynamodb")`, about the tables that it serves.

    boto3's own code stays on both ends: `Table`, its conditions and Python types, batch writers, paginators.
    botocore sends nothing where somebody answers its event `before-call`.

    Args:
        resource: changed, and everything that is made from it; of no other use.
        router: carries out what it serves.

    Returns:
        The resource.
    """
    events = resource.meta.client.meta.events

    def keep(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context[_REQUEST] = params

    def answer(model: Any, context: dict[str, Any], **_: Any) -> tuple[AWSResponse, Response] | None:
        name = model.name
        if xform_name(name) in _STATEMENTS:
            raise _unsupported(xform_name(name))
        request = context[_REQUEST]
        if name not in OPERATIONS or not router.serves(_tables_of(name, request)):
            return None
        return AWSResponse("", 200, {}, None), router.execute(name, request)

    # Last: boto3's own handlers turn Python's types into DynamoDB's first.
    events.register_last("before-parameter-build.dynamodb", keep)
    events.register("before-call.dynamodb", answer)
    return resource


_REQUEST = "dualstore_request"


def _unsupported(method: str) -> UnsupportedOperation:
    return UnsupportedOperation(
        f"{method} speaks PartiQL, which dualstore does not route; use the item operations "
        f"({', '.join(_ITEM_OPERATIONS)})"
    )


def _tables_of(operation: str, request: dict[str, Any]) -> frozenset[str]:
    try:
        table = request.get("TableName")
        return OPERATIONS[operation](request).tables if table is None else frozenset((table,))
    except (KeyError, TypeError, AttributeError):
        return frozenset()  # it names no table, which the wrapped client or DynamoDB refuses
