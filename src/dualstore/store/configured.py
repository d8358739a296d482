"""The tables that a configuration names, with what it imports for them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pynamodb.models import Model

from dualstore.config import TableSettings, import_object
from dualstore.mapping import Entity, shape_of_model


@dataclass(frozen=True, slots=True)
class ConfiguredEntity:
    """One of `[[tables.<name>.entities]]`."""

    model: type[Model]
    row: type[Any]
    where: Entity


@dataclass(frozen=True, slots=True)
class ConfiguredTable:
    """One of `[tables.<name>]`.

    Attributes:
        model: its PynamoDB model, or None where it has none, or several.
        row: its SQLAlchemy model, or None where it has none, or several.
        physical: its name in DynamoDB, where it is not the one in the model.
        entities: its models, where it has several.
    """

    model: type[Model] | None = None
    row: type[Any] | None = None
    physical: str | None = None
    entities: tuple[ConfiguredEntity, ...] = ()

    def physical_name(self, logical: str) -> str:
        """Its name in DynamoDB, for which no database is asked."""
        model = self.entities[0].model if self.entities else self.model
        return self.physical or (logical if model is None else shape_of_model(model).name)


def configured_tables(tables: Mapping[str, TableSettings]) -> dict[str, ConfiguredTable]:
    """The tables that a configuration names, by their logical names.

    Raises:
        ConfigurationError: a model cannot be imported, or an entity is told in no known way.
    """
    return {
        name: ConfiguredTable(
            import_object(table.model, setting=f"tables.{name}.model") if table.model else None,
            import_object(table.row, setting=f"tables.{name}.row") if table.row else None,
            table.physical_name,
            _entities(name, table),
        )
        for name, table in tables.items()
    }


def _entities(name: str, table: TableSettings) -> tuple[ConfiguredEntity, ...]:
    return tuple(
        ConfiguredEntity(
            import_object(each.model, setting=f"tables.{name}.entities.{number}.model"),
            import_object(each.row, setting=f"tables.{name}.entities.{number}.row"),
            Entity.of_document(each.where),
        )
        for number, each in enumerate(table.entities)
    )
