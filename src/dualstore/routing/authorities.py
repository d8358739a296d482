"""Operations carried out where the authority of their tables is, in either database."""

from collections.abc import Callable, Iterable, Mapping
from time import perf_counter
from typing import Protocol, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import Phase
from dualstore.errors import AuthorityMoved, OutcomeUnknown, Unavailable, WritesPaused
from dualstore.operations import Operation, Response
from dualstore.replication.authority import error_code
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.served import ServedTable
from dualstore.replication.views import View
from dualstore.routing.answers import hide_stamps, is_eventual
from dualstore.stages import Side
from dualstore.stores.base import Authority
from dualstore.telemetry import OK, GrantExpired, Role, Telemetry

T = TypeVar("T")

ROUTES = 4
"""So often an operation is routed: the authority moves in both directions within seconds only in tests."""


class ReadObserver(Protocol):
    """Is shown finished reads, to compare some with the other side."""

    def __call__(
        self, table: ServedTable, operation: Operation, side: Side, answer: Response | ClientError
    ) -> None:
        """Take note of a read; must not block and must not change the answer."""
        ...


class Elsewhere(Exception):  # noqa: N818 - no fault: the operation is to be routed anew
    """The authority is not, or no longer, where an operation was routed."""


def moved_too_often(tables: Iterable[str]) -> WritesPaused:
    """What is raised where the authority was somewhere else each time that an operation was routed."""
    return WritesPaused(f"the authority of {', '.join(tables)} is moving; nothing was done, try again")


class Authorities:
    """Both databases, as what they are while they are the authority.

    Args:
        mirroring: both sides.
        postgres: PostgreSQL as the authority.
        tables: the served tables by physical name; may grow.
        telemetry: told of every operation.
        observe: shown every read that is served.
    """

    def __init__(
        self,
        mirroring: Mirroring,
        postgres: Authority,
        tables: Mapping[str, ServedTable],
        *,
        telemetry: Telemetry,
        observe: ReadObserver,
    ) -> None:
        self._mirroring = mirroring
        self._postgres = postgres
        self._agent = mirroring.agent
        self._tables = tables
        self._telemetry = telemetry
        self._observe = observe

    def routed(self, attempt: Callable[[], T], tables: Iterable[str]) -> T:
        """Try where the authority is, and again where it has moved meanwhile.

        Raises:
            WritesPaused: it has moved too often.
        """
        for _ in range(ROUTES):
            try:
                return attempt()
            except Elsewhere:
                for table in tables:
                    self._agent.refresh(table=table)
        raise moved_too_often(tables)

    def ask_postgres(self, table: ServedTable, operation: Operation, views: Mapping[str, View]) -> Response:
        """Carry out an operation where PostgreSQL is the authority, as far as this process knows.

        Args:
            table: by whose name it is counted.
            operation: of tables that all have a view.
            views: of those tables.

        Raises:
            AuthorityMoved: it is not, or no longer; nothing was done.
            OutcomeUnknown: a write was answered when PostgreSQL may have been the authority no more.
        """
        started = perf_counter()
        outcome = OK
        epochs = {name: views[name].record.epoch for name in operation.tables}
        try:
            response = self._postgres.execute_as_authority(operation, epochs=epochs)
            self._require_grants(views, AuthorityMoved if operation.reads else OutcomeUnknown)
        except Exception as error:
            outcome = error_code(error) or type(error).__name__
            if isinstance(error, ClientError):
                self._require_grants(views, AuthorityMoved)
            if operation.reads and isinstance(error, ClientError):
                self._observe(table, operation, Side.POSTGRES, error)
            raise
        finally:
            self._telemetry.operation(
                table.logical,
                operation.name,
                Side.POSTGRES,
                Role.AUTHORITATIVE,
                perf_counter() - started,
                outcome,
            )
        return response

    def _require_grants(self, views: Mapping[str, View], otherwise: type[Unavailable]) -> None:
        """See that PostgreSQL, which has answered, was the authority: by a new view for a lapsed grant.

        Its statements look for their epoch, but a PostgreSQL that comes back after a failover knows of no
        later one until it is told (ADR 24).

        Args:
            views: that were acted on.
            otherwise: is raised where it may have been the authority no more.
        """
        now = self._agent.clock.now()
        for name, view in views.items():
            if now >= view.write_until:
                self._require_renewed(name, view, otherwise)

    def _require_renewed(self, table: str, view: View, otherwise: type[Unavailable]) -> None:
        logical = self._tables[table].logical
        self._telemetry.record(GrantExpired(logical, "write"))
        try:
            later = self._agent.refreshed(table)
        except (ClientError, BotoCoreError, Unavailable) as error:
            raise otherwise(f"it is not known whether PostgreSQL is {logical}'s authority still") from error
        if later.record.epoch != view.record.epoch:
            raise otherwise(f"PostgreSQL answered when it was the authority of {logical} no more")

    def read_postgres(self, table: ServedTable, operation: Operation, views: Mapping[str, View]) -> Response:
        """A read's answer from PostgreSQL, the authority, to be given out; arguments as for `ask_postgres`.

        Raises:
            Elsewhere: it is not, or no longer.
        """
        try:
            response = self.ask_postgres(table, operation, views)
        except AuthorityMoved as error:
            raise Elsewhere from error
        return self.given_out(table, operation, Side.POSTGRES, response)

    def read_dynamodb(self, table: ServedTable, operation: Operation, views: Mapping[str, View]) -> Response:
        """A read's answer from DynamoDB, the authority, under grants that still hold when it is there.

        A closed record grants no read: its process has confirmed the pause, and the move waits no more. That
        of a failover grants none but to who is content with an answer that misses the latest writes.

        Raises:
            Elsewhere: the authority has moved.
            WritesPaused: a failover takes too long.
        """
        now = self._agent.clock.now()
        for name, view in views.items():
            if view.record.takes_over and not is_eventual(operation):
                self._agent.wait_until_taken_over(name)
                raise Elsewhere
        for name, view in views.items():
            if now >= view.write_until:
                self._require_unmoved(name, view)
        response = self.ask_dynamodb(table, operation, Role.AUTHORITATIVE)
        now = self._agent.clock.now()
        for name, view in views.items():
            if view.record.phase is not Phase.OPEN or now >= view.write_until:
                self._require_unmoved(name, view)
        return self.given_out(table, operation, Side.DYNAMODB, response)

    def ask_dynamodb(self, table: ServedTable, operation: Operation, role: Role) -> Response:
        """Ask DynamoDB, and count that, whatever grants there are."""
        started = perf_counter()
        outcome = OK
        try:
            return self._mirroring.authority.execute(operation)
        except Exception as error:
            outcome = error_code(error) or type(error).__name__
            if isinstance(error, ClientError):
                self._observe(table, operation, Side.DYNAMODB, error)
            raise
        finally:
            seconds = perf_counter() - started
            self._telemetry.operation(table.logical, operation.name, Side.DYNAMODB, role, seconds, outcome)

    def given_out(self, table: ServedTable, operation: Operation, side: Side, response: Response) -> Response:
        """The answer to a read without stamps; shown to whoever compares."""
        hide_stamps(response)
        self._observe(table, operation, side, response)
        return response

    def _require_unmoved(self, table: str, view: View) -> None:
        """See that the authority has not moved since a view whose grant has lapsed, or was none."""
        if view.record.phase is Phase.OPEN:
            self._telemetry.record(GrantExpired(self._tables[table].logical, "write"))
        if self._agent.refreshed(table).record.epoch != view.record.epoch:
            raise Elsewhere
