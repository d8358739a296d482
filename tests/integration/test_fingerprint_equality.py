"""PostgreSQL's equality decides: what has one fingerprint is equal to it, in every notation."""

import io
import random
from collections.abc import Iterable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dualstore.mapping.transcoding.accelerated import accelerator
from dualstore.mapping.transcoding.fingerprints import Kind, Taken
from transcoding_cases import accelerator_is_built

pytestmark = pytest.mark.skipif(
    not accelerator_is_built(), reason="the accelerator is not built: pip install ./accelerator"
)

LITERALS: dict[tuple[str, Kind], list[str]] = {
    ("numeric", Kind.NUMBER): [
        *("1", "1.0", "1E0", "10E-1", "01", "+1", "-1", "0", "-0", "0.0", "100", "1E2", "1e+2", "NaN"),
        *("9" * 38, "9" * 37 + "8", "0." + "0" * 129 + "1", "1E-130", "1E125", "1" + "0" * 125),
        *("1." + "7" * 37, "1." + "7" * 36 + "8", "0.10", "0.1", "-0.1", "Infinity"),
    ],
    ("timestamptz", Kind.MOMENT): [
        *("2020-01-19 04:42:30+00", "2020-01-19T04:42:30.000000+0000", "2020-01-19 05:42:30+01"),
        *("2020-01-19 04:42:30.000001+00", "2020-01-19 04:42:30.1+00", "2020-01-19 04:42:30.100000+00"),
        *("0002-01-01 00:00:00+00", "9997-12-31 23:59:59.999999+00", "0002-01-01 00:00:00+00 BC", "infinity"),
    ],
    ("jsonb", Kind.JSON): [
        *('{"a":1,"b":2}', '{"b": 2, "a": 1.0}', '{"b":2,"a":1e0}', '{"a":"1","b":2}', '{"a":{"b":1},"c":2}'),
        *('{"a":{"c":2},"b":1}', "[1,2]", "[2,1]", "[]", "{}", "null", '"null"', "[null]", "[[]]", "[{}]"),
        *(
            '{"a":null}',
            '"\\u0001"',
            '"\\u00e9"',
            '"é"',
            '"e\\u0301"',
            '"\\b"',
            '"\\u0008"',
            '"\\ud83d\\ude00"',
        ),
        *('"😀"', '"a\\"b"', '"a\\\\b"', "1.10", "1.1", "11e-1", "true", '"true"', "-0", "0", '""'),
    ],
    ("text", Kind.TEXT): [
        *(
            "",
            "a",
            "A",
            "a ",
            "ä",
            "a\u0308",
            "\\N",
            "NULL",
            "\t",
            "\\t",
            "\n",
            "\\",
            "\\\\",
            "\x01\x02",
            "1",
            "1.0",
        ),
    ],
    ("bytea", Kind.TEXT): ["", "\\x", "\\x00", "\\x0a", "\\x0A", "\\x0a00"],
    ("boolean", Kind.TEXT): ["t", "true", "f", "false"],
    ("uuid", Kind.TEXT): ["a" * 32, "A" * 32, "{" + "a" * 32 + "}", "b" * 32],
}


@pytest.fixture(scope="module")
def connection(postgres_server: Any) -> Iterator[psycopg.Connection]:
    url = postgres_server.create_database()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as opened:
        opened.execute(
            "SELECT set_config('TimeZone', 'UTC', false), set_config('bytea_output', 'hex', false)"
        )
        yield opened
    postgres_server.drop_database(url)


def fingerprints(kind: Kind, lines: bytes) -> list[tuple[int, int]]:
    taking = accelerator().Fingerprints((int(kind),), bytes(16))
    taking.add(lines)
    count, first, second, *halves = taking.take()
    return Taken(count, (first, second), *halves).pairs()


def escaped(literals: Iterable[str]) -> bytes:
    """As COPY writes texts."""
    letters = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    return "".join("".join(letters.get(c, c) for c in each) + "\n" for each in literals).encode()


def copied(connection: psycopg.Connection, type_: str, literals: list[str]) -> bytes:
    """What PostgreSQL writes of the same."""
    written = io.BytesIO()
    query = sql.SQL(
        "COPY (SELECT v::{} FROM unnest({}::text[]) WITH ORDINALITY AS l (v, n) ORDER BY n) TO STDOUT"
    )
    with connection.cursor().copy(query.format(sql.SQL(type_), sql.Literal(literals))) as copy:
        for block in copy:
            written.write(block)
    return written.getvalue()


def equal_pairs(
    connection: psycopg.Connection, equal: str, type_: str, literals: list[str]
) -> set[tuple[int, int]]:
    query = sql.SQL(
        "WITH l AS (SELECT v::{0} AS v, n::int - 1 AS n FROM unnest({1}::text[]) WITH ORDINALITY AS l (v, n))"
        " SELECT a.n, b.n FROM l a, l b WHERE {2}"
    ).format(sql.SQL(type_), sql.Literal(literals), sql.SQL(equal))
    return set(connection.execute(query).fetchall())


def assert_equality(
    connection: psycopg.Connection, type_: str, kind: Kind, literals: list[str], equal: str
) -> None:
    connection.execute(
        "SELECT set_config('TimeZone', 'UTC', false), set_config('bytea_output', 'hex', false)"
    )
    of_rows = fingerprints(kind, copied(connection, type_, literals))
    of_items = fingerprints(kind, escaped(literals))
    decided = equal_pairs(connection, equal, type_, literals)
    for one in range(len(literals)):
        for other in range(len(literals)):
            pair = (literals[one], literals[other])
            assert (of_rows[one] == of_rows[other]) == ((one, other) in decided), pair
            # What neither side writes may look different, and is looked at again; never the reverse.
            assert of_items[one] != of_rows[other] or (one, other) in decided, pair


@pytest.mark.parametrize(("type_", "kind"), LITERALS, ids=[type_ for type_, _ in LITERALS])
def test_values_have_one_fingerprint_exactly_where_postgresql_calls_them_equal(
    connection: psycopg.Connection, type_: str, kind: Kind
) -> None:
    # Two texts are equal where they are the same text, whatever a collation says.
    equal = 'a.v COLLATE "C" = b.v COLLATE "C"' if type_ == "text" else "a.v = b.v"
    assert_equality(connection, type_, kind, LITERALS[type_, kind], equal)


SETS: dict[tuple[str, Kind], tuple[str, ...]] = {
    ("text[]", Kind.TEXTS): ("a", "b", "NULL", "null", "", "a,b", "{", '"', "\\", "ä", "1.0", " a"),
    ("numeric[]", Kind.NUMBERS): ("1", "1.0", "-1", "0", "10", "0.10", "0.1", "9" * 38),
}
CHANCE_OF = {type_: number for number, (type_, _) in enumerate(SETS)}


@pytest.mark.parametrize(("type_", "kind"), SETS, ids=[type_ for type_, _ in SETS])
def test_sets_have_one_fingerprint_exactly_where_their_members_are_equal(
    connection: psycopg.Connection, type_: str, kind: Kind
) -> None:
    chance, members = random.Random(CHANCE_OF[type_]), SETS[type_, kind]

    def literal() -> str:
        some = chance.choices(members, k=chance.randrange(4))
        quoted = (each.replace("\\", "\\\\").replace('"', '\\"') for each in some)
        return "{" + ",".join(f'"{each}"' if kind is Kind.TEXTS else each for each in quoted) + "}"

    ordered = "(SELECT array_agg(m ORDER BY m{0}) FROM unnest({1}.v) m)"
    collation = ' COLLATE "C"' if kind is Kind.TEXTS else ""
    equal = " IS NOT DISTINCT FROM ".join(ordered.format(collation, side) for side in "ab")
    assert_equality(connection, type_, kind, [literal() for _ in range(60)], equal)
