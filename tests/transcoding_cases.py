"""Blocks of an export for the tests of transcoding, and what COPY makes of a line, without PostgreSQL."""

import json
import os
import re
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.adapt import PyFormat, Transformer

from dualstore.errors import ConfigurationError
from dualstore.items import Item
from dualstore.mapping import TableMapping
from dualstore.mapping.transcoding import AcceleratedTranscoder, PureTranscoder, Transcoder
from dualstore.mapping.transcoding.accelerated import accelerator


def accelerator_is_built() -> bool:
    try:
        accelerator()
    except ConfigurationError:
        if os.environ.get("DUALSTORE_REQUIRE_ACCELERATOR") == "1":
            raise
        return False
    return True


TRANSCODERS: dict[str, Callable[[TableMapping], Transcoder]] = {"python": PureTranscoder}
if accelerator_is_built():
    TRANSCODERS["accelerated"] = AcceleratedTranscoder


def json_of(item: Any) -> Any:
    """An item as a JSON library writes it: binary as base64."""
    if isinstance(item, bytes):
        return b64encode(item).decode()
    if isinstance(item, dict):
        return {name: json_of(each) for name, each in item.items()}
    return [json_of(each) for each in item] if isinstance(item, list) else item


def line_of(item: Item, *, ascii_only: bool = False) -> bytes:
    """The line of a full export that holds an item."""
    text = json.dumps({"Item": json_of(item)}, separators=(",", ":"), ensure_ascii=ascii_only)
    return text.encode() + b"\n"


def page_of(*items: Item, **members: Any) -> bytes:
    """What a Scan answers."""
    answer = {"Count": len(items), "Items": [json_of(item) for item in items], "ScannedCount": len(items)}
    return json.dumps(answer | members, separators=(",", ":"), ensure_ascii=False).encode()


_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_CONTROL = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}


def fields_of_line(line: bytes) -> list[str | None]:
    """The fields of a line in COPY's text format (PostgreSQL, "COPY", File Formats)."""
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    return [
        None if field == rb"\N" else _ESCAPED.sub(lambda m: _CONTROL.get(m[1], m[1]), field).decode()
        for field in line[:-1].split(b"\t")
    ]


def meanings(mapping: TableMapping, fields: list[str | None]) -> list[Any]:
    """What PostgreSQL takes fields for, as far as two texts can say the same."""
    return [
        None if field is None else _MEANINGS.get(type_, str)(field)
        for field, type_ in zip(fields, mapping.pg_types, strict=True)
    ]


def fields_of_item(mapping: TableMapping, item: Item) -> list[str | None]:
    """The fields that psycopg's `write_row` sends for what the mapping makes of an item."""
    return [None if value is None else _dumped(value) for value in mapping.encode(item)]


def _dumped(value: Any) -> str:
    match value:
        case bytes():  # without a connection psycopg escapes binary as servers before 9.1 took it
            return rf"\x{value.hex()}"
        case [bytes(), *_]:
            return "{" + ",".join(rf'"\\x{each.hex()}"' for each in value) + "}"
    return bytes(Transformer().get_dumper(value, PyFormat.TEXT).dump(value)).decode()


def _array(text: str) -> list[str]:
    members = re.findall(r'"((?:[^"\\]|\\.)*)"|([^",{}]+)', text, re.DOTALL)
    assert text[0] + text[-1] == "{}"
    return [re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL) or bare for quoted, bare in members]


def _timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text)


_MEANINGS: dict[str, Callable[[str], Any]] = {
    "numeric": Decimal,
    "timestamptz": _timestamp,
    "timestamp": _timestamp,
    "jsonb": lambda text: json.loads(text, parse_float=Decimal, parse_int=Decimal),
    "text[]": _array,
    "varchar[]": _array,
    "numeric[]": lambda text: list(map(Decimal, _array(text))),
    "int4[]": lambda text: list(map(int, _array(text))),
    "bytea[]": _array,
    "bytea": lambda text: bytes.fromhex(text.removeprefix("\\x")),
    "uuid": UUID,
    "float8": float,
    "float4": float,
}
