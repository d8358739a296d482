"""Hypothesis strategies: operations on a few keys of one table, as (name, request).

They keep clear of what dynoxide does otherwise than AWS (`contract/divergences.py`): indexes into lists,
updates that only take away, ReturnValues of old images of absent items, and case in `begins_with`.
"""

from typing import Any

from hypothesis import strategies as st

Call = tuple[str, dict[str, Any]]

PARTITIONS = ("p", "q")
ATTRIBUTES = ("a", "c", "d")

texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=5)
numerals = st.one_of(
    st.integers(-20, 20).map(str),
    st.decimals(-1000, 1000, places=3, allow_nan=False, allow_infinity=False).map(str),
    st.sampled_from(["0", "-0", "1E20", "-1E-20", "9" * 38, "1E-130", "0.5", "9", "10"]),
)
scalars = st.one_of(
    texts.map(lambda text: {"S": text}),
    numerals.map(lambda numeral: {"N": numeral}),
    st.binary(max_size=4).map(lambda raw: {"B": raw}),
    st.booleans().map(lambda truth: {"BOOL": truth}),
    st.just({"NULL": True}),
)
sets = st.one_of(
    st.sets(texts, min_size=1, max_size=3).map(lambda members: {"SS": sorted(members)}),
    st.sets(st.integers(-9, 9), min_size=1, max_size=3).map(
        lambda each: {"NS": [str(n) for n in sorted(each)]}
    ),
    st.sets(st.binary(max_size=2), min_size=1, max_size=3).map(lambda members: {"BS": sorted(members)}),
)
values = st.recursive(
    scalars | sets,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda elements: {"L": elements}),
        st.dictionaries(st.sampled_from("xyz"), inner, max_size=3).map(lambda entries: {"M": entries}),
    ),
    max_leaves=5,
)
keys = st.fixed_dictionaries(
    {
        "pk": st.sampled_from(PARTITIONS).map(lambda text: {"S": text}),
        "sk": st.sampled_from(["9", "10", "-1", "0", "0.5"]).map(lambda numeral: {"N": numeral}),
    }
)
items = st.builds(
    lambda key, rest, rank: {**key, **rest, **rank},
    keys,
    st.dictionaries(st.sampled_from(ATTRIBUTES), values, max_size=3),
    st.one_of(st.just({}), st.integers(0, 3).map(lambda n: {"rank": {"N": str(n)}, "owner": {"S": "ann"}})),
)

CONDITIONS = (
    "attribute_exists(pk)",
    "attribute_not_exists(pk)",
    "attribute_not_exists(a)",
    "a = :v",
    "a <> :v",
    "NOT a = :v",
    "a IN (:v, :w)",
    "a = :v OR c = :w",
    "NOT (a = :v AND attribute_exists(c))",
    "attribute_type(a, :type)",
    "contains(a, :v)",
    "size(c) >= :n",
    "a < :n",
    "a BETWEEN :n AND :m",
    "begins_with(d, :s)",
    "a.x = :v",
    "a = c",
    "a <> c",
)
UPDATES = (
    "SET a = :v",
    "SET a = :v, c = :w REMOVE d",
    "SET a = c",
    "SET a = if_not_exists(c, :v)",
    "SET a = a + :n",
    "SET a = a - :n, c = a",
    "SET a = list_append(a, :list)",
    "SET a = list_append(if_not_exists(a, :list), :list)",
    "SET a.x = :v",
    "SET a.x = :v, a.y = :w",
    "ADD a :n",
    "ADD a :set",
    "SET c = :v DELETE a :set",
    "SET rank = :n",
)


def _placeholders(text: str) -> list[str]:
    return [name for name in (":v", ":w", ":n", ":m", ":s", ":set", ":list", ":type") if _uses(text, name)]


def _uses(text: str, name: str) -> bool:
    return any(word.strip("(),") == name for word in text.split())


_FILLED = {
    ":v": values,
    ":w": values,
    ":n": numerals.map(lambda numeral: {"N": numeral}),
    ":m": st.just({"N": "1E125"}),
    ":s": texts.map(lambda text: {"S": text.lower()}),
    ":set": sets,
    ":list": st.lists(scalars, max_size=2).map(lambda elements: {"L": elements}),
    ":type": st.sampled_from(["S", "N", "SS", "M", "NULL"]).map(lambda name: {"S": name}),
}


@st.composite
def _expressions(draw: Any, **texts_by_parameter: Any) -> dict[str, Any]:
    """Expressions of one request, and the values that they use."""
    request = {
        parameter: text
        for parameter, choice in texts_by_parameter.items()
        if (text := draw(choice)) is not None
    }
    used = {name for text in request.values() for name in _placeholders(text)}
    filled = {name: draw(_FILLED[name]) for name in sorted(used)}
    if "rank" in " ".join(request.values()):
        request["ExpressionAttributeNames"] = {"#rank": "rank"}
        request["UpdateExpression"] = request["UpdateExpression"].replace("rank", "#rank")
    return {**request, "ExpressionAttributeValues": filled} if filled else request


maybe_a_condition = st.none() | st.sampled_from(CONDITIONS)


@st.composite
def operations(draw: Any) -> Call:
    """One operation, without its table."""
    name = draw(
        st.sampled_from(["PutItem", "PutItem", "UpdateItem", "UpdateItem", "DeleteItem", "GetItem", "Query"])
    )
    match name:
        case "PutItem":
            request = {"Item": draw(items), **draw(_expressions(ConditionExpression=maybe_a_condition))}
            request["ReturnValues"] = draw(st.sampled_from(["NONE", "ALL_OLD"]))
        case "DeleteItem":
            request = {"Key": draw(keys), **draw(_expressions(ConditionExpression=maybe_a_condition))}
            request["ReturnValues"] = draw(st.sampled_from(["NONE", "ALL_OLD"]))
        case "UpdateItem":
            texts = {"UpdateExpression": st.sampled_from(UPDATES), "ConditionExpression": maybe_a_condition}
            request = {"Key": draw(keys), **draw(_expressions(**texts))}
            request["ReturnValues"] = draw(st.sampled_from(["NONE", "ALL_NEW", "UPDATED_NEW"]))
        case "GetItem":
            request = {"Key": draw(keys), "ConsistentRead": True}
            projection = draw(st.sampled_from([None, "a", "a.x, c", "pk, d"]))
            request |= {} if projection is None else {"ProjectionExpression": projection}
        case _:
            request = draw(queries())
    return name, request


@st.composite
def queries(draw: Any) -> dict[str, Any]:
    """A Query of one partition, or of an index."""
    request: dict[str, Any] = draw(_expressions(FilterExpression=maybe_a_condition.filter(_may_filter)))
    filled = request.pop("ExpressionAttributeValues", {})
    request["ScanIndexForward"] = draw(st.booleans())
    limit = draw(st.none() | st.integers(1, 4))
    if limit is not None:
        request["Limit"] = limit
    condition, bound = draw(
        st.sampled_from(
            [("pk = :pk", None), ("pk = :pk AND sk < :sk", "9"), ("pk = :pk AND sk >= :sk", "0.5")]
        )
    )
    filled |= {":pk": {"S": draw(st.sampled_from(PARTITIONS))}}
    if bound is not None:
        filled[":sk"] = {"N": bound}
    return {**request, "KeyConditionExpression": condition, "ExpressionAttributeValues": filled}


def _may_filter(condition: str | None) -> bool:
    return condition is None or "pk" not in condition
