"""Expression texts as tokens: what every kind of expression is parsed from.

AWS, "Using expressions in DynamoDB": names of attributes and keywords, `#` and `:` placeholders,
list indexes, operators.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NoReturn, TypeAlias, cast

MAX_EXPRESSION_SIZE_BYTES = 4_096

CACHED_TEXTS = 1_024
"""How many parsed texts each cache keeps; a program uses few, unless it writes values into them."""

Kind: TypeAlias = Literal["word", "name", "value", "index", "symbol", "other", "end"]

_TOKEN = re.compile(
    r"""
    [ \t\r\n]*
    (?:
        (?P<word>   [A-Za-z][A-Za-z0-9_]* )
      | (?P<name>   \#[A-Za-z0-9_]+ )
      | (?P<value>  :[A-Za-z0-9_]+ )
      | (?P<index>  [0-9]+ )
      | (?P<symbol> <> | <= | >= | [<>=(),.\[\]+-] )
      | (?P<end>    \Z )
      | (?P<other>  . )
    )
    """,
    re.VERBOSE | re.DOTALL,
)


class MalformedExpression(Exception):  # noqa: N818 - reported as a ValidationException by its catcher
    """What is wrong with an expression, in DynamoDB's words, before the kind of expression is known."""


@dataclass(frozen=True, slots=True)
class Token:
    """One token of an expression and where in the text it starts."""

    kind: Kind
    text: str
    start: int

    def is_keyword(self, keyword: str) -> bool:
        """Whether this is the keyword, in whatever case."""
        return self.kind == "word" and self.text.upper() == keyword


@lru_cache(CACHED_TEXTS)
def tokens(text: str) -> tuple[Token, ...]:
    """Split an expression into tokens; a character that starts none is one of the kind `other`.

    Returns:
        The tokens; the last one has the kind `end`.

    Raises:
        MalformedExpression: the text is empty or larger than 4 KB.
    """
    if not text:
        raise MalformedExpression("The expression can not be empty;")
    if len(text.encode(errors="replace")) > MAX_EXPRESSION_SIZE_BYTES:
        raise MalformedExpression("Expression size has exceeded the maximum allowed size;")
    return tuple(_scan(text))


def _scan(text: str) -> Iterator[Token]:
    for match in _TOKEN.finditer(text):
        kind = cast("Kind", match.lastgroup)  # the groups are named after the kinds
        yield Token(kind, match[kind], match.start(kind))
        if kind == "end":
            return


@lru_cache(CACHED_TEXTS)
def references(text: str) -> frozenset[str]:
    """The `#name` and `:value` placeholders that an expression uses."""
    return frozenset(token.text for token in tokens(text) if token.kind in {"name", "value"})


class Cursor:
    """A position among the tokens of one expression, from which a parser reads.

    Args:
        text: the expression.

    Raises:
        MalformedExpression: as `tokens`.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.position = 0

    @property
    def token(self) -> Token:
        """The next token."""
        return self.tokens[self.position]

    def peek(self) -> Token:
        """The token after the next one."""
        return self.tokens[min(self.position + 1, len(self.tokens) - 1)]

    def at_symbol(self, *symbols: str) -> bool:
        """Whether the next token is one of these symbols."""
        return self.token.kind == "symbol" and self.token.text in symbols

    def take(self) -> Token:
        """Read the next token, whatever it is."""
        token = self.token
        self.position += 1
        return token

    def take_kind(self, kind: Kind) -> Token:
        """Read a token of this kind."""
        if self.token.kind != kind:
            self.fail()
        return self.take()

    def skip_symbol(self, symbol: str) -> bool:
        """Read this symbol if it comes next, and say whether it did."""
        if not self.at_symbol(symbol):
            return False
        self.position += 1
        return True

    def skip_keyword(self, keyword: str) -> bool:
        """Read this keyword if it comes next, and say whether it did."""
        if not self.token.is_keyword(keyword):
            return False
        self.position += 1
        return True

    def expect_symbol(self, symbol: str) -> None:
        """Read this symbol."""
        if not self.skip_symbol(symbol):
            self.fail()

    def expect_keyword(self, keyword: str) -> None:
        """Read this keyword."""
        if not self.skip_keyword(keyword):
            self.fail()

    def fail_at(self, position: int) -> NoReturn:
        """Report that the token at this position may not stand there."""
        self.position = position
        self.fail()

    def fail(self) -> NoReturn:
        """Report that the next token may not stand where it stands, as DynamoDB does: with its neighbours."""
        found = "<EOF>" if self.token.kind == "end" else self.token.text
        first, last = self.tokens[max(0, self.position - 1)], self.peek()
        near = self.text[first.start : last.start + len(last.text)]
        raise MalformedExpression(f'Syntax error; token: "{found}", near: "{near}"')
