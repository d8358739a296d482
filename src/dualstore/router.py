"""The router: carries out one DynamoDB operation on the side, or sides, that stage and dials say."""

from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Protocol

from botocore.exceptions import ClientError

from dualstore.errors import DualStoreError, MirrorDirty, RequestRejected
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
from dualstore.replication.agent import View
from dualstore.replication.authority import consistently, error_code
from dualstore.replication.many import write_batch, write_transaction
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.served import ServedTable
from dualstore.stages import Side
from dualstore.telemetry import OK, FellBack, GrantExpired, Role, Telemetry

# DynamoDB's expressionless parameters of reads: DynamoDB itself carries them out.
_LEGACY_READS = frozenset(
    {"AttributesToGet", "KeyConditions", "QueryFilter", "ScanFilter", "ConditionalOperator"}
)

# A mirror that failed a read is left alone for so long: its callers wait for a timeout at most this often.
_READ_PAUSE_SECONDS = 0.5


class ReadObserver(Protocol):
    """Is shown finished reads, to compare some with the other side."""

    def __call__(
        self, table: ServedTable, operation: Operation, side: Side, answer: Response | ClientError
    ) -> None:
        """Take note of a read; must not block and must not change the answer."""
        ...


class Router:
    """Routes the operations of one process.

    Args:
        mirroring: both sides, and how writes get from one to the other.
        tables: the served tables by physical name; may grow while the router works.
        telemetry: told of every operation.
        observe: shown every read that is served.
    """

    def __init__(
        self,
        mirroring: Mirroring,
        tables: Mapping[str, ServedTable],
        *,
        telemetry: Telemetry,
        observe: ReadObserver,
    ) -> None:
        self._mirroring = mirroring
        self._tables = tables
        self._telemetry = telemetry
        self._observe = observe
        self._mirror_reads_resume_at = 0.0
        self.closed = False
        self._carry_out: dict[type[Operation], Callable[[ServedTable, Operation], Response]] = {
            GetItem: self._read,
            Query: self._read_listing,
            Scan: self._read_listing,
            BatchGetItem: self._read_authority,
            TransactGetItems: self._read_authority,
            PutItem: self._write,
            UpdateItem: self._write,
            DeleteItem: self._write,
            BatchWriteItem: self._write_batch,
            TransactWriteItems: self._write_transaction,
        }

    def execute(self, name: str, request: Request) -> Response:
        """Carry out one operation.

        Args:
            name: the DynamoDB API operation, such as `GetItem`.
            request: its parameters, as boto3's low-level client takes them.

        Returns:
            The response as boto3's low-level client gives it, without stamps.

        Raises:
            botocore.exceptions.ClientError: as DynamoDB would raise it.
            botocore.exceptions.BotoCoreError: the authority could not be reached.
            UnsupportedOperation: dualstore does not carry out operations of this name.
        """
        operation = parse(name, request)
        served = [self._tables[table] for table in operation.tables if table in self._tables]
        if not served:
            return self._mirroring.authority.execute(operation)
        return self._carry_out[type(operation)](served[0], operation)

    def serves(self, tables: frozenset[str]) -> bool:
        """Whether an operation on these physical tables concerns a served one."""
        return not tables.isdisjoint(self._tables)

    # Writes

    def _write(self, table: ServedTable, operation: Operation) -> Response:
        assert isinstance(operation, ConditionalWrite)  # noqa: S101 - by the table in `__init__`
        return self._mirroring.write(table, operation)

    def _write_batch(self, table: ServedTable, operation: Operation) -> Response:  # noqa: ARG002
        assert isinstance(operation, BatchWriteItem)  # noqa: S101 - by the table in `__init__`
        return write_batch(self._mirroring, self._tables, operation)

    def _write_transaction(self, table: ServedTable, operation: Operation) -> Response:  # noqa: ARG002
        assert isinstance(operation, TransactWriteItems)  # noqa: S101 - by the table in `__init__`
        return write_transaction(self._mirroring, self._tables, operation)

    # Reads

    def _read(self, table: ServedTable, operation: Operation) -> Response:
        view = self._mirroring.agent.view(table.physical)
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
        now = self._mirroring.agent.clock.now()
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
                self._mirror_reads_resume_at = self._mirroring.agent.clock.now() + _READ_PAUSE_SECONDS
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
        agent = self._mirroring.agent
        now = agent.view(table.physical)
        same_opening = (
            now.record.gate_sequence == view.record.gate_sequence
            and now.record.mirrored_since == view.record.mirrored_since
        )
        return same_opening and now.allows_mirror_reads(agent.clock.now())

    def _read_authority(self, table: ServedTable, operation: Operation) -> Response:
        started = perf_counter()
        outcome = OK
        try:
            response = self._mirroring.authority.execute(operation)
        except Exception as error:
            outcome = error_code(error) or type(error).__name__
            if isinstance(error, ClientError):
                self._observe(table, operation, Side.DYNAMODB, error)
            raise
        finally:
            self._count(table, operation, Side.DYNAMODB, Role.AUTHORITATIVE, started, outcome)
        return self._answer(table, operation, Side.DYNAMODB, response)

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
