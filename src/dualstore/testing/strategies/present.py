"""What the tables of a history hold by now, for draws that ask about it."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from hypothesis import strategies as st

from dualstore.items import Item


@runtime_checkable
class Remembers(Protocol):
    """A test that knows what its tables hold, as the state machine of the kit does."""

    @property
    def present(self) -> Sequence[Item]:
        """The items, in one order for one history."""
        ...


def present_items() -> st.SearchStrategy[Sequence[Item]]:
    """The items that are there when a step is drawn; none where the test does not tell them."""
    return st.runner(default=None).map(_present)


def _present(runner: object) -> Sequence[Item]:
    return runner.present if isinstance(runner, Remembers) else ()
