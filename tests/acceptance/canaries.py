"""Canaries in keys and values, and what takes down everything that is said, to look for them in it."""

import base64
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from integration import test_planted_differences as planted

KEY, VALUE = "keycanary5b1f", "valuecanary93ce"
SORT_KEY, TOO_LARGE, NUMBER = 718_293_645_192_837, 918_273_645_281_937, 827_364.918_273_645
"""Canaries, too: a sort key, a number that the SQL table refuses, one that it takes; too long for chance."""
KEYS = (KEY, str(SORT_KEY), f"{planted.CANARY}-")
VALUES = (VALUE, str(TOO_LARGE), str(NUMBER), f"{planted.CANARY} as it", f"{planted.CANARY} later")


@dataclass
class Told:
    """Everything that was said, by where."""

    said: dict[str, list[str]] = field(default_factory=dict)

    def add(self, where: str, what: object) -> None:
        self.said.setdefault(where, []).append(what if isinstance(what, str) else str(what))

    @contextmanager
    def refused(self, *expected: type[Exception]) -> Iterator[None]:
        """Something that must fail; what the error and all that led to it say is told."""
        with pytest.raises(expected or Exception) as caught:
            yield
        for error in _led_to(caught.value):
            self.add("errors", "".join(traceback.format_exception_only(error)))

    def with_any(self, canaries: Sequence[str]) -> dict[str, list[str]]:
        """Where any of some canaries was told, in plain text, base64 or hexadecimal digits."""
        forms = [form for canary in canaries for form in _forms(canary)]
        found = {
            where: [text for text in texts if any(form in text for form in forms)]
            for where, texts in self.said.items()
        }
        return {where: texts for where, texts in found.items() if texts}


def _led_to(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _forms(canary: str) -> Iterator[str]:
    encoded = canary.encode()
    yield from (canary, encoded.hex())
    for shift in range(3):  # what surrounds it shifts its base64; the characters at its edges differ
        text = base64.b64encode(b"\0" * shift + encoded).decode().rstrip("=")
        yield text[-(-shift * 8 // 6) : -1]
