"""What CreateTable and UpdateTable say of a table, checked as DynamoDB checks it.

A definition is the `TableDescription` that DescribeTable answers. Everything here is at once: a table is
ACTIVE when it has been created, and an index when it has been added. Source: Amazon DynamoDB API Reference.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dualstore.errors import RequestRejected, invalid
from dualstore.items import KeySchema, Projection, TableShape
from dualstore.stores.semantics.constraints import Fault, at_least, no_longer, no_shorter, refusal

Definition = Mapping[str, Any]
"""A TableDescription."""

REGION, ACCOUNT = "local", "000000000000"

_NAME = re.compile(r"[a-zA-Z0-9_.-]+")
_MIN_NAME, _MAX_NAME = 3, 255
_MAX_KEYS = 2
_MAX_GLOBAL_INDEXES, _MAX_LOCAL_INDEXES = 20, 5
_WRONG = "One or more parameter values were invalid: "
_CHOICES = {
    "keyType": ("HASH", "RANGE"),
    "attributeType": ("B", "N", "S"),
    "billingMode": ("PROVISIONED", "PAY_PER_REQUEST"),
    "projectionType": ("ALL", "INCLUDE", "KEYS_ONLY"),
}


def table_arn(name: str) -> str:
    """The ARN of a table."""
    return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}"


def check_name(name: str | None, parameter: str = "TableName") -> str:
    """A table's, or an index's, name, if it can be one.

    Raises:
        RequestRejected: it cannot.
    """
    if name is None:
        raise invalid(f"The parameter '{parameter}' is required but was not present in the request")
    place = parameter[0].lower() + parameter[1:]
    if len(name) < _MIN_NAME:
        raise refusal([Fault(name, place, no_shorter(_MIN_NAME))])
    if len(name) > _MAX_NAME:
        raise refusal([Fault(name, place, no_longer(_MAX_NAME))])
    if _NAME.fullmatch(name) is None:
        raise refusal(
            [Fault(name, place, f"Member must satisfy regular expression pattern: {_NAME.pattern}")]
        )
    return name


def created(request: Mapping[str, Any], *, now: float) -> Definition:
    """The definition of the table that a CreateTable request asks for.

    Args:
        request: the parameters of CreateTable.
        now: seconds since the epoch.

    Raises:
        RequestRejected: there can be no such table.
    """
    name = check_name(request.get("TableName"))
    _check_choices(request)
    attributes = _required(request, "AttributeDefinitions")
    keys = _required(request, "KeySchema")
    _check_keys(keys, attributes)
    billing = request.get("BillingMode") or "PROVISIONED"
    throughput = _throughput(request, billing)
    global_indexes = request.get("GlobalSecondaryIndexes") or []
    local_indexes = request.get("LocalSecondaryIndexes") or []
    _check_indexes(keys, attributes, global_indexes, local_indexes)
    _check_definitions(
        attributes, [keys, *(index["KeySchema"] for index in (*global_indexes, *local_indexes))]
    )
    definition = {
        "TableName": name,
        "TableArn": table_arn(name),
        "TableStatus": "ACTIVE",
        "CreationDateTime": now,
        "ItemCount": 0,
        "TableSizeBytes": 0,
        "AttributeDefinitions": attributes,
        "KeySchema": keys,
        "DeletionProtectionEnabled": bool(request.get("DeletionProtectionEnabled")),
        **_billed(billing, throughput, now),
    }
    if global_indexes:
        definition["GlobalSecondaryIndexes"] = [_index(name, index, billing) for index in global_indexes]
    if local_indexes:
        definition["LocalSecondaryIndexes"] = [_index(name, index, None) for index in local_indexes]
    return definition


def described(shape: TableShape) -> Definition:
    """The definition of a table as far as its shape tells it."""
    schemas = [shape.keys, *(index.keys for index in shape.indexes.values())]
    types = {attribute.name: attribute.type for keys in schemas for attribute in keys.attributes}
    definition: dict[str, Any] = {
        "TableName": shape.name,
        "TableArn": table_arn(shape.name),
        "TableStatus": "ACTIVE",
        "ItemCount": 0,
        "TableSizeBytes": 0,
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind} for name, kind in types.items()
        ],
        "KeySchema": _key_schema(shape.keys),
    }
    for index in shape.indexes.values():
        kind = "GlobalSecondaryIndexes" if index.is_global else "LocalSecondaryIndexes"
        asked = {
            "IndexName": index.name,
            "KeySchema": _key_schema(index.keys),
            "Projection": _projection(index.projection),
        }
        definition.setdefault(kind, []).append(_index(shape.name, asked, "" if index.is_global else None))
    return definition


def _key_schema(keys: KeySchema) -> list[dict[str, str]]:
    roles = zip(keys.names, ("HASH", "RANGE"), strict=False)
    return [{"AttributeName": name, "KeyType": role} for name, role in roles]


def _projection(projection: Projection) -> dict[str, Any]:
    if isinstance(projection, tuple):
        return {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(projection)}
    return {"ProjectionType": projection}


def updated(definition: Definition, request: Mapping[str, Any], *, now: float) -> Definition:
    """A definition after an UpdateTable.

    Raises:
        RequestRejected: it cannot be changed so.
    """
    _check_choices(request)
    changed = dict(definition)
    if "DeletionProtectionEnabled" in request:
        changed["DeletionProtectionEnabled"] = request["DeletionProtectionEnabled"]
    if "BillingMode" in request or "ProvisionedThroughput" in request:
        changed |= _rebilled(definition, request, now)
    changes = request.get("GlobalSecondaryIndexUpdates") or []
    if len(changes) > 1:
        raise RequestRejected(
            "LimitExceededException",
            "Subscriber limit exceeded: Only 1 online index can be created or deleted",
        )
    for change in changes:
        for action, asked in change.items():
            _INDEX_CHANGES[action](changed, asked, request.get("AttributeDefinitions") or [])
    if (
        not {"DeletionProtectionEnabled", "BillingMode", "ProvisionedThroughput", "StreamSpecification"}
        & (request.keys())
        and not changes
    ):
        raise invalid(
            "At least one of ProvisionedThroughput, BillingMode, UpdateStreamEnabled, "
            "GlobalSecondaryIndexUpdates or SSESpecification or ReplicaUpdates is required"
        )
    return changed


def _check_choices(request: Mapping[str, Any]) -> None:
    found = list(_wrong_choices(request))
    keys = request.get("KeySchema") or ()
    if len(keys) > _MAX_KEYS:
        listed = ", ".join(
            f"KeySchemaElement(attributeName={key.get('AttributeName')}, keyType={key.get('KeyType')})"
            for key in keys
        )
        found.append(Fault(f"[{listed}]", "keySchema", no_longer(_MAX_KEYS)))
    throughput = request.get("ProvisionedThroughput") or {}
    found += [
        Fault(str(value), f"provisionedThroughput.{name[0].lower()}{name[1:]}", at_least(1))
        for name, value in throughput.items()
        if value < 1
    ]
    if found:
        raise refusal(found)


def _wrong_choices(value: Any, path: str = "") -> Iterator[Fault]:
    """The members whose value is none of those they may have."""
    if isinstance(value, Mapping):
        for name, member in value.items():
            place = name[0].lower() + name[1:]
            choices = _CHOICES.get(place)
            if choices is not None and isinstance(member, str) and member not in choices:
                yield Fault(
                    member, path + place, f"Member must satisfy enum value set: [{', '.join(choices)}]"
                )
            yield from _wrong_choices(member, f"{path}{place}.")
    elif isinstance(value, list):
        for number, member in enumerate(value, 1):
            yield from _wrong_choices(member, f"{path}{number}.member.")


def _required(request: Mapping[str, Any], parameter: str) -> Any:
    if not request.get(parameter):
        place = parameter[0].lower() + parameter[1:]
        raise refusal([Fault(None, place, "Member must not be null")])
    return request[parameter]


def _roles(keys: Sequence[Mapping[str, str]]) -> list[str]:
    return [key["KeyType"] for key in keys]


def _check_keys(keys: Sequence[Mapping[str, str]], attributes: Sequence[Mapping[str, str]]) -> None:
    names = [key["AttributeName"] for key in keys]
    if _roles(keys)[0] != "HASH":
        raise invalid("Invalid KeySchema: The first KeySchemaElement is not a HASH key type")
    if len(keys) == _MAX_KEYS and _roles(keys)[1] != "RANGE":
        raise invalid("Invalid KeySchema: The second KeySchemaElement is not a RANGE key type")
    if len(set(names)) < len(names) or not set(names) <= {each["AttributeName"] for each in attributes}:
        raise invalid("Invalid KeySchema: Some index key attribute have no definition")


def _check_definitions(
    attributes: Sequence[Mapping[str, str]], schemas: Sequence[Sequence[Mapping[str, str]]]
) -> None:
    names = [each["AttributeName"] for each in attributes]
    if any(count > 1 for count in Counter(names).values()):
        raise invalid("Cannot have two attributes with the same name")
    used = {key["AttributeName"] for keys in schemas for key in keys}
    if len(used) < len(names):
        raise invalid(
            f"{_WRONG}Number of attributes in KeySchema does not exactly match number of attributes defined "
            "in AttributeDefinitions"
        )


def _check_indexes(
    keys: Sequence[Mapping[str, str]],
    attributes: Sequence[Mapping[str, str]],
    global_indexes: Sequence[Mapping[str, Any]],
    local_indexes: Sequence[Mapping[str, Any]],
) -> None:
    if local_indexes and len(keys) < _MAX_KEYS:
        raise invalid(
            f"{_WRONG}Table KeySchema does not have a range key, which is required when specifying a "
            "LocalSecondaryIndex"
        )
    if len(global_indexes) > _MAX_GLOBAL_INDEXES:
        raise invalid(
            f"{_WRONG}GlobalSecondaryIndex count exceeds the per-table limit of {_MAX_GLOBAL_INDEXES}"
        )
    if len(local_indexes) > _MAX_LOCAL_INDEXES:
        raise invalid(
            f"{_WRONG}Number of LocalSecondaryIndexes exceeds per-table limit of {_MAX_LOCAL_INDEXES}"
        )
    seen: set[str] = set()
    for index in (*global_indexes, *local_indexes):
        name = check_name(index.get("IndexName"), "IndexName")
        if name in seen:
            raise invalid(f"{_WRONG}Duplicate index name: {name}")
        seen.add(name)
        _check_index(index, attributes)
    for index in local_indexes:
        if index["KeySchema"][0]["AttributeName"] != keys[0]["AttributeName"]:
            raise invalid(
                f"{_WRONG}Table KeySchema and Index KeySchema of {index['IndexName']} must have the same "
                "hash key"
            )
        if len(index["KeySchema"]) < _MAX_KEYS:
            raise invalid(
                f"{_WRONG}Index KeySchema does not have a range key for index: {index['IndexName']}"
            )


def _check_index(index: Mapping[str, Any], attributes: Sequence[Mapping[str, str]]) -> None:
    _check_keys(_required(index, "KeySchema"), attributes)
    projection = index.get("Projection") or {}
    if not projection.get("ProjectionType"):
        raise invalid(f"{_WRONG}Unknown ProjectionType: null")
    if (projection["ProjectionType"] == "INCLUDE") != bool(projection.get("NonKeyAttributes")):
        raise invalid(
            f"{_WRONG}ProjectionType is {projection['ProjectionType']}, and NonKeyAttributes "
            + ("is not specified" if projection["ProjectionType"] == "INCLUDE" else "is specified")
        )


def _throughput(request: Mapping[str, Any], billing: str) -> Mapping[str, int]:
    throughput: Mapping[str, int] | None = request.get("ProvisionedThroughput")
    if billing == "PAY_PER_REQUEST":
        if throughput is not None:
            raise invalid(
                f"{_WRONG}Neither ReadCapacityUnits nor WriteCapacityUnits can be specified when BillingMode "
                "is PAY_PER_REQUEST"
            )
        return {"ReadCapacityUnits": 0, "WriteCapacityUnits": 0}
    if throughput is None:
        raise invalid(
            f"{_WRONG}ReadCapacityUnits and WriteCapacityUnits must both be specified when BillingMode is "
            "PROVISIONED"
        )
    return throughput


def _billed(billing: str, throughput: Mapping[str, int], now: float) -> dict[str, Any]:
    billed: dict[str, Any] = {"ProvisionedThroughput": {"NumberOfDecreasesToday": 0, **throughput}}
    if billing == "PAY_PER_REQUEST":
        billed["BillingModeSummary"] = {"BillingMode": billing, "LastUpdateToPayPerRequestDateTime": now}
    return billed


def _rebilled(definition: Definition, request: Mapping[str, Any], now: float) -> dict[str, Any]:
    before = definition.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
    billing = request.get("BillingMode") or before
    throughput = _throughput(request, billing)
    known = definition["ProvisionedThroughput"]
    if before == billing == "PROVISIONED" and all(known[name] == value for name, value in throughput.items()):
        raise invalid(
            "The provisioned throughput for the table will not change. "
            "The requested value equals the current value."
        )
    billed = _billed(billing, throughput, now)
    billed.setdefault(
        "BillingModeSummary", {**definition.get("BillingModeSummary", {}), "BillingMode": billing}
    )
    return billed


def _index(table: str, asked: Mapping[str, Any], billing: str | None) -> dict[str, Any]:
    """An index's description; `billing` is None for a local one."""
    name = asked["IndexName"]
    described = {
        "IndexName": name,
        "IndexArn": f"{table_arn(table)}/index/{name}",
        "KeySchema": asked["KeySchema"],
        "Projection": asked["Projection"],
        "IndexSizeBytes": 0,
        "ItemCount": 0,
    }
    if billing is None:
        return described
    throughput = asked.get("ProvisionedThroughput") or {"ReadCapacityUnits": 0, "WriteCapacityUnits": 0}
    return described | {
        "IndexStatus": "ACTIVE",
        "ProvisionedThroughput": {"NumberOfDecreasesToday": 0, **throughput},
    }


def _add_index(
    definition: dict[str, Any], asked: Mapping[str, Any], attributes: Sequence[Mapping[str, str]]
) -> None:
    indexes = definition.get("GlobalSecondaryIndexes", [])
    local = definition.get("LocalSecondaryIndexes", [])
    name = check_name(asked.get("IndexName"), "IndexName")
    if any(index["IndexName"] == name for index in (*indexes, *local)):
        raise invalid(f"{_WRONG}Attempting to create an index which already exists")
    known = {each["AttributeName"]: each for each in (*definition["AttributeDefinitions"], *attributes)}
    _check_index(asked, list(known.values()))
    used = {key["AttributeName"] for key in asked["KeySchema"]}
    before = [each["AttributeName"] for each in definition["AttributeDefinitions"]]
    definition["AttributeDefinitions"] = [
        each for each in known.values() if each["AttributeName"] in used or each["AttributeName"] in before
    ]
    definition["GlobalSecondaryIndexes"] = [*indexes, _index(definition["TableName"], asked, "")]


def _existing_index(definition: Mapping[str, Any], asked: Mapping[str, Any]) -> Mapping[str, Any]:
    for index in definition.get("GlobalSecondaryIndexes", []):
        if index["IndexName"] == asked.get("IndexName"):
            found: Mapping[str, Any] = index
            return found
    raise RequestRejected("ResourceNotFoundException", "Requested resource not found")


def _remove_index(
    definition: dict[str, Any], asked: Mapping[str, Any], _: Sequence[Mapping[str, str]]
) -> None:
    gone = _existing_index(definition, asked)
    kept = [index for index in definition["GlobalSecondaryIndexes"] if index is not gone]
    del definition["GlobalSecondaryIndexes"]
    if kept:
        definition["GlobalSecondaryIndexes"] = kept
    schemas = [
        definition["KeySchema"],
        *(i["KeySchema"] for i in (*kept, *definition.get("LocalSecondaryIndexes", ()))),
    ]
    used = {key["AttributeName"] for keys in schemas for key in keys}
    definition["AttributeDefinitions"] = [
        each for each in definition["AttributeDefinitions"] if each["AttributeName"] in used
    ]


def _change_index(
    definition: dict[str, Any], asked: Mapping[str, Any], _: Sequence[Mapping[str, str]]
) -> None:
    changed = _existing_index(definition, asked)
    throughput = {"NumberOfDecreasesToday": 0, **(asked.get("ProvisionedThroughput") or {})}
    definition["GlobalSecondaryIndexes"] = [
        {**index, "ProvisionedThroughput": throughput} if index is changed else index
        for index in definition["GlobalSecondaryIndexes"]
    ]


_INDEX_CHANGES: Mapping[
    str, Callable[[dict[str, Any], Mapping[str, Any], Sequence[Mapping[str, str]]], None]
] = {"Create": _add_index, "Delete": _remove_index, "Update": _change_index}
