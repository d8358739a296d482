"""Transcoding by the compiled accelerator, where it is installed (`dualstore-accelerator`, docs/adr/0019)."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import msgspec

from dualstore.errors import ConfigurationError
from dualstore.mapping.tables import TableMapping
from dualstore.mapping.transcoding.forms import fields_of
from dualstore.mapping.transcoding.parsed import Declined
from dualstore.mapping.transcoding.pure import PureTranscoder, lines_of_page, rest_of_page
from dualstore.mapping.transcoding.rows import Transcoded, TranscodedPage, lines_of

MODULE = "dualstore_accelerator"
INTERFACE = 5
"""What the accelerator has to say that it is: columns, forms and answers as this version knows them."""

_ITEMS = b'"Items":['


def accelerator() -> Any:
    """The compiled module.

    Raises:
        ConfigurationError: it is not installed, or made for another version of dualstore.
    """
    try:
        module = import_module(MODULE)
    except ImportError as error:
        raise ConfigurationError(
            f"the accelerator cannot be imported ({error.name or 'broken'}): build it with "
            "`pip install ./accelerator`, or leave it out, and Python does the work"
        ) from error
    if getattr(module, "INTERFACE", None) != INTERFACE:
        raise ConfigurationError(
            f"the installed accelerator is made for another version of dualstore (interface {INTERFACE} is "
            "needed): install the one that came with it"
        )
    return module


class AcceleratedTranscoder:
    """Transcodes the items of one table; see `Transcoder`.

    Args:
        mapping: the table.

    Raises:
        ConfigurationError: there is no accelerator for this version.
    """

    def __init__(self, mapping: TableMapping) -> None:
        self._twin = PureTranscoder(mapping)
        columns = tuple(
            (
                *(field.attribute.encode(), field.type, int(field.form)),
                *(field.limit, field.scale, field.key_bytes),
                None if field.call is None else _of_json(field.call),
            )
            for field in fields_of(mapping)
        )
        transcoder = accelerator().Transcoder(columns)
        self._lines, self._items = transcoder.lines, transcoder.items

    def block(self, block: bytes) -> Transcoded:
        """See `Transcoder.block`."""
        text, rows, declined = self._lines(block)
        return Transcoded(text, rows, declined, len(block), partial(lines_of, block))

    def page(self, body: bytes) -> TranscodedPage:
        """See `Transcoder.page`."""
        # No string holds an unescaped quote, and no attribute's value is a list: this is the page's own.
        name = body.find(_ITEMS)
        if name < 0:
            return self._twin.page(body)
        start = name + len(_ITEMS)
        try:
            (text, rows, declined), end = self._items(body, start)
            if declined:
                lines_of_page(body)  # half an answer is no answer, not an item to be put aside
        except ValueError:
            return self._twin.page(body)
        done = Transcoded(text, rows, declined, len(body), partial(lines_of_page, body))
        return TranscodedPage(done, rest_of_page(body[:start] + b"]" + body[end:]))


def _of_json(call: Callable[[Any], str | None]) -> Callable[[bytes], bytes | bool | None]:
    """What the accelerator calls: None where the overflow holds the content, False where it declines."""

    def of_json(content: bytes) -> bytes | bool | None:
        try:
            field = call(msgspec.json.decode(content))
        except Declined:
            return False
        return None if field is None else field.encode()

    return of_json
