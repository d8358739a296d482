"""Document paths: parsing, binding names and values, and looking them up in an item."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import combinations
from typing import TypeAlias

from dualstore.errors import invalid
from dualstore.expressions.reserved import RESERVED_WORDS
from dualstore.expressions.tokens import Cursor, MalformedExpression, references, tokens
from dualstore.items import AttributeValue, Item, normalized, validate_value

Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands in an item: an attribute's name, then names in maps and indexes in lists."""

MAX_PATH_ELEMENTS = 32


def path_text(path: Path) -> str:
    """A path as people write it, such as `lines[2].price`."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return "".join(steps).removeprefix(".")


def parse_path(cursor: Cursor) -> Path:
    """Read a path; `#name` placeholders stay in it until they are bound.

    Raises:
        MalformedExpression: a syntax error, or a reserved word as a bare name.
    """
    path: list[str | int] = [_parse_name(cursor)]
    while True:
        if cursor.skip_symbol("."):
            path.append(_parse_name(cursor))
        elif cursor.skip_symbol("["):
            path.append(int(cursor.take_kind("index").text))
            cursor.expect_symbol("]")
        else:
            break
    if len(path) > MAX_PATH_ELEMENTS:
        raise MalformedExpression(
            f"The document path has too many nesting elements; nesting elements: {len(path)}"
        )
    return tuple(path)


def _parse_name(cursor: Cursor) -> str:
    if cursor.token.kind not in {"word", "name"}:
        cursor.fail()
    token = cursor.take()
    if token.text.upper() in RESERVED_WORDS:
        raise MalformedExpression(f"Attribute name is a reserved keyword; reserved keyword: {token.text}")
    return token.text


@dataclass(frozen=True, slots=True)
class Binding:
    """What stands for the placeholders of one request.

    Attributes:
        names: ExpressionAttributeNames.
        values: ExpressionAttributeValues.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, AttributeValue] = field(default_factory=dict)

    def path(self, path: Path) -> Path:
        """The path with names in place of its placeholders.

        Raises:
            MalformedExpression: a placeholder has no name.
        """
        return tuple(
            self._name(step) if isinstance(step, str) and step.startswith("#") else step for step in path
        )

    def _name(self, placeholder: str) -> str:
        try:
            return self.names[placeholder]
        except KeyError:
            raise MalformedExpression(
                "An expression attribute name used in the document path is not defined; "
                f"attribute name: {placeholder}"
            ) from None

    def value(self, placeholder: str) -> AttributeValue:
        """The value that a placeholder stands for, normalised.

        Raises:
            MalformedExpression: the placeholder has no value.
            RequestRejected: DynamoDB would not store the value.
        """
        try:
            value = self.values[placeholder]
        except KeyError:
            raise MalformedExpression(
                "An expression attribute value used in expression is not defined; "
                f"attribute value: {placeholder}"
            ) from None
        validate_value(value)
        return normalized(value)


@contextmanager
def reported_as(kind: str) -> Iterator[None]:
    """Turn `MalformedExpression` into the refusal that DynamoDB gives for this kind of expression."""
    try:
        yield
    except MalformedExpression as malformed:
        raise invalid(f"Invalid {kind}: {malformed}") from None


def resolve(path: Path, item: Item) -> AttributeValue | None:
    """The value at a path of an item, or None where there is none."""
    value = item.get(str(path[0]))
    for step in path[1:]:
        if value is None:
            return None
        if isinstance(step, int):
            elements = value.get("L", ())
            value = elements[step] if step < len(elements) else None
        else:
            value = value.get("M", {}).get(step)
    return value


def reject_overlaps(paths: Iterable[Path]) -> None:
    """Reject two paths of which one lies inside the other, or that want one value to be list and map.

    Raises:
        MalformedExpression: two paths overlap or conflict.
    """
    for one, two in combinations(paths, 2):
        problem = _collision(one, two)
        if problem:
            raise MalformedExpression(
                f"Two document paths {problem} with each other; must remove or rewrite one of these "
                f"paths; path one: {path_text(one)}, path two: {path_text(two)}"
            )


def _collision(one: Path, two: Path) -> str | None:
    for left, right in zip(one, two, strict=False):
        if type(left) is not type(right):
            return "conflict"
        if left != right:
            return None
    return "overlap"


_PLACEHOLDERS = (("ExpressionAttributeNames", "name"), ("ExpressionAttributeValues", "value"))


def check_placeholders(names: Mapping[str, str] | None, values: Mapping[str, AttributeValue] | None) -> None:
    """Reject names and values that no expression can use.

    Args:
        names: the request's ExpressionAttributeNames.
        values: the request's ExpressionAttributeValues.

    Raises:
        RequestRejected: there are none in what was given, or one is misspelled.
    """
    for (parameter, kind), given in zip(_PLACEHOLDERS, (names, values), strict=True):
        if given is None:
            continue
        if not given:
            raise invalid(f"{parameter} must not be empty")
        for key in given:
            if not _is_placeholder(key, kind):
                raise invalid(f'{parameter} contains invalid key: Syntax error; key: "{key}"')


def reject_unused(
    names: Mapping[str, str] | None,
    values: Mapping[str, AttributeValue] | None,
    *texts: str,
) -> None:
    """Reject names and values that no expression of a request uses.

    Args:
        names: the request's ExpressionAttributeNames.
        values: the request's ExpressionAttributeValues.
        texts: its expressions, which have been parsed.

    Raises:
        RequestRejected: a name or value is unused.
    """
    used: frozenset[str] = frozenset().union(*map(references, texts))
    for (parameter, _), given in zip(_PLACEHOLDERS, (names, values), strict=True):
        if given is not None and not given.keys() <= used:
            unused = sorted(given.keys() - used)
            raise invalid(
                f"Value provided in {parameter} unused in expressions: keys: {{{', '.join(unused)}}}"
            )


@lru_cache(1_024)
def _is_placeholder(key: str, kind: str) -> bool:
    try:
        first, *rest = tokens(key)
    except MalformedExpression:
        return False
    return first.kind == kind and first.text == key and len(rest) == 1
