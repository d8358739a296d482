"""Statements sent to PostgreSQL in one round trip, and their rows, without psycopg's cursors.

For a pipeline of three statements cursors take 100 µs of a client's processor, and libpq 20; every operation
pays for it. So statements go through `psycopg.pq`, with psycopg's own types and errors. Its
register of prepared statements is shared with the cursors that an application uses on the same connection:
psycopg takes all statements off the server after a rollback, and says so there only.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg import errors
from psycopg._preparing import Prepare
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format

from dualstore.mapping import Unreadable
from dualstore.stores.postgres.settings import takes_backslashes_for_escapes
from dualstore.stores.postgres.wire import Late, Wire, failing_handlers_logged

_TEXTS_KEPT = 256

Row: TypeAlias = tuple[Any, ...]
Statement: TypeAlias = tuple[str, Sequence[Any]]
"""SQL with `$1`, `$2`, …, and the values for them."""


class _Query(NamedTuple):
    """A statement as psycopg's register knows it: by its text and the types of its values."""

    query: bytes
    types: tuple[int, ...]


class _Asked(NamedTuple):
    """A statement ready to be sent."""

    query: _Query
    values: Sequence[Any] | None
    formats: Sequence[Format] | None


class _Sent(NamedTuple):
    """A statement that waits for its answer.

    Attributes:
        query: the statement.
        prepare: whether it has been prepared, or is with this one.
        name: under which name.
        key: of an entry that the register has not had before, else None.
    """

    query: _Query
    prepare: Prepare
    name: bytes
    key: Any


def text_array(texts: Iterable[str]) -> str:
    """Texts as the value of a `text[]`: for a list psycopg takes as long as for all else of a statement."""
    escaped = (text.replace("\\", r"\\").replace('"', r"\"") for text in texts)
    return "{" + ",".join([f'"{text}"' for text in escaped]) + "}"


def _array_of_bytes(values: list[Any]) -> Any:
    """A list of bytes as the text of a `bytea[]`; other lists as they are."""
    if not all(isinstance(value, bytes) for value in values):
        return values
    return "{" + ",".join([rf'"\\x{value.hex()}"' for value in values]) + "}"


class Answer:
    """What a statement has answered; loaded when it is asked for, by whoever still has the connection.

    Args:
        exchange: what asked.
        result: libpq's.
    """

    __slots__ = ("_exchange", "_result")

    def __init__(self, exchange: "Exchange", result: Any) -> None:
        self._exchange = exchange
        self._result = result

    @property
    def rows(self) -> list[Row]:
        """Its rows; none where it has none to give.

        Raises:
            Unreadable: they cannot be loaded.
        """
        return self._exchange.loaded(self._result)

    def texts(self, first: int) -> list[str | None]:
        """The values of the first row from a column on, as PostgreSQL writes them; None: null."""
        value, columns = self._result.get_value, range(first, self._result.nfields)
        return [None if (sent := value(0, column)) is None else sent.decode() for column in columns]

    def sizes_bytes(self, columns: int) -> list[int] | None:
        """How long the first values of the first row are in UTF-8, as they were sent; null is empty.

        Returns:
            None where they were sent in another encoding.
        """
        if not self._exchange.in_utf8:
            return None
        value = self._result.get_value
        return [len(value(0, column) or b"") for column in range(columns)]


class Exchange:
    """What is said on one connection, for as long as that lasts.

    Each round trip is a transaction of its own, unless its statements begin or end one: `autocommit` is for
    psycopg's cursors only.

    Args:
        connection: outside a transaction.

    Attributes:
        is_cancelled: whether somebody has asked PostgreSQL to cancel what was under way; that may come later,
            and is not to meet another's statement.
    """

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._wire = Wire(connection)
        self._encoding = connection.info.encoding
        self._transformer = Transformer(connection)
        self._register: Any = connection._prepared  # noqa: SLF001 - see above
        self._often: dict[_Query, None] = {}
        self._texts: dict[str, bytes] = {}
        self._renewed: dict[bytes, bytes] = {}
        self._edition = 1
        self.is_cancelled = False

    @property
    def in_utf8(self) -> bool:
        """Whether texts come and go in UTF-8; an application may have said otherwise on its connection."""
        return self._pgconn.parameter_status(b"client_encoding") == b"UTF8"

    @property
    def kept_in_utf8(self) -> bool:
        """Whether the database has its texts in UTF-8."""
        return self._pgconn.parameter_status(b"server_encoding") == b"UTF8"

    def rows(self, statement: Statement) -> list[Row]:
        """Run one statement; its rows (none where it has none to give).

        Raises:
            psycopg.Error: it failed.
            Unreadable: it succeeded, but its rows cannot be loaded.
        """
        return self.answer(statement).rows

    def answer(
        self,
        statement: Statement,
        meanwhile: Callable[[], object] | None = None,
        late: Late | None = None,
    ) -> Answer:
        """As `rows`, with nothing loaded yet.

        Args:
            statement: what to run.
            meanwhile: work to be done while PostgreSQL is at it; it must not fail.
            late: what is done where the answer is late.
        """
        asked = self._dumped(statement)
        self._check_that_it_stands_between_exchanges()
        sent = self._sent_prepared(asked)
        if sent is None:
            prepare, name = self._prepared(asked.query)
            if prepare is Prepare.SHOULD:  # which takes two messages
                return self.answers((statement,), meanwhile, late)[0]
            sent = self._send(asked, prepare, name)
        if meanwhile is not None:
            meanwhile()
        results = self._wire.results(late)
        self._note(sent, results)
        # A deferred constraint fails behind the statement's own answer.
        self._raise_failure([sent], results)
        return Answer(self, results[0])

    def together(self, statements: Sequence[Statement]) -> list[list[Row]]:
        """Run several statements in one round trip; the rows of each (none where it has none to give).

        One that fails undoes those before it and leaves those behind it undone, as far as no COMMIT stands
        between them.

        Raises:
            psycopg.Error: of the one that failed.
            Unreadable: all of them succeeded, but a row cannot be loaded.
        """
        return [answer.rows for answer in self.answers(statements)]

    def answers(
        self,
        statements: Sequence[Statement],
        meanwhile: Callable[[], object] | None = None,
        late: Late | None = None,
    ) -> list[Answer]:
        """As `together`, with nothing loaded yet.

        Args:
            statements: what to run.
            meanwhile: work to be done while PostgreSQL is at it; it must not fail.
            late: what is done where the answers are late.
        """
        asked = list(map(self._dumped, statements))
        self._check_that_it_stands_between_exchanges()
        try:
            self._pgconn.enter_pipeline_mode()
            sent = [
                self._sent_prepared(each) or self._send(each, *self._prepared(each.query)) for each in asked
            ]
            self._pgconn.pipeline_sync()
            if meanwhile is not None:
                meanwhile()
            results = self._wire.results(late)
        finally:
            if self._pgconn.status != ConnStatus.BAD:
                # Where answers are still to come, it fails: then the connection shows that it is in use.
                with suppress(psycopg.Error):
                    self._pgconn.exit_pipeline_mode()
        left = iter(results)
        answers = []
        for each in sent:
            if each.prepare is Prepare.SHOULD:
                self._note_preparation(each, next(left, None))
            answers.append(list(islice(left, 1)))
            self._note(each, answers[-1])
        self._raise_failure(sent, results)
        if self._register._to_flush:  # noqa: SLF001 - as cursors do: the register is full
            with failing_handlers_logged(self._pgconn):
                self._connection.wait(self._register.maintain_gen(self._connection))
        return [Answer(self, answer) for (answer,) in answers]

    def _check_that_it_stands_between_exchanges(self) -> None:
        """See that the next answer is of the next statement: an exchange may have been given up half-way.

        Raises:
            psycopg.OperationalError: it was.
        """
        if self._pgconn.pipeline_status:
            raise psycopg.OperationalError("an exchange before was given up: this connection is of no use")

    def _dumped(self, statement: Statement) -> _Asked:
        text, values = statement
        query = self._encoded(text)
        if not values:
            return _Asked(_Query(query, ()), None, None)
        if takes_backslashes_for_escapes(self._connection):
            values = [_array_of_bytes(value) if isinstance(value, list) else value for value in values]
        transformer = self._transformer
        dumped = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        return _Asked(_Query(query, transformer.types or ()), dumped, transformer.formats)

    def _encoded(self, text: str) -> bytes:
        """The same bytes for the same text: finding a statement by 2 KB that are new takes 1 of 25 µs."""
        encoded = self._texts.get(text)
        if encoded is None:
            if len(self._texts) >= _TEXTS_KEPT:
                self._texts.clear()
            encoded = text.encode(self._encoding)
            encoded = self._texts[text] = self._renewed.get(encoded, encoded)
        return encoded

    def _prepared(self, query: _Query) -> tuple[Prepare, bytes]:
        """Whether a statement is prepared, or is to be now, and by which name.

        One that has been is again at once, and not when it comes for the sixth time: a shared connection may
        have lost it to a rollback of the application.
        """
        register, often = self._register, self._often
        prepare, name = register.get(query)
        if prepare is Prepare.NO and query in often:
            prepare, name = register.get(query, True)
        if prepare is Prepare.SHOULD:
            often[query] = None
            if len(often) > register.prepared_max:
                del often[next(iter(often))]
        return prepare, name

    def _sent_prepared(self, asked: _Asked) -> _Sent | None:
        """Send a statement that has been prepared, as nearly every one has; None: it has not."""
        register, query = self._register, asked.query
        name = register._names.get(query)  # noqa: SLF001 - see above
        if name is None or register.prepare_threshold is None:
            return None
        register._names.move_to_end(query)  # noqa: SLF001 - as psycopg does: what was used last goes last
        self._pgconn.send_query_prepared(name, asked.values, param_formats=asked.formats)
        return _Sent(query, Prepare.YES, name, None)

    def _send(self, asked: _Asked, prepare: Prepare, name: bytes) -> _Sent:
        (text, types), values, formats = asked
        if prepare is Prepare.NO:
            self._pgconn.send_query_params(text, values, param_types=types, param_formats=formats)
        else:
            if prepare is Prepare.SHOULD:
                self._pgconn.send_prepare(name, text, param_types=types)
            self._pgconn.send_query_prepared(name, values, param_formats=formats)
        key = self._register.maybe_add_to_cache(asked.query, prepare, name)
        return _Sent(asked.query, prepare, name, key)

    def _note(self, sent: _Sent, results: Sequence[Any]) -> None:
        if sent.key is not None:
            self._register.validate(sent.key, sent.prepare, sent.name, results)

    def _note_preparation(self, sent: _Sent, result: Any) -> None:
        """Strike a statement out that was not prepared, for one before it failed: psycopg itself does not."""
        if result is None or result.status != ExecStatus.COMMAND_OK:
            self._register._names.pop(self._register.key(sent.query), None)  # noqa: SLF001 - as above

    def _raise_failure(self, sent: Sequence[_Sent], results: Sequence[Any]) -> None:
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                failure = errors.error_from_result(result, encoding=self._encoding)
                if isinstance(failure, errors.FeatureNotSupported):
                    self._forget(sent)
                raise failure

    def _forget(self, sent: Sequence[_Sent]) -> None:
        """Have statements prepared anew: "cached plan must not change result type".

        Somebody has altered a column since. PostgreSQL refuses such a statement on this connection for good.
        It gets another text, too: PgBouncer takes what has the same for the same statement (see its setting
        `max_prepared_statements`).
        """
        register = self._register
        firsts = {renewed: first for first, renewed in self._renewed.items()}
        self._texts.clear()
        if len(self._renewed) >= _TEXTS_KEPT:
            self._renewed.clear()
        self._edition += 1
        for each in sent:
            first = firsts.get(each.query.query, each.query.query)
            self._renewed[first] = b"%b -- edition %d" % (first, self._edition)
            if (name := register._names.pop(register.key(each.query), None)) is not None:  # noqa: SLF001 - as above
                register._to_flush.append(name)  # noqa: SLF001 - as above

    def loaded(self, result: Any) -> list[Row]:
        """The rows of a result; see `Answer.rows`."""
        if result.status != ExecStatus.TUPLES_OK:
            return []
        self._transformer.set_pgresult(result)
        try:
            return self._transformer.load_rows(0, result.ntuples, tuple)
        except Exception as error:  # noqa: BLE001 - whatever a loader raises quotes the value
            raise Unreadable(f"a value that psycopg cannot load ({type(error).__name__})") from None
