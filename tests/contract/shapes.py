"""The tables of the contract suite, as CreateTable takes them."""

from collections.abc import Mapping
from typing import Any

from dualstore.items import TableShape, table_shape_from_description

INCLUDED = ("note", "size")


def _key(partition: str, sort: str | None = None) -> list[dict[str, str]]:
    keys = [{"AttributeName": partition, "KeyType": "HASH"}]
    return keys if sort is None else [*keys, {"AttributeName": sort, "KeyType": "RANGE"}]


def _index(name: str, projection: Mapping[str, Any], *key: str) -> dict[str, Any]:
    return {"IndexName": name, "KeySchema": _key(*key), "Projection": dict(projection)}


_KEYS_ONLY = {"ProjectionType": "KEYS_ONLY"}
_INCLUDE = {"ProjectionType": "INCLUDE", "NonKeyAttributes": list(INCLUDED)}
_ALL = {"ProjectionType": "ALL"}

# Attribute types of the keys; the key; the rest of the CreateTable request.
_TABLES: dict[str, tuple[dict[str, str], list[dict[str, str]], dict[str, Any]]] = {
    "things": (
        {"pk": "S", "sk": "N", "owner": "S", "rank": "N", "colour": "S", "label": "S"},
        _key("pk", "sk"),
        {
            "GlobalSecondaryIndexes": [
                _index("by-owner", _KEYS_ONLY, "owner"),
                _index("by-rank", _INCLUDE, "owner", "rank"),
                _index("by-colour", _ALL, "colour", "sk"),
            ],
            "LocalSecondaryIndexes": [_index("by-label", _KEYS_ONLY, "pk", "label")],
        },
    ),
    "singles": ({"pk": "S"}, _key("pk"), {}),
    "numbered": ({"pk": "N"}, _key("pk"), {}),
    "texts": ({"pk": "S", "sk": "S"}, _key("pk", "sk"), {}),
    "binaries": ({"pk": "B", "sk": "B"}, _key("pk", "sk"), {}),
}


def create_request(kind: str, name: str) -> dict[str, Any]:
    """The CreateTable request of one kind of table."""
    types, keys, indexes = _TABLES[kind]
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": attribute, "AttributeType": type_} for attribute, type_ in types.items()
        ],
        "KeySchema": keys,
        **indexes,
    }


def shape(kind: str, name: str) -> TableShape:
    """The shape of one kind of table."""
    return table_shape_from_description(create_request(kind, name))
