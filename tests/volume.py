"""How much of a test that can go on for ever is done: little by default, much in `nox -s thorough`."""

import os
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

Case = TypeVar("Case")

THOROUGH = os.environ.get("DUALSTORE_THOROUGH") == "1"
_SHARE = 4


def examples(thorough: int) -> int:
    """How many examples Hypothesis draws where a thorough run draws so many; new ones in every run."""
    return thorough if THOROUGH else max(thorough // _SHARE, 5)


def every(cases: Iterable[Case], nth: int) -> Iterator[Case]:
    """All cases in a thorough run, else the first one and every nth after it."""
    return iter(cases) if THOROUGH else islice(cases, 0, None, nth)
