"""How a process of a fleet reaches what a store is not: runs, pages of a copy, what stands in the way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dualstore.control import ControlRecord
from dualstore.stages import Side, Stage
from dualstore.store.obstacles import Witnesses, obstacles
from dualstore.stores.dynamo_description import TableDescription
from replication.bulk import MemoryLoad, MemoryQuarantine, MemorySeenKeys
from replication.histories import SHAPE
from replication.wires import Stepped

if TYPE_CHECKING:
    from replication.member import Member

# A transaction of SQL that is in doubt is not carried out later: who goes on claims its piece first.
_RUN_CALLS = frozenset(
    {
        *("start", "find", "latest_unfinished", "finish", "claim", "claim_next", "reclaim", "release"),
        *("fail", "note_error", "done"),
    }
)
_LOAD_CALLS = frozenset(
    {"load_blocks", "draw_revision", "row_page", "pass_rows", "pass_settled", "tombstoned_keys"}
)


class Door:
    """PostgreSQL, as backfill and verification reach it over a member's own network."""

    def __init__(self, member: "Member") -> None:
        self._member = member
        self.runs = self._stepped(member.fleet.runs, _RUN_CALLS)

    def load(self, epoch: int) -> Stepped:
        fleet = self._member.fleet
        return self._stepped(MemoryLoad(fleet.postgres, fleet.runs, epoch, fleet.overtaken), _LOAD_CALLS)

    def quarantine(self) -> MemoryQuarantine:
        return MemoryQuarantine(self._member.fleet.postgres)

    def seen_keys(self) -> MemorySeenKeys:
        return MemorySeenKeys(self._member.mirror)

    def _stepped(self, target: object, calls: frozenset[str]) -> Stepped:
        names = {name for name in dir(type(target)) if not name.startswith("_")}
        return Stepped(target, self._member._postgres_wire, reads=calls, local=frozenset(names - calls))


class FleetPassage:
    """What stands in the way of a stage, asked over the member's own network (as `TablePassage`)."""

    def __init__(self, member: "Member") -> None:
        self._member = member
        self._paused: tuple[int, Any] | None = None

    def obstacles(self, record: ControlRecord, target: Stage) -> Sequence[str]:
        checkpoints = self._member.checkpoints
        return obstacles(
            record,
            target,
            Witnesses(
                description=lambda: _DESCRIPTION,
                journal_keys=lambda: int(self.journal()),
                relay_within=lambda lag: checkpoints.drained_since("items", checkpoints.now() - lag),
                dirty_keys=lambda: int(self.dirty()),
                outbox=lambda: self._member.mirroring.outbox.depth("items"),
                triggers_installed=lambda: True,
                hazards=lambda: (),
            ),
        )

    def undrained(self, record: ControlRecord) -> str | None:
        if self._paused is None or self._paused[0] != record.generation:
            self._paused = (record.generation, self._member.checkpoints.now())
        if record.authority is Side.POSTGRES:
            return "the outbox" if self.outbox() else None
        waiting = {"the stream": self.stream, "the journal": self.journal, "dirty keys": self.dirty}
        return next((name for name, waits in waiting.items() if waits()), None)

    def outbox(self) -> bool:
        return bool(self._member.mirroring.outbox.depth("items").entries)

    def stream(self) -> bool:
        assert self._paused is not None
        return not self._member.checkpoints.drained_since("items", self._paused[1])

    def journal(self) -> bool:
        return any(self._member.mirroring.journal.entries(SHAPE))

    def dirty(self) -> bool:
        return bool(self._member.mirror.dirty_keys("items", limit=1))


_DESCRIPTION = TableDescription("items", active=True, stream_view="NEW_AND_OLD_IMAGES")
