"""Mappings made from models, and what is refused before any I/O."""

from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column
from sqlalchemy.orm import registry as mapper_registry

from dualstore.errors import MappingError
from dualstore.items import Index, KeyAttribute, KeySchema, TableShape
from dualstore.mapping import Mirrored, map_table, missing_indexes, shape_of_model, unmapped_table
from mapping_cases import ORDERS, READINGS, SESSIONS, Order

C = sa.Text(collation="C")


class Item(Model):
    class Meta:
        table_name = "items"

    pk = UnicodeAttribute(hash_key=True)
    sk = NumberAttribute(range_key=True)
    colour = UnicodeAttribute(null=True, attr_name="color")


def _row(*, mixin: bool = True, bookkeeping: type[Any] = Mirrored, **columns: Any) -> type[Any]:
    """A row model with these columns, key columns as they should be unless given."""
    keys = {
        "pk": mapped_column(C, primary_key=True),
        "sk": mapped_column(sa.Numeric, primary_key=True),
    }
    body = {name: column for name, column in (keys | columns).items() if column is not None}
    base = mapper_registry().generate_base()
    return type("ItemRow", (bookkeeping, base) if mixin else (base,), {"__tablename__": "items", **body})


def test_the_shape_of_a_model_is_that_of_its_table():
    customer = KeyAttribute("c", "S")
    assert shape_of_model(Order) == TableShape(
        "orders-prod",
        KeySchema(customer, KeyAttribute("number", "N")),
        {
            "by_status": Index(
                "by_status",
                KeySchema(KeyAttribute("status", "S"), KeyAttribute("total", "N")),
                projection=("total",),
            ),
            "by_placed": Index(
                "by_placed", KeySchema(customer, KeyAttribute("placed", "S")), is_global=False
            ),
        },
    )


def test_the_physical_name_is_read_when_the_table_is_mapped():
    class Named(Item):
        class Meta:
            pass

    with pytest.raises(MappingError, match=r"Named\.Meta has no table_name"):
        shape_of_model(Named)
    Named.Meta.table_name = "items-prod"
    assert shape_of_model(Named).name == "items-prod"


def test_a_model_without_a_hash_key_is_refused():
    class Keyless(Model):
        class Meta:
            table_name = "keyless"

        a = UnicodeAttribute()

    with pytest.raises(MappingError, match="hash_key=True"):
        shape_of_model(Keyless)


def test_columns_are_found_by_info_then_by_python_name_then_by_dynamodb_name():
    assert {column.attribute: column.name for column in ORDERS.columns}["n"] == "remark"
    assert ORDERS.column_of["c"].name == "customer_id"
    by_python_name = map_table("items", Item, _row(colour=mapped_column("c1", sa.Text)))
    assert by_python_name.column_of["color"].name == "c1"
    by_dynamodb_name = map_table("items", Item, _row(color=mapped_column("c2", sa.Text)))
    assert by_dynamodb_name.column_of["color"].name == "c2"
    all_three = _row(
        color=mapped_column(sa.Text),
        colour=mapped_column(sa.Text),
        tint=mapped_column(sa.Text, info={"dynamodb": "color"}),
    )
    assert map_table("items", Item, all_three).column_of["color"].name == "tint"


def test_a_column_can_be_kept_out():
    mapping = map_table("items", Item, _row(colour=mapped_column(sa.Text, info={"dynamodb": None})))
    assert mapping.column_names == ("pk", "sk", "dualstore_overflow", "dualstore_stamp")


def test_key_columns_come_first_and_the_bookkeeping_last():
    assert ORDERS.column_names[:2] == ("customer_id", "number")
    assert ORDERS.column_names[-2:] == ("dualstore_overflow", "dualstore_stamp")
    assert [column.attribute for column in ORDERS.key_columns] == ["c", "number"]
    assert "settings" not in ORDERS.column_names  # text in JSONB: only the overflow keeps its exact form
    assert "made_by" not in ORDERS.column_names


@pytest.mark.parametrize("mapping", [ORDERS, READINGS, SESSIONS], ids=str)
def test_types_casts_and_expressions_stand_in_the_order_of_the_columns(mapping):
    count = len(mapping.column_names)
    assert len(mapping.pg_types) == len(mapping.cast_types) == len(mapping.placeholders) == count
    assert mapping.placeholders[-1] == f"${count}::bytea"
    for name, expression in zip(mapping.column_names, mapping.read_expressions("t"), strict=True):
        assert f't."{name}"' in expression
    assert mapping.key_types == mapping.cast_types[: len(mapping.key_types)]


@pytest.mark.parametrize(
    ("columns", "fix"),
    [
        ({"pk": mapped_column(sa.String(2048, collation="C"), primary_key=True)}, r'Text\(collation="C"\)'),
        ({"pk": mapped_column(sa.Text, primary_key=True)}, r'collation of the database.*collation="C"'),
        ({"pk": mapped_column(sa.Text(collation="de_DE"), primary_key=True)}, r'collation de_DE.*="C"'),
        ({"pk": mapped_column(sa.Uuid, primary_key=True)}, r'declare it as .*Text\(collation="C"\)'),
        ({"sk": mapped_column(sa.BigInteger, primary_key=True)}, r"declare it as mapped_column\(Numeric"),
        ({"sk": mapped_column(sa.Numeric(38, 0), primary_key=True)}, r"declare it as mapped_column\(Numeric"),
        ({"sk": None}, r"no column holds key attribute 'sk': add one as mapped_column\(Numeric"),
        ({"sk": mapped_column(sa.Numeric)}, r"must be exactly \(pk, sk\).*and is \(pk\)"),
        ({"id": mapped_column(sa.BigInteger, primary_key=True)}, r"must be exactly \(pk, sk\)"),
        ({"must": mapped_column(sa.Text, nullable=False)}, "'must' is NOT NULL.*server_default"),
        ({"colour": mapped_column(sa.Numeric, nullable=False)}, "'colour' is NOT NULL.*server_default"),
        ({"tint": mapped_column(sa.Text, info={"dynamodb": "tint"})}, "declares no such DynamoDB attribute"),
        (
            {name: mapped_column(sa.Text, info={"dynamodb": "color"}) for name in ("a", "b")},
            "'a' and 'b' both hold attribute 'color'",
        ),
        ({"colour": mapped_column(sa.Text, sa.Computed("'red'"))}, "generated by PostgreSQL"),
    ],
)
def test_a_row_model_that_cannot_hold_every_item_is_refused_with_the_fix(columns, fix):
    with pytest.raises(MappingError, match=f"(?s){fix}") as refused:
        map_table("items", Item, _row(**columns))
    assert "ItemRow (table 'items') for Item" in str(refused.value)


def test_keys_in_the_wrong_order_are_refused():
    row = _row(pk=mapped_column(C, primary_key=True, sort_order=2))
    with pytest.raises(MappingError, match=r"must be exactly \(pk, sk\), in this order, and is \(sk, pk\)"):
        map_table("items", Item, row)


def test_a_row_model_without_the_mixin_is_refused():
    with pytest.raises(MappingError, match=r"class ItemRow\(Mirrored, …\)"):
        map_table("items", Item, _row(mixin=False))


def test_something_that_is_no_row_model_is_refused():
    with pytest.raises(MappingError, match="not a SQLAlchemy model"):
        map_table("items", Item, dict)


def test_an_attribute_named_as_a_stamp_is_refused():
    class Stamped(Item):
        class Meta:
            table_name = "stamped"

        mine = UnicodeAttribute(null=True, attr_name="_dsv")

    with pytest.raises(MappingError, match="'_dsv' is dualstore's own"):
        map_table("items", Stamped, _row())


def test_a_column_without_attribute_may_fill_itself():
    row = _row(
        made=mapped_column(sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        counted=mapped_column(sa.BigInteger, sa.Identity(), nullable=False),
        twice=mapped_column(sa.Numeric, sa.Computed("sk * 2"), nullable=False),
        note=mapped_column(sa.Text, nullable=True),
    )
    assert len(map_table("items", Item, row).columns) == 2


def test_a_row_model_may_be_a_dataclass():
    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class ItemRow(Mirrored, Base):
        __tablename__ = "items"

        pk: Mapped[str] = mapped_column(C, primary_key=True)
        sk: Mapped[Decimal] = mapped_column(sa.Numeric, primary_key=True)

    assert map_table("items", Item, ItemRow).column_of["pk"].encode({"S": "a"}) == "a"
    assert ItemRow(pk="a", sk=Decimal(1)).pk == "a"


def test_a_column_that_stays_null_is_noted():
    (note,) = ORDERS.notes
    assert "column 'settings' stays NULL" in note


def test_a_column_that_may_refuse_an_item_is_noted():
    (note,) = map_table("items", Item, _row(colour=mapped_column(sa.Text, nullable=False))).notes
    assert "column 'colour' is NOT NULL" in note
    assert READINGS.notes == SESSIONS.notes == ()


def test_constraints_that_the_order_of_mirrored_writes_can_break_are_noted():
    row = _row(
        colour=mapped_column(sa.Text, unique=True, nullable=True),
        parent=mapped_column(sa.Text, sa.ForeignKey("parents.id"), nullable=True),
        code=mapped_column(sa.Text, index=True, unique=True, nullable=True),
        __table_args__=(sa.UniqueConstraint("parent", deferrable=True, initially="DEFERRED"),),
    )
    notes = map_table("items", Item, row).notes
    for wanted in ("UNIQUE (colour) is checked at once", "foreign key (parent)", "'ix_items_code' cannot"):
        assert sum(wanted in note for note in notes) == 1
    assert len(notes) == 3


def test_an_index_that_sql_would_not_use_is_named_with_what_to_add():
    assert missing_indexes(ORDERS) == [
        (
            "table 'orders', DynamoDB index 'by_placed': column 'placed' does not hold every S in DynamoDB's "
            'order: declare it as Text(collation="C"), Numeric or LargeBinary'
        ),
        (
            "table 'orders', DynamoDB index 'by_placed': no SQL index starts with its key: "
            "add Index(None, 'customer_id', 'placed')"
        ),
        (
            "table 'orders', DynamoDB index 'by_status': no SQL index starts with its key: "
            "add Index(None, 'status', 'total')"
        ),
    ]


def test_an_unmapped_table_has_its_key_in_columns_and_all_else_in_the_overflow():
    assert SESSIONS.column_names == ("partition_key", "sort_key", "dualstore_overflow", "dualstore_stamp")
    assert SESSIONS.pg_types == ("numeric", "text", "jsonb", "bytea")
    item = {"user": {"N": "1"}, 'odd "name"': {"S": "a"}, "x": {"BS": [b"\x00"]}}
    assert SESSIONS.decode(SESSIONS.encode(item)) == item


def test_an_unmapped_table_with_a_hash_key_only_has_one_key_column():
    mapping = unmapped_table("s", TableShape("s", KeySchema(KeyAttribute("id", "B"))), table_name="my_s")
    assert mapping.table.name == "my_s"
    assert mapping.column_names[0] == "partition_key"
    assert len(mapping.key_columns) == 1


def test_a_name_that_postgresql_would_cut_is_refused():
    with pytest.raises(MappingError, match="shorter table_name"):
        unmapped_table("s" * 64, TableShape("s", KeySchema(KeyAttribute("id", "S"))))
