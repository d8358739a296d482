"""Finds the control record that decides of each table, in whichever database it is."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Protocol

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord, Phase
from dualstore.errors import Unavailable
from dualstore.stages import Side
from dualstore.stores.control_homes import ControlHome, Fence

Homes = Mapping[Side, ControlHome]
"""The control records and registers of both databases."""


_NAMES = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}


class Located(Protocol):
    """A table whose deciding record is looked for.

    Attributes:
        side: where it was last found; None before that. Set where it is found elsewhere.
    """

    side: Side | None


class Search:
    """Finds the record that decides, in one reading of each database that must be asked.

    Args:
        homes: both databases.
    """

    def __init__(self, homes: Homes) -> None:
        self._homes = homes
        self._read: dict[Side, Mapping[str, ControlRecord]] = {}
        self._errors: dict[Side, Exception] = {}

    def locate(self, tables: Mapping[str, Located]) -> tuple[dict[str, ControlRecord], dict[str, Exception]]:
        """The record to act on of each table, or why it could not be found.

        A record with phase `moved` is reported where no other can be seen to decide: nobody acts on it.
        """
        found: dict[str, ControlRecord] = {}
        failures: dict[str, Exception] = {}
        for table, state in tables.items():
            try:
                found[table] = self._locate(table, state)
            except (ClientError, BotoCoreError, Unavailable) as error:
                failures[table] = error
        return found, failures

    def _locate(self, table: str, state: Located) -> ControlRecord:
        if state.side is None and self._both_decide(table):
            return self._failed_over(table, state)
        side = state.side or Side.DYNAMODB
        here = self._record(side, table)
        if here is not None and here.decides:
            state.side = side
            return here
        there = self._record(side.other, table)
        if there is not None and there.decides:
            state.side = side.other
            return there
        if here is None:  # the last word may be where nobody answers
            raise self._errors.get(side) or Unavailable(self._gone(table, side))
        if there is None and side.other in self._errors:
            return here
        return self._completed(here, there)

    def _gone(self, table: str, side: Side) -> str:
        if side.other in self._errors:
            return (
                f"the control record of {table} cannot be found: {_NAMES[side]} has none, and "
                f"{_NAMES[side.other]}, which may hold the one that decides, does not answer. "
                "Start again when it does"
            )
        return f"the control record of {table} is gone; run `dualstore schema upgrade`"

    def _both_decide(self, table: str) -> bool:
        """Whether there is a second record that decides: never, unless the first was out of reach then."""
        records = [self._record(side, table) for side in Side]
        return all(record is not None and record.decides for record in records)

    def _failed_over(self, table: str, state: Located) -> ControlRecord:
        """DynamoDB's record where both decide since a failover; PostgreSQL, back again, is told first.

        Raises:
            Unavailable: there was no failover, or PostgreSQL's record is of a later epoch than it.
        """
        here, there = (self._read[side][table] for side in Side)
        if here.failed_over is None:
            raise Unavailable(
                f"the control records of {table} in both databases claim to decide: DynamoDB's was made "
                "anew. Delete that one, and start again"
            )
        if here.epoch <= there.epoch:
            raise Unavailable(
                f"the control records of {table} in both databases claim to decide: DynamoDB's was "
                f"{here.failed_over}, but PostgreSQL's is of a later epoch. Compare what both hold before "
                "you delete either"
            )
        fence: Fence = self._homes[Side.POSTGRES]  # type: ignore[assignment]
        with suppress(Unavailable):  # away again: whoever comes next tells it
            fence.overrule(here)
        state.side = Side.DYNAMODB
        return here

    def answered(self, side: Side) -> bool:
        """Whether a database was asked, and has answered."""
        return side in self._read

    def _completed(self, here: ControlRecord, there: ControlRecord | None) -> ControlRecord:
        """The record that decides after a move that nobody has completed yet.

        The point of no return was `moved`; whoever finds both records so opens the new one. Doing it twice
        does no harm.
        """
        last = here if there is None or here.generation > there.generation else there
        opened = replace(last, phase=Phase.OPEN, generation=last.generation + 1)
        self._homes[last.authority].install(opened)
        return last  # the next reading finds it

    def _record(self, side: Side, table: str) -> ControlRecord | None:
        if side not in self._read and side not in self._errors:
            try:
                self._read[side] = self._homes[side].read_all()
            except (ClientError, BotoCoreError, Unavailable) as error:
                self._errors[side] = error
        return self._read.get(side, {}).get(table)
