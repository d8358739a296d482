"""What answers behind the wire: one database, or the router over both."""

from collections.abc import Callable, Mapping
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError, ParamValidationError

from dualstore.errors import OutcomeUnknown, RequestRejected, Unavailable, UnsupportedOperation
from dualstore.items import TableShape, without_stamps
from dualstore.operations import OPERATIONS, Operation, Response, parse
from dualstore.serving.definitions import described
from dualstore.serving.tables import ServedTables
from dualstore.stores import Store
from dualstore.stores.semantics import shape_named
from dualstore.stores.semantics.constraints import check_constraints

_STATEMENTS = frozenset({"ExecuteStatement", "BatchExecuteStatement", "ExecuteTransaction"})
_LOOKS = ("Describe", "List")


class StoreApi:
    """The item operations of one PostgreSQL that nobody mirrors, and the operations on its tables.

    Args:
        store: carries out the item operations.
        tables: carries out operations on tables.
    """

    def __init__(self, store: Store, tables: ServedTables) -> None:
        self._store = store
        self._tables = tables

    def execute(self, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out one operation (see `app.Api.execute`)."""
        if name not in OPERATIONS:
            operation = self._tables.operations.get(name)
            if operation is None:
                raise _unsupported(name)
            return operation(request)
        self._tables.look()
        item_operation = parse(name, request)
        known = self._tables.sql_tables(item_operation.tables)
        try:
            return self._store.execute(item_operation)
        except (ClientError, Unavailable) as error:
            # Another process may have made or removed the table a moment ago.
            if not _may_be_of_a_change(error):
                raise
            self._tables.reload()
            if self._tables.sql_tables(item_operation.tables) == known:
                raise
        return self._store.execute(item_operation)


def _may_be_of_a_change(error: Exception) -> bool:
    if isinstance(error, ClientError):
        return bool(error.response["Error"]["Code"] == "ResourceNotFoundException")
    return not isinstance(error, OutcomeUnknown)


class ReadingApi:
    """The reads of one database of tables that are being migrated: a write there would go around the other.

    Args:
        store: carries out the reads.
        shapes: of the tables, by physical name.
    """

    def __init__(self, store: Store, shapes: Mapping[str, TableShape]) -> None:
        self._store = store
        self._shapes = shapes

    def execute(self, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out one operation (see `app.Api.execute`)."""
        if name == "DescribeTable":
            return {"Table": described(shape_named(self._shapes, str(request.get("TableName"))))}
        if name == "ListTables":
            return {"TableNames": sorted(self._shapes)}
        if name not in OPERATIONS:
            raise _unsupported(name)
        if not OPERATIONS[name].reads:
            raise RequestRejected(
                "AccessDeniedException", "One side alone serves reads only; --side routed writes"
            )
        return _unstamped(self._read(parse(name, request)))

    def _read(self, operation: Operation) -> Response:
        for table in operation.tables:
            shape_named(self._shapes, table)
        return self._store.execute(operation)


class ClientApi:
    """Whatever may be done through a client shaped like boto3's: item operations are routed.

    Of the operations on tables those that only look are handed on to DynamoDB. The others are not: a caller
    of this server is not to remove a table with the server's own rights.

    Args:
        client: from `DualStore.client`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._methods: dict[str, Callable[..., Mapping[str, Any]]] = {}

    def execute(self, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Carry out one operation (see `app.Api.execute`)."""
        if name in _STATEMENTS:
            raise _unsupported(name)
        if name not in OPERATIONS and not name.startswith(_LOOKS):
            raise RequestRejected(
                "AccessDeniedException",
                f"{name} is not carried out here: change tables at DynamoDB, with credentials of your own",
            )
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = getattr(self._client, xform_name(name))
        try:
            return method(**request)
        except ParamValidationError:
            if name in OPERATIONS:
                check_constraints(parse(name, request))  # tells it in DynamoDB's words, without values
            raise


def _unsupported(name: str) -> UnsupportedOperation:
    if name in _STATEMENTS:
        return UnsupportedOperation(
            f"{name} speaks PartiQL, which dualstore does not carry out: use {', '.join(OPERATIONS)}"
        )
    return UnsupportedOperation(f"{name} is not carried out here; {', '.join(OPERATIONS)} are")


def _unstamped(response: Response) -> Response:
    """The answer to a read as the application knows its items."""
    told = dict(response)
    if "Item" in told:
        told["Item"] = without_stamps(told["Item"])
    if "Items" in told:
        told["Items"] = [without_stamps(item) for item in told["Items"]]
    found = told.get("Responses")
    if isinstance(found, Mapping):
        told["Responses"] = {
            table: [without_stamps(item) for item in items] for table, items in found.items()
        }
    elif found is not None:
        told["Responses"] = [_unstamped(each) for each in found]
    return told
