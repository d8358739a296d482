"""A load profile: the rates of operations and how often which key is asked for, as one small file."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from io import StringIO
from pathlib import Path
from typing import Any, TypeAlias

from dualstore.items import Item
from dualstore.rollout.document import Document, DocumentError, Mistake, read_document, read_file
from dualstore.rollout.load.schema import schema_of_profiles

Shares: TypeAlias = tuple[tuple[int, float], ...]
"""Values, or numbers of things that are alike, each with its share; the shares need not add up to 100."""

EVERY = "every"
"""Among the shares of a class of partitions: those of the operations that are not named."""

__all__ = [
    "EVERY",
    "LoadProfile",
    "OperationRate",
    "PartitionClass",
    "Recorded",
    "Shares",
    "TableLoad",
    "load_profile",
    "parse_profile",
    "profile_text",
    "schema_of_profiles",
]


@dataclass(frozen=True, slots=True)
class OperationRate:
    """One kind of operations on a table.

    Attributes:
        operation: DynamoDB's name of it.
        per_second: how many come a second, in production.
        index: the index that is read, or None.
        consistent_percent: the share that reads consistently.
        conditional_percent: the share that carries a condition or a filter.
        ranged_percent: of Queries, the share that asks something of the sort key.
        keys: of batches and transactions, how many keys they have.
        limits: of Query and Scan, the Limits; 0: none.
        item_bytes: how large the items are that are written.
        acts: of BatchWriteItem and TransactWriteItems, what is done to a key: Put, Update, Delete or
            ConditionCheck, each with its share.
    """

    operation: str
    per_second: float
    index: str | None = None
    consistent_percent: float = 0.0
    conditional_percent: float = 0.0
    ranged_percent: float = 0.0
    keys: Shares = ((1, 100.0),)
    limits: Shares = ((0, 100.0),)
    item_bytes: Shares = ((1024, 100.0),)
    acts: Mapping[str, float] = field(default_factory=lambda: {"Put": 100.0})

    @property
    def label(self) -> str:
        """Its name for people: the operation, and which index it reads."""
        return self.operation if self.index is None else f"{self.operation} {self.index}"


@dataclass(frozen=True, slots=True)
class PartitionClass:
    """Partitions that are asked for equally often, from the hottest class of a table to the coldest.

    Attributes:
        partitions: how many.
        percents: by operation, the share of its keys that fall into this class, all its partitions together.
        items: how many items are in each, before the load begins.
        sorts: how many sort keys share which part of what a partition is asked for, hottest first.
    """

    partitions: int
    percents: Mapping[str, float]
    items: int = 1
    sorts: Shares = ((1, 100.0),)

    def percent(self, operation: str) -> float:
        """The share of an operation's keys that fall into this class."""
        return self.percents.get(operation, self.percents.get(EVERY, 0.0))


@dataclass(frozen=True, slots=True)
class TableLoad:
    """The load on one table.

    Attributes:
        operations: what is asked for.
        keys: how often which partition of the table is.
        indexes: likewise of the indexes, by name.
        item: attributes that every written item has, where generated ones do not do.
    """

    operations: tuple[OperationRate, ...]
    keys: tuple[PartitionClass, ...]
    indexes: Mapping[str, tuple[PartitionClass, ...]] = field(default_factory=dict)
    item: Item = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """How many operations come a second, in production."""
        return sum(each.per_second for each in self.operations)

    def partitions_of(self, operation: OperationRate) -> tuple[PartitionClass, ...]:
        """The partitions that an operation chooses from."""
        return self.keys if operation.index is None else self.indexes[operation.index]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a profile was condensed from.

    Attributes:
        seconds: from the first to the last operation.
        began: when, in words.
        operations: how many were noted.
        lost: how many should have been noted and were not.
        salts: how many groups of processes knew the same keys.
    """

    seconds: float
    began: str
    operations: int
    lost: int
    salts: int


@dataclass(frozen=True, slots=True)
class LoadProfile:
    """Access patterns of some tables.

    Attributes:
        name: for people.
        tables: by logical name.
        recorded: what it was condensed from; None: written by hand.
        recorded_at: hashes of the places where it was recorded, by table.
    """

    name: str
    tables: Mapping[str, TableLoad]
    recorded: Recorded | None = None
    recorded_at: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def load_profile(path: str | Path) -> LoadProfile:
    """Read a profile from a file: YAML, or JSON, which is YAML too.

    Raises:
        ConfigurationError: the file cannot be read.
        DocumentError: it is no profile; names every mistake with its line.
    """
    return _profile(read_file(Path(path), schema_of_profiles()))


def parse_profile(text: str, *, name: str = "profile") -> LoadProfile:
    """As `load_profile`, of a text."""
    return _profile(read_document(text, schema_of_profiles(), name=name))


def _profile(document: Document) -> LoadProfile:
    if mistakes := list(_mistakes(document)):
        raise DocumentError(document.name, mistakes)
    content = json.loads(json.dumps(document.content, default=str))  # YAML's own dictionaries
    recorded = content.get("recorded")
    return LoadProfile(
        content["profile"],
        {name: _table(table) for name, table in content["tables"].items()},
        None if recorded is None else Recorded(**recorded),
        {name: tuple(places) for name, places in content.get("recorded_at", {}).items()},
    )


def _mistakes(document: Document) -> Iterator[Mistake]:
    """What the schema cannot know."""
    for name, table in document.content["tables"].items():
        place = ("tables", name)
        indexes = table.get("indexes", {})
        for number, operation in enumerate(table["operations"]):
            here = (*place, "operations", number)
            index = operation.get("index")
            if index is not None and operation["operation"] not in {"Query", "Scan"}:
                yield document.mistake(
                    (*here, "index"), f"{operation['operation']} reads no index: remove it"
                )
            elif index is not None and index not in indexes and operation["operation"] == "Query":
                yield document.mistake(
                    (*here, "index"),
                    f"nothing is said of the keys of index {index}: add tables.{name}.indexes.{index}",
                )
            elif operation["operation"] != "Scan":
                classes = table["keys"] if index is None else indexes[index]
                if not any(_asked(each, operation["operation"]) for each in classes):
                    yield document.mistake(
                        here,
                        f"no class of partitions has a share of {operation['operation']}: give one a percent "
                        f"of it, or of `{EVERY}`",
                    )


def _asked(written: Mapping[str, Any], operation: str) -> float:
    percent = written["percent"]
    if not isinstance(percent, Mapping):
        return float(percent)
    return float(percent.get(operation, percent.get(EVERY, 0.0)))


def _table(content: Mapping[str, Any]) -> TableLoad:
    return TableLoad(
        tuple(_operation(each) for each in content["operations"]),
        tuple(_partitions(each) for each in content["keys"]),
        {
            name: tuple(_partitions(each) for each in classes)
            for name, classes in content.get("indexes", {}).items()
        },
        content.get("item", {}),
    )


_SHARED = ("keys", "limits", "item_bytes")


def _operation(content: Mapping[str, Any]) -> OperationRate:
    shares = {name: _shares(content[name]) for name in _SHARED if name in content}
    return OperationRate(**{**content, **shares})


def _partitions(content: Mapping[str, Any]) -> PartitionClass:
    percent = content["percent"]
    sorts = _shares(content["sorts"]) if "sorts" in content else ((content.get("items", 1), 100.0),)
    return PartitionClass(
        content["partitions"],
        percent if isinstance(percent, Mapping) else {EVERY: float(percent)},
        content.get("items", sum(count for count, _ in sorts)),
        sorts,
    )


def _shares(content: int | list[list[float]]) -> Shares:
    if isinstance(content, list):
        return tuple((int(value), float(share)) for value, share in content)
    return ((content, 100.0),)


def profile_text(profile: LoadProfile) -> str:
    """A profile as the YAML that `parse_profile` reads."""
    from ruamel.yaml import YAML  # noqa: PLC0415 - see `read_document`

    yaml = YAML()
    yaml.default_flow_style = None  # what holds nothing but plain values stands in one line
    yaml.width = 110
    text = StringIO()
    yaml.dump(_content(profile), text)
    return text.getvalue()


def _content(profile: LoadProfile) -> dict[str, Any]:
    content: dict[str, Any] = {"profile": profile.name}
    if profile.recorded is not None:
        content["recorded"] = asdict(profile.recorded)
    if profile.recorded_at:
        content["recorded_at"] = {name: list(places) for name, places in profile.recorded_at.items()}
    content["tables"] = {
        name: {
            "operations": [_operation_content(each) for each in table.operations],
            "keys": [_partitions_content(each) for each in table.keys],
            **(
                {
                    "indexes": {
                        index: [_partitions_content(each) for each in classes]
                        for index, classes in table.indexes.items()
                    }
                }
                if table.indexes
                else {}
            ),
            **({"item": dict(table.item)} if table.item else {}),
        }
        for name, table in profile.tables.items()
    }
    return content


def _operation_content(rate: OperationRate) -> dict[str, Any]:
    content: dict[str, Any] = {"operation": rate.operation, "per_second": rate.per_second}
    usual = OperationRate(rate.operation, rate.per_second)
    for each in fields(OperationRate)[2:]:
        value = getattr(rate, each.name)
        if value != getattr(usual, each.name):
            content[each.name] = _plain(value)
    return content


def _partitions_content(each: PartitionClass) -> dict[str, Any]:
    content: dict[str, Any] = {"partitions": each.partitions, "percent": dict(each.percents)}
    if set(each.percents) == {EVERY}:
        content["percent"] = each.percents[EVERY]
    if each.sorts != ((each.items, 100.0),):
        return {**content, "items": each.items, "sorts": _plain(each.sorts)}
    return content if each.items == 1 else {**content, "items": each.items}


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [list(each) for each in value]
    return dict(value) if isinstance(value, Mapping) else value
