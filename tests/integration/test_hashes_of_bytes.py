"""PostgreSQL's hashes of keys and rows tell apart what its equality tells apart, value by value."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql
from sqlalchemy.dialects.postgresql import JSONB

from dualstore.items import KeyAttribute, KeySchema, TableShape
from dualstore.mapping import MappedColumn, TableMapping
from dualstore.mapping.codecs import codec_for
from dualstore.stores.hashing_sql import key_hashes

# In PostgreSQL's own hashes a number has no sign, 64 bits are folded to 32, and jsonb has no brackets.
LITERALS: dict[tuple[str, str, sa.types.TypeEngine[Any]], list[str]] = {
    ("bigint", "N", sa.BigInteger()): [
        *("0", "1", "-1", "2147483648", "-2147483648", "4294967295", "4294967296", "-4294967296"),
    ],
    ("numeric", "N", sa.Numeric()): ["3", "-3", "3.0", "3.00", "0", "0.0", "30", "0.3", "1" + "0" * 38],
    ("timestamptz", "S", sa.DateTime(timezone=True)): [
        *("2000-01-01 00:00:00+00", "2000-01-01 01:11:34.967296+00", "1999-12-31 22:48:25.032704+00"),
        *("2000-01-01 01:00:00+01", "1999-12-31 23:59:59.999999+00"),
    ],
    ("jsonb", "M", JSONB()): [
        *("[[1], 2]", "[[1, 2]]", "[1, 2]", '{"a": {"b": 1}}', '{"a": 1, "b": 1}', '{"b": 1, "a": 1}'),
        *('["1"]', "[1]", "[-1]", "[null]", "null"),
    ],
    ("text", "S", sa.Text()): ["a", "A", "a ", "", "ä", "a\u0308"],
    ("bytea", "B", sa.LargeBinary()): ["", "\\x00", "\\x0000"],
}


@pytest.fixture(scope="module")
def connection(postgres_server: Any) -> Iterator[psycopg.Connection]:
    url = postgres_server.create_database()
    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as opened:
        yield opened
    postgres_server.drop_database(url)


@pytest.mark.parametrize(
    ("type_", "attribute_type", "column_type"), LITERALS, ids=[type_ for type_, _, _ in LITERALS]
)
def test_values_have_one_hash_exactly_where_postgresql_calls_them_equal(
    connection: psycopg.Connection, type_: str, attribute_type: str, column_type: sa.types.TypeEngine[Any]
) -> None:
    literals = LITERALS[type_, attribute_type, column_type]
    codec = codec_for(attribute_type, column_type)
    assert codec is not None
    column = sa.Column("v", column_type)
    shape = TableShape("things", KeySchema(KeyAttribute("v", "S")))
    part = TableMapping(
        "things", shape, sa.Table("things", sa.MetaData(), column), (MappedColumn("v", column, codec),)
    )

    pairs = connection.execute(
        sql.SQL(
            "WITH t AS (SELECT v::{0} AS v FROM unnest({1}::text[]) AS l (v)),"
            " h AS (SELECT v, {2} AS first, {3} AS second FROM t)"
            " SELECT a.v::text, b.v::text, a.v = b.v, a.first = b.first, a.second = b.second FROM h a, h b"
        ).format(sql.SQL(type_), sql.Literal(literals), *key_hashes("t", part))
    ).fetchall()

    assert len(pairs) == len(literals) ** 2
    for one, other, equal, first, second in pairs:
        assert (first, second) == (equal, equal), (one, other)
