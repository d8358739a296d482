"""Columns of a real database that hold less than the mapping takes them to."""

from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from pynamodb.attributes import ListAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from dualstore import schema
from dualstore.mapping import Mirrored, map_table
from dualstore.stores.postgres.column_types import UnlikeColumn, unlike_columns
from mapping_cases import MAPPINGS, Base

# By table and column: another type, and whether nothing can be compared with it; none where it is as good.
UNLIKE = {
    ("orders", "customer_id"): ("shortest", False),
    ("orders", "status"): ("text COLLATE by_locale", False),
    ("orders", "remark"): ("char(6)", True),
    ("orders", "total"): ("numeric(38, 10)", False),
    ("orders", "sizes"): ("numeric(8, 2)[]", False),
    ("orders", "placed"): ("timestamptz(3)", False),
    ("orders", "expires"): ("timestamp", True),
    ("orders", "version"): ("int", False),
    ("orders", "tags"): ("varchar(6)[]", False),
    ("readings", "size"): ("varchar(4)", False),
    ("readings", "label"): ("varchar(4)", False),
    ("readings", "code"): ("char(4)", False),
    ("readings", "price"): ("numeric(10, 3)", False),
    ("readings", "thousands"): ("numeric(4, -4)", False),
    ("readings", "coarse"): ("timestamptz(2)", False),
    ("readings", "small"): ("numeric", True),
    ("readings", "medium"): ("numeric(10, 0)", True),
    ("readings", "counts"): ("numeric[]", True),
    ("readings", "double"): ("real", True),
    ("readings", "single"): ("float8", True),
    ("readings", "raw"): ("jsonb", True),
    ("readings", "short_tags"): ("varchar(2)[]", False),
    ("wares", "share"): ("numeric(13, 1)", False),
}
AS_GOOD = {
    ("orders", "made_by"): "varchar(3)",  # no attribute's
    ("readings", "day"): "plain_day",
    ("readings", "label"): "text",
    ("readings", "price"): "numeric(11, 3)",
    ("readings", "thousands"): "numeric",
    ("readings", "coarse"): "timestamptz(4)",
    ("readings", "medium"): "bigint",
    ("readings", "counts"): "bigint[]",
    ("readings", "words"): "varchar[]",
    ("readings", "short_tags"): "varchar(4)[]",
    ("wares", "motto"): "varchar(7)",
}


@pytest.fixture
def engine(postgres_server: Any) -> Iterator[sa.Engine]:
    url = postgres_server.create_database()
    opened = sa.create_engine(url)
    schema.upgrade(opened)
    Base.metadata.create_all(opened)
    with opened.begin() as connection:
        connection.exec_driver_sql(
            "CREATE DOMAIN short AS varchar(9); CREATE DOMAIN shortest AS short;"
            " CREATE DOMAIN plain_day AS date; CREATE COLLATION by_locale (locale = 'C.utf8');"
            " ALTER TABLE orders ALTER made_by DROP DEFAULT;"
        )
    yield opened
    opened.dispose()
    postgres_server.drop_database(url)


def found(engine: sa.Engine) -> dict[tuple[str, str], UnlikeColumn]:
    return {
        (each.table.strip('"'), each.column): each
        for mapping in MAPPINGS.values()
        for each in unlike_columns(engine, mapping)
    }


def alter(engine: sa.Engine, types: dict[tuple[str, str], str]) -> None:
    with engine.begin() as connection:
        for (table, column), type_ in types.items():
            connection.exec_driver_sql(f'ALTER TABLE {table} ALTER "{column}" TYPE {type_}')


def test_a_column_is_in_order_exactly_where_it_holds_what_the_codec_lets_through(engine: sa.Engine) -> None:
    assert found(engine) == {}
    alter(engine, AS_GOOD)
    assert found(engine) == {}
    alter(engine, {name: type_ for name, (type_, _) in UNLIKE.items()})
    unlike = found(engine)
    assert {name: each.is_other_type for name, each in unlike.items()} == {
        name: is_other_type for name, (_, is_other_type) in UNLIKE.items()
    }

    remedies = [str(each).partition(": ALTER")[2].partition(" (or ")[0] for each in unlike.values()]
    with engine.begin() as connection:
        for remedy in remedies:
            connection.exec_driver_sql(f"ALTER{remedy}")
    assert found(engine) == {}


# What the extension of that name declares: PostgreSQL's own functions of texts under another name.
CITEXT = """
    CREATE SCHEMA unsearched; CREATE TYPE unsearched.citext;
    CREATE FUNCTION unsearched.citextin(cstring) RETURNS unsearched.citext
        LANGUAGE internal IMMUTABLE STRICT AS 'textin';
    CREATE FUNCTION unsearched.citextout(unsearched.citext) RETURNS cstring
        LANGUAGE internal IMMUTABLE STRICT AS 'textout';
    CREATE TYPE unsearched.citext (INPUT = unsearched.citextin, OUTPUT = unsearched.citextout,
        LIKE = text, CATEGORY = 'S', COLLATABLE = true)
"""


class Note(Model):
    class Meta:
        table_name = "notes"

    name = UnicodeAttribute(hash_key=True)
    title = UnicodeAttribute(null=True)
    words: Any = ListAttribute(null=True)
    motto = UnicodeAttribute(null=True)
    remark = UnicodeAttribute(null=True)
    code = UnicodeAttribute(null=True)


class NoteBase(DeclarativeBase):
    pass


class NoteRow(Mirrored, NoteBase):
    __tablename__ = "notes"

    name: Mapped[str] = mapped_column(sa.Text(collation="C"), primary_key=True)
    title: Mapped[str | None] = mapped_column(postgresql.CITEXT)
    words: Mapped[list[str] | None] = mapped_column(sa.ARRAY(postgresql.CITEXT()))
    motto: Mapped[str | None] = mapped_column(sa.Text(collation="alike"))
    remark: Mapped[str | None] = mapped_column(sa.Text)
    code: Mapped[str | None] = mapped_column(sa.NCHAR(4))


def test_what_the_model_itself_wants_to_be_alike_is_in_order(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(CITEXT)
        connection.exec_driver_sql("CREATE COLLATION alike (locale = 'C.utf8')")
        # As ICU's, which not every PostgreSQL is built with.
        connection.exec_driver_sql(
            "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'alike'"
        )
        connection.exec_driver_sql(
            'CREATE TABLE notes (name text COLLATE "C" PRIMARY KEY, title unsearched.citext,'
            " words unsearched.citext[], motto text COLLATE alike, remark text, code nchar(4))"
        )
    mapping = map_table("notes", Note, NoteRow)
    assert unlike_columns(engine, mapping) == []

    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE notes ALTER remark TYPE text COLLATE alike")
    assert [each.column for each in unlike_columns(engine, mapping)] == ["remark"]


@pytest.mark.parametrize(
    ("type_", "written", "double", "single"),
    [
        ("real", "0.1", "0.1", "0.10000000149011612"),
        ("float8", "0.1", "0.1", "0.10000000149011612"),
        ("weight", "0.1", "0.1", "0.10000000149011612"),
        ("numeric", "12345678901234567890.1", "12345678901234567890.1", "12345678901234567890.1"),
        ("numeric(10, 2)", "-0.10", "-0.1", "-0.1"),
        ("smallint", "-7", "-7", "-7"),
        ("integer", "16777217", "16777217", "16777217"),
        ("bigint", "0", "0", "0"),
    ],
)
def test_floats_in_another_type_of_numbers_are_read_as_they_are(
    engine: sa.Engine, type_: str, written: str, double: str, single: str
) -> None:
    """Told as unlike, and yet nothing that is there is taken for something else."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE DOMAIN weight AS double precision")
    alter(engine, {("readings", "double"): type_, ("readings", "single"): type_})
    readings = MAPPINGS["readings"]
    read = ", ".join(readings.read_expressions())
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO readings (sensor, double, single)"
            f" VALUES ('a', {written}, {written}), ('b', NULL, NULL)"
        )
        rows = connection.exec_driver_sql(f"SELECT {read} FROM readings ORDER BY sensor").all()
    assert [readings.decode(row) for row in rows] == [
        {"sensor": {"B": b"a"}, "double": {"N": double}, "single": {"N": single}},
        {"sensor": {"B": b"b"}},
    ]
