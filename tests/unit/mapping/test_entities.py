"""Entities: which item is whose, what excludes what, and which mappings do not go together."""

import json
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from pynamodb.attributes import DiscriminatorAttribute, NumberAttribute, UnicodeAttribute
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex
from pynamodb.models import Model
from sqlalchemy.orm import registry

from dualstore.errors import MappingError
from dualstore.expressions import KeyCondition, SortCondition
from dualstore.items import KeyAttribute, KeySchema
from dualstore.mapping import (
    Entity,
    EntityTable,
    Mirrored,
    discriminated,
    map_table,
    missing_indexes,
    split_table,
)
from dualstore.mapping.transcoding import transcoder_of
from equivalence.entities import items, mapping

C = sa.Text(collation="C")
KEYS = KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "S"))
CREDENTIAL = Entity.by_key_prefix(sk="CRED#")
USER = Entity.by_attribute("kind", "user", 7, True)


class Base(Model):
    class Meta:
        table_name = "accounts"

    pk = UnicodeAttribute(hash_key=True)
    sk = UnicodeAttribute(range_key=True)
    kind = DiscriminatorAttribute()


class User(Base, discriminator="user"):
    name = UnicodeAttribute(null=True)


class Admin(User, discriminator="admin"):
    pass


class Root(Admin, discriminator="root"):
    pass


def row(table: str, /, **columns: Any) -> type[Any]:
    keys = {"pk": sa.Column(C, primary_key=True), "sk": sa.Column(C, primary_key=True)}
    body = {**keys, **columns}
    return type("Row", (Mirrored, registry().generate_base()), {"__tablename__": table, **body})


def entity(where: Entity, table: str, model: type[Model] = User, /, **columns: Any) -> EntityTable:
    made = map_table("accounts", model, row(table, **columns))
    return EntityTable(table, where, made, frozenset(made.shape.indexes))


def item(sk: str = "x", **rest: Any) -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"S": sk}, **rest}


@pytest.mark.parametrize(
    ("value", "whose"),
    [
        ({"S": "user"}, True),
        ({"N": "7"}, True),
        ({"N": "7.0"}, True),
        ({"BOOL": True}, True),
        ({"S": "7"}, False),
        ({"N": "1"}, False),
        ({"BOOL": False}, False),
        ({"SS": ["user"]}, False),
        ({"NULL": True}, False),
    ],
)
def test_an_entity_is_told_by_the_value_and_its_type(value, whose):
    assert USER.matches(item(kind=value)) is whose


def test_an_item_without_the_attribute_is_not_of_the_entity():
    assert not USER.matches(item())


def test_a_key_tells_by_its_prefix_and_not_by_an_attribute():
    assert CREDENTIAL.of_key(item("CRED#1")) is True
    assert CREDENTIAL.of_key(item("CRED")) is False
    assert USER.of_key(item()) is None


@pytest.mark.parametrize(
    ("operator", "text", "told"),
    [
        ("=", "CRED#1", True),
        ("=", "CRED", False),
        ("begins_with", "CRED#1", True),
        ("begins_with", "CR", None),
        ("begins_with", "USER#", False),
        (">", "CRED#1", None),
        ("<=", "A", None),
    ],
)
def test_a_range_of_sort_keys_tells_what_can_be_in_it(operator, text, told):
    asked = KeyCondition({"S": "p"}, SortCondition(operator, ({"S": text},)))
    assert CREDENTIAL.of_range(KEYS, asked) is told
    assert CREDENTIAL.of_range(KEYS, KeyCondition({"S": "p"})) is None


@pytest.mark.parametrize(
    ("one", "other", "excluded"),
    [
        (USER, Entity.by_attribute("kind", "event"), True),
        (USER, Entity.by_attribute("kind", "event", "user"), False),
        (USER, Entity.by_attribute("type", "event"), False),
        (CREDENTIAL, Entity.by_key_prefix(sk="USER#"), True),
        (CREDENTIAL, Entity.by_key_prefix(sk="CR"), False),
        (CREDENTIAL, Entity.by_key_prefix(pk="CRED#"), False),
        (CREDENTIAL, USER, False),
    ],
)
def test_exclusion_is_found_where_what_is_asked_shows_it(one, other, excluded):
    assert one.excludes(other) is other.excludes(one) is excluded


@pytest.mark.parametrize(
    "each",
    [
        USER,
        CREDENTIAL,
        Entity(USER.attribute, USER.values, CREDENTIAL.prefixes),
        Entity.by_discriminator(),
        Entity.otherwise(),
        Entity.by_attribute("n", 2.5),
    ],
    ids=str,
)
def test_an_entity_is_the_same_after_json(each):
    assert Entity.of_document(json.loads(json.dumps(each.document()))) == each


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"attribute": "kind"},
        {"attribute": "kind", "values": "user"},
        {"attribute": "kind", "values": [None]},
        {"values": ["user"]},
        {"key_prefix": {"sk": ""}},
        {"key_prefix": "CRED#"},
        {"discriminator": False},
        {"discriminator": True, "attribute": "kind", "values": ["user"]},
        {"where": "kind = 'user'"},
    ],
    ids=repr,
)
def test_what_tells_no_entity_is_refused(document):
    with pytest.raises(MappingError):
        Entity.of_document(document)


def test_a_model_has_the_subclasses_that_have_no_table_of_their_own():
    assert discriminated([User]) == {User: Entity.by_attribute("kind", "user", "admin", "root")}
    assert discriminated([User, Admin]) == {
        User: Entity.by_attribute("kind", "user"),
        Admin: Entity.by_attribute("kind", "admin", "root"),
    }


def test_a_model_that_no_discriminator_tells_is_refused():
    class Plain(Model):
        class Meta:
            table_name = "accounts"

        pk = UnicodeAttribute(hash_key=True)

    with pytest.raises(MappingError, match="has no DiscriminatorAttribute"):
        discriminated([Plain])


def test_an_item_is_in_the_first_table_that_claims_it_or_in_the_rest():
    split = split_table("accounts", [entity(CREDENTIAL, "credentials"), entity(USER, "users")])
    user = {"kind": {"S": "user"}}
    assert [split.place_of(each) for each in (item("CRED#1", **user), item(**user), item())] == [0, 1, 2]
    assert split.parts[2].table.name == "dualstore_unmapped_accounts"
    assert "may both claim an item" in split.notes[-1]


@pytest.mark.parametrize(
    ("entities", "complaint"),
    [
        (
            lambda: [entity(CREDENTIAL, "a"), entity(Entity.by_key_prefix(sk="CRED#A"), "b")],
            "claim the same items",
        ),
        (
            lambda: [entity(USER, "a"), entity(Entity.by_attribute("kind", "user"), "b")],
            "claim the same items",
        ),
        (lambda: [entity(USER, "a"), entity(CREDENTIAL, "a")], "is named twice"),
        (lambda: [entity(Entity.by_key_prefix(kind="a"), "a")], "is no key attribute"),
        (
            lambda: [
                entity(USER, "a"),
                entity(CREDENTIAL, "b", pk=sa.Column(sa.String(collation="C"), primary_key=True)),
            ],
            "declare it alike",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(entities, complaint):
    with pytest.raises(MappingError, match=complaint):
        split_table("accounts", entities())


def test_models_of_different_keys_are_not_of_one_table():
    class Other(Model):
        class Meta:
            table_name = "accounts"

        pk = UnicodeAttribute(hash_key=True)
        sk = NumberAttribute(range_key=True)

    other = entity(CREDENTIAL, "b", Other, sk=sa.Column(sa.Numeric, primary_key=True))
    with pytest.raises(MappingError, match="not of the same DynamoDB table"):
        split_table("accounts", [entity(USER, "a"), other])


def test_an_index_is_missed_in_the_tables_whose_models_declare_it():
    class ByName(GlobalSecondaryIndex[Any]):
        class Meta:
            index_name = "by-name"
            projection = AllProjection()

        name = UnicodeAttribute(hash_key=True)

    class Named(Base, discriminator="named"):
        name = UnicodeAttribute()
        by_name = ByName()

    served = entity(USER, "a", Named, name=sa.Column(C, index=True))
    slow = entity(CREDENTIAL, "b", Named, name=sa.Column(C))
    unconcerned = entity(Entity.by_attribute("kind", "root"), "c", Root)
    found = missing_indexes(split_table("accounts", [served, slow, unconcerned]))
    assert found == [
        "table 'b', DynamoDB index 'by-name': no SQL index starts with its key: add Index(None, 'name')"
    ]


SPLIT = mapping("things")


@given(item=items)
def test_a_row_in_slots_is_the_item_again(item):
    place = SPLIT.place_of(item)
    stored = dict(zip(SPLIT._slots_of[place], SPLIT.parts[place].encode(item), strict=True))
    row = (place, *(stored.get(slot) for slot in range(len(SPLIT.slot_types))))
    assert SPLIT.decode(row) == item


@given(some=st.lists(items, max_size=6))
def test_a_block_is_transcoded_part_by_part_as_each_item_is_placed(some):
    block = b"\n".join(json.dumps({"Item": each}).encode() for each in some)
    made = transcoder_of(SPLIT, accelerated=False).block(block)
    assert (made.rows + len(made.declined), len(made.lines())) == (len(some), len(some))
    for place, part in made.by_part() if some else ():
        mine = [each for each in some if SPLIT.place_of(each) == place]
        alone = b"\n".join(json.dumps({"Item": each}).encode() for each in mine)
        assert part.text == transcoder_of(SPLIT.parts[place], accelerated=False).block(alone).text


def test_what_is_no_item_is_declined():
    made = transcoder_of(SPLIT, accelerated=False).block(b'{"Item":{"pk":{"S":"p"}\n{"Item":{"kind":7}}')
    assert (made.rows, list(made.declined)) == (0, [0, 1])
