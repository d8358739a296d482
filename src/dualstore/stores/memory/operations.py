"""The operations of DynamoDB, carried out on items in memory."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from threading import RLock
from typing import Any, ClassVar

from dualstore.errors import RequestRejected, client_error
from dualstore.items import Item, TableShape, key_bytes
from dualstore.operations import (
    BatchGetItem,
    BatchWriteItem,
    ConditionalWrite,
    DeleteItem,
    GetItem,
    Operation,
    PutItem,
    Query,
    Response,
    Scan,
    TableOperation,
    TransactGetItems,
    TransactWriteItems,
    UpdateItem,
)
from dualstore.stages import Side
from dualstore.stores import semantics
from dualstore.stores.memory.tables import Table, detached

_TOKEN_LIFETIME_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class _Transacted:
    """A transaction that was carried out under a ClientRequestToken; its digest, where that is known."""

    digest: bytes | None
    forgotten_at: float


class ItemStore:
    """A store in memory without the mirror protocol; safe across threads.

    Args:
        shapes: of the tables, by physical name; a table may be added later.
        side: which side it stands for.
        monotonic: the clock by which a ClientRequestToken is forgotten after ten minutes, in seconds.
    """

    def __init__(
        self,
        shapes: Mapping[str, TableShape],
        *,
        side: Side,
        monotonic: Callable[[], float],
    ) -> None:
        self.side = side
        self._shapes = shapes
        self._monotonic = monotonic
        self._lock = RLock()
        self._tables: dict[str, Table] = {}
        self._transacted: dict[str, _Transacted] = {}
        self._revisions = itertools.count(1)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.side} tables={sorted(self._shapes)}>"

    def execute(self, operation: Operation) -> Response:
        """Carry out one operation (see `Store.execute`)."""
        try:
            with self._lock:
                return detached(self._carry_out[type(operation)](self, operation))
        except RequestRejected as rejected:
            rejected.item, rejected.reasons = detached(rejected.item), detached(rejected.reasons)
            raise client_error(operation.name, rejected) from None

    def _get_item(self, operation: GetItem) -> Response:
        table = self._table_of(operation)
        item = table.item(_checked(operation, table))
        return semantics.get_response(operation, table.shape, item)

    def _write_item(self, operation: ConditionalWrite) -> Response:
        response = self._written(operation).response
        self._tell_collections(response, operation, (operation,))
        return response

    def _written(self, operation: ConditionalWrite) -> semantics.Written:
        table = self._table_of(operation)
        key = _checked(operation, table)
        outcome = semantics.write(operation, table.shape, table.item(key))
        _keep(table, key, outcome)
        return outcome

    def _read_page(self, operation: Query | Scan) -> Response:
        table = self._table_of(operation)
        planned = semantics.plan(operation, table.shape)
        return semantics.page(planned, table.walk(planned))

    def _batch_get(self, operation: BatchGetItem) -> Response:
        gets = semantics.batch_gets(operation, self._shapes)
        return semantics.batch_get_response(operation, gets, self._items(gets))

    def _batch_write(self, operation: BatchWriteItem) -> Response:
        writes = semantics.batch_writes(operation, self._shapes)
        response = semantics.batch_write_response(
            operation, self._shapes, [(write.table, self._written(write)) for write in writes]
        )
        self._tell_collections(response, operation, writes)
        return response

    def _transact_get(self, operation: TransactGetItems) -> Response:
        gets = semantics.transact_gets(operation, self._shapes)
        return semantics.transact_get_response(operation, gets, self._items(gets))

    def _transact_write(self, operation: TransactWriteItems) -> Response:
        plan = semantics.plan_write(operation, self._shapes)
        tables = [self._table(write.table) for write in plan.writes]
        keys = [key_bytes(table.shape.keys, key) for table, key in zip(tables, plan.keys, strict=True)]
        found = [table.item(key) for table, key in zip(tables, keys, strict=True)]
        if plan.token is not None:
            self._forget_tokens()
            if (earlier := self._transacted.get(plan.token)) is not None:
                plan.check_repetition(earlier.digest)
                return plan.respond_again(found)
        outcomes = plan.decide(found)
        for table, key, outcome in zip(tables, keys, outcomes, strict=True):
            _keep(table, key, outcome)
        response = plan.respond(outcomes)
        self._tell_collections(response, operation, plan.writes)
        if plan.token is not None:
            self._remember(plan.token, digest=plan.digest)
        return response

    def _tell_collections(
        self, response: Response, operation: Operation, writes: Iterable[ConditionalWrite]
    ) -> None:
        asked = semantics.collections_asked(operation, writes, self._shapes)
        sizes = [
            semantics.collection_size_bytes(each.shape, self._table(each.shape.name).partition(each.key))
            for each in asked
        ]
        semantics.tell_collections(response, operation, asked, sizes)

    def _remember(self, token: str, *, digest: bytes | None = None) -> None:
        """Remember a token for ten minutes, from when it was first used."""
        self._forget_tokens()
        forgotten_at = self._monotonic() + _TOKEN_LIFETIME_SECONDS
        self._transacted.setdefault(token, _Transacted(digest, forgotten_at))

    def _forget_tokens(self) -> None:
        now = self._monotonic()
        for token in [token for token, each in self._transacted.items() if each.forgotten_at <= now]:
            del self._transacted[token]

    def _items(self, gets: Iterable[GetItem]) -> list[Item | None]:
        tables = ((get, self._table(get.table)) for get in gets)
        return [table.item(key_bytes(table.shape.keys, get.key)) for get, table in tables]

    def _table_of(self, operation: TableOperation) -> Table:
        return self._table(semantics.shape_of(self._shapes, operation).name)

    def _table(self, name: str) -> Table:
        shape = semantics.shape_named(self._shapes, name)
        table = self._tables.get(name)
        if table is None:
            table = self._tables[name] = Table(shape, self._revisions.__next__)
        elif table.shape is not shape:
            table = self._tables[name] = table.reshaped(shape)
        return table

    _carry_out: ClassVar[Mapping[type[Operation], Callable[[Any, Any], Response]]] = {
        GetItem: _get_item,
        PutItem: _write_item,
        UpdateItem: _write_item,
        DeleteItem: _write_item,
        Query: _read_page,
        Scan: _read_page,
        BatchGetItem: _batch_get,
        BatchWriteItem: _batch_write,
        TransactGetItems: _transact_get,
        TransactWriteItems: _transact_write,
    }


def _checked(operation: TableOperation, table: Table) -> bytes:
    return key_bytes(table.shape.keys, semantics.checked_key(operation, table.shape))


def _keep(table: Table, key: bytes, outcome: semantics.Written) -> None:
    if outcome.new_item is outcome.old_item:
        return
    if outcome.new_item is None:
        table.bury(key)
    else:
        table.put(key, detached(outcome.new_item))
