"""Conditions near what some items hold."""

from hypothesis import strategies as st

from dualstore.expressions.conditions import (
    And,
    Attribute,
    Between,
    Call,
    Comparison,
    Constant,
    Membership,
    Not,
    Or,
    Predicate,
)
from dualstore.items import AttributeValue, Item, type_of

EDGES = {
    "S": ["", "\x00", "\x01", "\x02", "a", "A", "é", "z", "\U00010000", "\uffff", "open", "2026-01-01"],
    "N": ["0", "-1", "1", "1.5", "9007199254740993", "9" * 38, "1E-130", "-9E+125", "2147483648"],
    "B": [b"", b"\0", b"a", b"\xff"],
    "BOOL": [True, False],
}


def values_near(found: list[Item], name: str) -> st.SearchStrategy[AttributeValue]:
    """Values that items have at an attribute, a part of one, and others of the same and other types."""
    held = [item[name] for item in found if name in item]
    near = [
        {kind: part}
        for value in held
        for kind in {type_of(value)} & {"S", "B"}
        for part in (value[kind][:1], value[kind][1:], value[kind] * 2)
    ]
    edges = [{kind: content} for kind, contents in EDGES.items() for content in contents]
    others = [{"NULL": True}, {"SS": ["a"]}, {"L": []}]
    mine = [each for each in edges if held and type_of(each) == type_of(held[0])]
    return st.sampled_from(held * 3 + near * 2 + mine * 2 + edges + others)


@st.composite
def leaves(draw: st.DrawFn, found: list[Item], names: list[str]) -> Predicate:  # noqa: PLR0911 - a table
    name = draw(st.sampled_from(names))
    operand = Attribute((name,))
    values = values_near(found, name).map(Constant)
    constant = draw(values)
    kind = draw(
        st.sampled_from(["compared", "mirrored", "columns", "between", "in", "call", "exists", "type"])
    )
    operator = draw(st.sampled_from(["=", "<>", "<", "<=", ">", ">="]))
    match kind:
        case "compared":
            return Comparison(operator, operand, constant)
        case "mirrored":
            return Comparison(operator, constant, operand)
        case "columns":
            return Comparison(operator, operand, Attribute((draw(st.sampled_from(names)),)))
        case "between":
            return Between(operand, constant, draw(values))
        case "in":
            return Membership(operand, (constant, *draw(st.lists(values, max_size=4))))
        case "call":
            part = draw(st.sampled_from([constant, Attribute((draw(st.sampled_from(names)),))]))
            return Call(draw(st.sampled_from(["begins_with", "contains"])), (operand, part))
        case "exists":
            function = draw(st.sampled_from(["attribute_exists", "attribute_not_exists"]))
            return Call(function, (operand,))
        case _:
            wanted = draw(st.sampled_from(["S", "N", "B", "BOOL", "M", "L", "SS"]))
            return Call("attribute_type", (operand, Constant({"S": wanted})))


def predicates(found: list[Item], names: list[str]) -> st.SearchStrategy[Predicate]:
    def together(terms: st.SearchStrategy[Predicate]) -> st.SearchStrategy[Predicate]:
        several = st.lists(terms, min_size=2, max_size=3).map(tuple)
        return st.one_of(several.map(And), several.map(Or), terms.map(Not))

    return st.recursive(leaves(found, names), together, max_leaves=4)
