"""Batches in COPY's binary format make the rows that their text would have made, whatever the columns are."""

import struct
from dataclasses import replace
from itertools import pairwise
from random import Random

import psycopg
import pytest
import sqlalchemy as sa

from bulk_sides import BulkSides, bulk_sides, mapping_of, order
from dualstore.mapping.transcoding import PureTranscoder
from dualstore.mapping.transcoding.binary_rows import END, HEAD, packing
from dualstore.stores import postgres_merge
from dualstore.stores.memory import MemoryStore
from transcoding_cases import accelerator_is_built, line_of

pytestmark = pytest.mark.skipif(
    not accelerator_is_built(), reason="the accelerator is not built: pip install ./accelerator"
)

TABLE = "orders-prod"
UUID = "0190f3a4-5b6c-7d8e-9f00-112233445566"
COLUMNS: dict[str, tuple[str, ...]] = {
    "bool": ("t", "f"),
    "bytea": (r"\\x", r"\\x00ff5c"),
    "int8": ("-9223372036854775808", "9223372036854775807"),
    "int2": ("-32768", "0"),
    "int4": ("2147483647", "-1"),
    "text": ("", "\1\1 Straße \\\\ \\n\\t"),
    "json": ("[1.50]", '{"a":"\\\\u0041"}'),
    "jsonb": ('{"a": [1.50, null]}', '"\\\\\\\\"'),
    "text[]": ('{"a,b","","\\\\""}', '{"NULL","\\\\\\\\ {}"}'),
    "varchar(9)[]": ('{"new"}', '{"ä"}'),
    "varchar(9)": ("nine char", ""),
    "date": ("0001-01-01", "2024-02-29"),
    "timestamp": ("0002-03-04T05:06:07.000008", "9997-12-31 23:59:59"),
    "timestamptz": ("1999-12-31T23:59:59.999999+0000", "1900-03-01 00:00:00+00:00"),
    "numeric[]": ("{0,-0.5,99999999999999999999.1}", "{10000}"),
    "numeric": ("-12345678901234567890.12345678901234567", "0"),
    "numeric(12,4)": ("12345678.9000", "-0.0001"),
    "uuid": (UUID, UUID.upper()),
}


@pytest.fixture
def sides(bulk_url):
    with bulk_sides(bulk_url, MemoryStore({TABLE: mapping_of(TABLE).shape}), TABLE) as both:
        yield both


@pytest.fixture
def packed(monkeypatch):
    """The texts of the blocks that were sent in binary."""
    texts: list[bytes] = []

    def noting(types, *, keys):
        pack = packing(types, keys=keys)

        def note(some):
            done = pack(some)
            texts.extend(text for place, text in enumerate(some) if place not in done.left)
            return done

        return None if pack is None else note

    monkeypatch.setattr(postgres_merge, "packing", noting)
    return texts


def blocks_of(sides: BulkSides, *some):
    transcoder = PureTranscoder(sides.mapping)
    return [transcoder.block(line_of(item)) for item in some]


def load(sides: BulkSides, blocks):
    """Load blocks in one transaction; the piece, and what was rejected."""
    rejected = []
    run = sides.runs.start("backfill", TABLE, {}, pieces=1)
    piece = sides.load.piece(sides.runs.claim(run.id, 0))
    return sides.load.load_blocks(
        piece, blocks, position=None, reject=lambda _, some: rejected.extend(some)
    ), rejected


def test_rows_are_those_that_postgresql_itself_sends_in_binary(postgres_url):
    names = ", ".join(f"c{number} {type_}" for number, type_ in enumerate(COLUMNS))
    rows = ["\t".join(fields[number] for fields in COLUMNS.values()) for number in range(2)]
    text = "".join(f"{row}\n" for row in (*rows, "\t".join(["\\N"] * len(COLUMNS)))).encode()
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE every_type ({names})")
        cursor.execute(
            "SELECT atttypid FROM pg_attribute WHERE attrelid = 'every_type'::regclass AND attnum > 0"
        )
        pack = packing([oid for (oid,) in cursor], keys=0)
        assert pack is not None
        packed = b"".join((HEAD, *pack([text]).rows, END))
        with cursor.copy("COPY every_type FROM STDIN") as copy:
            copy.write(text)
        with cursor.copy("COPY every_type TO STDOUT (FORMAT BINARY)") as copy:
            sent = b"".join(bytes(part) for part in copy)
        assert packed == sent

        with cursor.copy("COPY every_type FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(packed)
        cursor.execute("SELECT DISTINCT every_type::text FROM every_type")
        assert len(cursor.fetchall()) == 3


def test_a_batch_goes_in_binary_and_what_cannot_goes_as_text(sides: BulkSides, packed):
    some = [order(1), order(2, total={"N": "2.5"}), order(3)]
    declined = order(4, total={"N": "1." + "1" * 37})
    odd = order(5, total={"N": "500"})
    blocks = blocks_of(sides, *some, declined)
    (other,) = blocks_of(sides, odd)
    assert b"\t500\t" in other.text
    blocks.insert(1, replace(other, text=other.text.replace(b"\t500\t", b"\t5e2\t")))
    sides.put(*some, declined, odd)

    piece, rejected = load(sides, blocks)

    sides.assert_equal()
    assert len([text for text in packed if text]) == len(some)
    assert (piece.row.items, piece.row.inserted, rejected) == (5, 5, [])


def test_a_row_that_is_refused_in_binary_is_put_aside_alone(sides: BulkSides, packed):
    some = [order(n, name={"S": "forbidden"} if n == 2 else {"S": "fine"}) for n in range(5)]
    too_many_digits = order(5, total={"N": "7"})
    with sides.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE shop.orders ALTER COLUMN total TYPE numeric(1, 1)"))

    piece, rejected = load(sides, blocks_of(sides, *some, too_many_digits))

    assert len(packed) == 6
    assert {each.key["number"]["N"] for each in rejected} == {"2", "5"}
    assert (piece.row.inserted, piece.row.rejected) == (4, 2)


@pytest.mark.parametrize("type_", ["double precision", "real", "money", "text"])
def test_a_column_of_another_type_than_its_mapping_says_is_filled_as_by_text(sides: BulkSides, packed, type_):
    with sides.engine.begin() as connection:
        connection.execute(sa.text(f"ALTER TABLE shop.orders ALTER COLUMN total TYPE {type_}"))

    # 0 as a numeric has the eight bytes of a number of double precision.
    piece, _ = load(sides, blocks_of(sides, order(1, total={"N": "0"}), order(2, total={"N": "2.5"})))

    assert piece.row.inserted == 2
    with sides.engine.connect() as connection:
        found = (
            connection.execute(sa.text("SELECT total::text FROM shop.orders ORDER BY number")).scalars().all()
        )
    assert [text.strip("$").removesuffix(".00") for text in found] in (["0", "2.5"], ["0", "2.50"])
    assert bool(packed) is (type_ == "text")


def test_types_are_asked_for_in_the_order_of_the_text(sides: BulkSides, packed):
    with sides.engine.begin() as connection:
        for column in ("total", "name"):  # they come behind all others then
            type_ = connection.execute(
                sa.text(
                    "SELECT format_type(atttypid, atttypmod) FROM pg_attribute"
                    " WHERE attrelid = 'shop.orders'::regclass AND attname = :name"
                ),
                {"name": column},
            ).scalar_one()
            if column == "name":
                connection.execute(sa.text("ALTER TABLE shop.orders DROP CONSTRAINT orders_name_check"))
            connection.execute(sa.text(f"ALTER TABLE shop.orders DROP COLUMN {column}"))
            connection.execute(sa.text(f"ALTER TABLE shop.orders ADD COLUMN {column} {type_}"))
    item = order(1, total={"N": "1.5"})
    sides.put(item)

    load(sides, blocks_of(sides, item))

    sides.assert_equal()
    assert packed


KEYS: dict[str, tuple[str, ...]] = {
    'text COLLATE "C"': (
        "",
        "a",
        "ab",
        "b",
        "customer#1",
        "customer#10",
        "customer#2",
        "zebra",
        "é",
        "\U0001f600",
    ),
    "numeric": (
        "-100000000000000000002",
        "-100000000000000000001",
        "-10000",
        "-9999.5",
        "-1",
        "-0.0001",
        "0",
        "0.00010001",
        "0.0002",
        "1",
        "10000",
    ),
    "bytea": (r"\\x", r"\\x00", r"\\x0001", r"\\x7f", r"\\x80", r"\\xff"),
    "int8": ("-9223372036854775808", "-1", "0", "1", "9223372036854775807"),
    "timestamptz": ("0001-01-01T00:00:00+0000", "1999-12-31T23:59:59+0000", "2000-01-01T00:00:00+0000"),
}


@pytest.mark.parametrize(("first", "second"), [*pairwise([*KEYS, next(iter(KEYS))])])
def test_key_order_is_that_of_postgresql(postgres_url, first, second):
    rows = [f"{one}\t{other}\n" for one in KEYS[first] for other in KEYS[second]]
    Random(5).shuffle(rows)
    blocks = ["".join(rows[start : start + 7]).encode() for start in range(0, len(rows), 7)]
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE keys (first {first}, second {second})")
        cursor.execute("SELECT atttypid FROM pg_attribute WHERE attrelid = 'keys'::regclass AND attnum > 0")
        pack = packing([oid for (oid,) in cursor], keys=2)
        assert pack is not None
        packed = pack(blocks)
        with cursor.copy("COPY keys FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(b"".join((HEAD, *packed.rows, END)))
        stored = cursor.execute("SELECT first::text, second::text FROM keys ORDER BY ctid").fetchall()
        in_order = cursor.execute(
            "SELECT first::text, second::text FROM keys ORDER BY keys.first, keys.second"
        )
        assert stored == in_order.fetchall()
    assert len(stored) == len(rows)


@pytest.mark.parametrize("way", ["binary", "a block as text", "text"])
def test_a_batch_is_inserted_in_key_order_however_it_is_sent(sides: BulkSides, packed, monkeypatch, way):
    numbers = list(range(20))
    Random(5).shuffle(numbers)
    some = [order(number, total={"N": "500"}) for number in numbers]
    blocks = blocks_of(sides, *some)
    if way == "a block as text":
        blocks[7] = replace(blocks[7], text=blocks[7].text.replace(b"\t500\t", b"\t5e2\t"))
    if way == "text":
        monkeypatch.setattr(postgres_merge, "packing", lambda *_, **__: None)
    sides.put(*some)

    load(sides, blocks)

    sides.assert_equal()
    assert len(packed) == {"binary": 20, "a block as text": 19, "text": 0}[way]
    read = "SELECT customer, number FROM shop.orders ORDER BY"
    with sides.engine.connect() as connection:
        stored = connection.execute(sa.text(f"{read} ctid")).all()
        assert stored == connection.execute(sa.text(f"{read} customer, number")).all()


def test_the_head_is_a_signature_without_flags_and_the_end_is_no_row():
    flags, extension_bytes = struct.unpack(">ii", HEAD.removeprefix(b"PGCOPY\n\xff\r\n\0"))
    assert (flags, extension_bytes, *struct.unpack(">h", END)) == (0, 0, -1)
