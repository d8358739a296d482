"""Items of one shape, cut by one regular expression.

Most items of a table look alike: the same attributes in the same order, of the same types. From one of them
that was written the general way a regular expression is made that checks a whole line and cuts out what
varies, and a template for the row; together they take a third of the time of parsing and writing. The
expression accepts nothing that the general way would decline or put elsewhere; what it does not match goes
the general way. It is for lines without a backslash (see `texts`) and without white space.
"""

import re
from binascii import a2b_base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dualstore.items import PREDECESSOR, STAMP
from dualstore.mapping.transcoding.documents import NUMERAL
from dualstore.mapping.transcoding.forms import UNLIMITED, Field, Form
from dualstore.mapping.transcoding.parsed import Declined, binary
from dualstore.mapping.transcoding.texts import NULL

_MOST_SHAPES = 4  # that are tried on a line
_MOST_LEARNED = 32  # a compilation takes milliseconds
_LEARN_EACH = 16  # of the lines that no shape matched
_TRIAL_LINES = 1000

_CHARACTER = r'[^"\\\x00-\x1f]'
# Canonical: RFC 4648, 4.
_BASE64 = r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?"
_STAMP = r"[A-Za-z0-9+/]{21}[AQgw]=="  # of 16 bytes
_USUAL_DAY = "(?:19|20)[0-9]{2}-(?:0[1-9]|1[0-2])-(?:0[1-9]|1[0-9]|2[0-8])"
_USUAL_MOMENT = rf"{_USUAL_DAY}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\."
_SURE_DIGITS = {16: 4, 32: 9, 64: 18}

_QUOTED_CONTENTS = {"S": f"{_CHARACTER}*", "N": NUMERAL, "B": _BASE64}
_BARE_CONTENTS = {"BOOL": "true|false", "NULL": "true"}

Convert = Callable[[str], str]
_Pieces = list[str | int]
"""Parts of a row: texts as they stand, and numbers of groups."""


class _NoShape(Exception):  # noqa: N818 - control flow
    """An expression cannot say what this item is."""


@dataclass(frozen=True, slots=True)
class _Shape:
    """How lines of one shape become rows.

    Attributes:
        match: matches an item.
        order: the groups in the order of the row.
        template: the row, with a place for each group.
        converts: what is done with groups before, by their place in `order`.
    """

    match: Callable[[str, int, int], re.Match[str] | None]
    order: tuple[int, ...]
    template: str
    converts: tuple[tuple[int, Convert], ...]

    def row(self, text: str, start: int, end: int) -> str | None:
        """The row of the item that stands there, or None where it is of another shape."""
        match = self.match(text, start, end)
        if match is None:
            return None
        groups = match.group(*self.order)
        if self.converts:
            converted: list[str] = list(groups)
            try:
                for place, convert in self.converts:
                    converted[place] = convert(converted[place])
            except Declined:
                return None
            groups = tuple(converted)
        return self.template % groups


class Shapes:
    """The shapes that a table's items turned out to have.

    Args:
        fields: the table's columns.
    """

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = fields
        self._shapes: list[_Shape] = []
        self._learned = self._missed = self._matched = 0

    def row(self, text: str, start: int, end: int) -> str | None:
        """The row of the item that stands there, or None where no shape matches it."""
        shapes = self._shapes
        for place, shape in enumerate(shapes):
            row = shape.row(text, start, end)
            if row is not None:
                self._matched += 1
                if place:
                    shapes.insert(0, shapes.pop(place))
                return row
        self._missed += 1
        return None

    @property
    def wants_another(self) -> bool:
        """Whether an item that no shape matched is to be learned from."""
        if self._missed > _TRIAL_LINES and self._missed > self._matched:
            self._shapes.clear()  # too many shapes to be worth the trial
            return False
        return self._learned < _MOST_LEARNED and self._missed % _LEARN_EACH == 1

    def learn(self, item: dict[str, dict[str, Any]], text: str, start: int, end: int, row: str) -> None:
        """Learn the shape of an item.

        Args:
            item: the item, parsed.
            text: where it stands.
            start: from here.
            end: to here.
            row: what the general way has made of it.
        """
        self._learned += 1
        try:
            shape = _Drawing(self._fields).shape(item)
        except _NoShape:
            return
        if shape.row(text, start, end) == row:
            self._shapes = [shape, *self._shapes[: _MOST_SHAPES - 1]]


class _Drawing:
    """A shape that is being made."""

    def __init__(self, fields: Sequence[Field]) -> None:
        self._fields = fields
        self._groups = 0
        self._converts: dict[int, Convert] = {}

    def shape(self, item: dict[str, dict[str, Any]]) -> _Shape:
        column_of = {field.attribute: place for place, field in enumerate(self._fields)}
        columns: list[_Pieces] = [[NULL]] * len(self._fields)
        rest: list[_Pieces] = []
        stamp: _Pieces = [NULL]
        members = []
        for name, value in item.items():
            ((kind, content),) = value.items()
            place = column_of.get(name)
            if place is not None and self._fields[place].type == kind:
                pattern, columns[place] = self._column(self._fields[place], content)
                pattern = rf'\{{"{kind}":{pattern}\}}'
            elif name == STAMP and kind == "B":
                group = self._group(_STAMP, lambda text: a2b_base64(text).hex())
                pattern, stamp = rf'\{{"B":"{group[0]}"\}}', ["\\\\x", group[1]]
            elif name == PREDECESSOR:
                pattern, _ = self._typed(value)
            else:
                pattern, pieces = self._typed(value)
                rest.append([f'"{_bare(name)}":', *pieces])
            members.append(f'"{re.escape(_bare(name))}":{pattern}')
        overflow: _Pieces = ["{", *_joined(rest), "}"] if rest else [NULL]
        row = _joined([*columns, overflow, stamp], "\t")
        order = tuple(piece for piece in row if isinstance(piece, int))
        if len(order) < 2:  # noqa: PLR2004 - `Match.group` gives no tuple then
            raise _NoShape
        return _Shape(
            match=re.compile(rf"\{{{','.join(members)}\}}").fullmatch,
            order=order,
            template="".join("%s" if isinstance(piece, int) else piece.replace("%", "%%") for piece in row),
            converts=tuple(
                (place, self._converts[group]) for place, group in enumerate(order) if group in self._converts
            ),
        )

    def _group(self, pattern: str, convert: Convert | None = None) -> tuple[str, int]:
        self._groups += 1
        if convert is not None:
            self._converts[self._groups] = convert
        return f"({pattern})", self._groups

    def _quoted(self, pattern: str, convert: Convert | None = None) -> tuple[str, _Pieces]:
        """A string of which a field is made, without its quotes."""
        group, number = self._group(pattern, convert)
        return f'"{group}"', [number]

    def _column(self, field: Field, content: Any) -> tuple[str, _Pieces]:
        drawn: tuple[str, _Pieces]
        match field.form:
            case Form.JSON:
                drawn = self._plain_content(field.type, content)
            case Form.BOOLEAN:
                group, number = self._group("[tf]")
                drawn = rf"{group}(?:(?<=t)rue|(?<=f)alse)", [number]
            case Form.TEXTS:
                pattern, pieces = self._texts()
                drawn = pattern, ["{", *pieces[1:-1], "}"]
            case Form.BINARY if not field.key_bytes:
                pattern, pieces = self._quoted(_BASE64, lambda text: binary(text).hex())
                drawn = pattern, ["\\\\x", *pieces]
            case Form.CALLED if field.type in {"S", "N"}:
                drawn = self._quoted(NUMERAL if field.type == "N" else f"{_CHARACTER}*", _converted(field))
            case Form.MOMENT:
                drawn = self._moment(field)
            case form if form in _PATTERNS:
                drawn = self._quoted(_PATTERNS[form](field))
            case _:
                raise _NoShape
        return drawn

    def _moment(self, field: Field) -> tuple[str, _Pieces]:
        zeros = len(str(field.limit)) - 1
        moment = rf"{_USUAL_MOMENT}[0-9]{{{6 - zeros}}}0{{{zeros}}}"
        zone = r"\+0000"
        group, number = self._group(moment + zone if field.scale else moment)
        return f'"{group}"' if field.scale else f'"{group}{zone}"', [number]

    def _texts(self) -> tuple[str, _Pieces]:
        group, number = self._group(f'{_CHARACTER}*(?:","{_CHARACTER}*)*', _distinct)
        return rf'\["{group}"\]', ["[", '"', number, '"', "]"]

    def _plain(self, value: Any) -> tuple[str, _Pieces]:
        ((kind, content),) = value.items()
        pattern, pieces = self._plain_content(kind, content)
        return rf'\{{"{kind}":{pattern}\}}', pieces

    def _plain_content(self, kind: str, content: Any) -> tuple[str, _Pieces]:
        match kind:
            case "S":
                group, number = self._group(f"{_CHARACTER}*")
                return f'"{group}"', ['"', number, '"']
            case "N":
                group, number = self._group(NUMERAL)
                return f'"{group}"', [number]
            case "BOOL":
                group, number = self._group("true|false")
                return group, [number]
            case "NULL":
                return "true", ["null"]
            case "M":
                return self._entries(content, self._plain)
            case _:
                raise _NoShape

    def _typed(self, value: Any) -> tuple[str, _Pieces]:
        ((kind, content),) = value.items()
        drawn: tuple[str, _Pieces]
        if kind in _QUOTED_CONTENTS:
            pattern, pieces = self._quoted(_QUOTED_CONTENTS[kind])
            drawn = pattern, ['"', *pieces, '"']
        elif kind in _BARE_CONTENTS:
            group, number = self._group(_BARE_CONTENTS[kind])
            drawn = group, [number]
        elif kind == "SS":
            drawn = self._texts()
        elif kind == "M":
            drawn = self._entries(content, self._typed)
        else:
            raise _NoShape
        pattern, pieces = drawn
        return rf'\{{"{kind}":{pattern}\}}', [f'{{"{kind}":', *pieces, "}"]

    def _entries(
        self, entries: dict[str, Any], draw: Callable[[Any], tuple[str, _Pieces]]
    ) -> tuple[str, _Pieces]:
        patterns, parts = [], []
        for name, value in entries.items():
            pattern, pieces = draw(value)
            patterns.append(f'"{re.escape(_bare(name))}":{pattern}')
            parts.append([f'"{name}":', *pieces])
        return rf"\{{{','.join(patterns)}\}}", ["{", *_joined(parts), "}"]


def _bare(name: str) -> str:
    if re.fullmatch(f"{_CHARACTER}*", name) is None:
        raise _NoShape
    return name


def _joined(parts: Sequence[_Pieces], separator: str = ",") -> _Pieces:
    def pieces() -> Iterator[str | int]:
        for place, part in enumerate(parts):
            if place:
                yield separator
            yield from part

    return list(pieces())


def _distinct(members: str) -> str:
    several = members.split('","')
    if len(set(several)) != len(several):
        raise Declined
    return members


def _converted(field: Field) -> Convert:
    def convert(content: str) -> str:
        written = None if field.call is None else field.call(content)
        if written is None:  # for the overflow
            raise Declined
        return written

    return convert


def _text_pattern(field: Field) -> str:
    if field.key_bytes:
        return f"{_CHARACTER}{{1,{field.key_bytes // 4}}}"
    return f"{_CHARACTER}*" if field.limit == UNLIMITED else f"{_CHARACTER}{{0,{field.limit}}}"


def _integer_pattern(field: Field) -> str:
    return rf"-?[1-9][0-9]{{0,{_SURE_DIGITS[field.limit] - 1}}}|0"


_PATTERNS: dict[Form, Callable[[Field], str]] = {
    Form.TEXT: _text_pattern,
    Form.NUMERIC: lambda _: NUMERAL,
    Form.INTEGER: _integer_pattern,
}
