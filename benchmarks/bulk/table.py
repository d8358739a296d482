"""The table, its items, and the files that hold them: an export, and the same as COPY text."""

import datetime as dt
import gzip
import json
import random
from dataclasses import dataclass
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
        exports: gzip files of DynamoDB-JSON.
        pieces: the same as COPY text, a file for each piece that a worker loads in one transaction.
        halves: the same as COPY text, a file for each of two streams.
        items: how many items.
        json_bytes: their size.
    """

    exports: list[Path]
    pieces: list[list[Path]]
    halves: list[Path]
    items: int
    json_bytes: int


def make_files(directory: Path, items: int, piece_items: int) -> Files:
    """Write the export, and what the physical limit copies: text that was transcoded before."""
    chance, transcoder = random.Random(20260101), PureTranscoder(MAPPING)
    exports, pieces, json_bytes = [], [[], []], 0
    halves = [directory / f"half-{stream}.txt" for stream in range(2)]
    each = items // FILES
    for number in range(FILES):
        lines = [line(number * each + place, chance) for place in range(each)]
        json_bytes += sum(map(len, lines))
        exports.append(directory / f"{number}.json.gz")
        with gzip.open(exports[-1], "wb", compresslevel=6) as file:
            file.write(b"".join(lines))
        for start in range(0, each, piece_items):
            text = transcoder.block(b"".join(lines[start : start + piece_items])).text
            piece = directory / f"{number}-{start}.txt"
            piece.write_bytes(text)
            pieces[number % 2].append(piece)
            with halves[number % 2].open("ab") as file:
                file.write(text)
    for path in directory.iterdir():
        path.chmod(0o644)
    return Files(exports, pieces, halves, each * FILES, json_bytes)
