"""The composition root: stores, replication, routing, shadow and flags of one process."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any, Self, TypeVar

import sqlalchemy
from botocore.exceptions import BotoCoreError, ClientError
from pynamodb.connection import Connection
from pynamodb.models import Model
from pynamodb.transactions import TransactGet, TransactWrite

from dualstore import schema
from dualstore.bind import bind_model, unbind_table
from dualstore.client import RoutedClient, route_resource
from dualstore.config import load
from dualstore.control import ControlRecord, Stop
from dualstore.errors import ConfigurationError, DualStoreError, Unavailable
from dualstore.flags import FlagSource, flags_of
from dualstore.mapping import Entity, shape_of_model
from dualstore.operations import Operation, Response
from dualstore.replication.failover import Foreseen, SignsOfLife, fail_over, foresee, look_for_life
from dualstore.replication.first_record import bring_decisions_over
from dualstore.replication.relay import Relay
from dualstore.replication.sender import Sender
from dualstore.replication.served import ServedTable
from dualstore.replication.stopping import Stopping, release_reads, stop_reads
from dualstore.repository import Repository, routed_transaction
from dualstore.router import Router
from dualstore.routing import CohortOf, cohort
from dualstore.routing.arns import OwnArns
from dualstore.shadow import Normaliser
from dualstore.stages import Side, Stage
from dualstore.store.comparing import ComparedReads, TableRules, shadow_of
from dualstore.store.configured import configured_tables
from dualstore.store.connecting import Connections, connect
from dualstore.store.evidence import Evidence, Fleet
from dualstore.store.maintenance import Maintenance
from dualstore.store.observing import read_guard_of, recorder_of
from dualstore.store.options import Options, options_of
from dualstore.store.places import Places, places_of
from dualstore.store.preparing import create_bookkeeping_table, install_triggers
from dualstore.store.relaying import Relaying, relay_of, relaying_of, sender_of
from dualstore.store.replicating import replication_of
from dualstore.store.reporting import Reporting
from dualstore.store.served_tables import ServedTables
from dualstore.store.table import MigratedTable
from dualstore.store.upkeep import upkeep_of
from dualstore.stores.base import Store
from dualstore.stores.discrepancies import PostgresDiscrepancies
from dualstore.stores.dynamo import DynamoClients
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.source_clients import SourceClients
from dualstore.telemetry import FlagUnusable, Telemetry, export

M = TypeVar("M", bound=Model)


class DualStore:
    """One application process's way to both databases.

    Nothing is opened before the first table is bound or named; `close`, or leaving the `with` block, ends
    it cleanly: a process that ends without it makes its tables suspect until a verification.

    Args:
        engine: PostgreSQL, with the psycopg driver; its pool is used.
        dynamodb: DynamoDB's clients, from `stores.dynamo_clients`.
        flags: where stage and dials are asked for.
        options: what may be tuned.
        telemetry: counts what happens; a new one where none is given.
        reader_engine: PostgreSQL's read replicas, which then answer eventually consistent reads where
            PostgreSQL is the authority.
    """

    def __init__(
        self,
        *,
        engine: sqlalchemy.Engine,
        dynamodb: DynamoClients,
        flags: FlagSource,
        options: Options | None = None,
        telemetry: Telemetry | None = None,
        reader_engine: sqlalchemy.Engine | None = None,
    ) -> None:
        self.engine = engine
        self.flags = flags
        self.options = options or Options()
        self.telemetry = telemetry or Telemetry(span_percent=self.options.telemetry.span_percent)
        self._clients = dynamodb
        self._connections: Connections | None = None
        self._replication = replication_of(
            engine, dynamodb, flags, options=self.options, telemetry=self.telemetry
        )
        self._catalog = self._replication.catalog
        self._agent = self._replication.agent
        self._mirroring = self._replication.mirroring
        self._postgres = self._replication.postgres
        tables = self._catalog.tables
        self._maintenance = Maintenance(
            tables.values,
            self._replication.health,
            self.telemetry,
            upkeep=upkeep_of(self._replication),
            pause=self.options.repair_pause,
        )
        self._reporting = Reporting(engine, self.telemetry, tables.values, self.options.telemetry)
        shadow = self.options.shadow
        discrepancies = PostgresDiscrepancies(
            engine, plain_keys=shadow.plain_keys, rows_per_table=shadow.discrepancies_per_table
        )
        self._rules = TableRules(self.options.comparisons, tables)
        self._shadow = shadow_of(
            shadow,
            reads=ComparedReads(self._mirroring, self._postgres),
            served=self._catalog.served,
            rules=self._rules,
            telemetry=self.telemetry,
            sink=discrepancies,
        )
        self._cohorts: dict[str, CohortOf] = {}
        self._recorder = recorder_of(self._replication)
        self._router = Router(
            self._mirroring,
            self._postgres,
            self._catalog.served,
            telemetry=self.telemetry,
            observe=self._observe,
            reader=None if reader_engine is None else self._reader(reader_engine),
            rules=self.options.reads,
            cohorts=self._cohorts,
            limits=self.options.breaker,
            arn_of=OwnArns(self._replication.bookkeeping.arn),
            around=None if self._recorder is None else self._recorder.around,
        )
        self._read_guard = read_guard_of(self._replication, self._router)
        self._tables = ServedTables(
            self._replication,
            router=self._router,
            discrepancies=discrepancies,
            on_first=self._start,
        )

    @classmethod
    def from_config(
        cls,
        path: str | Path | None = None,
        *,
        registers: bool = True,
        around_flags: Callable[[FlagSource], FlagSource] = lambda flags: flags,
    ) -> Self:
        """Make a store as `dualstore.toml` and the environment say; see `config.load`.

        Args:
            path: the file.
            registers: see `Options`.
            around_flags: gives what is asked instead of the configured source of flags, around it.

        Raises:
            ConfigurationError: the configuration is wrong; the message names the place and the fix.
        """
        configuration = load(path)
        connections = connect(configuration)
        telemetry = Telemetry(span_percent=configuration.telemetry.span_percent)
        store = cls(
            engine=connections.postgres,
            dynamodb=connections.dynamodb,
            flags=around_flags(
                flags_of(
                    configuration,
                    on_problem=lambda p: telemetry.record(FlagUnusable(p.table or "*", p.flag, p.kind)),
                    listen=telemetry.listen,
                )
            ),
            options=replace(options_of(configuration), registers=registers),
            telemetry=telemetry,
            reader_engine=connections.readers,
        )
        store._connections = connections
        store._tables.configured = configured_tables(configuration.tables)
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish, and take this process out of the register.

        A bound table that is not at stage `off` stays bound, and its writes are refused from now on: a thread
        that still works must not go to DynamoDB alone. `unbind` sets it free.
        """
        self._router.closed = True
        self._shadow.close()
        if self._recorder is not None:
            self._recorder.close()
        self._replication.deferred.close()
        self._maintenance.close()
        if self._read_guard is not None:
            self._read_guard.close()
        self._reporting.close()
        self._agent.close(finish=self._recorded_all)
        for physical in self._catalog.served:
            if self._agent.view(physical).record.stage is Stage.OFF:
                unbind_table(physical, self._tables.routes_of(physical))
        self.flags.close()
        if self._connections is not None:
            self._connections.close()

    def _recorded_all(self) -> bool:
        for served in self._catalog.served.values():
            with suppress(ClientError, BotoCoreError, DualStoreError):
                self._mirroring.record_again(served)
        return not self._mirroring.unrecorded

    def prepare(self) -> None:
        """Create the bookkeeping table in DynamoDB, and upgrade the `dualstore` schema in PostgreSQL.

        The SQL tables that are bound or configured, and are there, get their triggers. All of it is harmless
        where it is there already. A service whose role may not do this leaves it to `schema upgrade`.
        """
        create_bookkeeping_table(self._clients.reads, self.options.bookkeeping_table)
        schema.upgrade(self.engine)
        # A bookkeeping table that was made anew must not let anybody begin at `off`.
        bring_decisions_over(self._agent.homes)
        self.tables()
        install_triggers(self.engine, self._catalog.mappings.values())

    def bind(
        self,
        model: type[Model],
        row: type[Any] | None = None,
        *,
        where: Entity | None = None,
        name: str | None = None,
        normalise: Normaliser | None = None,
        cohort: CohortOf | None = None,
    ) -> None:
        """Route everything that PynamoDB does on the model's table; the application's code stays.

        Args:
            model: the PynamoDB model.
            row: the SQLAlchemy model; None keeps the items in a table of key columns and overflow.
            where: which items of the table are the model's, where several models have SQL tables of their own
                behind one DynamoDB table: all of them are bound before its first operation. Models of a
                hierarchy with a `DiscriminatorAttribute` need none.
            name: the table's logical name, in flags and metrics; None takes the table's own.
            normalise: gives back an item as it is to be compared with the other side's; for what may differ.
            cohort: tells the cohort of a partition key's value (a string, a number's text, or bytes), for the
                lists of `[tables.<name>.cohorts]`; None: it is in none.

        Raises:
            MappingError: the SQL model cannot hold the table's items; the message says which column.
            ConfigurationError: the model reaches another DynamoDB than this store, or is bound elsewhere.
        """
        self._bind(model, row, name, where)
        if normalise is not None:
            self._rules.normalise(self._tables.logical_of(model), normalise)
        if cohort is not None:
            self._cohorts[self._tables.logical_of(model)] = cohort

    def unbind(self, model: type[Model]) -> None:
        """Let PynamoDB go to DynamoDB itself again: from here on its writes are not mirrored."""
        physical = shape_of_model(model).name
        unbind_table(physical, self._tables.routes_of(physical))

    @contextmanager
    def bound(
        self,
        model: type[Model],
        row: type[Any] | None = None,
        *,
        where: Entity | None = None,
        name: str | None = None,
    ) -> Iterator[None]:
        """Bind within a block; a model that was bound before stays so."""
        newly = self._bind(model, row, name, where)
        try:
            yield
        finally:
            if newly:
                self.unbind(model)

    def repository(
        self,
        model: type[M],
        row: type[Any] | None = None,
        *,
        where: Entity | None = None,
        name: str | None = None,
        cohort: CohortOf | None = None,
    ) -> Repository[M]:
        """Typed, routed data access on a model that itself stays unbound; arguments as for `bind`."""
        routes = self._tables.add(model, row, name=name, where=where)
        if cohort is not None:
            self._cohorts[self._tables.logical_of(model)] = cohort
        return Repository(model, row, routes=routes, tables=frozenset((shape_of_model(model).name,)))

    def transact_write(self, **options: Any) -> AbstractContextManager[TransactWrite]:
        """A routed PynamoDB `TransactWrite`; options are its own."""
        self._tables.serve_gathered()
        transaction = TransactWrite(connection=self._pynamodb_connection(), **options)
        return routed_transaction(transaction, routes=self._router, tables=frozenset(self._catalog.served))

    def transact_get(self, **options: Any) -> AbstractContextManager[TransactGet]:
        """A routed PynamoDB `TransactGet`; options are its own."""
        self._tables.serve_gathered()
        transaction = TransactGet(connection=self._pynamodb_connection(), **options)
        return routed_transaction(transaction, routes=self._router, tables=frozenset(self._catalog.served))

    def cohort(self, name: str) -> AbstractContextManager[None]:
        """Make what is read within a block part of a cohort, whatever its keys' own cohorts are.

        For the lists of `[tables.<name>.cohorts]`. The cohort follows the context, not the process: a thread
        that is started inside knows of it where it runs in `contextvars.copy_context()`.

        Args:
            name: as the lists have it.
        """
        return cohort(name)

    def hold_route(self) -> AbstractContextManager[None]:
        """Keep the read dials, and the cohort, of this moment for what is read within a block.

        So one request does not see a dial move under it: enter its cohort first, and then this. Nothing else
        is held: a shut gate, a lapsed grant, a doubtful key, `dualstore stop` and a move of the authority
        work at once, and writes go by the dials of the moment.
        """
        return self._router.hold()

    def refresh(self) -> None:
        """Read the control records now; what a process does that is frozen between two calls."""
        self._agent.refresh()

    def relay(self) -> Relay:
        """What follows the streams of these tables; `relaying` runs it, `aws_lambda` hands it records."""
        return relay_of(self._replication)

    def sender(self) -> Sender:
        """What hands on to DynamoDB what was changed in PostgreSQL, the authority; `relaying` runs it."""
        return sender_of(self._replication)

    def relaying(self) -> Relaying:
        """Everything that a relay process does for this store's tables."""
        return relaying_of(self._replication, relay=self.relay(), sender=self.sender())

    def evidence(self, name: str, *, since: datetime | None = None) -> Evidence:
        """What all processes have seen of a table: how often its sides differ, and how fast each answers.

        Args:
            name: the table's logical name.
            since: from when on; None: since its stage or dials last changed.

        Raises:
            ConfigurationError: there is no table of that name.
            Unavailable: PostgreSQL, where processes report, does not answer.
        """
        return self._reporting.evidence(name, self.table(name).view.record, since=since)

    def fleet(self, name: str) -> Fleet:
        """What all processes did with a table in the last minute; arguments and errors as for `evidence`."""
        return self._reporting.fleet(self.table(name))

    def report(self) -> None:
        """Hand in what this process counted, now; what a process does that is frozen between two calls."""
        self._reporting.flush()

    def source_clients(self) -> SourceClients:
        """Clients to read a table's history with; a context manager that closes them."""
        return SourceClients.like(self._clients.reads)

    def client(self) -> RoutedClient:
        """A boto3-client-shaped object that is routed where it touches a served table."""
        self._tables.serve_gathered()
        return RoutedClient(self._clients.reads, self._router)

    def resource(self) -> Any:
        """A boto3 resource, as `boto3.resource("dynamodb")` gives it, routed where it touches a served table.

        Its `Table(name)` takes and gives Python's types, by boto3's own code. Like every boto3 resource it is
        for one thread.

        Raises:
            ConfigurationError: the DynamoDB clients were not made by `dynamo_clients`.
        """
        self._tables.serve_gathered()
        make = self._clients.make_resource
        if make is None:
            raise ConfigurationError(
                "these DynamoDB clients make no resource; make them with dualstore.stores.dynamo_clients"
            )
        return route_resource(make(), self._router)

    def side(self, side: Side) -> Store:
        """One database alone, whatever stage and dials say; to read: a write would go around the other."""
        return self._postgres if side is Side.POSTGRES else self._mirroring.authority

    def table(self, name: str) -> MigratedTable:
        """A table by its logical name: one that is bound, or that the configuration names.

        Raises:
            ConfigurationError: there is none of that name.
        """
        return self._tables.table(name)

    def stop(self, name: str, *, by: str, reason: str = "") -> Stopping:
        """As `MigratedTable.stop`, for a table that need not be served; from `live` on by PostgreSQL alone.

        Raises:
            ConfigurationError: there is no table of that name.
            Unavailable: neither database took it.
        """
        return stop_reads(self._agent.homes, self._tables.physical_of(name), Stop(by, time.time(), reason))

    def resume(self, name: str) -> ControlRecord:
        """As `MigratedTable.resume`, for a table that need not be served.

        Raises:
            ConfigurationError: there is no table of that name.
            Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: PostgreSQL, or
                the database that decides, does not answer; reads stay stopped.
        """
        return release_reads(self._agent.homes, self._tables.physical_of(name))

    def foresee_failover(self, name: str) -> Foreseen:
        """What a failover of a table would find; DynamoDB alone is asked.

        Raises:
            ConfigurationError: there is no table of that name.
            IllegalTransition: there is nothing to fail over, or DynamoDB cannot stand in.
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: DynamoDB does
                not answer.
        """
        return foresee(self._agent.homes, self._replication.notes, self._tables.physical_of(name))

    def signs_of_life(self, name: str) -> SignsOfLife:
        """Who reaches PostgreSQL; takes half a write grant (5 s). Errors as for `foresee_failover`."""
        period = self.options.grants.write / 2
        return look_for_life(
            self._agent.homes, self._replication.notes, self._tables.physical_of(name), period=period
        )

    def fail_over(self, foreseen: Foreseen, *, by: str, reason: str = "") -> ControlRecord:
        """Make DynamoDB the authority of a table without PostgreSQL; takes a write grant (10 s) and 1 s.

        What had not reached DynamoDB is lost until `MigratedTable.reconcile`. Whether PostgreSQL is gone is
        not asked here (`signs_of_life`); where it answers all the same, it is told. Harmless where the table
        has been failed over already.

        Args:
            foreseen: from `foresee_failover`, just now.
            by: who decides it, for those who find it so.
            reason: why, in a few words; no item's value.

        Returns:
            The record that decides; `confirmed` tells who has taken it.

        Raises:
            IllegalTransition: somebody who reaches PostgreSQL has changed the record meanwhile.
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: DynamoDB does not
                answer; try again.
        """
        grant = self.options.grants.write
        decisions, fence = self._replication.decisions, self._replication.fence
        record = fail_over(decisions, foreseen, by=by, reason=reason, at=time.time(), write_grant=grant)
        with suppress(Unavailable):
            fence.overrule(record)
        return record

    def confirmed(self, record: ControlRecord) -> Mapping[str, bool]:
        """The live processes that serve a record's table, and whether each has taken what it says.

        Raises:
            Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: the database that
                decides does not answer.
        """
        return {
            f"{entry.label}:{entry.id[:8]}": entry.confirmed[record.table] >= record.generation
            for entry in self._agent.homes[record.authority].processes()
            if record.table in entry.confirmed
        }

    def places(self, name: str) -> Places:
        """Where a table is, by its logical name: in which account, and on which server.

        Raises:
            ConfigurationError: there is no table of that name.
        """
        return places_of(self.engine, self._clients.reads, self._tables.physical_of(name))

    def names(self) -> Mapping[str, str]:
        """Every table that is bound or configured, logical name to physical; no database is asked."""
        return self._tables.names()

    def control_records(self) -> Mapping[Side, Mapping[str, ControlRecord] | DualStoreError]:
        """What each database keeps of all tables, by physical name, or that it does not answer."""
        found: dict[Side, Mapping[str, ControlRecord] | DualStoreError] = {}
        for side, home in self._agent.homes.items():
            try:
                found[side] = home.read_all()
            except DualStoreError as error:
                found[side] = error
            except (ClientError, BotoCoreError) as error:
                found[side] = Unavailable(type(error).__name__)
        return found

    def tables(self) -> list[MigratedTable]:
        """Every table that is bound or that the configuration names."""
        return self._tables.all()

    def _bind(
        self, model: type[Model], row: type[Any] | None, name: str | None, where: Entity | None
    ) -> bool:
        return bind_model(model, self._tables.add(model, row, name=name, where=where))

    def _start(self) -> None:
        """Begin what goes on in the background, now that a table is served."""
        export(self.telemetry)
        self._agent.start()
        if self._recorder is not None:
            self._recorder.start()
        if self.options.registers:
            self._maintenance.start()
            if self._read_guard is not None:
                self._read_guard.start()
            self._reporting.start()

    def _observe(
        self, table: ServedTable, operation: Operation, side: Side, answer: Response | ClientError
    ) -> None:
        """Hand the dialled share of reads to the shadow, once there is something to compare with."""
        percent = self._agent.view(table.physical).compared_percent
        self._shadow.observe(table, operation, side, answer, percent=percent)

    def _reader(self, engine: sqlalchemy.Engine) -> PostgresStore:
        return PostgresStore(engine, self._catalog.mappings, statement_timeout=self.options.statement_timeout)

    def _pynamodb_connection(self) -> Connection:
        meta = self._clients.reads.meta
        return Connection(region=meta.region_name, host=meta.endpoint_url)
