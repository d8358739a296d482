"""Attribute values to try: plain ones, and look-alikes that a SQL column may take for one another."""

from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import strategies as st
from pynamodb.attributes import (
    Attribute,
    AttributeContainer,
    BinaryAttribute,
    BinarySetAttribute,
    DiscriminatorAttribute,
    JSONAttribute,
    ListAttribute,
    MapAttribute,
    TTLAttribute,
    UTCDateTimeAttribute,
    VersionAttribute,
)

from dualstore.items import AttributeValue

LOOK_ALIKES: Mapping[str, tuple[tuple[Any, ...], ...]] = {
    "S": (
        ("a", "A", "b", "B"),
        ("9", "10", "1", "-1"),
        ("a", "a ", "a\0", " a"),
        ("\u00e9", "e\u0301", "e", "f"),
        ("\uffff", "\U00010000", "z"),
        ("ab", "a-b", "a_b", "a%"),
        ("ss", "\u00df", "SS"),
        ("1", "1.0", "01"),
        ("null", "NULL", "\\N", "{}"),
        ("x" * 254, "x" * 255 + "1", "x" * 255 + "2"),
    ),
    "N": (
        ("9", "10", "-1", "0"),
        ("1", "1.0", "1.00000000000000000001", "2"),
        ("9007199254740992", "9007199254740993", "9007199254740991"),
        ("0.1", "0.10000000000000000001", "0.2"),
        ("0", "-0", "1E-130", "-1E-130"),
        ("9" * 38, "9" * 37 + "8", "1E125"),
        ("1E20", "100000000000000000001", "2E19"),
        ("2147483647", "2147483648", "-2147483649"),
    ),
    "B": (
        (b"a", b"A", b"b"),
        (b"\x7f", b"\x80", b"\xff"),
        (b"\0", b"\0\0", b"\x01"),
        (b"\xff", b"\xff\xff", b"\xfe"),
    ),
}
"""Groups of values which some column, collation or cast takes for equal, or orders otherwise."""

_EMPTY: Mapping[str, Any] = {"S": "", "N": "0", "B": b""}
_AWKWARD: Mapping[str, Sequence[Any]] = {
    "S": ("a\0b", "x" * 255 + "1", "\0"),
    "N": ("9007199254740993", "0.10000000000000000001", "9" * 38),
    "B": (b"a\0b", b"\xff" * 256, b"\0"),
}
"""What text that ends at a NUL, columns of 255 characters, and float lose."""

_TURNS = ("theme", "theme", "theme", "empty", "awkward", "any", "any")
_RARE = 7

_characters = st.characters(codec="utf-8", exclude_categories=["Cs"])
texts = st.text(_characters, max_size=8)
numerals = st.one_of(
    st.integers(-20, 20).map(str),
    st.decimals(-1000, 1000, places=3, allow_nan=False, allow_infinity=False).map(str),
    st.integers(-(10**38) + 1, 10**38 - 1).map(str),
)
_FREE: Mapping[str, st.SearchStrategy[Any]] = {
    "S": st.text(_characters, min_size=1, max_size=8),
    "N": numerals,
    "B": st.binary(min_size=1, max_size=6),
}
_CONTENTS: Mapping[str, st.SearchStrategy[Any]] = {
    kind: st.sampled_from([each for group in groups for each in group]) | _FREE[kind]
    for kind, groups in LOOK_ALIKES.items()
}
# The look-alikes that most values of an example are drawn from.
_THEMES: Mapping[str, st.SearchStrategy[Any]] = {
    kind: st.shared(st.sampled_from(groups), key=f"dualstore {kind}") for kind, groups in LOOK_ALIKES.items()
}


@st.composite
def contents(draw: st.DrawFn, kind: str, *, empty: bool = True) -> Any:
    """What an `S`, `N` or `B` may hold: look-alikes, the empty one, what is long or has a NUL, and anything.

    Args:
        draw: Hypothesis's.
        kind: `S`, `N` or `B`.
        empty: whether an empty string or binary may come; a key has none.
    """
    # Most are of the example's theme: histories need values that meet again.
    turn = draw(st.sampled_from(_TURNS))
    if turn == "theme":
        return draw(st.sampled_from(draw(_THEMES[kind])))
    if turn == "empty" and empty:
        return _EMPTY[kind]
    return draw(st.sampled_from(_AWKWARD[kind]) if turn == "awkward" else _CONTENTS[kind])


def scalars(kind: str, *, empty: bool = True) -> st.SearchStrategy[AttributeValue]:
    """Attribute values of type `S`, `N` or `B`."""
    return contents(kind, empty=empty).map(lambda content: {kind: content})


_CANONICAL_MEMBERS = st.integers(-30, 30).map(str) | st.sampled_from(
    ["0.5", "1.25", "9" * 38, "1" + "0" * 20]
)
_MEMBERS: Mapping[str, st.SearchStrategy[Any]] = {
    "SS": contents("S"),
    "NS": _CANONICAL_MEMBERS,
    "BS": contents("B"),
}


def sets(kind: str) -> st.SearchStrategy[AttributeValue]:
    """Sets of type `SS`, `NS` or `BS`, members in order; those of a number set each in its one text."""
    members = st.sets(_MEMBERS[kind], min_size=1, max_size=4)
    return members.map(lambda each: {kind: sorted(each)})


booleans = st.booleans().map(lambda truth: {"BOOL": truth})
nulls = st.just({"NULL": True})
simple_values = st.one_of(
    scalars("S"), scalars("N"), scalars("B"), booleans, nulls, sets("SS"), sets("NS"), sets("BS")
)
_anything: st.SearchStrategy[AttributeValue] = st.recursive(
    simple_values,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda elements: {"L": elements}),
        st.dictionaries(st.sampled_from(["x", "X", "y.z", "0"]), inner, max_size=3).map(
            lambda entries: {"M": entries}
        ),
    ),
    max_leaves=4,
)


@st.composite
def any_value(draw: st.DrawFn) -> AttributeValue:
    """Anything that DynamoDB stores."""
    return draw(_anything)


_MOMENTS = st.datetimes().map(lambda at: at.strftime("%Y-%m-%dT%H:%M:%S.%f+0000").rjust(31, "0"))
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | texts,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=3,
)


def values_of(attribute: Attribute[Any], *, key: bool = False) -> st.SearchStrategy[AttributeValue]:
    """Attribute values as an attribute of a model writes them.

    Args:
        attribute: of a PynamoDB model, of any class; one that is not known is told by its DynamoDB type.
        key: whether it is in the key of the table or of an index, and so never empty.
    """
    for kind, strategy in _OF_CLASS.items():
        if isinstance(attribute, kind):
            found: st.SearchStrategy[AttributeValue] = strategy(attribute)
            return found
    return _of_type(attribute.attr_type, key=key)


def _of_type(kind: str, *, key: bool = False) -> st.SearchStrategy[AttributeValue]:
    if kind in LOOK_ALIKES:
        return scalars(kind, empty=not key)
    if kind in _MEMBERS:
        return sets(kind)
    return {"BOOL": booleans, "NULL": nulls}.get(kind, any_value())


def is_raw(attribute: Any) -> bool:
    """Whether a map attribute declares nothing of what it holds."""
    return bool(attribute.is_raw())


def _of_map(attribute: Any) -> st.SearchStrategy[AttributeValue]:
    if is_raw(attribute):
        names = st.sampled_from(["street", "Street", "n", "y.z"])
        return st.dictionaries(names, any_value(), max_size=3).map(lambda entries: {"M": entries})
    return attributes_of(type(attribute)).map(lambda entries: {"M": entries})


def _of_list(attribute: Any) -> st.SearchStrategy[AttributeValue]:
    element = any_value() if attribute.element_type is None else values_of(attribute.element_type())
    return st.lists(element, max_size=3).map(lambda elements: {"L": elements})


def _of_discriminator(attribute: DiscriminatorAttribute) -> st.SearchStrategy[AttributeValue]:
    named = [str(name) for name in attribute._discriminator_map]  # noqa: SLF001 - not public in PynamoDB
    return st.sampled_from(sorted(named) or ["?"]).map(lambda name: {"S": name})


_OF_CLASS: Mapping[type, Any] = {
    DiscriminatorAttribute: _of_discriminator,
    UTCDateTimeAttribute: lambda _: _MOMENTS.map(lambda text: {"S": text}),
    # None is no text: PynamoDB's attribute writes nothing for it.
    JSONAttribute: lambda a: _JSON.map(lambda value: {"S": a.serialize(False if value is None else value)}),
    VersionAttribute: lambda _: st.integers(1, 3).map(lambda n: {"N": str(n)}),
    TTLAttribute: lambda _: st.integers(4_000_000_000, 4_000_000_009).map(lambda s: {"N": str(s)}),
    BinaryAttribute: lambda a: contents("B", empty=not (a.is_hash_key or a.is_range_key)).map(
        lambda raw: {"B": a.serialize(raw)}
    ),
    BinarySetAttribute: lambda a: st.sets(contents("B"), min_size=1, max_size=3).map(
        lambda each: {"BS": sorted(a.serialize(each))}
    ),
    MapAttribute: _of_map,
    ListAttribute: _of_list,
}


@st.composite
def attributes_of(
    draw: st.DrawFn, container: type[AttributeContainer], *, except_for: frozenset[str] = frozenset()
) -> dict[str, AttributeValue]:
    """The attributes that a model or a typed map declares, by their names in DynamoDB.

    Those that may be missing often are. Now and then one has a value of another type, or a null.

    Args:
        draw: Hypothesis's.
        container: the model or map class.
        except_for: names to leave out.
    """
    found: dict[str, AttributeValue] = {}
    for attribute in container.get_attributes().values():
        if attribute.attr_name in except_for:
            continue
        turn = draw(st.integers(0, _RARE))
        if turn == _RARE and not isinstance(attribute, DiscriminatorAttribute):
            found[attribute.attr_name] = draw(nulls | simple_values)
        elif not attribute.null or turn % 2:
            found[attribute.attr_name] = draw(values_of(attribute))
    return found
