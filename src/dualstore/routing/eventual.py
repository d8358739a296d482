"""Eventually consistent reads that not only PostgreSQL, the authority, may answer: by choice."""

from collections.abc import Mapping
from time import perf_counter

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import AuthorityMoved, DualStoreError, Unavailable
from dualstore.operations import Operation, PagedRead, Response
from dualstore.replication.authority import error_code
from dualstore.replication.clocks import Clock
from dualstore.replication.served import ServedTable
from dualstore.replication.views import View
from dualstore.routing.authorities import Authorities
from dualstore.routing.dialling import Dialling
from dualstore.routing.listings import is_ordered
from dualstore.routing.rules import PLAIN, ReadRules
from dualstore.stages import Side
from dualstore.stores.base import Authority
from dualstore.telemetry import OK, FellBack, Role, ServedStale, Telemetry


class EventualReads:
    """Two ways past the writer of PostgreSQL, the authority; either is off unless it is configured.

    *The reader endpoint*: replicas of the authority answer. The fence is looked at in the read's own
    statement, on the replica: one that has not seen the move of the authority to PostgreSQL does not answer.
    *Stale reads*: DynamoDB, the mirror, answers where PostgreSQL does not.

    Args:
        authorities: the authority itself.
        dialling: has the breakers.
        reader: PostgreSQL's reader endpoint, or None.
        tables: the served tables by physical name; may grow.
        telemetry: told of every answer.
        rules: by logical name, which tables want stale reads.
        clock: the breakers'.
    """

    def __init__(
        self,
        authorities: Authorities,
        dialling: Dialling,
        reader: Authority | None,
        *,
        tables: Mapping[str, ServedTable],
        telemetry: Telemetry,
        rules: Mapping[str, ReadRules],
        clock: Clock,
    ) -> None:
        self._authorities = authorities
        self._dialling = dialling
        self._reader = reader
        self._tables = tables
        self._telemetry = telemetry
        self._rules = rules
        self.is_off = reader is None and not any(each.stale_reads for each in rules.values())
        """Whether nothing but the authority is ever asked."""
        self._clock = clock

    def read(self, table: ServedTable, operation: Operation, views: Mapping[str, View]) -> Response:
        """The answer to an eventually consistent read; arguments as for `Authorities.ask_postgres`.

        Raises:
            Elsewhere: PostgreSQL is not the authority any more.
            Unavailable: it does not answer, and nobody else may.
        """
        stale = all(self._may_be_stale(name, view) for name, view in views.items())
        # Whoever stops reads wants the authority's answers and no other.
        stopped = any(view.record.stopped is not None for view in views.values())
        if stopped or not (stale or self._reader):
            return self._authorities.read_postgres(table, operation, views)
        if self._reader is not None:
            response = self._at_reader(table, operation, views, self._reader)
            if response is not None:
                return self._authorities.given_out(table, operation, Side.POSTGRES, response)
        if stale and _is_portable(table, operation):
            return self._at_authority_or_mirror(table, operation, views)
        return self._authorities.read_postgres(table, operation, views)

    def _at_reader(
        self, table: ServedTable, operation: Operation, views: Mapping[str, View], reader: Authority
    ) -> Response | None:
        """The reader endpoint's answer, or None where the writer must be asked."""
        breaker = self._dialling.breakers[Role.READER].of(table.logical)
        admission = breaker.admit()
        if not admission:
            self._fell_back(table, operation, "breaker")
            return None
        epochs = {name: view.record.epoch for name, view in views.items()}
        response: Response | None = None
        outcome, failed = OK, False
        started = perf_counter()
        try:
            response = reader.execute_as_authority(operation, epochs=epochs)
        except Exception as error:  # noqa: BLE001 - the writer's answer is the one that counts
            outcome = error_code(error) or type(error).__name__
            # A replica that has not heard of the move yet is well, and late.
            failed = isinstance(error, DualStoreError) and not isinstance(error, AuthorityMoved)
        seconds = perf_counter() - started
        self._telemetry.operation(table.logical, operation.name, Side.POSTGRES, Role.READER, seconds, outcome)
        breaker.note(admission, self._clock.now(), seconds, failed=failed)
        if response is None:
            self._fell_back(table, operation, outcome)
        return response

    def _at_authority_or_mirror(
        self, table: ServedTable, operation: Operation, views: Mapping[str, View]
    ) -> Response:
        breaker = self._dialling.breakers[Role.AUTHORITATIVE].of(table.logical)
        admission = breaker.admit()
        if not admission:
            return self._stale(table, operation, "breaker", None)
        started = perf_counter()
        failure: Unavailable | None = None
        try:
            return self._authorities.read_postgres(table, operation, views)
        except Unavailable as error:
            failure = error
        finally:
            seconds = perf_counter() - started
            breaker.note(admission, self._clock.now(), seconds, failed=failure is not None)
        return self._stale(table, operation, type(failure).__name__, failure)

    def _stale(
        self, table: ServedTable, operation: Operation, reason: str, failure: Unavailable | None
    ) -> Response:
        """DynamoDB's answer, as far as it has been brought after PostgreSQL."""
        try:
            response = self._authorities.ask_dynamodb(table, operation, Role.MIRROR)
        except (ClientError, BotoCoreError) as error:
            if error_code(error) == "ValidationException":
                raise  # the caller's fault, which trying again does not mend
            raise failure or Unavailable(
                f"PostgreSQL, the authority of {table.logical}, is left alone after failures, and DynamoDB "
                "does not answer in its place: try again"
            ) from error
        self._telemetry.record(ServedStale(table.logical, operation.name, reason))
        return self._authorities.given_out(table, operation, Side.DYNAMODB, response)

    def _may_be_stale(self, table: str, view: View) -> bool:
        """Whether a table wants stale answers, and DynamoDB is brought after PostgreSQL at all.

        It is not where anything about it is suspect: since `complete` it may have missed every write.
        """
        rules = self._rules.get(self._tables[table].logical, PLAIN)
        record = view.record
        return rules.stale_reads and record.stage.rule.mirrored and not record.suspects

    def _fell_back(self, table: ServedTable, operation: Operation, reason: str) -> None:
        self._telemetry.record(FellBack(table.logical, operation.name, reason))


def _is_portable(table: ServedTable, operation: Operation) -> bool:
    """Whether a listing may go on at PostgreSQL when that is back."""
    if not isinstance(operation, PagedRead):
        return True
    return operation.index in {None, *table.shape.indexes} and is_ordered(table.shape, operation)
