"""Repositories: typed data access on a routed PynamoDB model, without binding the model itself."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import sqlalchemy
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action
from pynamodb.models import BatchWrite, Model
from pynamodb.pagination import ResultIterator
from pynamodb.transactions import TransactGet, TransactWrite

from dualstore.bind import Routes, routing

M = TypeVar("M", bound=Model)
KeyValue = Any
_T = TypeVar("_T")


class Repository(Generic[M]):
    """The items of one model, as PynamoDB instances, with PynamoDB's names and exceptions.

    Only what is done through the repository is routed; for the model's own methods see `DualStore.bind`.

    Args:
        model: the PynamoDB model.
        row: the SQLAlchemy model, or None where the table has none.
        routes: who carries out the operations.
        tables: the physical names that are routed.
    """

    def __init__(
        self, model: type[M], row: type[Any] | None, *, routes: Routes, tables: frozenset[str]
    ) -> None:
        self.model = model
        self.row = row
        self._routes = routes
        self._tables = tables

    def get(self, hash_key: KeyValue, range_key: KeyValue | None = None, **options: Any) -> M:
        """One item by its key (`Model.get`).

        Raises:
            pynamodb.exceptions.DoesNotExist: there is no such item.
        """
        return self._routed(lambda: self.model.get(hash_key, range_key, **options))

    def save(self, item: M, condition: Condition | None = None, **options: Any) -> dict[str, Any]:
        """Write an item whole (`Model.save`)."""
        return self._routed(lambda: item.save(condition, **options))

    def update(
        self, item: M, actions: list[Action], condition: Condition | None = None, **options: Any
    ) -> Any:
        """Change an item, or create it (`Model.update`)."""
        return self._routed(lambda: item.update(actions, condition, **options))

    def delete(self, item: M, condition: Condition | None = None, **options: Any) -> Any:
        """Delete an item (`Model.delete`)."""
        return self._routed(lambda: item.delete(condition, **options))

    def refresh(self, item: M, *, consistent_read: bool = False) -> None:
        """Read an item again, in place (`Model.refresh`)."""
        self._routed(lambda: item.refresh(consistent_read=consistent_read))

    def query(
        self, hash_key: KeyValue, range_key_condition: Condition | None = None, **options: Any
    ) -> ResultIterator[M]:
        """The items of a partition, of the table or of an index (`Model.query`); pages are read as needed."""
        return self._routed_pages(self.model.query(hash_key, range_key_condition, **options))

    def scan(self, filter_condition: Condition | None = None, **options: Any) -> ResultIterator[M]:
        """All items (`Model.scan`); pages are read as needed."""
        return self._routed_pages(self.model.scan(filter_condition, **options))

    def count(self, hash_key: KeyValue | None = None, **options: Any) -> int:
        """How many items there are (`Model.count`); without a key, DynamoDB's own estimate."""
        return self._routed(lambda: self.model.count(hash_key, **options))

    def batch_get(self, items: Iterable[Any], **options: Any) -> Iterator[M]:
        """Many items by their keys, in any order (`Model.batch_get`)."""
        found = self.model.batch_get(items, **options)
        while True:
            try:
                yield self._routed(lambda: next(found))
            except StopIteration:
                return

    @contextmanager
    def batch_write(self, *, auto_commit: bool = True) -> Iterator[BatchWrite[M]]:
        """Write many items, each on its own (`Model.batch_write`)."""
        with routing(self._routes, self._tables), self.model.batch_write(auto_commit=auto_commit) as batch:
            yield batch

    def select(self) -> sqlalchemy.Select[Any]:
        """A typed `select()` of the SQL rows, for reads that only SQL can answer.

        It bypasses routing: it sees the mirror, as far as it has been written.

        Raises:
            TypeError: the table has no SQLAlchemy model.
        """
        if self.row is None:
            raise TypeError(f"{self.model.__name__} has no SQLAlchemy model; give one to `store.repository`")
        return sqlalchemy.select(self.row)

    def _routed(self, call: Callable[[], _T]) -> _T:
        with routing(self._routes, self._tables):
            return call()

    def _routed_pages(self, results: ResultIterator[M]) -> ResultIterator[M]:
        pages = results.page_iter
        # PynamoDB calls this once a page, long after `query` has returned.
        pages._operation = _RoutedOperation(pages._operation, self._routes, self._tables)  # noqa: SLF001
        return results


class _RoutedOperation:
    """A bound method of PynamoDB's connection, carried out in a routing context."""

    def __init__(self, operation: Callable[..., Any], routes: Routes, tables: frozenset[str]) -> None:
        self.__self__ = getattr(operation, "__self__", None)  # PynamoDB asks it for the table's key names
        self._operation = operation
        self._routes = routes
        self._tables = tables

    def __call__(self, *args: Any, **options: Any) -> Any:
        with routing(self._routes, self._tables):
            return self._operation(*args, **options)


@contextmanager
def routed_transaction(
    transaction: TransactGet | TransactWrite, *, routes: Routes, tables: frozenset[str]
) -> Iterator[Any]:
    """A PynamoDB transaction whose commit is routed."""
    with routing(routes, tables), transaction as entered:
        yield entered
