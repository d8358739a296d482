"""PostgreSQL as a store: every DynamoDB operation on SQL tables, and everything a mirror must do."""

from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import lru_cache

import sqlalchemy

from dualstore.errors import RequestRejected, client_error
from dualstore.mapping import Mapped
from dualstore.operations import Operation, Response
from dualstore.stages import Side
from dualstore.stores.postgres.authority import AuthorityWrites
from dualstore.stores.postgres.catalog import Catalog
from dualstore.stores.postgres.faults import as_mirror, as_store
from dualstore.stores.postgres.mirror import PostgresMirror
from dualstore.stores.postgres.reads import read, read_as_authority, read_undoubted
from dualstore.stores.postgres.sessions import Sessions
from dualstore.stores.postgres.writes import Writes

STATEMENT_TIMEOUT = timedelta(seconds=2)
DOUBT_PATIENCE = timedelta(seconds=10)


class PostgresStore(PostgresMirror):
    """A `Store`, a `Mirror` and an `Authority` on PostgreSQL.

    Operations run at READ COMMITTED on connections of the team's own pool, which get back what they had set.
    Writes of a key wait for one another at an advisory lock, whichever process makes them.

    Args:
        engine: the team's own; its driver must be psycopg 3 (`postgresql+psycopg://…`).
        tables: the mappings by the physical names of the DynamoDB tables; tables may be added later.
        statement_timeout: the most time that one operation may take, connecting and waiting for locks
            included, but not the wait for a free connection, which is the pool's.
        unmapped: told of the table's name for each item that is written and is of no entity of its table.
        doubt_patience: how long an authority asks what has become of a write whose COMMIT was not answered,
            through a restart or a failover of the server.

    Raises:
        ConfigurationError: the engine has another driver.
    """

    side = Side.POSTGRES

    def __init__(
        self,
        engine: sqlalchemy.Engine,
        tables: Mapping[str, Mapped],
        *,
        statement_timeout: timedelta = STATEMENT_TIMEOUT,
        doubt_patience: timedelta = DOUBT_PATIENCE,
        unmapped: Callable[[str], None] | None = None,
    ) -> None:
        catalog = Catalog(tables, unmapped)
        super().__init__(catalog, Sessions(engine, statement_timeout=statement_timeout))
        self._writes = Writes(catalog, self._sessions)
        self._authority_writes = AuthorityWrites(catalog, self._sessions, doubt_patience)

    def execute(self, operation: Operation) -> Response:
        """Carry out one operation (see `Store.execute`)."""
        try:
            return self._sessions.run(
                lambda session: (
                    read(self._catalog, session, operation)
                    if operation.reads
                    else self._writes.write(session, operation)
                ),
                doing=_named(operation),
                explain=as_store,
            )
        except RequestRejected as rejected:
            raise client_error(operation.name, rejected) from None

    def execute_as_authority(self, operation: Operation, *, epochs: Mapping[str, int]) -> Response:
        """Carry out one operation, unless the authority has moved (see `Authority.execute_as_authority`).

        The triggers of `triggers.install` must be on the tables: they write the outbox.
        """
        doing = _named(operation)
        try:
            if not operation.reads:
                return self._authority_writes.write(operation, epochs, doing=doing)
            return self._sessions.run(
                lambda session: read_as_authority(self._catalog, session, operation, epochs),
                doing=doing,
                explain=as_store,
            )
        except RequestRejected as rejected:
            raise client_error(operation.name, rejected) from None

    def execute_as_mirror(self, operation: Operation) -> Response:
        """Carry out a read, unless the keys it covers are in doubt (see `Mirror.execute_as_mirror`)."""
        try:
            return self._sessions.run(
                lambda session: read_undoubted(self._catalog, session, operation),
                doing=_named(operation),
                explain=as_mirror,
            )
        except RequestRejected as rejected:
            raise client_error(operation.name, rejected) from None


def _named(operation: Operation) -> str:
    return _doing(operation.name, operation.tables)


@lru_cache(maxsize=1024)  # hardly ever needed, and 1 µs of every operation
def _doing(name: str, tables: frozenset[str]) -> str:
    return f"{name} on {', '.join(sorted(tables))}"
