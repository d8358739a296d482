"""Control records and the register of processes in DynamoDB's bookkeeping table.

One item a table (partition "control", sort key the table's physical name), so that one consistent Query
answers for all tables of a process. Every change is conditional on the generation that was seen, so that two
changes never merge. DESIGN, replication protocol, rules 6 and 8.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from botocore.exceptions import ClientError

from dualstore.control import ControlRecord, FailedOver, Gate, Phase, ProcessEntry, Stop
from dualstore.errors import Unavailable
from dualstore.items import Item
from dualstore.operations import DeleteItem, PutItem, Query, UpdateItem
from dualstore.stages import Dials, Side, Stage
from dualstore.stores.base import Store

_PARTITION, _SORT = "pk", "sk"
_CONTROL, _PROCESS, _POSTGRES = "control", "process", "postgres"
_CONDITION_FAILED = "ConditionalCheckFailedException"
_FAILOVER_MOMENTS = ("at", "recovery_point", "rows_at", "reconciled_at")

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


class DynamoControl:
    """The records and the register, on any store that answers as DynamoDB does; it `KnowsPostgres`, too.

    Args:
        store: DynamoDB.
        name: the bookkeeping table's physical name.
    """

    side = Side.DYNAMODB

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    def read_all(self) -> dict[str, ControlRecord]:
        """See `ControlHome.read_all`."""
        items = query_partition(self._store, self._name, _CONTROL)
        return {record.table: record for record in map(_record, items)}

    def create(self, table: str) -> None:
        """See `ControlHome.create`."""
        self._put(ControlRecord(table=table), f"attribute_not_exists({_PARTITION})", {})

    def change(self, seen: ControlRecord, **changes: Any) -> ControlRecord | None:
        """See `ControlHome.change`."""
        if not seen.decides:
            return None
        wanted = seen.changed(**changes)
        condition = "generation = :seen AND phase = :phase"
        values = {":seen": {"N": str(seen.generation)}, ":phase": {"S": seen.phase}}
        return wanted if self._put(wanted, condition, values) else None

    def shut_gate(self, table: str) -> None:
        """See `ControlHome.shut_gate`."""
        request = {
            "TableName": self._name,
            "Key": {_PARTITION: {"S": _CONTROL}, _SORT: {"S": table}},
            "UpdateExpression": "SET gate = :shut ADD gate_sequence :one, generation :one",
            "ConditionExpression": "attribute_exists(gate) AND gate <> :shut AND phase <> :moved",
            "ExpressionAttributeValues": {
                ":shut": {"S": Gate.SHUT},
                ":moved": {"S": Phase.MOVED},
                ":one": {"N": "1"},
            },
        }
        carried_out(self._store, UpdateItem(request))

    def install(self, record: ControlRecord) -> bool:
        """See `ControlHome.install`."""
        condition = f"attribute_not_exists({_PARTITION}) OR (phase = :moved AND generation < :generation)"
        values = {":moved": {"S": Phase.MOVED}, ":generation": {"N": str(record.generation)}}
        return self._put(record, condition, values)

    def take_over(self, seen: ControlRecord, wanted: ControlRecord) -> bool:
        """Put a record that decides in the place of a copy of PostgreSQL's: what a failover does.

        Args:
            seen: the copy.
            wanted: the record to decide.

        Returns:
            False where nothing was done: it is another copy by now, or none.
        """
        condition = "generation = :seen AND phase = :moved"
        values = {":seen": {"N": str(seen.generation)}, ":moved": {"S": Phase.MOVED}}
        return self._put(wanted, condition, values)

    def postgres_is_known(self) -> bool:
        """See `KnowsPostgres.postgres_is_known`."""
        return bool(query_partition(self._store, self._name, _POSTGRES))

    def note_postgres_known(self) -> None:
        """See `KnowsPostgres.note_postgres_known`."""
        item = {_PARTITION: {"S": _POSTGRES}, _SORT: {"S": "known"}}
        carried_out(self._store, PutItem({"TableName": self._name, "Item": item}))

    def processes(self) -> list[ProcessEntry]:
        """See `ControlHome.processes`."""
        return [_entry(item) for item in query_partition(self._store, self._name, _PROCESS)]

    def write_process(self, entry: ProcessEntry, *, is_new: bool) -> bool:
        """See `ControlHome.write_process`."""
        item: Item = {
            **_process_key(entry.id),
            "beat": {"N": str(entry.beat)},
            "confirmed": {"M": {table: {"N": str(number)} for table, number in entry.confirmed.items()}},
            "label": {"S": entry.label},
            "version": {"S": entry.version},
            "seen_at": {"N": f"{entry.seen_at:.3f}"},
        }
        if entry.deferring:
            item["deferring"] = {"SS": sorted(entry.deferring)}
        request: dict[str, Any] = {"TableName": self._name, "Item": item}
        if not is_new:
            request["ConditionExpression"] = f"attribute_exists({_PARTITION})"
        return carried_out(self._store, PutItem(request))

    def remove_process(self, entry: ProcessEntry, *, if_beat: bool) -> None:
        """See `ControlHome.remove_process`."""
        request: dict[str, Any] = {"TableName": self._name, "Key": _process_key(entry.id)}
        if if_beat:
            request |= {
                "ConditionExpression": "beat = :seen",
                "ExpressionAttributeValues": {":seen": {"N": str(entry.beat)}},
            }
        carried_out(self._store, DeleteItem(request))

    def _put(self, record: ControlRecord, condition: str, values: Mapping[str, Any]) -> bool:
        request: dict[str, Any] = {
            "TableName": self._name,
            "Item": _item(record),
            "ConditionExpression": condition,
        }
        if values:
            request["ExpressionAttributeValues"] = dict(values)
        return carried_out(self._store, PutItem(request))


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


def _process_key(process: str) -> Item:
    return {_PARTITION: {"S": _PROCESS}, _SORT: {"S": process}}


def _entry(item: Item) -> ProcessEntry:
    return ProcessEntry(
        id=item[_SORT]["S"],
        beat=int(item["beat"]["N"]),
        confirmed={table: int(number["N"]) for table, number in item["confirmed"]["M"].items()},
        label=item["label"]["S"],
        seen_at=float(item["seen_at"]["N"]),
        version=item["version"]["S"],
        deferring=frozenset(item.get("deferring", {}).get("SS", ())),
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
        "verified": {"BOOL": record.verified},
        "epoch": {"N": str(record.epoch)},
        "phase": {"S": record.phase},
        "target": {"NULL": True} if record.target is None else {"S": record.target},
        "deferred": {"BOOL": record.deferred},
        "streamed": {"BOOL": record.streamed},
    }
    if record.suspects:
        item["suspects"] = {"SS": sorted(record.suspects)}
    if record.stopped is not None:
        item["stopped"] = {
            "M": {
                "by": {"S": record.stopped.by},
                "at": {"N": f"{record.stopped.at:.3f}"},
                "reason": {"S": record.stopped.reason},
            }
        }
    if record.failed_over is not None:
        item["failed_over"] = {"M": _failover_item(record.failed_over)}
    return item


def _record(item: Item) -> ControlRecord:
    shadow, target = item["shadow_percent"].get("N"), item["target"].get("S")
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
        verified=item["verified"]["BOOL"],
        suspects=frozenset(item.get("suspects", {}).get("SS", ())),
        epoch=int(item["epoch"]["N"]),
        phase=Phase(item["phase"]["S"]),
        target=None if target is None else Stage(target),
        deferred=item["deferred"]["BOOL"],
        streamed=item["streamed"]["BOOL"],
        stopped=_stop(item["stopped"]["M"]) if "stopped" in item else None,
        failed_over=_failed_over(item["failed_over"]["M"]) if "failed_over" in item else None,
    )


def _stop(stored: Item) -> Stop:
    return Stop(by=stored["by"]["S"], at=float(stored["at"]["N"]), reason=stored["reason"]["S"])


def _failover_item(failed_over: FailedOver) -> Item:
    item: Item = {"by": {"S": failed_over.by}, "reason": {"S": failed_over.reason}}
    for name in _FAILOVER_MOMENTS:
        at = getattr(failed_over, name)
        if at is not None:
            item[name] = {"N": f"{at:.3f}"}
    if failed_over.rows is not None:
        item["rows"] = {"N": str(failed_over.rows)}
    return item


def _failed_over(stored: Item) -> FailedOver:
    moments = {name: float(stored[name]["N"]) for name in _FAILOVER_MOMENTS if name in stored}
    rows = int(stored["rows"]["N"]) if "rows" in stored else None
    return FailedOver(by=stored["by"]["S"], reason=stored["reason"]["S"], rows=rows, **moments)
