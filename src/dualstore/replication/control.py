"""The control record: stage, dials and read gate of each table, kept where the authority is.

One item a table in the bookkeeping table (partition "control", sort key the table's physical name), so that
one consistent Query answers for all tables of a process. Every change is conditional on the generation that
was seen, so that two changes never merge. DESIGN, replication protocol, rules 6 and 8.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from typing import Any

from botocore.exceptions import ClientError

from dualstore.errors import Unavailable
from dualstore.items import Item
from dualstore.operations import DeleteItem, PutItem, Query, UpdateItem
from dualstore.stages import Dials, Stage
from dualstore.stores.base import Store

_PARTITION, _SORT = "pk", "sk"
_CONTROL = "control"
_CONDITION_FAILED = "ConditionalCheckFailedException"

# What `init` creates; PAY_PER_REQUEST, since it is idle but for the worst minutes.
BOOKKEEPING_TABLE: Mapping[str, Any] = {
    "KeySchema": [
        {"AttributeName": _PARTITION, "KeyType": "HASH"},
        {"AttributeName": _SORT, "KeyType": "RANGE"},
    ],
    "AttributeDefinitions": [
        {"AttributeName": _PARTITION, "AttributeType": "S"},
        {"AttributeName": _SORT, "AttributeType": "S"},
    ],
    "BillingMode": "PAY_PER_REQUEST",
}


class Gate(StrEnum):
    """Whether the mirror may be read.

    A shut gate goes through `reopening`: whoever saw it shut, and did not record its failed write at the
    gate again, has finished recording it before `reopening` is a grant's length old.
    """

    OPEN = "open"
    SHUT = "shut"
    REOPENING = "reopening"


@dataclass(frozen=True, slots=True)
class ControlRecord:
    """What is decided for one table.

    Attributes:
        table: the table's physical DynamoDB name.
        stage: the stage of the migration.
        dials: the percentages.
        gate: whether the mirror may be read.
        gate_sequence: counts the gate's movements, so that shut, open, shut is not taken for one shut.
        generation: counts all changes of this record.
        loaded: whether the mirror holds the table's history: a backfill has finished since the stage last
            began to mirror every key.
        mirrored_since: the generation in which every key last began to be mirrored: a backfill that began
            before it does not count.
        suspects: processes that ended without having finished their mirror writes.
        epoch: counts the changes of the authoritative side.
    """

    table: str
    stage: Stage = Stage.OFF
    dials: Dials = field(default_factory=Dials)
    gate: Gate = Gate.OPEN
    gate_sequence: int = 0
    generation: int = 0
    loaded: bool = False
    mirrored_since: int = 0
    suspects: frozenset[str] = frozenset()
    epoch: int = 0

    @property
    def mirror_readable(self) -> bool:
        """Whether reads may be dialled to the mirror at all."""
        return self.loaded and self.gate is Gate.OPEN and not self.suspects and self.mirrors_every_key

    @property
    def mirrors_every_key(self) -> bool:
        """Whether the writes of every key go to both sides."""
        return self.stage.rule.mirrored and self.dials.mirror_percent == 100  # noqa: PLR2004 - per cent


class ControlTable:
    """The control records, on any store that answers as DynamoDB does.

    Args:
        store: the authority.
        name: the bookkeeping table's physical name.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def read_all(self) -> dict[str, ControlRecord]:
        """All records, by physical table name, read consistently."""
        items = query_partition(self._store, self._name, _CONTROL)
        return {record.table: record for record in map(_record, items)}

    def create(self, table: str) -> None:
        """Make the first record of a table, at stage `off`; harmless where there is one."""
        first = _item(ControlRecord(table=table))
        request = {
            "TableName": self._name,
            "Item": first,
            "ConditionExpression": f"attribute_not_exists({_PARTITION})",
        }
        carried_out(self._store, PutItem(request))

    def change(self, seen: ControlRecord, **changes: Any) -> ControlRecord | None:
        """Change a record, if it is still as it was seen.

        Args:
            seen: the record that the change was decided on.
            **changes: fields of `ControlRecord` to set. `generation` and, where the gate moves,
                `gate_sequence` are counted here.

        Returns:
            The record as it is now, or None where somebody else changed it first.
        """
        wanted = replace(seen, generation=seen.generation + 1, **changes)
        if wanted.gate is not seen.gate:
            wanted = replace(wanted, gate_sequence=seen.gate_sequence + 1)
        request = {
            "TableName": self._name,
            "Item": _item(wanted),
            "ConditionExpression": "generation = :seen",
            "ExpressionAttributeValues": {":seen": {"N": str(seen.generation)}},
        }
        return wanted if carried_out(self._store, PutItem(request)) else None

    def shut_gate(self, table: str) -> None:
        """Shut the gate whatever else is being decided; harmless where it is shut."""
        request = {
            "TableName": self._name,
            "Key": {_PARTITION: {"S": _CONTROL}, _SORT: {"S": table}},
            "UpdateExpression": "SET gate = :shut ADD gate_sequence :one, generation :one",
            "ConditionExpression": "attribute_exists(gate) AND gate <> :shut",
            "ExpressionAttributeValues": {":shut": {"S": Gate.SHUT}, ":one": {"N": "1"}},
        }
        carried_out(self._store, UpdateItem(request))


def carried_out(store: Store, operation: PutItem | UpdateItem | DeleteItem) -> bool:
    """Carry out a write of the bookkeeping table; False where its condition fails."""
    try:
        store.execute(operation)
    except ClientError as error:
        if error.response["Error"]["Code"] == _CONDITION_FAILED:
            return False
        raise _explained(error, operation.table) from error
    return True


def query_partition(store: Store, table: str, partition: str) -> list[Item]:
    """All items of one partition of the bookkeeping table, read consistently."""
    return [item for page in query_pages(store, table, partition) for item in page]


def query_pages(store: Store, table: str, partition: str) -> Iterator[list[Item]]:
    """The items of one partition of the bookkeeping table, page by page, read consistently."""
    request: dict[str, Any] = {
        "TableName": table,
        "KeyConditionExpression": f"{_PARTITION} = :p",
        "ExpressionAttributeValues": {":p": {"S": partition}},
        "ConsistentRead": True,
    }
    while True:
        try:
            response = store.execute(Query(request))
        except ClientError as error:
            raise _explained(error, table) from error
        yield response["Items"]
        if "LastEvaluatedKey" not in response:
            return
        request = {**request, "ExclusiveStartKey": response["LastEvaluatedKey"]}


def _explained(error: ClientError, table: str) -> Unavailable:
    """The error to raise for one of the bookkeeping table: where it is missing, what to do."""
    if error.response["Error"]["Code"] != "ResourceNotFoundException":
        raise error
    return Unavailable(
        f"the bookkeeping table {table!r} does not exist in DynamoDB; "
        "`dualstore schema upgrade` and `DualStore.prepare()` create it"
    )


def _item(record: ControlRecord) -> Item:
    dials = record.dials
    shadow = dials.shadow_percent
    item: Item = {
        _PARTITION: {"S": _CONTROL},
        _SORT: {"S": record.table},
        "stage": {"S": record.stage},
        "read_percent": {"N": str(Decimal(str(dials.postgres_read_percent)))},
        "mirror_percent": {"N": str(Decimal(str(dials.mirror_percent)))},
        "shadow_percent": {"NULL": True} if shadow is None else {"N": str(Decimal(str(shadow)))},
        "gate": {"S": record.gate},
        "gate_sequence": {"N": str(record.gate_sequence)},
        "generation": {"N": str(record.generation)},
        "loaded": {"BOOL": record.loaded},
        "mirrored_since": {"N": str(record.mirrored_since)},
        "epoch": {"N": str(record.epoch)},
    }
    if record.suspects:
        item["suspects"] = {"SS": sorted(record.suspects)}
    return item


def _record(item: Item) -> ControlRecord:
    shadow = item["shadow_percent"].get("N")
    return ControlRecord(
        table=item[_SORT]["S"],
        stage=Stage(item["stage"]["S"]),
        dials=Dials(
            postgres_read_percent=float(item["read_percent"]["N"]),
            mirror_percent=float(item["mirror_percent"]["N"]),
            shadow_percent=None if shadow is None else float(shadow),
        ),
        gate=Gate(item["gate"]["S"]),
        gate_sequence=int(item["gate_sequence"]["N"]),
        generation=int(item["generation"]["N"]),
        loaded=item["loaded"]["BOOL"],
        mirrored_since=int(item["mirrored_since"]["N"]),
        suspects=frozenset(item.get("suspects", {}).get("SS", ())),
        epoch=int(item["epoch"]["N"]),
    )
