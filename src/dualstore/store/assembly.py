"""The composition root: stores, replication, routing, shadow and flags of one process."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
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
from dualstore.config import PostgresSettings, import_object, load
from dualstore.control import ControlRecord, Stop
from dualstore.errors import ConfigurationError, DualStoreError, Unavailable
from dualstore.flags import FlagSource, flags_of
from dualstore.mapping import Entity, Mapped, SplitMapping, map_table, shape_of_model, unmapped_table
from dualstore.mapping.expiry import ttl_attribute_of_model
from dualstore.operations import Operation, Response
from dualstore.recording import Recorder
from dualstore.replication.agent import Agent
from dualstore.replication.carrier import Carrier
from dualstore.replication.control import BOOKKEEPING_TABLE, DynamoControl
from dualstore.replication.deferred import Deferred
from dualstore.replication.expiry import Expiry, ttl_attribute
from dualstore.replication.failover import Foreseen, SignsOfLife, fail_over, foresee, look_for_life
from dualstore.replication.failover_notes import FailoverNotes
from dualstore.replication.first_record import bring_decisions_over
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.relay import Relay, RelayTimes
from dualstore.replication.search import Homes  # noqa: TC001 - one import, not worth a block
from dualstore.replication.sender import Sender, SenderOptions
from dualstore.replication.served import ServedTable
from dualstore.replication.stopping import Stopping, marks_of, release_reads, stop_reads
from dualstore.repository import Repository, routed_transaction
from dualstore.router import Router
from dualstore.routing import CohortOf, cohort
from dualstore.routing.arns import OwnArns
from dualstore.routing.guard import Guard, GuardLimits
from dualstore.shadow import Normaliser
from dualstore.stages import Side, Stage
from dualstore.store.comparing import ComparedReads, TableRules, shadow_of
from dualstore.store.entities import ConfiguredEntities, Gathering, configured_entities, may_be_an_entity
from dualstore.store.evidence import Evidence, Fleet
from dualstore.store.guarding import BackfillGuard, free_storage, table_bytes
from dualstore.store.maintenance import Maintenance
from dualstore.store.options import Options, options_of
from dualstore.store.passage import TablePassage
from dualstore.store.places import Places, places_of
from dualstore.store.relaying import MirroredOut, Relaying
from dualstore.store.reporting import Reporting
from dualstore.store.table import MigratedTable
from dualstore.stores.base import Store
from dualstore.stores.discrepancies import PostgresDiscrepancies
from dualstore.stores.dynamo import DynamoClients, DynamoStore, dynamo_clients
from dualstore.stores.dynamo_description import describe, described_ttl_attribute
from dualstore.stores.dynamo_sending import watch
from dualstore.stores.dynamo_streams import DynamoStreams
from dualstore.stores.iam_auth import authenticate
from dualstore.stores.outbox import OutboxDepth
from dualstore.stores.postgres import PostgresStore, triggers
from dualstore.stores.postgres.deadlines import Deadline
from dualstore.stores.postgres.layouts import record_layout
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_expiry import PostgresExpiry
from dualstore.stores.postgres_outbox import PostgresOutbox
from dualstore.stores.postgres_streams import PostgresCheckpoints
from dualstore.stores.postgres_upkeep import PostgresUpkeep
from dualstore.stores.quarantine import seal_of
from dualstore.stores.source_clients import SourceClients
from dualstore.telemetry import FlagUnusable, ItemUnmapped, RequestRefused, Telemetry, export

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
        self._started = False
        self._owned: list[Any] = []
        self._configured: Mapping[str, tuple[type[Model] | None, type[Any] | None, str | None]] = {}
        self._mappings: dict[str, Mapped] = {}
        self._gatherings: dict[str, Gathering] = {}
        self._configured_entities: Mapping[str, ConfiguredEntities] = {}
        self._served: dict[str, ServedTable] = {}
        self._tables: dict[str, MigratedTable] = {}
        # Bookkeeping is idempotent or conditional: botocore may repeat it.
        bookkeeping = DynamoStore(reads=dynamodb.reads, writes=dynamodb.reads)
        table = self.options.bookkeeping_table
        self._fence = PostgresControl(engine)
        self._decisions = DynamoControl(bookkeeping, table)
        homes: Homes = {Side.DYNAMODB: self._decisions, Side.POSTGRES: self._fence}
        # A look that must end soon: each request once.
        once = DynamoStore(reads=dynamodb.writes, writes=dynamodb.writes)
        self._notes = FailoverNotes(once, table)
        self._agent = Agent(
            homes,
            flags,
            watched=DynamoControl(once, table),
            notes=self._notes,
            times=self.options.grants,
            registers=self.options.registers,
            refused=lambda table, reason: self.telemetry.record(RequestRefused(table, reason)),
        )
        self._postgres = PostgresStore(
            engine,
            self._mappings,
            statement_timeout=self.options.statement_timeout,
            unmapped=lambda table: self.telemetry.record(ItemUnmapped(self._served[table].logical)),
        )
        self._checkpoints = PostgresCheckpoints(engine)
        self._health = MirrorHealth(partial(self._postgres.dirty_keys, "", limit=1))
        watch(dynamodb.writes)
        self._mirroring = Mirroring(
            DynamoStore(reads=dynamodb.reads, writes=dynamodb.writes),
            self._postgres,
            self._agent,
            Journal(bookkeeping, table),
            self._health,
            PostgresOutbox(engine, self._mappings),
            telemetry=self.telemetry,
            times=self.options.replication,
            limited=Deadline,
        )
        self._deferred = Deferred(self._mirroring.settle, self._agent.unfinished)
        self._mirroring.deferred = self._deferred
        self._maintenance = Maintenance(
            self._tables.values,
            self._health,
            self.telemetry,
            upkeep=self._upkeep(),
            pause=self.options.repair_pause,
        )
        self._reporting = Reporting(engine, self.telemetry, self._tables.values, self.options.telemetry)
        shadow = self.options.shadow
        self._seal = seal_of(self.options.quarantine, self.options.quarantine_key)
        self._discrepancies = PostgresDiscrepancies(
            engine, plain_keys=shadow.plain_keys, rows_per_table=shadow.discrepancies_per_table
        )
        self._rules = TableRules(self.options.comparisons, self._tables)
        self._shadow = shadow_of(
            shadow,
            reads=ComparedReads(self._mirroring, self._postgres),
            served=self._served,
            rules=self._rules,
            telemetry=self.telemetry,
            sink=self._discrepancies,
        )
        self._cohorts: dict[str, CohortOf] = {}
        self._recorder = self._recording()
        self._router = Router(
            self._mirroring,
            self._postgres,
            self._served,
            telemetry=self.telemetry,
            observe=self._observe,
            reader=None if reader_engine is None else self._reader(reader_engine),
            rules=self.options.reads,
            cohorts=self._cohorts,
            limits=self.options.breaker,
            arn_of=OwnArns(bookkeeping.arn),
            around=None if self._recorder is None else self._recorder.around,
        )
        self._read_guard = None if self.options.guard is None else self._guarding(self.options.guard)

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
        settings = configuration.postgres
        dynamo = configuration.dynamodb
        engine = _engine(settings, settings.sqlalchemy_url, region=dynamo.region)
        reader_url = settings.sqlalchemy_reader_url
        reader_engine = None if reader_url is None else _engine(settings, reader_url, region=dynamo.region)
        clients = dynamo_clients(
            endpoint_url=dynamo.endpoint_url,
            region=dynamo.region,
            connect_timeout=timedelta(seconds=dynamo.connect_timeout_seconds),
            read_timeout=timedelta(seconds=dynamo.read_timeout_seconds),
            max_pool_connections=dynamo.max_pool_connections,
        )
        telemetry = Telemetry(span_percent=configuration.telemetry.span_percent)
        store = cls(
            engine=engine,
            dynamodb=clients,
            flags=around_flags(
                flags_of(
                    configuration,
                    on_problem=lambda p: telemetry.record(FlagUnusable(p.table or "*", p.flag, p.kind)),
                    listen=telemetry.listen,
                )
            ),
            options=replace(options_of(configuration), registers=registers),
            telemetry=telemetry,
            reader_engine=reader_engine,
        )
        store._owned = [clients, engine, *([] if reader_engine is None else [reader_engine])]
        store._configured = {
            name: (
                import_object(table.model, setting=f"tables.{name}.model") if table.model else None,
                import_object(table.row, setting=f"tables.{name}.row") if table.row else None,
                table.physical_name,
            )
            for name, table in configuration.tables.items()
        }
        store._configured_entities = configured_entities(configuration.tables)
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
        self._deferred.close()
        self._maintenance.close()
        if self._read_guard is not None:
            self._read_guard.close()
        self._reporting.close()
        self._agent.close(finish=self._recorded_all)
        for physical in self._served:
            if self._agent.view(physical).record.stage is Stage.OFF:
                unbind_table(physical, self._routes_of(physical))
        self.flags.close()
        for owned in self._owned:
            (owned.dispose if isinstance(owned, sqlalchemy.Engine) else partial(owned.__exit__))()

    def _recorded_all(self) -> bool:
        for served in self._served.values():
            with suppress(ClientError, BotoCoreError, DualStoreError):
                self._mirroring.record_again(served)
        return not self._mirroring.unrecorded

    def prepare(self) -> None:
        """Create the bookkeeping table in DynamoDB, and upgrade the `dualstore` schema in PostgreSQL.

        The SQL tables that are bound or configured, and are there, get their triggers. All of it is harmless
        where it is there already. A service whose role may not do this leaves it to `schema upgrade`.
        """
        client = self._clients.reads
        name = self.options.bookkeeping_table
        try:
            client.create_table(TableName=name, **BOOKKEEPING_TABLE)
        except ClientError as error:
            if error.response["Error"]["Code"] != "ResourceInUseException":
                raise
        client.get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 60})
        schema.upgrade(self.engine)
        # A bookkeeping table that was made anew must not let anybody begin at `off`.
        bring_decisions_over(self._agent.homes)
        self.tables()
        present = sqlalchemy.inspect(self.engine)
        for mapping in self._mappings.values():
            here = [present.has_table(part.table.name, schema=part.table.schema) for part in mapping.parts]
            if isinstance(mapping, SplitMapping) and all(here[:-1]):
                schema.create_rest(self.engine, mapping)
                record_layout(self.engine, mapping)
                triggers.install(self.engine, mapping)
            elif all(here):
                triggers.install(self.engine, mapping)

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
            self._rules.normalise(self._logical_of(model), normalise)
        if cohort is not None:
            self._cohorts[self._logical_of(model)] = cohort

    def unbind(self, model: type[Model]) -> None:
        """Let PynamoDB go to DynamoDB itself again: from here on its writes are not mirrored."""
        physical = shape_of_model(model).name
        unbind_table(physical, self._routes_of(physical))

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
        self._gather_or_serve(model, row, name, where)
        if cohort is not None:
            self._cohorts[self._logical_of(model)] = cohort
        physical = shape_of_model(model).name
        return Repository(model, row, routes=self._routes_of(physical), tables=frozenset((physical,)))

    def transact_write(self, **options: Any) -> AbstractContextManager[TransactWrite]:
        """A routed PynamoDB `TransactWrite`; options are its own."""
        self._serve_gathered()
        transaction = TransactWrite(connection=self._pynamodb_connection(), **options)
        return routed_transaction(transaction, routes=self._router, tables=frozenset(self._served))

    def transact_get(self, **options: Any) -> AbstractContextManager[TransactGet]:
        """A routed PynamoDB `TransactGet`; options are its own."""
        self._serve_gathered()
        transaction = TransactGet(connection=self._pynamodb_connection(), **options)
        return routed_transaction(transaction, routes=self._router, tables=frozenset(self._served))

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
        return Relay(
            streams=DynamoStreams(self._clients),
            checkpoints=self._checkpoints,
            tables=self._served.values,
            carrier=Carrier(
                dynamodb=self._mirroring.authority,
                postgres=self._postgres,
                outbox=self._mirroring.outbox,
                view=self._agent.view,
                suspect=lambda name, suspect: self._tables[name].suspect(suspect),
                telemetry=self.telemetry,
            ),
            clear_suspects=lambda name, suspects: self._tables[name].clear(suspects),
            telemetry=self.telemetry,
            write_grant=self.options.grants.write,
            times=RelayTimes(lease=self.options.relay_lease),
        )

    def sender(self) -> Sender:
        """What hands on to DynamoDB what was changed in PostgreSQL, the authority; `relaying` runs it."""
        return Sender(
            self._mirroring.outbox,
            self._postgres,
            self._mirroring.authority,
            MirroredOut(self._served, self._agent),
            epoch_of=lambda table: self._agent.view(table).record.epoch,
            granted=self._agent.is_granted,
            noted=self._note_depth,
            telemetry=self.telemetry,
            options=SenderOptions(lease=self.options.relay_lease),
        )

    def _note_depth(self, table: str, at: float, depth: OutboxDepth) -> None:
        epoch = self._agent.view(table).record.epoch
        self._notes.note_depth(table, epoch=epoch, at=at, depth=depth)

    def relaying(self) -> Relaying:
        """Everything that a relay process does for this store's tables."""
        expiry = Expiry(
            PostgresExpiry(self.engine, self._mappings), self._mirroring.authority, self._mirroring.settle
        )
        return Relaying(
            relay=self.relay(),
            sender=self.sender(),
            expiry=expiry,
            upkeep=self._upkeep(),
            tables=lambda: list(self._tables.values()),
        )

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

    def _upkeep(self) -> PostgresUpkeep:
        retention = timedelta(days=self.options.shadow.retention_days)
        return PostgresUpkeep(self.engine, discrepancy_retention=retention)

    def source_clients(self) -> SourceClients:
        """Clients to read a table's history with; a context manager that closes them."""
        return SourceClients.like(self._clients.reads)

    def client(self) -> RoutedClient:
        """A boto3-client-shaped object that is routed where it touches a served table."""
        self._serve_gathered()
        return RoutedClient(self._clients.reads, self._router)

    def resource(self) -> Any:
        """A boto3 resource, as `boto3.resource("dynamodb")` gives it, routed where it touches a served table.

        Its `Table(name)` takes and gives Python's types, by boto3's own code. Like every boto3 resource it is
        for one thread.

        Raises:
            ConfigurationError: the DynamoDB clients were not made by `dynamo_clients`.
        """
        self._serve_gathered()
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
        self._serve_gathered()
        for table in self._tables.values():
            if table.served.logical == name:
                return table
        self._require_configured(name)
        if entities := self._configured_entities.get(name):
            for each in entities:
                self._gather(each.model, each.row, name, each.where)
            return self.table(name)
        model, row, physical = self._configured[name]
        if model is not None:
            return self._serve_model(model, row, name, physical=physical)
        shape = DynamoStore(reads=self._clients.reads, writes=self._clients.writes).describe(physical or name)
        return self._serve(ServedTable(name, shape), unmapped_table(name, shape))

    def stop(self, name: str, *, by: str, reason: str = "") -> Stopping:
        """As `MigratedTable.stop`, for a table that need not be served; from `live` on by PostgreSQL alone.

        Raises:
            ConfigurationError: there is no table of that name.
            Unavailable: neither database took it.
        """
        return stop_reads(self._agent.homes, self._physical(name), Stop(by, time.time(), reason))

    def resume(self, name: str) -> ControlRecord:
        """As `MigratedTable.resume`, for a table that need not be served.

        Raises:
            ConfigurationError: there is no table of that name.
            Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: PostgreSQL, or
                the database that decides, does not answer; reads stay stopped.
        """
        return release_reads(self._agent.homes, self._physical(name))

    def foresee_failover(self, name: str) -> Foreseen:
        """What a failover of a table would find; DynamoDB alone is asked.

        Raises:
            ConfigurationError: there is no table of that name.
            IllegalTransition: there is nothing to fail over, or DynamoDB cannot stand in.
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: DynamoDB does
                not answer.
        """
        return foresee(self._agent.homes, self._notes, self._physical(name))

    def signs_of_life(self, name: str) -> SignsOfLife:
        """Who reaches PostgreSQL; takes half a write grant (5 s). Errors as for `foresee_failover`."""
        period = self.options.grants.write / 2
        return look_for_life(self._agent.homes, self._notes, self._physical(name), period=period)

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
        record = fail_over(self._decisions, foreseen, by=by, reason=reason, at=time.time(), write_grant=grant)
        with suppress(Unavailable):
            self._fence.overrule(record)
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

    def _physical(self, name: str) -> str:
        """A table's physical name, for which no database is asked."""
        for table in self._tables.values():
            if table.served.logical == name:
                return table.physical
        self._require_configured(name)
        model, _, physical = self._configured[name]
        if entities := self._configured_entities.get(name):
            model = entities[0].model
        return physical or (name if model is None else shape_of_model(model).name)

    def places(self, name: str) -> Places:
        """Where a table is, by its logical name: in which account, and on which server.

        Raises:
            ConfigurationError: there is no table of that name.
        """
        return places_of(self.engine, self._clients.reads, self._physical(name))

    def names(self) -> Mapping[str, str]:
        """Every table that is bound or configured, logical name to physical; no database is asked."""
        known = {table.served.logical for table in self._tables.values()} | self._configured.keys()
        return {name: self._physical(name) for name in sorted(known)}

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
        self._serve_gathered()
        for name in self._configured:
            self.table(name)
        return list(self._tables.values())

    def _require_configured(self, name: str) -> None:
        if name not in self._configured:
            known = sorted(self._configured.keys() | {t.served.logical for t in self._tables.values()})
            raise ConfigurationError(
                f"no table is called {name}; known: {', '.join(known) or 'none'}. Bind its model, or add a "
                f"section [tables.{name}] to dualstore.toml"
            )

    def _bind(
        self, model: type[Model], row: type[Any] | None, name: str | None, where: Entity | None
    ) -> bool:
        self._gather_or_serve(model, row, name, where)
        return bind_model(model, self._routes_of(shape_of_model(model).name))

    def _gather_or_serve(
        self, model: type[Model], row: type[Any] | None, name: str | None, where: Entity | None
    ) -> None:
        """Serve a model's table at once, or, where it may have several entities, once all are known."""
        physical = shape_of_model(model).name
        logical = self._logical_name(model, name)
        for entity in self._configured_entities.get(logical, ()):
            self._gather(entity.model, entity.row, logical, entity.where)
        gathered = physical in self._gatherings or where is not None
        if gathered or (physical not in self._tables and may_be_an_entity(model, row)):
            self._gather(model, row, logical, where)
        else:
            self._serve_model(model, row, name)

    def _gather(self, model: type[Model], row: type[Any] | None, logical: str, where: Entity | None) -> None:
        physical = shape_of_model(model).name
        gathering = self._gatherings.get(physical)
        if gathering is None:
            self._require_same_dynamodb(model)
            if physical in self._tables:
                raise ConfigurationError(
                    f"table {physical} is already mirrored in one SQL table, so {model.__name__} cannot have "
                    "another: bind every entity of the table with `where`"
                )
            gathering = Gathering(logical, physical, self._router, self._serve_entities)
        gathering.add(model, row, where, logical)
        self._gatherings[physical] = gathering

    def _serve_gathered(self) -> None:
        """Serve the tables whose entities have been bound: what follows speaks of tables."""
        for gathering in list(self._gatherings.values()):
            gathering.seal()

    def _serve_entities(self, gathering: Gathering) -> None:
        mapping = gathering.mapping()
        self._serve(ServedTable(gathering.logical, mapping.shape), mapping, gathering.model)

    def _routes_of(self, physical: str) -> Router | Gathering:
        return self._gatherings.get(physical, self._router)

    def _logical_name(self, model: type[Model], name: str | None) -> str:
        configured = (
            *((known, other) for known, (other, _, _) in self._configured.items()),
            *((known, each.model) for known, some in self._configured_entities.items() for each in some),
        )
        found = next((known for known, other in configured if other is model), shape_of_model(model).name)
        return name or found

    def _logical_of(self, model: type[Model]) -> str:
        """The logical name of a table that is served or gathered."""
        physical = shape_of_model(model).name
        gathering = self._gatherings.get(physical)
        return self._tables[physical].served.logical if gathering is None else gathering.logical

    def _serve_model(
        self, model: type[Model], row: type[Any] | None, name: str | None, *, physical: str | None = None
    ) -> MigratedTable:
        shape = shape_of_model(model)
        shape = replace(shape, name=physical or shape.name)
        served = self._tables.get(shape.name)
        if served is not None:
            _require_same_table(served, model, row, name)
            return served
        self._require_same_dynamodb(model)
        logical = self._logical_name(model, name)
        mapping = map_table(logical, model, row) if row is not None else unmapped_table(logical, shape)
        return self._serve(ServedTable(logical, shape), replace(mapping, shape=shape), model)

    def _ttl_attribute(self, served: ServedTable, model: type[Model] | None) -> str | None:
        return ttl_attribute(
            configured=self.options.ttl_attributes.get(served.logical),
            described=partial(described_ttl_attribute, self._clients.reads, served.physical),
            declared=None if model is None else ttl_attribute_of_model(model),
        )

    def _guard(self, physical: str) -> BackfillGuard:
        return BackfillGuard(
            limits=self.options.load_limits,
            table_bytes=partial(table_bytes, self._clients.reads, physical),
            free=partial(
                free_storage,
                self.engine,
                free_bytes=self.options.free_bytes,
                db_instance=self.options.db_instance,
                clients=self.source_clients,
            ),
        )

    def _serve(self, served: ServedTable, mapping: Mapped, model: type[Model] | None = None) -> MigratedTable:
        mine = {part.table.fullname for part in mapping.parts}
        for other in self._mappings.values():
            shared = mine & {part.table.fullname for part in other.parts}
            if shared and other.shape.name != served.physical:
                raise ConfigurationError(
                    f"DynamoDB tables {other.shape.name} and {served.physical} would both be mirrored in SQL "
                    f"table {min(shared)}, where their keys collide; give each one of its own"
                )
        self._mappings[served.physical] = mapping
        passage = TablePassage(
            served,
            mapping,
            engine=self.engine,
            mirroring=self._mirroring,
            checkpoints=self._checkpoints,
            marks=marks_of(self._agent.homes),
            description=partial(describe, self._clients.reads, served.physical),
        )
        table = MigratedTable(
            served,
            mapping,
            engine=self.engine,
            mirroring=self._mirroring,
            agent=self._agent,
            checkpoints=self._checkpoints,
            ttl_attribute=partial(self._ttl_attribute, served, model),
            discrepancies=self._discrepancies,
            obstacles=passage.obstacles,
            seal=self._seal,
            guard=self._guard(served.physical),
        )
        self._agent.serve(
            served.physical,
            logical=served.logical,
            passage=passage,
            deferring=served.logical in self.options.deferred_tables,
        )
        self._tables[served.physical] = table
        self._served[served.physical] = served
        if not self._started:
            self._started = True
            export(self.telemetry)
            self._agent.start()
            if self._recorder is not None:
                self._recorder.start()
            if self.options.registers:
                self._maintenance.start()
                if self._read_guard is not None:
                    self._read_guard.start()
                self._reporting.start()
        return table

    def _observe(
        self, table: ServedTable, operation: Operation, side: Side, answer: Response | ClientError
    ) -> None:
        """Hand the dialled share of reads to the shadow, once there is something to compare with."""
        percent = self._agent.view(table.physical).compared_percent
        self._shadow.observe(table, operation, side, answer, percent=percent)

    def _recording(self) -> Recorder | None:
        settings, percents = self.options.recording, self.options.recorded_percents
        if settings.directory is None or not any(percents.values()):
            return None
        return Recorder(
            settings.directory,
            percents,
            self._served,
            telemetry=self.telemetry,
            places=lambda physical: places_of(self.engine, self._clients.reads, physical).known,
            secret=None if settings.secret is None else settings.secret.get_secret_value(),
            queue_keys=settings.queue_keys,
            rotate_bytes=settings.rotate_bytes,
            limit_bytes=settings.limit_bytes,
            flush=timedelta(seconds=settings.flush_seconds),
        )

    def _guarding(self, limits: GuardLimits) -> Guard:
        def records() -> Mapping[str, ControlRecord]:
            return {table.served.logical: table.view.record for table in list(self._tables.values())}

        return Guard(self.telemetry, self._router.mirror_breakers, records, limits=limits)

    def _reader(self, engine: sqlalchemy.Engine) -> PostgresStore:
        return PostgresStore(engine, self._mappings, statement_timeout=self.options.statement_timeout)

    def _require_same_dynamodb(self, model: type[Model]) -> None:
        """A model that reaches a stand-in must not be served from AWS, nor the other way round."""
        host = getattr(model.Meta, "host", None)
        ours = self._clients.reads.meta.endpoint_url
        if host is not None and host.rstrip("/") != ours.rstrip("/"):
            raise ConfigurationError(
                f"{model.__name__}.Meta.host is {host}, but this store's DynamoDB is {ours}; set "
                "dynamodb.endpoint_url in dualstore.toml to the model's host"
            )

    def _pynamodb_connection(self) -> Connection:
        meta = self._clients.reads.meta
        return Connection(region=meta.region_name, host=meta.endpoint_url)


def _engine(settings: PostgresSettings, url: str, *, region: str | None) -> sqlalchemy.Engine:
    engine = sqlalchemy.create_engine(
        url,
        pool_size=settings.pool_size,
        max_overflow=settings.max_overflow,
        pool_timeout=settings.pool_timeout_seconds,
        connect_args={"connect_timeout": max(1, round(settings.connect_timeout_seconds))},
    )
    if settings.iam:
        authenticate(engine, region=region)
    return engine


def _require_same_table(
    served: MigratedTable, model: type[Model], row: type[Any] | None, name: str | None
) -> None:
    """A table is mirrored in one way only, by whatever model it is reached."""
    tables = [part.table for part in served.mapping.parts]
    if row is not None and row.__table__ not in tables:
        raise ConfigurationError(
            f"table {served.physical} of {model.__name__} is already mirrored in SQL table "
            f"{', '.join(table.fullname for table in tables)}, not in that of {row.__name__}; use one row "
            "model everywhere"
        )
    if name not in {None, served.served.logical}:
        raise ConfigurationError(
            f"table {served.physical} of {model.__name__} already goes by the name {served.served.logical}, "
            f"not {name}; use one logical name everywhere"
        )
