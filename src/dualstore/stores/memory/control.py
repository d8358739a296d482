"""Control records and a register of processes in memory, as PostgreSQL keeps them."""

from collections.abc import Mapping
from dataclasses import replace
from threading import RLock
from typing import Any

from dualstore.control import ControlRecord, Gate, Phase, PostgresRole, ProcessEntry, Stop
from dualstore.stages import Side
from dualstore.stores.memory.store import MemoryStore

_BEFORE_ANY_RECORD = -1


class MemoryControl:
    """A `ControlHome`, `Fence`, `StopMarks` and `Prepared` beside a store in memory.

    Args:
        store: whose writes the fence lets pass or not.
    """

    side = Side.POSTGRES

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._lock = RLock()
        self._records: dict[str, ControlRecord] = {}
        self._processes: dict[str, ProcessEntry] = {}

    def read_all(self) -> Mapping[str, ControlRecord]:
        """See `ControlHome.read_all`."""
        with self._lock:
            return dict(self._records)

    def create(self, table: str) -> None:
        """See `ControlHome.create`."""
        with self._lock:
            if table not in self._records:
                self._put(ControlRecord(table))

    def change(self, seen: ControlRecord, **changes: Any) -> ControlRecord | None:
        """See `ControlHome.change`."""
        with self._lock:
            known = self._records.get(seen.table)
            if known is None or not seen.decides:
                return None
            if (known.generation, known.phase) != (seen.generation, seen.phase):
                return None
            wanted = seen.changed(**changes)
            self._put(wanted)
            return wanted

    def shut_gate(self, table: str) -> None:
        """See `ControlHome.shut_gate`."""
        with self._lock:
            known = self._records.get(table)
            if known is not None and known.decides and known.gate is not Gate.SHUT:
                self.change(known, gate=Gate.SHUT)

    def install(self, record: ControlRecord) -> bool:
        """See `ControlHome.install`."""
        with self._lock:
            known = self._records.get(record.table)
            if known is not None and (known.decides or known.generation >= record.generation):
                return False
            self._put(record if known is None else replace(record, epoch=max(record.epoch, known.epoch)))
            return True

    def raise_fence(self, table: str, *, epoch: int, role: PostgresRole) -> None:
        """See `Fence.raise_fence`."""
        with self._lock:
            self._store.raise_fence(table, epoch=epoch, role=role)
            known = self._records.get(
                table, ControlRecord(table, generation=_BEFORE_ANY_RECORD, phase=Phase.MOVED)
            )
            if not known.decides:
                self._records[table] = replace(known, epoch=max(known.epoch, epoch))

    def overrule(self, record: ControlRecord) -> bool:
        """See `Fence.overrule`."""
        with self._lock:
            known = self._records.get(record.table)
            if known is not None and known.epoch >= record.epoch:
                return False
            self._put(replace(record, phase=Phase.MOVED))
            return True

    def is_prepared(self) -> bool:
        """See `Prepared.is_prepared`."""
        return True

    def mark_stopped(self, table: str, stop: Stop) -> None:
        """See `StopMarks.mark_stopped`."""
        self._store.stops.setdefault(table, stop)

    def unmark_stopped(self, table: str) -> None:
        """See `StopMarks.unmark_stopped`."""
        self._store.stops.pop(table, None)

    def stop_marks(self) -> Mapping[str, Stop]:
        """See `StopMarks.stop_marks`."""
        return dict(self._store.stops)

    def processes(self) -> list[ProcessEntry]:
        """See `ControlHome.processes`."""
        with self._lock:
            return list(self._processes.values())

    def write_process(self, entry: ProcessEntry, *, is_new: bool) -> bool:
        """See `ControlHome.write_process`."""
        with self._lock:
            if not is_new and entry.id not in self._processes:
                return False
            self._processes[entry.id] = entry
            return True

    def remove_process(self, entry: ProcessEntry, *, if_beat: bool) -> None:
        """See `ControlHome.remove_process`."""
        with self._lock:
            known = self._processes.get(entry.id)
            if known is not None and (not if_beat or known.beat == entry.beat):
                del self._processes[entry.id]

    def _put(self, record: ControlRecord) -> None:
        self._records[record.table] = record
        fence = self._store.fence_of(record.table)
        if fence is None or fence[0] <= record.epoch:
            self._store.set_fence(record.table, epoch=record.epoch, role=record.postgres_role)
