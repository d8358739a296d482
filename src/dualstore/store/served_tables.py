"""The tables of one process: bound, or named by the configuration, and served from then on."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pynamodb.models import Model

from dualstore.errors import ConfigurationError
from dualstore.mapping import Entity, Mapped, map_table, shape_of_model, unmapped_table
from dualstore.mapping.expiry import ttl_attribute_of_model
from dualstore.replication.expiry import ttl_attribute
from dualstore.replication.served import ServedTable
from dualstore.replication.stopping import marks_of
from dualstore.router import Router
from dualstore.store.configured import ConfiguredTable
from dualstore.store.entities import Gathering, may_be_an_entity
from dualstore.store.guarding import BackfillGuard, free_storage, table_bytes
from dualstore.store.passage import TablePassage
from dualstore.store.replicating import Replication
from dualstore.store.table import MigratedTable
from dualstore.stores.discrepancies import PostgresDiscrepancies
from dualstore.stores.dynamo import DynamoStore
from dualstore.stores.dynamo_description import describe, described_ttl_attribute
from dualstore.stores.quarantine import seal_of
from dualstore.stores.source_clients import SourceClients


class ServedTables:
    """Takes tables into the catalog, in whatever way they come to be known.

    Args:
        replication: both databases, and the catalog.
        router: who carries out operations.
        discrepancies: where differences are recorded.
        on_first: called when the first table is served.

    Attributes:
        configured: the tables that the configuration names, by logical name.
    """

    def __init__(
        self,
        replication: Replication,
        *,
        router: Router,
        discrepancies: PostgresDiscrepancies,
        on_first: Callable[[], None],
    ) -> None:
        self._replication = replication
        self.configured: Mapping[str, ConfiguredTable] = {}
        self._router = router
        self._discrepancies = discrepancies
        self._on_first = on_first
        self._catalog = replication.catalog
        self._clients = replication.clients
        self._options = replication.options
        self._seal = seal_of(self._options.quarantine, self._options.quarantine_key)
        self._gatherings: dict[str, Gathering] = {}
        self._started = False

    def add(
        self, model: type[Model], row: type[Any] | None, *, name: str | None, where: Entity | None
    ) -> Router | Gathering:
        """Serve a model's table at once, or, where it may have several entities, once all are known.

        Arguments and errors as for `DualStore.bind`.

        Returns:
            Who carries out the operations on the table.
        """
        physical = shape_of_model(model).name
        logical = self._logical_name(model, name)
        if logical in self.configured:
            self._gather_configured(logical)
        gathered = physical in self._gatherings or where is not None
        if gathered or (physical not in self._catalog.tables and may_be_an_entity(model, row)):
            self._gather(model, row, logical, where)
        else:
            self._serve_model(model, row, name)
        return self.routes_of(physical)

    def routes_of(self, physical: str) -> Router | Gathering:
        """Who carries out the operations on a table."""
        return self._gatherings.get(physical, self._router)

    def logical_of(self, model: type[Model]) -> str:
        """The logical name of a table that is served or gathered."""
        physical = shape_of_model(model).name
        gathering = self._gatherings.get(physical)
        return self._catalog.tables[physical].served.logical if gathering is None else gathering.logical

    def physical_of(self, name: str) -> str:
        """A table's physical name, for which no database is asked.

        Raises:
            ConfigurationError: there is no table of that name.
        """
        table = self._catalog.named(name)
        return self._require_configured(name).physical_name(name) if table is None else table.physical

    def names(self) -> Mapping[str, str]:
        """Every table that is bound or configured, logical name to physical; no database is asked."""
        return {name: self.physical_of(name) for name in self._known()}

    def table(self, name: str) -> MigratedTable:
        """A table by its logical name, which is served from then on.

        Raises:
            ConfigurationError: there is none of that name.
        """
        self.serve_gathered()
        table = self._catalog.named(name)
        if table is not None:
            return table
        configured = self._require_configured(name)
        if configured.entities:
            self._gather_configured(name)
            return self.table(name)
        if configured.model is not None:
            return self._serve_model(configured.model, configured.row, name, physical=configured.physical)
        store = DynamoStore(reads=self._clients.reads, writes=self._clients.writes)
        shape = store.describe(configured.physical or name)
        return self._serve(ServedTable(name, shape), unmapped_table(name, shape))

    def all(self) -> list[MigratedTable]:
        """Every table that is bound or that the configuration names."""
        self.serve_gathered()
        for name in self.configured:
            self.table(name)
        return list(self._catalog.tables.values())

    def serve_gathered(self) -> None:
        """Serve the tables whose entities have been bound: what follows speaks of tables."""
        for gathering in list(self._gatherings.values()):
            gathering.seal()

    def _known(self) -> list[str]:
        bound = {table.served.logical for table in self._catalog.tables.values()}
        return sorted(bound | self.configured.keys())

    def _require_configured(self, name: str) -> ConfiguredTable:
        configured = self.configured.get(name)
        if configured is None:
            raise ConfigurationError(
                f"no table is called {name}; known: {', '.join(self._known()) or 'none'}. Bind its model, or "
                f"add a section [tables.{name}] to dualstore.toml"
            )
        return configured

    def _logical_name(self, model: type[Model], name: str | None) -> str:
        configured = (
            *((known, table.model) for known, table in self.configured.items()),
            *((known, each.model) for known, table in self.configured.items() for each in table.entities),
        )
        found = next((known for known, other in configured if other is model), shape_of_model(model).name)
        return name or found

    def _gather_configured(self, logical: str) -> None:
        for entity in self.configured[logical].entities:
            self._gather(entity.model, entity.row, logical, entity.where)

    def _gather(self, model: type[Model], row: type[Any] | None, logical: str, where: Entity | None) -> None:
        physical = shape_of_model(model).name
        gathering = self._gatherings.get(physical)
        if gathering is None:
            self._require_same_dynamodb(model)
            if physical in self._catalog.tables:
                raise ConfigurationError(
                    f"table {physical} is already mirrored in one SQL table, so {model.__name__} cannot have "
                    "another: bind every entity of the table with `where`"
                )
            gathering = Gathering(logical, physical, self._router, self._serve_entities)
        gathering.add(model, row, where, logical)
        self._gatherings[physical] = gathering

    def _serve_entities(self, gathering: Gathering) -> None:
        mapping = gathering.mapping()
        self._serve(ServedTable(gathering.logical, mapping.shape), mapping, gathering.model)

    def _serve_model(
        self, model: type[Model], row: type[Any] | None, name: str | None, *, physical: str | None = None
    ) -> MigratedTable:
        shape = shape_of_model(model)
        shape = replace(shape, name=physical or shape.name)
        served = self._catalog.tables.get(shape.name)
        if served is not None:
            _require_same_table(served, model, row, name)
            return served
        self._require_same_dynamodb(model)
        logical = self._logical_name(model, name)
        mapping = map_table(logical, model, row) if row is not None else unmapped_table(logical, shape)
        return self._serve(ServedTable(logical, shape), replace(mapping, shape=shape), model)

    def _serve(self, served: ServedTable, mapping: Mapped, model: type[Model] | None = None) -> MigratedTable:
        self._require_tables_of_its_own(served.physical, mapping)
        self._catalog.mappings[served.physical] = mapping
        replication, reads = self._replication, self._clients.reads
        passage = TablePassage(
            served,
            mapping,
            engine=replication.engine,
            mirroring=replication.mirroring,
            checkpoints=replication.checkpoints,
            marks=marks_of(replication.agent.homes),
            description=partial(describe, reads, served.physical),
        )
        table = MigratedTable(
            served,
            mapping,
            engine=replication.engine,
            mirroring=replication.mirroring,
            agent=replication.agent,
            checkpoints=replication.checkpoints,
            ttl_attribute=partial(self._ttl_attribute, served, model),
            discrepancies=self._discrepancies,
            obstacles=passage.obstacles,
            seal=self._seal,
            guard=self._backfill_guard(served.physical),
        )
        replication.agent.serve(
            served.physical,
            logical=served.logical,
            passage=passage,
            deferring=served.logical in self._options.deferred_tables,
        )
        self._catalog.tables[served.physical] = table
        self._catalog.served[served.physical] = served
        if not self._started:
            self._started = True
            self._on_first()
        return table

    def _ttl_attribute(self, served: ServedTable, model: type[Model] | None) -> str | None:
        return ttl_attribute(
            configured=self._options.ttl_attributes.get(served.logical),
            described=partial(described_ttl_attribute, self._clients.reads, served.physical),
            declared=None if model is None else ttl_attribute_of_model(model),
        )

    def _backfill_guard(self, physical: str) -> BackfillGuard:
        reads = self._clients.reads
        return BackfillGuard(
            limits=self._options.load_limits,
            table_bytes=partial(table_bytes, reads, physical),
            free=partial(
                free_storage,
                self._replication.engine,
                free_bytes=self._options.free_bytes,
                db_instance=self._options.db_instance,
                clients=partial(SourceClients.like, reads),
            ),
        )

    def _require_tables_of_its_own(self, physical: str, mapping: Mapped) -> None:
        mine = {part.table.fullname for part in mapping.parts}
        for other in self._catalog.mappings.values():
            shared = mine & {part.table.fullname for part in other.parts}
            if shared and other.shape.name != physical:
                raise ConfigurationError(
                    f"DynamoDB tables {other.shape.name} and {physical} would both be mirrored in SQL "
                    f"table {min(shared)}, where their keys collide; give each one of its own"
                )

    def _require_same_dynamodb(self, model: type[Model]) -> None:
        """A model that reaches a stand-in must not be served from AWS, nor the other way round."""
        host = getattr(model.Meta, "host", None)
        ours = self._clients.reads.meta.endpoint_url
        if host is not None and host.rstrip("/") != ours.rstrip("/"):
            raise ConfigurationError(
                f"{model.__name__}.Meta.host is {host}, but this store's DynamoDB is {ours}; set "
                "dynamodb.endpoint_url in dualstore.toml to the model's host"
            )


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
