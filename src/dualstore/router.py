"""The router: carries out one DynamoDB operation on the side, or sides, that stage and dials say."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from time import perf_counter
from typing import Any, Protocol

from botocore.exceptions import ClientError

from dualstore.control import Phase
from dualstore.errors import (
    AuthorityMoved,
    DualStoreError,
    MirrorDirty,
    OutcomeUnknown,
    RequestRejected,
    Unavailable,
    WritesPaused,
    client_error,
)
from dualstore.flags import included, share
from dualstore.items import Item, canonical, without_stamps
from dualstore.operations import (
    BatchGetItem,
    BatchWriteItem,
    ConditionalWrite,
    DeleteItem,
    GetItem,
    Operation,
    PagedRead,
    PutItem,
    Query,
    Request,
    Response,
    Scan,
    TransactGetItems,
    TransactWriteItems,
    UpdateItem,
    parse,
)
from dualstore.replication.authority import consistently, error_code
from dualstore.replication.many import write_batch, write_transaction
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.parts import by_authority
from dualstore.replication.served import ServedTable
from dualstore.replication.views import View
from dualstore.stages import Side
from dualstore.stores.base import Authority
from dualstore.telemetry import OK, FellBack, GrantExpired, Role, Telemetry

# DynamoDB's expressionless parameters of reads: DynamoDB itself carries them out.
_LEGACY_READS = frozenset(
    {"AttributesToGet", "KeyConditions", "QueryFilter", "ScanFilter", "ConditionalOperator"}
)

# A mirror that failed a read is left alone for so long: its callers wait for a timeout at most this often.
_READ_PAUSE_SECONDS = 0.5
# The authority moves in both directions within seconds only in tests.
_ROUTES = 4


class ReadObserver(Protocol):
    """Is shown finished reads, to compare some with the other side."""

    def __call__(
        self, table: ServedTable, operation: Operation, side: Side, answer: Response | ClientError
    ) -> None:
        """Take note of a read; must not block and must not change the answer."""
        ...


class _Elsewhere(Exception):  # noqa: N818 - no fault: the operation is to be routed anew
    """The authority is not, or no longer, where an operation was routed."""


class Router:
    """Routes the operations of one process.

    Args:
        mirroring: both sides, and how writes get from one to the other.
        postgres: PostgreSQL as the authority.
        tables: the served tables by physical name; may grow while the router works.
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
        self._mirror_reads_resume_at = 0.0
        self.closed = False
        self._carry_out: dict[type[Operation], Callable[[ServedTable, Operation], Response]] = {
            GetItem: self._read,
            Query: self._read_listing,
            Scan: self._read_listing,
            BatchGetItem: self._read_many,
            TransactGetItems: self._read_many,
            PutItem: self._write,
            UpdateItem: self._write,
            DeleteItem: self._write,
            BatchWriteItem: self._write_many,
            TransactWriteItems: self._write_many,
        }

    def execute(self, name: str, request: Request) -> Response:
        """Carry out one operation.

        Args:
            name: the DynamoDB API operation, such as `GetItem`.
            request: its parameters, as boto3's low-level client takes them.

        Returns:
            The response as boto3's low-level client gives it, without stamps.

        Raises:
            botocore.exceptions.ClientError: as DynamoDB would raise it; `ServiceUnavailable` where nothing
                was done and trying again is right, `InternalServerError` where a write may have been done.
            botocore.exceptions.BotoCoreError: DynamoDB, the authority, could not be reached.
            UnsupportedOperation: dualstore does not carry out operations of this name.
        """
        operation = parse(name, request)
        served = [self._tables[table] for table in operation.tables if table in self._tables]
        if not served:
            return self._mirroring.authority.execute(operation)
        try:
            return self._carry_out[type(operation)](served[0], operation)
        except OutcomeUnknown as error:
            raise client_error(name, RequestRejected("InternalServerError", str(error))) from error
        except Unavailable as error:
            raise client_error(name, RequestRejected("ServiceUnavailable", str(error))) from error

    def serves(self, tables: frozenset[str]) -> bool:
        """Whether an operation on these physical tables concerns a served one."""
        return not tables.isdisjoint(self._tables)

    # Writes

    def _write(self, table: ServedTable, operation: Operation) -> Response:
        assert isinstance(operation, ConditionalWrite)  # noqa: S101 - by the table in `__init__`

        def attempt() -> Response:
            with self._agent.writing(table.physical) as view:
                if view.record.authority is Side.DYNAMODB:
                    return _at_dynamodb(lambda: self._mirroring.write(table, operation, view))
                return self._at_postgres((table,), operation, {table.physical: view})

        return self._routed(attempt, (table.physical,))

    def _write_many(self, table: ServedTable, operation: Operation) -> Response:  # noqa: ARG002 - of several
        names = sorted(operation.tables & self._tables.keys())

        def attempt() -> Response:
            with ExitStack() as stack:
                views = {name: stack.enter_context(self._agent.writing(name)) for name in names}
                return by_authority(operation, views, self._write_dynamodb, self._many_at_postgres)

        return self._routed(attempt, names)

    def _write_dynamodb(self, operation: Operation, views: Mapping[str, View]) -> Response:
        if isinstance(operation, BatchWriteItem):
            return _at_dynamodb(lambda: write_batch(self._mirroring, self._tables, operation, views))
        assert isinstance(operation, TransactWriteItems)  # noqa: S101 - by the table in `__init__`
        return _at_dynamodb(lambda: write_transaction(self._mirroring, self._tables, operation, views))

    def _many_at_postgres(self, operation: Operation, views: Mapping[str, View]) -> Response:
        return self._at_postgres([self._tables[name] for name in views], operation, views)

    def _at_postgres(
        self, tables: Sequence[ServedTable], operation: Operation, views: Mapping[str, View]
    ) -> Response:
        """Carry out an operation where PostgreSQL is the authority, as far as this process knows."""
        started = perf_counter()
        outcome = OK
        epochs = {name: views[name].record.epoch for name in operation.tables}
        try:
            return self._postgres.execute_as_authority(operation, epochs=epochs)
        except AuthorityMoved as error:
            outcome = type(error).__name__
            raise _Elsewhere from error
        except Exception as error:
            outcome = error_code(error) or type(error).__name__
            raise
        finally:
            self._count(tables[0], operation, Side.POSTGRES, Role.AUTHORITATIVE, started, outcome)

    def _routed(self, attempt: Callable[[], Response], tables: Iterable[str]) -> Response:
        """Try where the authority is, and again where it has moved meanwhile."""
        for _ in range(_ROUTES):
            try:
                return attempt()
            except _Elsewhere:
                for table in tables:
                    self._agent.refresh(table=table)
        raise WritesPaused(f"the authority of {', '.join(tables)} is moving; nothing was done, try again")

    # Reads

    def _read(self, table: ServedTable, operation: Operation) -> Response:
        view = self._agent.view(table.physical)
        if self._is_dialled(table, operation, view):
            response = self._read_mirror(table, operation, view)
            if response is not None:
                return response
            operation = _no_staler(table, operation)
        return self._read_authority(table, operation)

    def _read_listing(self, table: ServedTable, operation: Operation) -> Response:
        """A page of items. Its next page may be asked for on the other side, by a key made from any item.

        The sides order a Scan, and the ties of an index, differently: such listings stay on one side, the
        authority's.
        """
        assert isinstance(operation, PagedRead)  # noqa: S101 - by the table in `__init__`
        if _is_portable(table, operation):
            return self._read(table, operation)
        return self._read_authority(table, operation)

    def _is_dialled(self, table: ServedTable, operation: Operation, view: View) -> bool:
        percent = view.record.dials.postgres_read_percent
        if not percent or not view.record.mirror_readable:
            return False
        now = self._agent.clock.now()
        if now < self._mirror_reads_resume_at or not self._mirroring.health.up:
            return False
        if not _LEGACY_READS.isdisjoint(operation.request):
            return False
        if now >= view.read_until:
            self._telemetry.record(GrantExpired(table.logical, "read"))
            return False
        return percent >= 100 or _dial_covers(table, operation, percent)  # noqa: PLR2004 - saves the hash

    def _read_mirror(self, table: ServedTable, operation: Operation, view: View) -> Response | None:
        """The mirror's answer, or None where the authority must be asked."""
        started = perf_counter()
        response: Response | None = None
        outcome = OK
        try:
            response = self._mirroring.mirror.execute_as_mirror(operation)
        except MirrorDirty:
            outcome = "dirty"
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the mirror, callers do not see it
            outcome = error_code(error) or type(error).__name__
            if isinstance(error, DualStoreError):
                self._mirror_reads_resume_at = self._agent.clock.now() + _READ_PAUSE_SECONDS
        self._count(table, operation, Side.POSTGRES, Role.MIRROR, started, outcome)
        if response is not None and self._still_granted(table, view):
            return self._answer(table, operation, Side.POSTGRES, response)
        reason = "grant" if outcome == OK else outcome
        self._telemetry.record(FellBack(table.logical, operation.name, reason))
        return None

    def _still_granted(self, table: ServedTable, view: View) -> bool:
        """Whether every write has been mirrored, and the gate stood open, from before the read until now.

        The view may have been refreshed since; what counts is that it is the same opening of the gate.
        """
        now = self._agent.view(table.physical)
        same_opening = (
            now.record.gate_sequence == view.record.gate_sequence
            and now.record.mirrored_since == view.record.mirrored_since
            and now.record.epoch == view.record.epoch
        )
        return same_opening and now.allows_mirror_reads(self._agent.clock.now())

    def _read_authority(self, table: ServedTable, operation: Operation) -> Response:
        def attempt() -> Response:
            view = self._agent.located(table.physical)
            if view.record.authority is Side.POSTGRES:
                return self._asked(
                    table,
                    operation,
                    Side.POSTGRES,
                    lambda: self._at_postgres((table,), operation, {table.physical: view}),
                )
            return self._read_dynamodb(table, operation, {table.physical: view})

        return self._routed(attempt, (table.physical,))

    def _read_many(self, table: ServedTable, operation: Operation) -> Response:
        names = sorted(operation.tables & self._tables.keys())

        def attempt() -> Response:
            views = {name: self._agent.located(name) for name in names}
            return by_authority(
                operation,
                views,
                lambda part, mine: self._read_dynamodb(table, part, mine),
                lambda part, mine: self._asked(
                    table, part, Side.POSTGRES, lambda: self._many_at_postgres(part, mine)
                ),
            )

        return self._routed(attempt, names)

    def _read_dynamodb(self, table: ServedTable, operation: Operation, views: Mapping[str, View]) -> Response:
        """Read DynamoDB as the authority, under grants that still hold when its answer is there.

        A closed record grants no read: its process has confirmed the pause, and the move waits no more.
        """
        for name, view in views.items():
            if self._agent.clock.now() >= view.write_until:
                self._require_unmoved(name, view)
        started = perf_counter()
        outcome = OK
        try:
            response = self._asked(
                table, operation, Side.DYNAMODB, lambda: self._mirroring.authority.execute(operation)
            )
        except Exception as error:
            outcome = error_code(error) or type(error).__name__
            raise
        finally:
            self._count(table, operation, Side.DYNAMODB, Role.AUTHORITATIVE, started, outcome)
        for name, view in views.items():
            if view.record.phase is not Phase.OPEN or self._agent.clock.now() >= view.write_until:
                self._require_unmoved(name, view)
        return response

    def _require_unmoved(self, table: str, view: View) -> None:
        """See that the authority has not moved since a view whose grant has lapsed, or was none."""
        if view.record.phase is Phase.OPEN:
            self._telemetry.record(GrantExpired(self._tables[table].logical, "write"))
        if self._agent.refreshed(table).record.epoch != view.record.epoch:
            raise _Elsewhere

    def _asked(
        self, table: ServedTable, operation: Operation, side: Side, ask: Callable[[], Response]
    ) -> Response:
        """An authority's answer, shown to whoever compares."""
        try:
            response = ask()
        except ClientError as error:
            self._observe(table, operation, side, error)
            raise
        return self._answer(table, operation, side, response)

    def _answer(self, table: ServedTable, operation: Operation, side: Side, response: Response) -> Response:
        _hide_stamps(response)
        self._observe(table, operation, side, response)
        return response

    def _count(  # noqa: PLR0917 - keywords would add 0.1 µs to every operation
        self, table: ServedTable, operation: Operation, side: Side, role: Role, started: float, outcome: str
    ) -> None:
        self._telemetry.operation(
            table.logical, operation.name, side, role, perf_counter() - started, outcome
        )


def _at_dynamodb(write: Callable[[], Response]) -> Response:
    try:
        return write()
    except AuthorityMoved as error:
        raise _Elsewhere from error


def _is_portable(table: ServedTable, operation: PagedRead) -> bool:
    """Whether both sides list in the same order, so that a page may follow on either.

    A partition of the table is ordered by its sort key; one of an index too, where no two of its items can
    tie, because the index's own keys hold the table's.
    """
    if not isinstance(operation, Query):
        return False
    index = table.shape.indexes.get(operation.index or "")
    if index is None:
        return True
    return set(table.shape.keys.names) <= set(index.keys.names)


def _dial_covers(table: ServedTable, operation: Operation, percent: float) -> bool:
    """Whether a read dial covers an operation: by partition key, or by the request where it spans several."""
    try:
        return included(_share(table, operation), percent)
    except (RequestRejected, KeyError):
        return False  # DynamoDB refuses it in its own words


def _share(table: ServedTable, operation: Operation) -> float:
    if isinstance(operation, GetItem):
        return table.share_of(operation.key)
    if isinstance(operation, Query):
        index = table.shape.indexes[operation.index] if operation.index else None
        keys = index.keys if index else table.shape.keys
        partition = operation.key_condition(keys).partition
        if index is None:
            return table.share_of({keys.partition.name: partition})
        return share(table.logical, f"{operation.index}\0{canonical(partition)}".encode())
    raise TypeError(f"{operation.name} is not dialled")


def _no_staler(table: ServedTable, operation: Operation) -> Operation:
    """The read for the authority to answer in the mirror's place: the mirror would have known every write.

    Global indexes have no consistent reads (Amazon DynamoDB Developer Guide, "Read consistency").
    """
    index = operation.request.get("IndexName")
    if index is not None and (index not in table.shape.indexes or table.shape.indexes[index].is_global):
        return operation
    return consistently(operation)


def _hide_stamps(response: Response) -> None:
    """Take the bookkeeping attributes out of every item of a read's response."""
    if "Item" in response:
        response["Item"] = without_stamps(response["Item"])
    elif "Items" in response:
        response["Items"] = [without_stamps(item) for item in response["Items"]]
    elif "Responses" in response:
        response["Responses"] = _hidden_in_responses(response["Responses"])


def _hidden_in_responses(responses: Any) -> Any:
    """The responses of a BatchGetItem (items by table) or a TransactGetItems (one entry an action)."""
    if isinstance(responses, dict):
        return {table: [without_stamps(item) for item in items] for table, items in responses.items()}
    return [_hidden_in_entry(entry) for entry in responses]


def _hidden_in_entry(entry: dict[str, Item]) -> dict[str, Item]:
    return {**entry, "Item": without_stamps(entry["Item"])} if "Item" in entry else entry
