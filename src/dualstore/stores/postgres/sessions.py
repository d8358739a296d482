"""Connections borrowed from the team's own pool, each exchange of which ends in time."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast, get_args

import psycopg
import sqlalchemy
import stamina
from psycopg.pq import TransactionStatus
from sqlalchemy.pool import PoolProxiedConnection

from dualstore.errors import ConfigurationError
from dualstore.stores.postgres import deadlines, hangups, settings
from dualstore.stores.postgres.exchanges import Answer, Exchange, Row, Statement
from dualstore.stores.postgres.faults import CAUGHT, Fault, fault_of
from dualstore.stores.postgres.wire import Late

Writer = Literal["mirror", "authority", "plain"]
"""What a transaction of dualstore's own says of itself in the setting `dualstore.writer`.

The triggers of a table take a plain one, which leaves no stamps, for anybody's."""

T = TypeVar("T")
Explain = Callable[[BaseException, str], Exception]

BEGIN: Statement = ("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", ())
COMMIT: Statement = ("COMMIT", ())

# The limits apply to the statements after this one, the one for locks already to the locks taken here. A lock
# and the statement it protects are two, since a snapshot is older than a lock taken under it; where one will
# do, ADR 32 says. To set another isolation level is an error here (25001): there is a snapshot already.
_SETTINGS = (
    "SELECT set_config('transaction_isolation', 'read committed', true), "
    "set_config('transaction_read_only', 'off', true), "
    "set_config('statement_timeout', '{timeout_ms}', true), "
    "set_config('lock_timeout', '{timeout_ms}', true), "
    "set_config('dualstore.writer', '{writer}', true), "
)
_LOCK_ONE = f"{_SETTINGS}pg_advisory_xact_lock($1::bigint)"
# A function with side effects is evaluated row by row, in the order of the array.
_LOCK_MANY = f"{_SETTINGS}(SELECT count(pg_advisory_xact_lock(k)) FROM unnest($1::bigint[]) AS k)"
# Every connection of the pool has statements from before a table was altered.
_TRIES = {Fault.LOST: 2, Fault.CONTENTION: 5, Fault.ALTERED: 100}
_PAUSE_S, _LONGEST_PAUSE_S = 0.003, 0.02
# The server's own limit comes first: the connection survives it.
_GRACE = timedelta(milliseconds=500)
_CANCEL_PATIENCE_S = 0.3
_EXCHANGE = "dualstore.exchange"
_BETWEEN_STATEMENTS = (TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR)


class Session:
    """One borrowed connection: each round trip is a transaction, unless its statements begin or end one.

    Args:
        exchange: with the connection, borrowed for as long as the session is used.
        connection: that connection.
        sessions: where it comes from.
    """

    __slots__ = ("_connection", "_exchange", "_sessions")

    def __init__(self, exchange: Exchange, connection: psycopg.Connection[Any], sessions: "Sessions") -> None:
        self._exchange = exchange
        self._connection = connection
        self._sessions = sessions

    @property
    def failed(self) -> bool:
        """Whether its transaction can only be rolled back."""
        return self._connection.pgconn.transaction_status == TransactionStatus.INERROR

    @property
    def in_utf8(self) -> bool:
        """Whether all texts of DynamoDB's are texts of PostgreSQL's, and as long."""
        return self._exchange.in_utf8 and self._exchange.kept_in_utf8

    def rows(self, statement: str, values: Sequence[Any] = ()) -> list[Row]:
        """Run one statement; its rows."""
        return self._exchange.rows((statement, values))

    def batch(self, *statements: Statement) -> list[list[Row]]:
        """Run several statements in one round trip; the rows of each (none for BEGIN and COMMIT)."""
        if len(statements) == 1:
            return [self._exchange.rows(statements[0])]
        return self._exchange.together(statements)

    def under_lock(
        self, lock: Statement, statement: Statement, meanwhile: Callable[[], object] | None = None
    ) -> Answer:
        """Take one key's lock, then run a statement, in one transaction and one round trip.

        The statements of one pipeline are a transaction without BEGIN and COMMIT (PostgreSQL, "Pipeline
        Mode"), each with a snapshot of its own at READ COMMITTED; sending both takes 60 of 450 µs. Where the
        database begins transactions otherwise the lock is refused, and both are sent from then on.

        Args:
            lock: from `Sessions.lock`.
            statement: what to run under it.
            meanwhile: see `Exchange.answers`.
        """
        if self._sessions.begins_read_committed:
            try:
                return self._exchange.answers((lock, statement), meanwhile)[1]
            except psycopg.errors.ActiveSqlTransaction:  # of the lock: nothing has been done
                self._sessions.begins_read_committed = False
        return self._exchange.answers((BEGIN, lock, statement, COMMIT))[2]

    def locking(self, statement: Statement, meanwhile: Callable[[], object] | None = None) -> Answer:
        """Run one statement that takes its locks itself, as a transaction.

        No statement before it has set a timeout: it is cancelled when it is late.

        Args:
            statement: what to run.
            meanwhile: see `Exchange.answer`.

        Raises:
            DeadlinePassed: the cancellation came too late. Where it met a commit that waited for a
                synchronous standby, PostgreSQL has stopped waiting, and said that it succeeded.
        """
        exchange = self._exchange

        def cancel() -> None:
            exchange.is_cancelled = True
            _cancel(self._connection)

        spared_ms = (deadlines.left_ms() or 0.0) * self._sessions.share_for_cancelling
        answer = exchange.answer(statement, meanwhile, Late(spared_ms, cancel))
        if exchange.is_cancelled:
            raise deadlines.DeadlinePassed("PostgreSQL answered a statement that had been cancelled")
        return answer


class Sessions:
    """Where sessions come from.

    Args:
        engine: the team's own; its pool is used. Its driver must be psycopg 3.
        statement_timeout: the most time that one round trip may take.

    Raises:
        ConfigurationError: the engine has another driver.
    """

    def __init__(self, engine: sqlalchemy.Engine, *, statement_timeout: timedelta) -> None:
        if engine.dialect.driver != "psycopg":
            raise ConfigurationError(
                f"the engine speaks {engine.dialect.name}+{engine.dialect.driver}; dualstore needs "
                "psycopg 3: make it from a URL that begins with postgresql+psycopg://"
            )
        deadlines.install(engine)
        settings.install(engine)
        hangups.install(engine)
        self._engine = engine
        self.begins_read_committed = True
        self._timeout = statement_timeout
        self._patience = statement_timeout + _GRACE
        self.share_for_cancelling = _GRACE / self._patience
        timeout_ms = round(statement_timeout.total_seconds() * 1000)
        # A row is waited for no longer than a statement, which would have to be cancelled.
        self.row_patience_ms = str(max(1, timeout_ms * 9 // 10))
        self._locks: dict[Writer, tuple[str, str]] = {
            writer: (
                _LOCK_ONE.format(timeout_ms=timeout_ms, writer=writer),
                _LOCK_MANY.format(timeout_ms=timeout_ms, writer=writer),
            )
            for writer in get_args(Writer)
        }

    def lock(self, *lock_keys: int, writer: Writer) -> Statement:
        """The statement that takes advisory locks for the transaction, after which it may read and write.

        Args:
            *lock_keys: from `catalog.lock_key`; they are taken in sorted order.
            writer: as what dualstore writes, for the triggers of the mapped tables.
        """
        one, many = self._locks[writer]
        if len(lock_keys) == 1:
            return one, (str(lock_keys[0]),)
        return many, (sorted(set(lock_keys)),)

    def run(
        self,
        work: Callable[[Session], T],
        *,
        doing: str,
        explain: Explain,
        on: Session | None = None,
    ) -> T:
        """Do some work on a connection, within the timeout.

        Deadlocks and serialization failures start it again, and so does a lost connection, once: after a
        restart of the server every idle connection is a dead one. So does a table that was altered since a
        statement was prepared.

        Args:
            work: what to do; doing it twice does no harm. A transaction that it leaves open is rolled back.
            doing: its name, for the error.
            explain: makes the exception that reports a failure, of the driver's and `doing`.
            on: a session that this thread has already; then nothing is tried again.

        Raises:
            DualStoreError: what `explain` made.
        """
        try:
            with deadlines.Deadline(self._patience):
                if on is not None:
                    return work(on)
                try:
                    return self._once(work)
                except CAUGHT as error:
                    fault = fault_of(error)
                    if fault not in _TRIES:
                        raise
                return self._again(work, Counter({fault: 1}))
        except CAUGHT as error:
            raise explain(error, doing) from None

    def _once(self, work: Callable[[Session], T]) -> T:
        with Lease(self) as session:
            return work(session)

    def _again(self, work: Callable[[Session], T], faults: Counter[Fault]) -> T:
        """Try again, at once and then after pauses, as often as each kind of fault may come up."""

        def may_repeat(error: Exception) -> bool:
            if not isinstance(error, CAUGHT):
                return False
            faults[fault := fault_of(error)] += 1
            return faults[fault] < _TRIES.get(fault, 1)

        for attempt in stamina.retry_context(
            on=may_repeat,
            attempts=None,
            timeout=self._timeout,
            wait_initial=_PAUSE_S,
            wait_max=_LONGEST_PAUSE_S,
            wait_jitter=_PAUSE_S,
        ):
            with attempt:
                return self._once(work)
        raise AssertionError("the retry loop neither returned nor raised")

    def lease(self) -> "Lease":
        """A session, to be used by this thread until the block ends; see `Lease`."""
        return Lease(self)

    def borrow(self) -> PoolProxiedConnection:
        """A connection of the pool, which keeps deadlines."""
        borrowed = self._engine.raw_connection()
        connection = borrowed.driver_connection
        assert isinstance(connection, psycopg.Connection)  # noqa: S101 - the constructor saw the driver
        deadlines.bind(connection)
        return borrowed

    @contextlib.contextmanager
    def hold(self, *, doing: str, explain: Explain) -> Iterator[Session]:
        """A session for several calls of `run` (see there for the arguments)."""
        with contextlib.ExitStack() as stack:
            try:
                with deadlines.Deadline(self._patience):
                    session = stack.enter_context(self.lease())
            except CAUGHT as error:
                raise explain(error, doing) from None
            yield session

    def put_back(self, borrowed: PoolProxiedConnection) -> None:
        """Return a connection after a failure: as it was or, where that is not possible, not at all."""
        connection: Any = borrowed.driver_connection
        with deadlines.Deadline(self._timeout):
            self._put_back(borrowed, connection)

    def _put_back(self, borrowed: PoolProxiedConnection, connection: psycopg.Connection[Any]) -> None:
        pgconn = connection.pgconn
        exchange = borrowed.info.get(_EXCHANGE)
        if pgconn.transaction_status in _BETWEEN_STATEMENTS and not pgconn.pipeline_status:
            if exchange is not None and exchange.is_cancelled:
                borrowed.invalidate()
                return
            with contextlib.suppress(psycopg.Error):
                _leave_transaction(connection)
                borrowed.close()
                return
        if not connection.closed:
            _cancel(connection)  # closing the connection alone would leave the server at work
        # As SQLAlchemy does on a disconnect: idle connections of the same age are opened afresh when they
        # are next asked for. `Engine.dispose` would instead take the pool away from its other users.
        self._engine.pool._invalidate(borrowed)  # noqa: SLF001 - SQLAlchemy has no public name for it


class Lease:
    """A session, to be used by this thread until the block ends.

    A transaction that is still open then is rolled back. After a failure of the connection, it and all that
    were opened before it are thrown away. A class, because every operation enters one.

    Args:
        sessions: where the connection comes from.
    """

    __slots__ = ("_borrowed", "_connection", "_exchange", "_sessions")

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def __enter__(self) -> Session:
        self._borrowed = borrowed = self._sessions.borrow()
        self._connection = connection = cast("psycopg.Connection[Any]", borrowed.driver_connection)
        kept = borrowed.info  # for as long as the pool keeps the connection
        if connection.pgconn.transaction_status != TransactionStatus.IDLE or not settings.fit(connection):
            self._make_ready()
        exchange = kept.get(_EXCHANGE)
        if exchange is None:
            exchange = kept[_EXCHANGE] = Exchange(connection)
        self._exchange = exchange
        return Session(exchange, connection, self._sessions)

    def _make_ready(self) -> None:
        """End what a pool without `reset_on_return` has left open, and set what an application has set."""
        try:
            _leave_transaction(self._connection)
            if not settings.fit(self._connection):
                settings.set_right(self._connection)
        except BaseException:
            self._sessions.put_back(self._borrowed)
            raise

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is None and not self._exchange.is_cancelled:
            try:
                _leave_transaction(self._connection)
            except BaseException:
                self._sessions.put_back(self._borrowed)
                raise
            # As SQLAlchemy's own Connection gives one back: it need not be rolled back again.
            cast("Any", self._borrowed)._close_special(transaction_reset=True)  # noqa: SLF001 - no public name
        else:
            self._sessions.put_back(self._borrowed)


def _cancel(connection: psycopg.Connection[Any]) -> None:
    with contextlib.suppress(psycopg.Error, OSError):
        connection.cancel_safe(timeout=_CANCEL_PATIENCE_S)


def _leave_transaction(connection: psycopg.Connection[Any]) -> None:
    if connection.pgconn.transaction_status != TransactionStatus.IDLE:
        connection.rollback()
