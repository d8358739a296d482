"""Flags that live in the process: for tests, and for tables whose configuration names their stage."""

from collections.abc import Mapping
from dataclasses import replace
from threading import Lock
from typing import Unpack

from dualstore.flags.conventions import Wishes, checked
from dualstore.flags.source import NOTHING_REQUESTED, Requested


class StaticFlags:
    """Answers what it was given or told with `set`.

    Args:
        tables: what is asked for, by logical table name; other tables are asked nothing.
    """

    def __init__(self, tables: Mapping[str, Requested] | None = None) -> None:
        self._lock = Lock()
        self._requested = dict(tables or {})

    def requested(self, table: str) -> Requested:
        """What is asked for a table."""
        return self._requested.get(table, NOTHING_REQUESTED)

    def set(self, table: str, **wishes: Unpack[Wishes]) -> Requested:
        """Ask for something else; what is not named stays, None takes a request back.

        Args:
            table: the table's logical name.
            wishes: any of `stage`, `postgres_read_percent`, `mirror_percent`, `shadow_percent`.

        Returns:
            All that is now asked for.

        Raises:
            ConfigurationError: there is no such dial, or a value is not a stage or percentage.
        """
        changes = checked(table, wishes)
        with self._lock:
            self._requested[table] = replace(self.requested(table), **changes)
            return self._requested[table]

    def close(self) -> None:
        """Nothing to release."""
