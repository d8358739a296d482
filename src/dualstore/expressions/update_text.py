"""What can be told from, and added to, the text of someone else's UpdateExpression."""

from functools import lru_cache

from dualstore.expressions.paths import reported_as
from dualstore.expressions.tokens import CACHED_TEXTS, Cursor, Token, tokens


@lru_cache(CACHED_TEXTS)
def with_set_actions(text: str | None, actions: str) -> str:
    """Add SET actions to an UpdateExpression.

    Args:
        text: the expression; None or empty where there is none.
        actions: what to add, such as `#p = if_not_exists(#v, :none), #v = :new`.

    Returns:
        The expression with the actions in front of those of its SET clause, or in a SET clause of
        their own behind the rest.

    Raises:
        RequestRejected: the expression does not consist of tokens.
    """
    if not text:
        return f"SET {actions}"
    for token in _tokens(text):
        if token.is_keyword("SET"):  # reserved, so never an attribute's bare name
            behind = token.start + len(token.text)
            return f"{text[:behind]} {actions},{text[behind:]}"
    return f"{text} SET {actions}"


@lru_cache(CACHED_TEXTS)
def creates_item(text: str | None) -> bool:
    """Whether an update makes an item where there is none.

    One that only removes (REMOVE, DELETE) leaves nothing where nothing was (ScyllaDB issue 5862, seen on
    AWS); one without an expression makes an item of its key.

    Args:
        text: the UpdateExpression; None or empty where there is none.

    Raises:
        RequestRejected: the expression does not consist of tokens.
    """
    if not text:
        return True
    return any(token.is_keyword("SET") or token.is_keyword("ADD") for token in _tokens(text))


def _tokens(text: str) -> tuple[Token, ...]:
    with reported_as("UpdateExpression"):
        found = tokens(text)
        for position, token in enumerate(found):
            if token.kind == "other":
                Cursor(text).fail_at(position)
        return found
