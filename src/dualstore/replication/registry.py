"""The register of live processes: who has taken which change, and who ended without saying so.

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

from dualstore.items import Item
from dualstore.operations import DeleteItem, PutItem
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.control import carried_out, query_partition
from dualstore.stores.base import Store

_PROCESS = "process"


@dataclass(frozen=True, slots=True)
class ProcessEntry:
    """A process, as it last described itself.

    Attributes:
        id: names one life of a process.
        beat: counts its entries.
        confirmed: for each table by physical name, the control record's generation under which all its
            unfinished writes began.
        label: host and process id, for people.
        seen_at: its own wall clock at the beat, in seconds since the epoch, for people.
    """

    id: str
    beat: int
    confirmed: Mapping[str, int]
    label: str
    seen_at: float


@dataclass
class Registry:
    """The register, and this process's own entry in it.

    Args:
        store: the authority.
        table: the bookkeeping table's physical name.
        clock: measures the silence of others.
    """

    store: Store
    table: str
    clock: Clock = SYSTEM_CLOCK
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    _beat: int = 0
    _watched: dict[str, tuple[int, float]] = field(default_factory=dict)

    def beat(self, confirmed: Mapping[str, int]) -> bool:
        """Write this process's entry anew.

        A process that was taken for dead finds its entry gone and goes on under a new name: whatever it
        had not finished is already suspect under the old one.

        Returns:
            Whether the entry was there before this beat, so that others could see this process.
        """
        known = bool(self._beat)
        if not self._write(confirmed):
            self.id, self._beat, known = uuid.uuid4().hex, 0, False
            self._write(confirmed)
        return known

    def leave(self) -> None:
        """Take this process's entry out: it has nothing unfinished."""
        if self._beat:
            self.store.execute(DeleteItem({"TableName": self.table, "Key": _key(self.id)}))
            self._beat = 0

    def processes(self) -> list[ProcessEntry]:
        """All entries, read consistently."""
        return [_entry(item) for item in query_partition(self.store, self.table, _PROCESS)]

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
        request = {
            "TableName": self.table,
            "Key": _key(entry.id),
            "ConditionExpression": "beat = :seen",
            "ExpressionAttributeValues": {":seen": {"N": str(entry.beat)}},
        }
        carried_out(self.store, DeleteItem(request))

    def _write(self, confirmed: Mapping[str, int]) -> bool:
        request = {
            "TableName": self.table,
            "Item": {
                **_key(self.id),
                "beat": {"N": str(self._beat + 1)},
                "confirmed": {"M": {table: {"N": str(number)} for table, number in confirmed.items()}},
                "label": {"S": f"{platform.node()}:{os.getpid()}"},
                "version": {"S": version("dualstore")},
                "seen_at": {"N": f"{time.time():.3f}"},
            },
        }
        if self._beat:
            request["ConditionExpression"] = "attribute_exists(pk)"
        if not carried_out(self.store, PutItem(request)):
            return False
        self._beat += 1
        return True


def _key(process: str) -> Item:
    return {"pk": {"S": _PROCESS}, "sk": {"S": process}}


def _entry(item: Item) -> ProcessEntry:
    return ProcessEntry(
        id=item["sk"]["S"],
        beat=int(item["beat"]["N"]),
        confirmed={table: int(number["N"]) for table, number in item["confirmed"]["M"].items()},
        label=item["label"]["S"],
        seen_at=float(item["seen_at"]["N"]),
    )
