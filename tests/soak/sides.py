"""Reads both databases raw: DynamoDB by boto3, PostgreSQL by psycopg; without dualstore."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import psycopg

from soak.tables import ORDERS, PARCELS, TABLES, Place

_STAMPS = frozenset({"_dsv", "_dsp"})
_ROWS = {
    ORDERS: "SELECT pk, sk::text, written, proof, n::text, dualstore_overflow::text FROM orders",
    PARCELS: (
        "SELECT partition_key, sort_key::text, NULL, NULL, NULL, dualstore_overflow::text FROM parcels"
    ),
}
_COLUMNS = (("written", "S"), ("proof", "S"), ("n", "N"))
_WAITING = {
    "dirty keys": "SELECT count(*) FROM dualstore.dirty",
    "outbox": "SELECT count(*) FROM dualstore.outbox WHERE done_at IS NULL",
}


def dynamodb_items(client: Any) -> dict[Place, dict[str, Any]]:
    """Every item of all tables."""
    found: dict[Place, dict[str, Any]] = {}
    for table in TABLES:
        for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
            found |= {Place.of_item(table, item): _plain(item) for item in page["Items"]}
    return found


def postgres_items(dsn: str) -> dict[Place, dict[str, Any]]:
    """Every row of all tables, as the item that it stands for."""
    found: dict[Place, dict[str, Any]] = {}
    with psycopg.connect(dsn, connect_timeout=2) as connection:
        for table, statement in _ROWS.items():
            for pk, sk, *columns, overflow in connection.execute(statement):
                item = json.loads(overflow or "{}")
                for (name, kind), value in zip(_COLUMNS, columns, strict=True):
                    if value is not None:
                        assert name not in item, f"{table} has {name} in a column and in the overflow"
                        item[name] = {kind: value}
                found[Place(table, pk, int(Decimal(sk)))] = _plain({"pk": {"S": pk}, "sk": {"N": sk}, **item})
    return found


def waiting(dsn: str) -> dict[str, int]:
    """How much waits to be brought after, by PostgreSQL's bookkeeping."""
    with psycopg.connect(dsn, connect_timeout=2) as connection:
        return {
            name: connection.execute(statement).fetchone()[0]  # type: ignore[index]
            for name, statement in _WAITING.items()
        }


def _plain(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _value(value) for name, value in item.items() if name not in _STAMPS}


def _value(value: Mapping[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    if kind == "N":
        return {kind: f"{Decimal(content).normalize():f}"}
    return {kind: sorted(content) if kind == "SS" else content}
