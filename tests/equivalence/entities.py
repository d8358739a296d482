"""A DynamoDB table of several entities in SQL tables of their own, and histories that make items move."""

from typing import Any

import sqlalchemy as sa
from hypothesis import strategies as st
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex, LocalSecondaryIndex
from pynamodb.models import Model
from sqlalchemy.orm import DeclarativeBase

from dualstore.mapping import Entity, EntityTable, Mirrored, SplitMapping, map_table, split_table
from equivalence.operations import Call

PARTITIONS = ("acme", "ann")
SORT_KEYS = ("CRED#", "CRED#1", "CRED#2", "CR", "META", "USER#1", "USER#2", "z\x00", "z")
KINDS = ("user", "event", "credential", "unheard of")


def mapping(name: str) -> SplitMapping:
    """Credentials by a prefix of the key, users and events by an attribute, and whatever else there is."""

    class ByOwner(GlobalSecondaryIndex[Any]):
        class Meta:
            index_name = "by-owner"
            projection = AllProjection()

        owner = UnicodeAttribute(hash_key=True)
        rank = NumberAttribute(range_key=True)

    class ByLabel(LocalSecondaryIndex[Any]):
        class Meta:
            index_name = "by-label"
            projection = AllProjection()

        pk = UnicodeAttribute(hash_key=True)
        label = UnicodeAttribute(range_key=True)

    class Thing(Model):
        class Meta:
            table_name = name

        pk = UnicodeAttribute(hash_key=True)
        sk = UnicodeAttribute(range_key=True)
        kind = UnicodeAttribute(null=True)
        owner = UnicodeAttribute(null=True)
        rank = NumberAttribute(null=True)
        label = UnicodeAttribute(null=True)
        by_owner = ByOwner()
        by_label = ByLabel()

    class Base(DeclarativeBase):
        pass

    def key(partition: str, sort: str) -> dict[str, Any]:
        return {
            "pk": sa.Column(partition, sa.Text(collation="C"), primary_key=True),
            "sk": sa.Column(sort, sa.Text(collation="C"), primary_key=True),
        }

    def row(table: str, columns: dict[str, Any]) -> Any:
        return type(table, (Mirrored, Base), {"__tablename__": f"{name}-{table}", **columns})

    text = sa.Text(collation="C")
    rows = {
        "credential": (
            Entity.by_key_prefix(sk="CRED#"),
            {**key("pk", "sk"), "owner": sa.Column(text), "rank": sa.Column(sa.Numeric)},
        ),
        "user": (
            Entity.by_attribute("kind", "user"),
            {
                **key("tenant", "user"),
                "rank": sa.Column(sa.Integer),  # some ranks are in the overflow
                "kind": sa.Column(sa.String(8)),
                "label": sa.Column(text),
            },
        ),
        "event": (Entity.by_attribute("kind", "event"), {**key("sk2", "pk2"), "owner": sa.Column(text)}),
    }
    return split_table(
        name,
        [
            EntityTable(entity, where, map_table(name, Thing, row(entity, columns)))
            for entity, (where, columns) in rows.items()
        ],
    )


_any_key = st.fixed_dictionaries(
    {
        "pk": st.sampled_from(PARTITIONS).map(lambda text: {"S": text}),
        "sk": st.sampled_from(SORT_KEYS).map(lambda text: {"S": text}),
    }
)
# A history is about few keys, or no item would ever become another entity's.
_few_keys = st.shared(st.lists(_any_key, min_size=1, max_size=9, unique_by=repr), key="keys")
keys = _few_keys.flatmap(st.sampled_from)
kinds = st.sampled_from(KINDS).map(lambda text: {"S": text}) | st.just({"N": "7"})
_ranks = st.sampled_from(["1", "2", "2.5", "-3"]).map(lambda numeral: {"N": numeral})
_labels = st.sampled_from(["a", "b", "c"]).map(lambda text: {"S": text})
_rest = st.fixed_dictionaries(
    {},
    optional={
        "kind": kinds,
        "owner": st.just({"S": "ann"}),
        "rank": _ranks,
        "label": _labels,
        "more": st.sampled_from([{"S": "x"}, {"NULL": True}, {"L": []}]),
    },
)
items = st.builds(lambda key, rest: {**key, **rest}, keys, _rest)
# A mirror is told of one write at a time: of two keys, so that most of them find an item of another entity.
mirrored_keys = st.sampled_from(["META", "META", "CRED#1"]).map(
    lambda text: {"pk": {"S": "acme"}, "sk": {"S": text}}
)
mirrored_items = st.builds(
    lambda key, rest, kind: {**key, **rest, **kind},
    mirrored_keys,
    _rest,
    st.sampled_from([{"kind": {"S": "user"}}, {"kind": {"S": "event"}}, {"kind": {"S": "unheard of"}}]),
)

_UPDATES = (
    "SET kind = :kind",
    "REMOVE kind",
    "SET kind = :kind, label = :label",
    "SET rank = :rank",
    "ADD visits :one",
)
_CONDITIONS = (None, None, "kind = :kind", "attribute_exists(pk)", "attribute_not_exists(pk)")


@st.composite
def _written(draw: Any, **texts: Any) -> dict[str, Any]:
    """Expressions, their values, and names for the words that DynamoDB keeps to itself."""
    request = {name: text for name, choice in texts.items() if (text := draw(choice)) is not None}
    spoken = " ".join(request.values())
    filled = {":kind": draw(kinds), ":label": draw(_labels), ":rank": draw(_ranks), ":one": {"N": "1"}}
    used = {name: value for name, value in filled.items() if name in spoken}
    for name, text in request.items():
        request[name] = text.replace("rank", "#rank").replace(":#rank", ":rank")
    names = {"#rank": "rank"} if "#rank" in " ".join(request.values()) else {}
    return {
        **request,
        **({"ExpressionAttributeValues": used} if used else {}),
        **({"ExpressionAttributeNames": names} if names else {}),
    }


@st.composite
def queries(draw: Any) -> Call:
    """A Query of a partition or of an index; limited ones are followed to their end."""
    filled = {":pk": {"S": draw(st.sampled_from(PARTITIONS))}}
    request: dict[str, Any] = {"ScanIndexForward": draw(st.booleans())}
    asked = draw(st.sampled_from(["table", "table", "table", "by-owner", "by-label"]))
    if asked == "by-owner":
        filled = {":pk": {"S": "ann"}}
        request |= {"IndexName": asked, "KeyConditionExpression": "owner = :pk"}
        request |= {"ExpressionAttributeNames": {"#owner": "owner"}}
        request["KeyConditionExpression"] = "#owner = :pk"
    elif asked == "by-label":
        request |= {"IndexName": asked, "KeyConditionExpression": "pk = :pk"}
    else:
        condition = draw(st.sampled_from([None, "begins_with(sk, :sk)", "sk = :sk", "sk > :sk", "sk <= :sk"]))
        request["KeyConditionExpression"] = "pk = :pk" + ("" if condition is None else f" AND {condition}")
        if condition is not None:
            filled[":sk"] = {"S": draw(st.sampled_from(["C", "CRED#", "CRED#1", "USER", "META", "z\x00"]))}
    limit = draw(st.none() | st.integers(1, 5))
    if limit is not None:
        request["Limit"] = limit
    return "Query", {**request, "ExpressionAttributeValues": filled}


@st.composite
def scans(draw: Any) -> Call:
    """A Scan of the table or of an index, whole or in segments, all of which are asked for."""
    total = draw(st.sampled_from([None, 2, 3]))
    segment = {} if total is None else {"TotalSegments": total}
    limit = draw(st.none() | st.integers(1, 3))
    index = draw(st.sampled_from([{}, {}, {"IndexName": "by-owner"}]))
    return "Scan", {**segment, **index, **({} if limit is None else {"Limit": limit})}


@st.composite
def changes(draw: Any) -> Call:
    """A write of one item, without its table."""
    name = draw(st.sampled_from(["PutItem", "PutItem", "UpdateItem", "UpdateItem", "DeleteItem"]))
    condition = {"ConditionExpression": st.sampled_from(_CONDITIONS)}
    if name == "PutItem":
        return name, {"Item": draw(items), **draw(_written(**condition))}
    if name == "DeleteItem":
        return name, {"Key": draw(keys), **draw(_written(**condition))}
    return name, {
        "Key": draw(keys),
        **draw(_written(UpdateExpression=st.sampled_from(_UPDATES), **condition)),
    }


_ACTIONS = {"PutItem": "Put", "UpdateItem": "Update", "DeleteItem": "Delete"}


@st.composite
def transactions(draw: Any) -> Call:
    """Writes of different items, all or none; the table is `?`."""
    written = draw(st.lists(changes(), min_size=1, max_size=3, unique_by=lambda call: str(_key_of(call[1]))))
    actions = [{_ACTIONS[name]: {"TableName": "?", **request}} for name, request in written]
    return "TransactWriteItems", {"TransactItems": actions}


@st.composite
def batches(draw: Any) -> Call:
    """Reads of several keys at once."""
    asked = draw(st.lists(keys, min_size=1, max_size=6, unique_by=str))
    if draw(st.booleans()):
        return "BatchGetItem", {"RequestItems": {"?": {"Keys": asked, "ConsistentRead": True}}}
    return "TransactGetItems", {"TransactItems": [{"Get": {"TableName": "?", "Key": key}} for key in asked]}


def _key_of(request: dict[str, Any]) -> Any:
    item = request.get("Key") or request["Item"]
    return {"pk": item["pk"], "sk": item["sk"]}


EVERYTHING: tuple[Call, ...] = (
    *(
        (
            "Query",
            {
                "KeyConditionExpression": "pk = :pk",
                "ExpressionAttributeValues": {":pk": {"S": partition}},
                "ScanIndexForward": forward,
                **limit,
            },
        )
        for partition in PARTITIONS
        for forward in (True, False)
        for limit in ({}, {"Limit": 1}, {"Limit": 4})
    ),
    *(
        (
            "Query",
            {
                "KeyConditionExpression": "pk = :pk AND begins_with(sk, :sk)",
                "ExpressionAttributeValues": {":pk": {"S": partition}, ":sk": {"S": prefix}},
            },
        )
        for partition in PARTITIONS
        for prefix in ("C", "CRED#1", "USER")
    ),
    ("Scan", {"Limit": 4}),
)
"""What is asked after any history: both partitions, from either end, in pages of several sizes."""

gets = keys.map(lambda key: ("GetItem", {"Key": key, "ConsistentRead": True}))
_asked = st.one_of(changes(), changes(), changes(), transactions(), gets, batches(), queries(), scans())
_filled = st.lists(items, min_size=3, max_size=12).map(
    lambda some: [("PutItem", {"Item": each}) for each in some]
)
histories = st.builds(list.__add__, _filled, st.lists(_asked, min_size=1, max_size=15))
