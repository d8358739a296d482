"""What stands in the way of one table's next stage, asked of both databases."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy

from dualstore.control import ControlRecord
from dualstore.mapping import Mapped
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.served import ServedTable
from dualstore.stages import Side, Stage
from dualstore.store.obstacles import Witnesses, obstacles
from dualstore.stores.control_homes import StopMarks
from dualstore.stores.dynamo_description import TableDescription
from dualstore.stores.postgres import triggers
from dualstore.stores.postgres.hazards import hazards
from dualstore.stores.postgres.layouts import other_layout
from dualstore.stores.postgres.trigger_functions import sql_table
from dualstore.stores.postgres_waiting import OlderWriters
from dualstore.stores.streams import Checkpoints

# Enough to say "many": what is counted is read.
_COUNTED_KEYS = 100


@dataclass
class _Pause:
    """One pause of writes, as this process has seen it.

    Attributes:
        generation: of the record that began it.
        seen_at: when this process first saw it, by PostgreSQL's clock: nothing of before the pause is written
            after it.
        writers: the transactions that may have written under the record before.
    """

    generation: int
    seen_at: datetime
    writers: Sequence[OlderWriters]


class TablePassage:
    """A `replication.following.Passage`.

    Args:
        served: the table by its names.
        mapping: how its items become rows.
        engine: PostgreSQL.
        mirroring: both sides.
        checkpoints: how far the table's stream has been followed.
        marks: whose mirror is not to be read.
        description: asks DynamoDB for the table's description.
    """

    def __init__(
        self,
        served: ServedTable,
        mapping: Mapped,
        *,
        engine: sqlalchemy.Engine,
        mirroring: Mirroring,
        checkpoints: Checkpoints,
        marks: StopMarks,
        description: Callable[[], TableDescription],
    ) -> None:
        self._served = served
        self._mapping = mapping
        self._engine = engine
        self._mirroring = mirroring
        self._checkpoints = checkpoints
        self._marks = marks
        self._description = description
        self._pause: _Pause | None = None

    def obstacles(self, record: ControlRecord, target: Stage) -> Sequence[str]:
        """See `Passage.obstacles`."""
        name = self._served.physical
        outbox = self._mirroring.outbox
        return obstacles(
            record,
            target,
            Witnesses(
                description=self._description,
                journal_keys=self._journal_keys,
                relay_within=self._relay_within,
                dirty_keys=self._dirty_keys,
                outbox=lambda: outbox.depth(name),
                triggers_installed=lambda: triggers.is_installed(self._engine, self._mapping),
                hazards=self._hazards,
                stop=lambda: self._marks.stop_marks().get(name),
            ),
        )

    def _hazards(self) -> Sequence[str]:
        placed = other_layout(self._engine, self._mapping)
        return [*([] if placed is None else [placed]), *hazards(self._engine, self._mapping)]

    def undrained(self, record: ControlRecord) -> str | None:
        """See `Passage.undrained`."""
        pause = self._pause
        if pause is None or pause.generation != record.generation:
            pause = self._pause = self._begun(record)
        if record.authority is Side.DYNAMODB:
            return self._undrained_of_dynamodb(pause)
        if writers := sum(each.left() for each in pause.writers):
            return f"{writers} transaction(s) that have written to the SQL table are still open"
        if entries := self._mirroring.outbox.depth(self._served.physical).entries:
            return f"{entries} change(s) in the outbox have not reached DynamoDB for certain"
        return self._doubts()

    def _undrained_of_dynamodb(self, pause: _Pause) -> str | None:
        """In this order: what the relay or a repair cannot settle becomes a key in doubt."""
        if not self._checkpoints.drained_since(self._served.physical, pause.seen_at):
            return "the relay has not read the stream up to the pause yet"
        if keys := self._journal_keys():
            return f"{keys} key(s) wait in the journal"
        if (stop := self._marks.stop_marks().get(self._served.physical)) is not None:
            return f"reads from PostgreSQL were {stop}"
        return self._doubts()

    def _doubts(self) -> str | None:
        keys = self._dirty_keys()
        return f"{keys} key(s) are in doubt" if keys else None

    def _begun(self, record: ControlRecord) -> _Pause:
        seen_at = self._checkpoints.now()
        if record.authority is Side.DYNAMODB:
            return _Pause(record.generation, seen_at, ())
        doing = f"Waiting for transactions that write to the SQL table of {self._served.physical}"
        writers = [OlderWriters(self._engine, sql_table(part), doing) for part in self._mapping.parts]
        return _Pause(record.generation, seen_at, writers)

    def _dirty_keys(self) -> int:
        return len(self._mirroring.mirror.dirty_keys(self._served.physical, limit=_COUNTED_KEYS))

    def _journal_keys(self) -> int:
        pages = self._mirroring.journal.entries(self._served.shape)
        return len(next(pages, ()))

    def _relay_within(self, lag: timedelta) -> bool:
        return self._checkpoints.drained_since(self._served.physical, self._checkpoints.now() - lag)
