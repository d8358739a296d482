"""Binding: PynamoDB models whose operations go through a router, with every line of application code kept.

PynamoDB carries everything it does through one method, `Connection._make_api_call(operation, kwargs)`. It is
replaced once, for all connections, and looks at table names: a model bound after its connection was first
used, a subclass, a table name set at run time, and a transaction with the caller's own connection are all
routed. Everything else goes on as before.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

from pynamodb.connection.base import Connection
from pynamodb.models import Model

from dualstore.errors import ConfigurationError
from dualstore.operations import OPERATIONS, Request, Response
from dualstore.routing.arns import name_in


class Routes(Protocol):
    """Carries out operations on some tables."""

    @property
    def closed(self) -> bool:
        """Whether writes are refused from now on; another store may then bind the table."""
        ...

    def execute(self, name: str, request: Request) -> Response:
        """Carry out one operation."""
        ...

    def serves(self, tables: frozenset[str]) -> bool:
        """Whether any of these tables, by name or ARN, is one whose operations it carries out."""
        ...


@dataclass(frozen=True, slots=True)
class _Binding:
    """Who carries out the operations on a table, and the models that were bound while they named it."""

    routes: Routes
    models: frozenset[type[Model]]


_original = Connection._make_api_call  # noqa: SLF001 - the seam: no public method carries every operation
_lock = threading.Lock()
_bound: dict[str, "_Binding"] = {}
_within: ContextVar[tuple[Routes, frozenset[str]] | None] = ContextVar("dualstore_routes", default=None)


def bind_model(model: type[Model], routes: Routes) -> bool:
    """Route what PynamoDB does on the table that a model names now.

    Args:
        model: the model; a change of its table's name is refused from here on, until that table is bound too.
        routes: who carries it out.

    Returns:
        Whether the model had not been bound to the table before.

    Raises:
        ConfigurationError: another store has bound the table in this process.
    """
    global _bound  # noqa: PLW0603 - replaced whole, so that the hot path reads it without a lock
    table = model.Meta.table_name
    with _lock:
        before = _bound.get(table, _Binding(routes, frozenset()))
        if before.routes is not routes and not before.routes.closed:
            raise ConfigurationError(
                f"table {table} is bound by another DualStore of this process; unbind it there first"
            )
        kept = before.models if before.routes is routes else frozenset()
        _bound = {**_bound, table: _Binding(routes, kept | {model})}
        Connection._make_api_call = _make_api_call  # type: ignore[method-assign]  # noqa: SLF001
    return model not in kept


def unbind_table(table: str, routes: Routes) -> None:
    """Let PynamoDB go to DynamoDB itself again; harmless where these routes have not bound the table."""
    global _bound  # noqa: PLW0603 - as above
    with _lock:
        _bound = {
            name: binding for name, binding in _bound.items() if name != table or binding.routes is not routes
        }


@contextmanager
def routing(routes: Routes, tables: frozenset[str]) -> Iterator[None]:
    """Route what PynamoDB does on these tables in this context only, bound or not."""
    with _lock:
        Connection._make_api_call = _make_api_call  # type: ignore[method-assign]  # noqa: SLF001
    token = _within.set((routes, tables))
    try:
        yield
    finally:
        _within.reset(token)


class _RoutedConnection:
    """What `Connection._make_api_call` needs of its connection, with the router in the client's place.

    PynamoDB's own method then turns botocore's errors into its own, as it does for DynamoDB.
    """

    def __init__(self, connection: Connection, routes: Routes) -> None:
        self._connection = connection
        self._routes = routes

    @property
    def client(self) -> "_RoutedConnection":
        return self

    def _make_api_call(self, name: str, request: Request) -> Response:
        return self._routes.execute(name, request)

    def _get_table_name_for_error_context(self, request: dict[str, Any]) -> str:
        return self._connection._get_table_name_for_error_context(request)  # noqa: SLF001 - part of the seam


def _make_api_call(self: Connection, operation_name: str, operation_kwargs: dict[str, Any]) -> Any:
    routes = _routes_for(operation_name, operation_kwargs)
    if routes is None:
        return _original(self, operation_name, operation_kwargs)
    return _original(_RoutedConnection(self, routes), operation_name, operation_kwargs)  # type: ignore[arg-type]


def _routes_for(name: str, request: Request) -> Routes | None:
    operation = OPERATIONS.get(name)
    if operation is None:
        return None
    table = request.get("TableName")
    if table is not None:
        return _routes_of(table)
    tables = operation(request).tables
    found = {id(routes): routes for name in tables if (routes := _routes_of(name)) is not None}
    if len(found) > 1:
        raise ConfigurationError(
            f"{name} spans tables bound by different DualStores ({', '.join(sorted(tables))}); "
            "bind them all on one"
        )
    return next(iter(found.values()), None)


def _routes_of(table: str) -> Routes | None:
    within = _within.get()
    if within is not None and table in within[1]:
        return within[0]
    binding = _bound.get(table)
    if binding is not None:
        return binding.routes
    named = name_in(table)
    if named != table and (routes := _routes_of(named)) is not None and routes.serves(frozenset({table})):
        return routes
    for name, other in _bound.items():
        for model in other.models:
            if model.Meta.table_name == table:
                raise ConfigurationError(
                    f"{model.__name__} was bound when its table was {name}; now it names {table}, whose "
                    "writes would not be mirrored. Bind it again under that name, with a SQL model of its own"
                )
    return None
