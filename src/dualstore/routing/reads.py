"""The reads: from the mirror where it is dialled and may be trusted, else from the authority."""

from collections.abc import Mapping
from time import perf_counter

from dualstore.errors import DualStoreError, MirrorDirty
from dualstore.operations import GetItem, Operation, PagedRead, Query, Response
from dualstore.replication.authority import consistently, error_code
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.parts import by_authority
from dualstore.replication.served import ServedTable
from dualstore.replication.views import View
from dualstore.routing.answers import is_eventual
from dualstore.routing.authorities import ROUTES, Authorities, Elsewhere, moved_too_often
from dualstore.routing.breaker import Admission
from dualstore.routing.dialling import Dialling
from dualstore.routing.eventual import EventualReads
from dualstore.routing.listings import index_of, is_global, is_ordered, stands_alone
from dualstore.stages import Side
from dualstore.telemetry import DIRTY, OK, FellBack, Role, Telemetry


class Reads:
    """Carries out the reads of one process.

    Args:
        mirroring: both sides.
        authorities: the two, as authority.
        dialling: says which reads the mirror is asked for.
        eventual: where else eventually consistent reads may be answered from.
        tables: the served tables by physical name; may grow.
        telemetry: told of every answer and of every fallback.
    """

    def __init__(
        self,
        mirroring: Mirroring,
        authorities: Authorities,
        dialling: Dialling,
        eventual: EventualReads,
        *,
        tables: Mapping[str, ServedTable],
        telemetry: Telemetry,
    ) -> None:
        self._mirroring = mirroring
        self._agent = mirroring.agent
        self._authorities = authorities
        self._dialling = dialling
        self._eventual = eventual
        self._tables = tables
        self._telemetry = telemetry

    def of_partition(self, table: ServedTable, operation: GetItem | Query) -> Response:
        """A GetItem, or a Query that both sides list in the same order."""
        view = self._agent.view(table.physical)
        admission = self._dialling.admit(table, operation, view)
        if admission:
            response = self.ask_mirror(table, operation, view, admission)
            if response is not None:
                return self._authorities.given_out(table, operation, Side.POSTGRES, response)
            return self.at_authority(table, _no_staler(table, operation))
        return self.at_authority(table, operation)

    def of_listing(self, table: ServedTable, operation: PagedRead) -> Response:
        """A page of items. Its next page may be asked for on the other side, by a key made from any item.

        The sides order a Scan, and the ties of an index, differently: a listing that has any stays on one
        side, the authority's (ADR 10).
        """
        if isinstance(operation, Query) and operation.index in {None, *table.shape.indexes}:
            if is_ordered(table.shape, operation):
                return self.of_partition(table, operation)
            if operation.start_key is None:
                return self._of_index(table, operation)
        return self.at_authority(table, operation)

    def _of_index(self, table: ServedTable, operation: Query) -> Response:
        """A Query of an index that may have ties: the mirror's answer counts if it is whole, without any."""
        view = self._agent.view(table.physical)
        admission = self._dialling.admit(table, operation, view)
        index = index_of(table.shape, operation)
        if admission and index is not None:
            response = self.ask_mirror(table, operation, view, admission)
            if response is not None and stands_alone(index, operation, response):
                return self._authorities.given_out(table, operation, Side.POSTGRES, response)
            if response is not None:
                self._fell_back(table, operation, "order")
            return self.at_authority(table, _no_staler(table, operation))
        return self.at_authority(table, operation)

    def of_several(self, table: ServedTable, operation: Operation) -> Response:
        """Items of any number of tables, from the authority of each.

        Args:
            table: by whose name the part of tables that are not served is counted.
            operation: the read.
        """
        names = sorted(operation.tables & self._tables.keys())

        def named(views: Mapping[str, View]) -> ServedTable:
            return self._tables[next(iter(views))] if views else table

        def attempt() -> Response:
            views = {name: self._agent.located(name) for name in names}
            return by_authority(
                operation,
                views,
                lambda part, mine: self._authorities.read_dynamodb(named(mine), part, mine),
                lambda part, mine: self._from_postgres(named(mine), part, mine),
            )

        return self._authorities.routed(attempt, names)

    def at_authority(self, table: ServedTable, operation: Operation) -> Response:
        """The answer of the authority of one table."""
        # As `Authorities.routed`, without a closure: most reads of a migration come this way.
        for _ in range(ROUTES):
            view = self._agent.located(table.physical)
            views = {table.physical: view}
            try:
                if view.record.authority is Side.DYNAMODB:
                    return self._authorities.read_dynamodb(table, operation, views)
                return self._from_postgres(table, operation, views)
            except Elsewhere:
                self._agent.refresh(table=table.physical)
        raise moved_too_often([table.physical])

    def ask_mirror(
        self, table: ServedTable, operation: Operation, view: View, admission: Admission
    ) -> Response | None:
        """The mirror's answer, or None where the authority must be asked.

        Args:
            table: the table, or the first of several.
            operation: a read that the mirror may be asked for.
            view: of the table, under which that was decided.
            admission: what its breaker said.
        """
        response: Response | None = None
        outcome, failed = OK, False
        started = perf_counter()
        try:
            response = self._mirroring.mirror.execute_as_mirror(operation)
        except MirrorDirty:
            outcome = DIRTY
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the mirror, callers do not see it
            outcome = error_code(error) or type(error).__name__
            failed = isinstance(error, DualStoreError)
        seconds = perf_counter() - started
        self._telemetry.operation(table.logical, operation.name, Side.POSTGRES, Role.MIRROR, seconds, outcome)
        now = self._agent.clock.now()
        self._dialling.mirror_breakers.of(table.logical).note(admission, now, seconds, failed=failed)
        if response is not None and self._dialling.still_granted(table, view, now):
            return response
        self._fell_back(table, operation, "grant" if outcome == OK else outcome)
        return None

    def _from_postgres(self, table: ServedTable, operation: Operation, views: Mapping[str, View]) -> Response:
        if not self._eventual.is_off and is_eventual(operation):
            return self._eventual.read(table, operation, views)
        return self._authorities.read_postgres(table, operation, views)

    def _fell_back(self, table: ServedTable, operation: Operation, reason: str) -> None:
        self._telemetry.record(FellBack(table.logical, operation.name, reason))


def _no_staler(table: ServedTable, operation: Operation) -> Operation:
    """The read for the authority to answer in the mirror's place: the mirror would have known every write."""
    if isinstance(operation, PagedRead) and is_global(table.shape, operation):
        return operation
    return consistently(operation)
