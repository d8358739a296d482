"""What a process knows of the tables it serves: a view of each, and its own writes that are unfinished."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from dualstore.control import ControlRecord, Gate
from dualstore.replication.views import View
from dualstore.stages import Side


@dataclass
class KnownTable:
    """One table as this process serves it.

    Attributes:
        side: where its record was last found to decide; None before it was.
        deferring: whether this process may mirror after it has answered its callers.
        lock: guards what is unfinished.
        unfinished: how many writes, by the generation of the record that each began under.
        shut_since: the movement by which the gate was shut, and since when this process knows; None where it
            is open.
        deferred_since: since when it has known, without a break, that some process defers.
    """

    side: Side | None = None
    deferring: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    unfinished: Counter[int] = field(default_factory=Counter)
    shut_since: tuple[int, float] | None = None
    deferred_since: float | None = None

    def ended(self, generation: int) -> None:
        """A write is finished that began under a generation."""
        with self.lock:
            self.unfinished[generation] -= 1
            if not self.unfinished[generation]:
                del self.unfinished[generation]

    def note(self, view: View, known: View | None, now: float) -> None:
        """Remember since when what a view says has been known."""
        self._note_gate(view.record, now)
        self._note_deferred(view.record, known, now)

    def _note_gate(self, record: ControlRecord, now: float) -> None:
        if record.gate is Gate.OPEN:
            self.shut_since = None
        elif self.shut_since is None or record.gate_sequence > self.shut_since[0] + 1:
            self.shut_since = (record.gate_sequence, now)
        else:  # one movement leads from shut to reopening, or back; through open it takes two
            self.shut_since = (record.gate_sequence, self.shut_since[1])

    def _note_deferred(self, record: ControlRecord, known: View | None, now: float) -> None:
        if not record.deferred:
            self.deferred_since = None
        elif self.deferred_since is None or known is None or now >= known.read_until:
            self.deferred_since = now


class KnownTables:
    """All tables that a process serves. Its mappings are replaced as wholes: who reads needs no lock."""

    def __init__(self) -> None:
        self.tables: Mapping[str, KnownTable] = {}
        self.views: Mapping[str, View] = {}
        self._changing = threading.Lock()

    def add(self, table: str, *, deferring: bool) -> bool:
        """Know of a table from now on; False where it was known."""
        with self._changing:
            if table in self.tables:
                return False
            self.tables = {**self.tables, table: KnownTable(deferring=deferring)}
            return True

    def drop(self, table: str) -> bool:
        """Forget a table of which nothing has been seen yet; False where something has."""
        with self._changing:
            if table in self.views:
                return False
            self.tables = {name: state for name, state in self.tables.items() if name != table}
            return True

    def side_of(self, table: str) -> Side:
        """Where a table's record was last found to decide; DynamoDB is looked at first."""
        return self.tables[table].side or Side.DYNAMODB

    def at(self, side: Side) -> dict[str, KnownTable]:
        """The tables whose records are looked for first in one database."""
        return {name: state for name, state in self.tables.items() if self.side_of(name) is side}

    def install(self, fresh: Mapping[str, View], now: float) -> None:
        """Put views in the place of those before, but for those that a failover has outranked."""
        with self._changing:
            known = self.views
            # The other database's thread may have heard of a failover while this one read.
            later = {table: view for table, view in fresh.items() if not _outranked(view, known.get(table))}
            self.views = {**known, **later}
            for table, view in later.items():
                self.tables[table].note(view, known.get(table), now)

    def confirmed(self, table: str) -> int:
        """The generation under which all unfinished writes to a table began, or a later one."""
        state = self.tables[table]
        with state.lock:
            return min(state.unfinished, default=self.views[table].record.generation)


def _outranked(view: View, known: View | None) -> bool:
    """Whether a view is of PostgreSQL's record, where a failover is known that it does not know of."""
    if known is None or known.record.failed_over is None:
        return False
    return view.record.epoch < known.record.epoch
