"""Several models and SQL tables behind one DynamoDB table: gathered while they are bound, then served."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from pynamodb.models import Model

from dualstore.errors import ConfigurationError
from dualstore.mapping import (
    Entity,
    EntityTable,
    Mapped,
    TableMapping,
    discriminated,
    discriminator_of,
    map_table,
    split_table,
)
from dualstore.mapping.expiry import ttl_attribute_of_model
from dualstore.operations import Request, Response


class Executes(Protocol):
    """Carries out operations: the router."""

    @property
    def closed(self) -> bool:
        """Whether writes are refused from now on."""
        ...

    def execute(self, name: str, request: Request) -> Response:
        """Carry out one operation."""
        ...

    def serves(self, tables: frozenset[str]) -> bool:
        """Whether any of these tables is one whose operations it carries out."""
        ...


class Gathering:
    """The entities of one DynamoDB table, which are all bound before its first operation.

    A process that knew only some of them would write the others' items where no other process looks for
    them. So nothing is served before the first operation, and nothing may be added after it. To PynamoDB this
    is who carries out the operations on the table.

    Args:
        logical: the table's logical name.
        physical: its name in DynamoDB.
        router: who carries out operations once the table is served.
        serve: serves the table.
    """

    def __init__(
        self, logical: str, physical: str, router: Executes, serve: Callable[["Gathering"], None]
    ) -> None:
        self.logical = logical
        self.physical = physical
        self._router = router
        self._serve = serve
        self._members: dict[type[Model], tuple[type[Any], Entity | None, TableMapping]] = {}
        self._lock = threading.RLock()
        self._sealed = False

    @property
    def closed(self) -> bool:
        """Whether writes are refused from now on."""
        return self._router.closed

    @property
    def model(self) -> type[Model]:
        """A model of the table: one that declares a time to live, where one does."""
        models = list(self._members)
        return next((model for model in models if ttl_attribute_of_model(model)), models[0])

    def execute(self, name: str, request: Request) -> Response:
        """Carry out one operation, the first of which ends the gathering."""
        if not self._sealed:
            self.seal()
        return self._router.execute(name, request)

    def serves(self, tables: frozenset[str]) -> bool:
        """Whether any of these tables, by name or ARN, is one whose operations it carries out."""
        self.seal()
        return self._router.serves(tables)

    def seal(self) -> None:
        """Serve the table with the entities that were bound; harmless where it is served."""
        with self._lock:
            if not self._sealed:
                self._serve(self)
                self._sealed = True

    def add(self, model: type[Model], row: type[Any] | None, where: Entity | None, logical: str) -> None:
        """Add an entity; harmless where it is there.

        Args:
            model: its PynamoDB model.
            row: its SQLAlchemy model, or None for a model that is of the same table and adds nothing.
            where: what is asked of its items; None: its discriminator.
            logical: the table's logical name, as whoever adds the entity knows it.

        Raises:
            MappingError: the SQL model cannot hold its items.
            ConfigurationError: the table has had its first operation, or the model is bound otherwise.
        """
        with self._lock:
            if logical not in {self.logical, self.physical}:
                raise ConfigurationError(
                    f"table {self.physical} of {model.__name__} already goes by the name {self.logical}, not "
                    f"{logical}; use one logical name everywhere"
                )
            if row is None:
                if where is not None:
                    raise ConfigurationError(
                        f"{model.__name__} of table {self.physical} is bound with `where`, but without a "
                        "SQLAlchemy model to hold its items: give one"
                    )
                return
            known = self._members.get(model)
            if known is not None and known[:2] == (row, where):
                return
            if known is not None or self._sealed:
                raise ConfigurationError(
                    f"{model.__name__} of table {self.physical} is bound "
                    + ("otherwise already" if known is not None else "after the table's first operation")
                    + ": bind all entities of a table once, where the process starts"
                )
            mapping = map_table(self.logical, model, row)
            mapping = replace(mapping, shape=replace(mapping.shape, name=self.physical))
            self._members[model] = (row, where, mapping)

    def mapping(self) -> Mapped:
        """How the items of the table become rows.

        Raises:
            MappingError: the entities do not go together.
        """
        if len(self._members) == 1:
            ((_, where, mapping),) = self._members.values()
            if where is None:
                return mapping  # a discriminator that tells nothing apart: one table holds all of it
        asked = self._asked()
        rest = [mapping for model, (_, _, mapping) in self._members.items() if asked[model].rest]
        if len(rest) > 1:
            raise ConfigurationError(
                f"table {self.physical}: {len(rest)} models are bound to take all the rest; one can"
            )
        entities = [
            EntityTable(model.__name__, asked[model], mapping, frozenset(mapping.shape.indexes))
            for model, (_, _, mapping) in self._members.items()
            if not asked[model].rest
        ]
        if not entities:
            return rest[0]
        return split_table(self.logical, entities, rest=rest[0] if rest else None)

    def _asked(self) -> Mapping[type[Model], Entity]:
        by_discriminator = [
            model for model, (_, where, _) in self._members.items() if where is None or where.discriminator
        ]
        asked = {model: where for model, (_, where, _) in self._members.items() if where is not None}
        return asked | discriminated(by_discriminator)


def may_be_an_entity(model: type[Model], row: type[Any] | None) -> bool:
    """Whether a model that is bound without `where` may be one of several, told by its discriminator."""
    attribute = discriminator_of(model)
    return row is not None and attribute is not None and attribute.get_discriminator(model) is not None
