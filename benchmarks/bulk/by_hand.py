"""What users write by hand, and what they take ready-made, to load an export."""

import json
import tempfile
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from decimal import Decimal
from io import StringIO
from itertools import chain
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy as sa
from boto3.dynamodb.types import TypeDeserializer
from psycopg.types.json import Jsonb

from bulk.table import OrderRow
from dualstore.backfill.blocks import blocks_of_lines, gunzipped

try:
    import dlt
except ImportError:
    dlt = None

ByHand = Callable[[sa.Engine, list[Path], int], None]
"""Loads the first items of some files into the empty table `orders`."""


def _python_items(exports: list[Path], items: int) -> Iterator[dict[str, Any]]:
    deserialize = TypeDeserializer().deserialize
    left = items
    for path in exports:
        for line in chain.from_iterable(map(bytes.splitlines, blocks_of_lines(gunzipped(path.open("rb"))))):
            if not left:
                return
            left -= 1
            yield {name: deserialize(value) for name, value in json.loads(line)["Item"].items()}


def _json_number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    raise TypeError


def _row(item: dict[str, Any]) -> dict[str, Any]:
    return item | {"tags": list(item["tags"]), "version": int(item["version"])}


def by_core(engine: sa.Engine, exports: list[Path], items: int) -> None:
    """SQLAlchemy Core, `execute(insert, [...])`, a thousand rows at a time."""
    with engine.begin() as connection:
        for rows in _thousands(map(_row, _python_items(exports, items))):
            plain = [row | {"meta": _plain(row["meta"])} for row in rows]
            connection.execute(sa.insert(OrderRow.__table__), plain)


_COLUMNS = ("pk", "sk", "created", "amount", "tags", "meta", "flag", "version")


def _values(row: dict[str, Any]) -> tuple[Any, ...]:
    meta = Jsonb(row["meta"], dumps=lambda value: json.dumps(value, default=_json_number))
    return tuple(meta if name == "meta" else row[name] for name in _COLUMNS)


def by_executemany(engine: sa.Engine, exports: list[Path], items: int) -> None:
    """psycopg's executemany."""
    insert = f"INSERT INTO orders ({', '.join(_COLUMNS)}) VALUES ({', '.join(['%s'] * len(_COLUMNS))})"
    with _driver(engine) as connection, connection.cursor() as cursor:
        for rows in _thousands(map(_row, _python_items(exports, items))):
            cursor.executemany(insert, map(_values, rows))


def by_write_row(engine: sa.Engine, exports: list[Path], items: int) -> None:
    """psycopg's COPY, row by row."""
    copying = f"COPY orders ({', '.join(_COLUMNS)}) FROM STDIN"
    with _driver(engine) as connection, connection.cursor() as cursor, cursor.copy(copying) as copy:
        copy.set_types(["text", "numeric", "timestamptz", "numeric", "text[]", "jsonb", "bool", "int8"])
        for row in map(_row, _python_items(exports, items)):
            copy.write_row(_values(row))


def by_dlt(engine: sa.Engine, exports: list[Path], items: int) -> None:
    """dlt's pipeline, `merge` by the primary key, its defaults; into a table that it makes."""
    credentials = engine.url.render_as_string(hide_password=False).replace("postgresql+psycopg", "postgresql")
    with tempfile.TemporaryDirectory() as directory, redirect_stdout(StringIO()):
        pipeline = dlt.pipeline(
            "orders",
            pipelines_dir=directory,
            destination=dlt.destinations.postgres(credentials),
            dataset_name="public",
        )
        rows = (_row(item) | {"meta": _plain(item["meta"])} for item in _python_items(exports, items))
        resource = dlt.resource(
            rows,
            name="orders_by_dlt",
            write_disposition="merge",
            primary_key=("pk", "sk"),
            columns={"meta": {"data_type": "json"}, "tags": {"data_type": "json"}},
        )
        pipeline.run(resource)
    with engine.begin() as connection:
        loaded = connection.exec_driver_sql("SELECT count(*) FROM orders_by_dlt").scalar()
        connection.exec_driver_sql("DROP TABLE orders_by_dlt")
    assert loaded == items, f"dlt has loaded {loaded} of {items} items"


BY_HAND: dict[str, ByHand] = {
    "SQLAlchemy Core executemany": by_core,
    "psycopg executemany": by_executemany,
    "psycopg write_row": by_write_row,
}
READY_MADE: dict[str, ByHand] = {} if dlt is None else {f"dlt {dlt.__version__}, merge": by_dlt}


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=_json_number))


def _driver(engine: sa.Engine) -> psycopg.Connection[Any]:
    url = engine.url.render_as_string(hide_password=False).replace("postgresql+psycopg", "postgresql")
    return psycopg.connect(url)


def _thousands(rows: Iterator[Any]) -> Iterator[list[Any]]:
    some: list[Any] = []
    for row in rows:
        some.append(row)
        if len(some) == 1000:
            yield some
            some = []
    if some:
        yield some
