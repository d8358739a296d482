"""The router: carries out one DynamoDB operation on the side, or sides, that stage and dials say."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeAlias

from dualstore.errors import AuthorityMoved, OutcomeUnknown, RequestRejected, Unavailable, client_error
from dualstore.operations import (
    BatchGetItem,
    BatchWriteItem,
    ConditionalWrite,
    DeleteItem,
    GetItem,
    Operation,
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
from dualstore.replication.many import write_batch, write_transaction
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.parts import by_authority
from dualstore.replication.served import ServedTable
from dualstore.replication.views import View
from dualstore.routing.arns import ArnOf, answered_by_arn, asked_by_name, named_by_arn
from dualstore.routing.authorities import Authorities, Elsewhere, ReadObserver
from dualstore.routing.batches import BatchReads
from dualstore.routing.breaker import BreakerLimits
from dualstore.routing.dialling import Dialling
from dualstore.routing.eventual import EventualReads
from dualstore.routing.reads import Reads
from dualstore.routing.rules import CohortOf, ReadRules
from dualstore.stages import Side
from dualstore.stores.base import Authority
from dualstore.telemetry import Telemetry

CarryOut: TypeAlias = Callable[[ServedTable, Any], Response]
"""Carries out an operation of a kind, of the first table that it names and is served."""


class Router:
    """Routes the operations of one process.

    Args:
        mirroring: both sides, and how writes get from one to the other.
        postgres: PostgreSQL as the authority.
        tables: the served tables by physical name; may grow while the router works.
        telemetry: told of every operation.
        observe: shown every read that is served.
        reader: PostgreSQL's reader endpoint, where eventually consistent reads are to use it.
        rules: what is configured about reads, by logical name.
        cohorts: what tells the cohort of a partition key, by logical name; may grow.
        limits: when a breaker opens and closes.
        arn_of: the ARNs of served tables; by default any that names one by its name is of it.
        around: what is done around every operation, where anything is; see `recording.Recorder`.
    """

    def __init__(
        self,
        mirroring: Mirroring,
        postgres: Authority,
        tables: Mapping[str, ServedTable],
        *,
        telemetry: Telemetry,
        observe: ReadObserver,
        reader: Authority | None = None,
        rules: Mapping[str, ReadRules] | None = None,
        cohorts: Mapping[str, CohortOf] | None = None,
        limits: BreakerLimits | None = None,
        arn_of: ArnOf = lambda _: None,
        around: Callable[[CarryOut], CarryOut] | None = None,
    ) -> None:
        self._mirroring = mirroring
        self._agent = mirroring.agent
        self._tables = tables
        self._arn_of = arn_of
        rules = {} if rules is None else rules
        self._authorities = Authorities(mirroring, postgres, tables, telemetry=telemetry, observe=observe)
        self._dialling = Dialling(
            mirroring.agent,
            mirroring.health,
            telemetry=telemetry,
            rules=rules,
            cohorts={} if cohorts is None else cohorts,
            limits=limits or BreakerLimits(),
        )
        eventual = EventualReads(
            self._authorities,
            self._dialling,
            reader,
            tables=tables,
            telemetry=telemetry,
            rules=rules,
            clock=mirroring.agent.clock,
        )
        self.mirror_breakers = self._dialling.mirror_breakers
        """Of reads of the mirror, by table."""
        self._reads = reads = Reads(
            mirroring, self._authorities, self._dialling, eventual, tables=tables, telemetry=telemetry
        )
        batches = BatchReads(reads, self._authorities, self._dialling, agent=mirroring.agent, tables=tables)
        self.closed = False
        self._spans = telemetry.spans
        self._carry_out: dict[type[Operation], CarryOut] = {
            GetItem: reads.of_partition,
            Query: reads.of_listing,
            Scan: reads.of_listing,
            BatchGetItem: batches.carry_out,
            # The mirror may show half of a transaction for a moment (ADR 10).
            TransactGetItems: reads.of_several,
            PutItem: self._write,
            UpdateItem: self._write,
            DeleteItem: self._write,
            BatchWriteItem: self._write_many,
            TransactWriteItems: self._write_many,
        }
        if around is not None:
            self._carry_out = {kind: around(carry_out) for kind, carry_out in self._carry_out.items()}

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
        table = request.get("TableName")
        served = self._tables.get(table) if table is not None else self._first_served(operation)
        if served is None or table is None:
            arns = named_by_arn(operation.tables, self._tables, self._arn_of)
            if arns:
                response = self.execute(name, asked_by_name(operation, arns))
                return answered_by_arn(operation, response, arns)
        if served is None:
            return self._mirroring.authority.execute(operation)
        carry_out = self._carry_out[type(operation)]
        try:
            # A GetItem is one answer, which has a span of its own: one around it would cost as much again.
            if operation.__class__ is GetItem or not self._spans.on:
                return carry_out(served, operation)
            with self._spans.around(served.logical, name):
                return carry_out(served, operation)
        except OutcomeUnknown as error:
            raise client_error(name, RequestRejected("InternalServerError", str(error))) from error
        except Unavailable as error:
            raise client_error(name, RequestRejected("ServiceUnavailable", str(error))) from error

    def serves(self, tables: frozenset[str]) -> bool:
        """Whether an operation on these tables, by physical name or ARN, concerns a served one."""
        return not tables.isdisjoint(self._tables) or bool(named_by_arn(tables, self._tables, self._arn_of))

    def hold(self) -> AbstractContextManager[None]:
        """Keep dials and cohort as they are within a block; see `DualStore.hold_route`."""
        return self._dialling.hold()

    def _first_served(self, operation: Operation) -> ServedTable | None:
        return next((self._tables[name] for name in operation.tables if name in self._tables), None)

    def _write(self, table: ServedTable, operation: ConditionalWrite) -> Response:
        try:
            return self._written(table, operation)
        except Elsewhere:
            self._agent.refresh(table=table.physical)
        return self._authorities.routed(lambda: self._written(table, operation), (table.physical,))

    def _written(self, table: ServedTable, operation: ConditionalWrite) -> Response:
        """Carry out a write where the authority is, as far as this process knows."""
        with self._agent.writing(table.physical) as view:
            try:
                if view.authority is Side.POSTGRES:
                    return self._authorities.ask_postgres(table, operation, {table.physical: view})
                return self._mirroring.write(table, operation, view)
            except AuthorityMoved as error:
                raise Elsewhere from error

    def _write_many(self, table: ServedTable, operation: Operation) -> Response:  # noqa: ARG002 - of several
        names = sorted(operation.tables & self._tables.keys())

        def attempt() -> Response:
            with ExitStack() as stack:
                views = {name: stack.enter_context(self._agent.writing(name)) for name in names}
                try:
                    return by_authority(operation, views, self._write_dynamodb, self._write_postgres)
                except AuthorityMoved as error:
                    raise Elsewhere from error

        return self._authorities.routed(attempt, names)

    def _write_dynamodb(self, operation: Operation, views: Mapping[str, View]) -> Response:
        if isinstance(operation, BatchWriteItem):
            return write_batch(self._mirroring, self._tables, operation, views)
        assert isinstance(operation, TransactWriteItems)  # noqa: S101 - by the table in `__init__`
        return write_transaction(self._mirroring, self._tables, operation, views)

    def _write_postgres(self, operation: Operation, views: Mapping[str, View]) -> Response:
        return self._authorities.ask_postgres(self._tables[next(iter(views))], operation, views)
