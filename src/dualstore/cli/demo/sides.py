"""Reads both databases raw, the one by boto3's Scan, the other by plain SQL: without dualstore's codec."""

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from dualstore.cli.demo.writes import Record, record

_STAMPS = frozenset({"_dsv", "_dsp"})
_COLUMNS = (
    *("icao", "iata", "lid", "name", "city", "subd", "country"),
    *("elevation", "lat", "lon", "tz", "visits", "visitors"),
)
_PLAIN = {"S": str, "N": Decimal, "SS": frozenset}


def scan_items(client: Any, table: str) -> Iterator[dict[str, Any]]:
    """Every item of a DynamoDB table as boto3 reads it, by strongly consistent pages."""
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        yield from page["Items"]


def get_item(client: Any, table: str, icao: str) -> dict[str, Any] | None:
    """One item as boto3 reads it, or None."""
    found: dict[str, Any] | None = client.get_item(
        TableName=table, Key={"icao": {"S": icao}}, ConsistentRead=True
    ).get("Item")
    return found


def record_of_item(item: Mapping[str, Mapping[str, Any]]) -> Record:
    """An item's record, without dualstore's stamps."""
    return record({name: _plain(value) for name, value in item.items() if name not in _STAMPS})


def _plain(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    return _PLAIN[kind](content)


def records_of_items(items: Iterable[Mapping[str, Mapping[str, Any]]]) -> dict[str, Record]:
    """The records of items by ICAO code."""
    return {item["icao"]["S"]: record_of_item(item) for item in items}


def sql_records(connection: sa.Connection, table: str, *, icao: str | None = None) -> dict[str, Record]:
    """The rows of a PostgreSQL table as records by ICAO code, or the row of one airport.

    Args:
        connection: to the database.
        table: the table's name.
        icao: the only airport wanted.
    """
    names = ", ".join((*_COLUMNS, "dualstore_overflow::text AS overflow"))
    statement = f"SELECT {names} FROM {table} WHERE CAST(:icao AS text) IS NULL OR icao = :icao"
    rows = connection.execute(sa.text(statement), {"icao": icao}).mappings()
    return {row["icao"]: _record_of_row(dict(row)) for row in rows}


def _record_of_row(row: Mapping[str, Any]) -> Record:
    columns = {name: row[name] for name in _COLUMNS}
    overflow = json.loads(row["overflow"] or "{}")
    if overlap := [name for name in overflow if columns.get(name) is not None]:
        raise ValueError(f"airport {row['icao']} has {', '.join(overlap)} in a column and in the overflow")
    return record({**columns, **{name: _plain(value) for name, value in overflow.items()}})
