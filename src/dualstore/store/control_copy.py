"""A copy of a table's control record is kept in the database where it does not decide."""

import time
from dataclasses import replace

from dualstore.control import Phase
from dualstore.replication.agent import Agent
from dualstore.stages import Side
from dualstore.stores.control_homes import Fence  # noqa: TC001 - one import, not worth a block

_PAUSE_SECONDS, _ANEW_SECONDS = 30.0, 60.0


class ControlCopy:
    """Copies what this process knows of a table's record, where it has changed, and anew now and then.

    Args:
        agent: knows the record, and where it is kept.
        table: the table's physical name.
    """

    def __init__(self, agent: Agent, table: str) -> None:
        self._agent = agent
        self._table = table
        self._generation: int | None = None
        self._again_at = self._anew_at = 0.0

    @property
    def is_made(self) -> bool:
        """Whether this process has copied the record, at this stage or another."""
        return self._generation is not None

    def make(self) -> None:
        """Copy the record, if that is due; errors as for `MigratedTable.copy_control`."""
        record = self._agent.view(self._table).record
        now = time.monotonic()
        if not record.decides or (now < self._again_at and not record.unreconciled):
            return
        copied = record.generation == self._generation and now < self._anew_at
        if copied and not record.unreconciled:  # a lost PostgreSQL may come back at any moment, and again
            return
        self._again_at = now + _PAUSE_SECONDS  # of who may be gone for good
        if record.failed_over is not None:  # PostgreSQL may come back as it was before, or from a backup
            fence: Fence = self._agent.homes[Side.POSTGRES]  # type: ignore[assignment]
            fence.overrule(record)
        self._agent.homes[record.authority.other].install(replace(record, phase=Phase.MOVED))
        self._generation, self._again_at = record.generation, 0.0
        self._anew_at = now + _ANEW_SECONDS  # the other database may be restored from a backup
