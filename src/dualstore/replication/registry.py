"""This process's own entry in the register, and how it sees that others have fallen silent.

A process writes its entry anew ("beats") several times within each write grant, and a grant is only good
after the beat that follows its control read. So a beat that stands still for longer than a grant proves that
its process may no longer write: no clocks of two machines are ever compared. DESIGN, rules 4 and 8.
"""

import os
import platform
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

from dualstore.control import ProcessEntry
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.stores.control_homes import ControlHome

_VERSION = version("dualstore")


@dataclass
class Registry:
    """The register in one database, and this process's own entry in it.

    Args:
        home: keeps the register.
        clock: measures the silence of others.
    """

    home: ControlHome
    clock: Clock = SYSTEM_CLOCK
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _beat: int = 0
    _watched: dict[str, tuple[int, float]] = field(default_factory=dict)

    def beat(self, confirmed: Mapping[str, int], *, deferring: frozenset[str] = frozenset()) -> bool:
        """Write this process's entry anew.

        A process that was taken for dead finds its entry gone and goes on under a new name: whatever it
        had not finished is already suspect under the old one.

        Returns:
            Whether the entry was there before this beat, so that others could see this process.
        """
        known = bool(self._beat)
        if not self._write(confirmed, deferring):
            self.id, self._beat, known = uuid.uuid4().hex, 0, False
            self._write(confirmed, deferring)
        return known

    @property
    def entered(self) -> bool:
        """Whether this process has an entry."""
        return bool(self._beat)

    def leave(self) -> None:
        """Take this process's entry out: it has nothing unfinished."""
        if self._beat:
            self.home.remove_process(self._entry({}, frozenset()), if_beat=False)
            self._beat = 0

    def processes(self) -> list[ProcessEntry]:
        """All entries, read consistently."""
        return self.home.processes()

    def silent(self, entries: list[ProcessEntry], *, for_seconds: float) -> list[ProcessEntry]:
        """The entries whose beat this process has seen standing still for so long."""
        now = self.clock.now()
        before, self._watched = self._watched, {}
        for entry in entries:
            beat, since = before.get(entry.id, (entry.beat, now))
            self._watched[entry.id] = (entry.beat, since if beat == entry.beat else now)
        return [
            entry
            for entry in entries
            if entry.id != self.id and now - self._watched[entry.id][1] > for_seconds
        ]

    def remove(self, entry: ProcessEntry) -> None:
        """Take out the entry of a process that ended, unless it has beaten again."""
        self.home.remove_process(entry, if_beat=True)

    def _write(self, confirmed: Mapping[str, int], deferring: frozenset[str]) -> bool:
        if not self.home.write_process(self._entry(confirmed, deferring), is_new=not self._beat):
            return False
        self._beat += 1
        return True

    def _entry(self, confirmed: Mapping[str, int], deferring: frozenset[str]) -> ProcessEntry:
        return ProcessEntry(
            id=self.id,
            beat=self._beat + 1,
            confirmed=confirmed,
            label=f"{platform.node()}:{os.getpid()}",
            seen_at=time.time(),
            version=_VERSION,
            deferring=deferring,
        )
