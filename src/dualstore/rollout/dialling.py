"""Asks for a stage or for dials where the flags are kept, until every process has taken them."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from dualstore.control import ControlRecord
from dualstore.errors import IllegalTransition, Unavailable
from dualstore.rollout.context import LOOK, Context
from dualstore.rollout.registry import Check, Evidence, StepRefused
from dualstore.stages import Stage

_CONFIRMED_WITHIN = timedelta(seconds=30)
_REFUSED_WITHIN = timedelta(seconds=3)
"""So long at least is waited for an answer, or the reason for a refusal would not be heard."""


def dial(
    context: Context,
    name: str,
    *,
    patience: timedelta,
    refused: Callable[[], object] = lambda: None,
    **wishes: object,
) -> Evidence:
    """Ask for another stage or dial where the flags are kept, until every live process has taken it.

    A request that may not be followed yet is taken back before it is made again: no flag is left asking
    for what may happen hours later.

    Args:
        context: the plan that asks.
        name: the table's logical name.
        patience: how long to try.
        refused: is called each time that it may not follow, with no request made.
        **wishes: as `FlagSetter.set` takes them.

    Raises:
        StepRefused: it may not follow, or not every process has taken it.
    """
    asked = _Asked(context, name, wishes)
    try:
        return _dialled_patiently(context, asked, patience, refused)
    except BaseException:
        asked.take_back_unless_done()
        raise


def _dialled_patiently(
    context: Context, asked: "_Asked", patience: timedelta, refused: Callable[[], object]
) -> Evidence:
    table = context.store.table(asked.name)
    ends = time.monotonic() + patience.total_seconds()
    while True:
        asked.ask()
        began = time.monotonic()
        left = timedelta(seconds=ends - began)
        try:
            record = table.wait_until(
                lambda record: stands(record, asked.wishes),
                timeout=min(max(left, _REFUSED_WITHIN), _CONFIRMED_WITHIN),
            )
        except (IllegalTransition, Unavailable) as refusal:
            if isinstance(refusal, IllegalTransition):
                asked.take_back()
            if time.monotonic() >= ends:
                raise StepRefused(f"{asked.name}: {refusal}") from None
            context.tools.announce(f"{asked.name}: waiting: {refusal}")
            if isinstance(refusal, IllegalTransition):
                refused()
            context.pause(LOOK)
            continue
        return {
            "stage": record.stage.value,
            "read_percent": record.dials.postgres_read_percent,
            "generation": record.generation,
            "epoch": record.epoch,
            "seconds_until_confirmed": round(time.monotonic() - began, 3),
        }


def dialled(context: Context, name: str, **wishes: object) -> Check:
    """Whether a table stands where some wishes ask, and every live process has taken it."""
    status = context.store.table(name).status()
    asked = ", ".join(f"{_words(wish)} {_value(value)}" for wish, value in wishes.items())
    what = f"{name} is at {asked}, confirmed by every process"
    if not stands(status.record, wishes):
        percent = status.record.dials.postgres_read_percent
        return Check(what, f"it is at stage {status.record.stage}, read-percent {percent:g}", passing=True)
    late = [label for label, confirmed in status.confirmed.items() if not confirmed]
    return Check(what, f"not yet confirmed by {', '.join(late)}" if late else None, passing=True)


def stands(record: ControlRecord, wishes: Mapping[str, object]) -> bool:
    """Whether a record is where some wishes ask it to be."""
    return all(
        (record.stage if name == "stage" else getattr(record.dials, name)) == wish
        for name, wish in wishes.items()
    )


def _words(wish: str) -> str:
    return {"stage": "stage", "postgres_read_percent": "read-percent"}.get(wish, wish)


def _value(value: object) -> str:
    return (
        value.value if isinstance(value, Stage) else f"{value:g}" if isinstance(value, float) else str(value)
    )


class _Asked:
    """What the flags are asked for, and how to have them ask again for what they did before.

    Args:
        context: the plan that asks.
        name: the table's logical name.
        wishes: as `FlagSetter.set` takes them.
    """

    def __init__(self, context: Context, name: str, wishes: Mapping[str, object]) -> None:
        self.name, self.wishes = name, wishes
        self._context = context
        self._put_back: Callable[[], object] | None = None

    def ask(self) -> None:
        """Ask, where it is not asked already: the flags of before are those of before the first time."""
        self._see_that_it_is_held()
        if self._put_back is None:
            self._put_back = self._context.tools.setter.set(self.name, **self.wishes)  # type: ignore[arg-type]
            # A process that slept before it asked may have been rolled back meanwhile.
            self._see_that_it_is_held()

    def take_back(self) -> None:
        """Have the flags ask for what they did before."""
        if self._put_back is not None:
            self._put_back()
            self._put_back = None

    def take_back_unless_done(self) -> None:
        """Nobody waits any more: no flag is left asking for what may happen hours later."""
        try:
            done = stands(self._context.store.table(self.name).status().record, self.wishes)
        except Exception:  # noqa: BLE001 - it is on its way out with the error that ended the wait
            done = False
        if not done:
            self.take_back()

    def _see_that_it_is_held(self) -> None:
        if self._context.hold is not None:
            self._context.hold.check()
