"""Both databases, and what keeps them together, as one process has them."""

from dataclasses import dataclass, field
from functools import partial

import sqlalchemy

from dualstore.flags import FlagSource
from dualstore.mapping import Mapped
from dualstore.replication.agent import Agent
from dualstore.replication.control import DynamoControl
from dualstore.replication.deferred import Deferred
from dualstore.replication.failover_notes import FailoverNotes
from dualstore.replication.health import MirrorHealth
from dualstore.replication.journal import Journal
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.search import Homes  # noqa: TC001 - one import, not worth a block
from dualstore.replication.served import ServedTable
from dualstore.stages import Side
from dualstore.store.options import Options
from dualstore.store.table import MigratedTable
from dualstore.stores.dynamo import DynamoClients, DynamoStore
from dualstore.stores.dynamo_sending import watch
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres.deadlines import Deadline
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_outbox import PostgresOutbox
from dualstore.stores.postgres_streams import PostgresCheckpoints
from dualstore.telemetry import ItemUnmapped, RequestRefused, Telemetry


@dataclass(frozen=True, slots=True)
class Catalog:
    """The tables that a process serves, by physical name: it grows as they are bound or named.

    Attributes:
        served: by their names and shapes.
        mappings: how their items become rows.
        tables: as operators see them.
    """

    served: dict[str, ServedTable] = field(default_factory=dict)
    mappings: dict[str, Mapped] = field(default_factory=dict)
    tables: dict[str, MigratedTable] = field(default_factory=dict)

    def named(self, logical: str) -> MigratedTable | None:
        """The table of a logical name, where it is served."""
        return next((table for table in self.tables.values() if table.served.logical == logical), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replication:
    """What all other parts of a process's store are made of.

    Attributes:
        engine: PostgreSQL.
        clients: DynamoDB's.
        options: what was tuned.
        telemetry: counts what happens.
        catalog: the tables.
        bookkeeping: DynamoDB as a store of control records and the journal, which repeats requests.
        decisions: DynamoDB's control home.
        fence: PostgreSQL's.
        notes: what a failover goes by, in DynamoDB.
        agent: what this process may act on.
        postgres: PostgreSQL as a store.
        health: whether it answers as the mirror.
        mirroring: writes on both sides; their stores, journal and outbox.
        deferred: mirrors what callers did not wait for.
        checkpoints: how far streams have been followed.
    """

    engine: sqlalchemy.Engine
    clients: DynamoClients
    options: Options
    telemetry: Telemetry
    catalog: Catalog
    bookkeeping: DynamoStore
    decisions: DynamoControl
    fence: PostgresControl
    notes: FailoverNotes
    agent: Agent
    postgres: PostgresStore
    health: MirrorHealth
    mirroring: Mirroring
    deferred: Deferred
    checkpoints: PostgresCheckpoints


def replication_of(
    engine: sqlalchemy.Engine,
    clients: DynamoClients,
    flags: FlagSource,
    *,
    options: Options,
    telemetry: Telemetry,
) -> Replication:
    """Put together what keeps both databases together; nothing is opened, and nothing runs yet.

    Args:
        engine: PostgreSQL.
        clients: DynamoDB's.
        flags: where stage and dials are asked for.
        options: what may be tuned.
        telemetry: counts what happens.
    """
    catalog = Catalog()
    # Bookkeeping is idempotent or conditional: botocore may repeat it.
    bookkeeping = DynamoStore(reads=clients.reads, writes=clients.reads)
    table = options.bookkeeping_table
    decisions, fence = DynamoControl(bookkeeping, table), PostgresControl(engine)
    homes: Homes = {Side.DYNAMODB: decisions, Side.POSTGRES: fence}
    # A look that must end soon: each request once.
    once = DynamoStore(reads=clients.writes, writes=clients.writes)
    notes = FailoverNotes(once, table)
    agent = Agent(
        homes,
        flags,
        watched=DynamoControl(once, table),
        notes=notes,
        times=options.grants,
        registers=options.registers,
        refused=lambda table, reason: telemetry.record(RequestRefused(table, reason)),
    )
    postgres = PostgresStore(
        engine,
        catalog.mappings,
        statement_timeout=options.statement_timeout,
        unmapped=lambda table: telemetry.record(ItemUnmapped(catalog.served[table].logical)),
    )
    health = MirrorHealth(partial(postgres.dirty_keys, "", limit=1))
    watch(clients.writes)
    mirroring = Mirroring(
        DynamoStore(reads=clients.reads, writes=clients.writes),
        postgres,
        agent,
        Journal(bookkeeping, table),
        health,
        PostgresOutbox(engine, catalog.mappings),
        telemetry=telemetry,
        times=options.replication,
        limited=Deadline,
    )
    mirroring.deferred = deferred = Deferred(mirroring.settle, agent.unfinished)
    return Replication(
        engine=engine,
        clients=clients,
        options=options,
        telemetry=telemetry,
        catalog=catalog,
        bookkeeping=bookkeeping,
        decisions=decisions,
        fence=fence,
        notes=notes,
        agent=agent,
        postgres=postgres,
        health=health,
        mirroring=mirroring,
        deferred=deferred,
        checkpoints=PostgresCheckpoints(engine),
    )
