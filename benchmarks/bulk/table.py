"""The table, its items, and the files that hold them: an export, and the same as COPY text."""

import datetime as dt
import gzip
import hashlib
import json
import multiprocessing
import random
from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pynamodb.attributes import (
    BooleanAttribute,
    MapAttribute,
    NumberAttribute,
    UnicodeAttribute,
    UnicodeSetAttribute,
    UTCDateTimeAttribute,
)
from pynamodb.models import Model
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase

from dualstore.mapping import Mirrored, map_table
from dualstore.mapping.transcoding import PureTranscoder

FILES = 8
TABLE = "orders-prod"


class Base(DeclarativeBase):
    pass


class OrderRow(Mirrored, Base):
    __tablename__ = "orders"

    pk = sa.Column(sa.Text(collation="C"), primary_key=True)
    sk = sa.Column(sa.Numeric, primary_key=True)
    created = sa.Column(sa.DateTime(timezone=True))
    amount = sa.Column(sa.Numeric)
    tags = sa.Column(sa.ARRAY(sa.Text))
    meta = sa.Column(JSONB)
    flag = sa.Column(sa.Boolean)
    version = sa.Column(sa.BigInteger)


class Order(Model):
    class Meta:
        table_name = TABLE
        region = "us-east-1"

    pk = UnicodeAttribute(hash_key=True)
    sk = NumberAttribute(range_key=True)
    created = UTCDateTimeAttribute()
    amount = NumberAttribute()
    tags = UnicodeSetAttribute()
    meta: Any = MapAttribute()
    flag = BooleanAttribute()
    version = NumberAttribute()


MAPPING = map_table("orders", Order, OrderRow)

_FIRST = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_TAGS = ("new", "priority", "gift", "export", "returned", "fragile")
_STREETS = ("Hauptstraße 5", "12 Main Street", "Rue de la Paix 3", "Via Roma 77")


def item(number: int, chance: random.Random) -> dict[str, Any]:
    """One item of about 350 bytes."""
    created = _FIRST + dt.timedelta(microseconds=chance.randrange(10**14))
    score, street = chance.randrange(100), chance.choice(_STREETS)
    return {
        "pk": {"S": f"customer#{chance.randrange(10**9):09d}"},
        "sk": {"N": str(number)},
        "created": {"S": created.isoformat(timespec="microseconds")[:-6] + "+0000"},
        "amount": {"N": f"{chance.randrange(1, 10**5)}.{chance.randrange(1, 10)}"},
        "tags": {"SS": chance.sample(_TAGS, 2)},
        "meta": {
            "M": {
                "source": {"S": "web"},
                "score": {"N": str(score)},
                "address": {"M": {"street": {"S": street}, "zip": {"S": f"{chance.randrange(10**5):05d}"}}},
            }
        },
        "flag": {"BOOL": score > 50},
        "version": {"N": str(chance.randrange(1, 20))},
    }


def line(number: int, chance: random.Random) -> bytes:
    """One line of the export."""
    text = json.dumps({"Item": item(number, chance)}, separators=(",", ":"), ensure_ascii=False)
    return text.encode() + b"\n"


@dataclass(frozen=True)
class Files:
    """What is loaded, in the order of the export.

    Attributes:
        export: the folder of the export, with its manifests.
        taken_at: the time whose state it holds.
        exports: its gzip files of DynamoDB-JSON.
        pieces: the same as COPY text for each of two streams, a file for each transaction.
        halves: the same as COPY text, a file for each of two streams.
        items: how many items.
        json_bytes: their size.
    """

    export: Path
    taken_at: dt.datetime
    exports: list[Path]
    pieces: list[list[Path]]
    halves: list[Path]
    items: int
    json_bytes: int


@dataclass(frozen=True)
class _File:
    path: Path
    md5: str
    json_bytes: int
    pieces: list[Path]


def make_files(directory: Path, items: int, piece_items: int) -> Files:
    """Write the export, and what the physical limit copies: text that was transcoded before."""
    each = items // FILES
    export = directory / "AWSDynamoDB" / "01767225600000-a1b2c3d4"
    (export / "data").mkdir(parents=True)
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawned) as pool:
        made = list(pool.map(_make_file, repeat(export), range(FILES), repeat(each), repeat(piece_items)))
    taken_at = dt.datetime.now(dt.UTC)
    _write_manifests(export, made, each, taken_at)
    pieces = [[piece for file in made[half::2] for piece in file.pieces] for half in range(2)]
    halves = [directory / f"half-{number}.txt" for number in range(2)]
    for half, some in zip(halves, pieces, strict=True):
        with half.open("wb") as file:
            for piece in some:
                file.write(piece.read_bytes())
    for path in (directory, *directory.rglob("*")):  # the server reads them as somebody else
        path.chmod(0o755 if path.is_dir() else 0o644)
    json_bytes = sum(file.json_bytes for file in made)
    return Files(export, taken_at, [file.path for file in made], pieces, halves, each * FILES, json_bytes)


def _make_file(export: Path, number: int, items: int, piece_items: int) -> _File:
    """One file of the export, and its COPY text."""
    chance, transcoder = random.Random(20260101 + number), PureTranscoder(MAPPING)
    lines = [line(number * items + place, chance) for place in range(items)]
    path = export / "data" / f"{number:08}.json.gz"
    path.write_bytes(gzip.compress(b"".join(lines), 6))
    pieces = []
    for start in range(0, items, piece_items):
        pieces.append(export.parents[1] / f"{number}-{start}.txt")
        pieces[-1].write_bytes(transcoder.block(b"".join(lines[start : start + piece_items])).text)
    return _File(path, _md5(path.read_bytes()), sum(map(len, lines)), pieces)


def _write_manifests(export: Path, files: Sequence[_File], items_in_each: int, taken_at: dt.datetime) -> None:
    """AWS, "DynamoDB table export output format"."""
    arn = f"arn:aws:dynamodb:us-east-1:123456789012:table/{TABLE}"
    root = f"AWSDynamoDB/{export.name}"
    lines = [
        {
            "itemCount": items_in_each,
            "md5Checksum": file.md5,
            "etag": "",
            "dataFileS3Key": f"{root}/data/{file.path.name}",
        }
        for file in files
    ]
    summary = {
        "version": "2020-06-30",
        "exportArn": f"{arn}/export/{export.name}",
        "tableArn": arn,
        "manifestFilesS3Key": f"{root}/manifest-files.json",
        "itemCount": items_in_each * len(files),
        "outputFormat": "DYNAMODB_JSON",
        "s3Bucket": "exports",
        "exportTime": taken_at.isoformat(timespec="milliseconds"),
    }
    manifests = {"manifest-files": lines, "manifest-summary": [summary]}
    for name, parts in manifests.items():
        text = b"".join(json.dumps(part).encode() + b"\n" for part in parts)
        (export / f"{name}.json").write_bytes(text)
        (export / f"{name}.md5").write_text(_md5(text))


def _md5(content: bytes) -> str:
    return b64encode(hashlib.md5(content).digest()).decode()
