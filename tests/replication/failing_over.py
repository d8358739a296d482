"""A failover in a fleet: the operator's part, and what the library keeps of lost writes, in memory.

What decides is the library's own: the failover, the watch for it, the reconciliation and its judgement.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from dualstore.errors import IllegalTransition
from dualstore.items import STAMP, Item, Key, key_bytes
from dualstore.replication.failover import fail_over, foresee
from dualstore.store.reconciling import Reconciling
from dualstore.stores.memory.authority import MemoryAuthority
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.postgres_lost_writes import Loss, LostWrite
from dualstore.stores.postgres_outbox import LeftOver
from dualstore.stores.quarantine import Form
from dualstore.stores.stamps import new_stamp
from replication.histories import SHAPE
from replication.ledger import Fate, Ledger
from replication.member import UNREACHABLE, Member
from replication.wires import Faults

if TYPE_CHECKING:
    from replication.fleet import Fleet

_LOST = Faults(1, ("request",))
_TRIED_SECONDS = 2.0


class NotingAuthority(MemoryAuthority):
    """Remembers of each row of the outbox the value, and the stamp that PostgreSQL's trigger keeps there."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.noted: dict[int, tuple[bytes, str | None]] = {}

    def _keep_noted(self, place: Any, new: Item | None) -> None:
        super()._keep_noted(place, new)
        item = place.item
        stamp = new_stamp() if item is None else item[STAMP]["B"]
        self.noted[max(self.outbox._waiting)] = stamp, None if item is None else item["v"]["S"]


class LeftOvers:
    """What waits in an outbox of a PostgreSQL that is the authority no more."""

    def __init__(self, outbox: MemoryOutbox, noted: Mapping[int, tuple[bytes, str | None]]) -> None:
        self._outbox = outbox
        self._noted = noted

    def left_over(self, table: str, lane: int, *, limit: int) -> Sequence[LeftOver]:
        """As `PostgresOutbox.left_over`: by key, and in their order."""
        waiting = sorted(
            ((each.raw, id_, each) for id_, each in self._outbox._waiting.items() if each.lane == lane),
            key=lambda entry: entry[:2],
        )
        return [
            LeftOver(id_, each.key, each.reason, self._noted.get(id_, (None, None))[0], each.created_at)
            for _, id_, each in waiting[:limit]
        ]


class ListedLosses:
    """Lost changes, as `PostgresLostWrites` keeps them; the ledger hears that they are lost."""

    form = Form.PLAIN

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet
        self._kept: dict[int, LostWrite] = {}

    def sealed(self, item: Item) -> bytes:
        return item["v"]["S"].encode()

    def keep(
        self, lost: Sequence[LostWrite], *, epoch: int, doubtful: Sequence[Key], finished: Sequence[int]
    ) -> None:
        for each in lost:
            self._kept.setdefault(each.outbox_id, each)
            if each.outbox_id in self._noted:
                _, value = self._noted[each.outbox_id]
                assert each.kind is not Loss.WRITTEN or each.item == str(value).encode()
                _tell(self._ledger_of(each.key), value, lost=each.kind is not Loss.ARRIVED)
        for key in doubtful:
            self._fleet.postgres.mark_dirty("items", key, nonce=new_stamp().hex(), reason="lost")
        for id_ in finished:
            self._fleet.outbox._waiting.pop(id_, None)

    def counts(self, *, after_epoch: int) -> Mapping[Loss, int]:
        kinds = [each.kind for each in self._kept.values()]
        return {kind: kinds.count(kind) for kind in kinds}

    def entries(self, *, after_epoch: int) -> Iterator[Sequence[LostWrite]]:
        yield list(self._kept.values())

    @property
    def _noted(self) -> Mapping[int, tuple[bytes, str | None]]:
        return self._fleet.postgres.noted

    def _ledger_of(self, key: Key) -> Ledger:
        name = key_bytes(SHAPE.keys, key)
        return next(
            ledger
            for each, ledger in zip(self._fleet.keys, self._fleet.ledgers, strict=True)
            if key_bytes(SHAPE.keys, each) == name
        )


def _tell(ledger: Ledger, value: str | None, *, lost: bool) -> None:
    """A write was listed. Deletions cannot be told apart: this is taken to be of every one."""
    for write in ledger.writes[1:]:
        if write.value == value:
            write.left_over = True
            if lost:
                write.fate, write.ended = Fate.UNKNOWN, math.inf


class Break:
    """Loses PostgreSQL for some members, fails over, finds it again, and reconciles.

    Args:
        fleet: whose table is at `live`; its PostgreSQL is a `NotingAuthority`.
        operator: the member from which commands are given; it always reaches DynamoDB.
    """

    def __init__(self, fleet: "Fleet", operator: Member) -> None:
        self._fleet = fleet
        self._operator = operator
        self._scheduler = fleet.scheduler
        self._lost = ListedLosses(fleet)

    def act(self) -> None:
        choose, scheduler = self._fleet.choose, self._scheduler
        scheduler.sleep((0.0, 1.0, 3.0, 6.0)[choose(4)])
        reached = [(each, each._postgres_wire.faults) for each in self._fleet.members]
        for member, _ in reached:
            if choose(4) != 3:  # some still reach it: the operator was wrong
                member._postgres_wire.faults = _LOST
        scheduler.sleep((0.0, 0.5, 4.0)[choose(3)])
        self._fail_over()
        scheduler.sleep((0.0, 2.0, 15.0)[choose(3)])
        for member, faults in reached:
            member._postgres_wire.faults = faults
        scheduler.sleep((0.0, 0.3, 5.0)[choose(3)])
        self._reconcile()

    def _fail_over(self) -> None:
        homes, agent = self._operator.homes, self._operator.agent
        try:
            foreseen = foresee(homes, _NOTES, "items")
        except IllegalTransition:  # it has come back to DynamoDB by itself
            return
        fail_over(
            self._fleet.dynamo_control,  # type: ignore[arg-type] - in memory, and does the same
            foreseen,
            by="an operator",
            reason="lost",
            at=0.0,
            write_grant=agent.times.write,
            clock=self._operator.clock,
        )

    def _reconcile(self) -> None:
        operator = self._operator
        reconciling = Reconciling(
            SHAPE,
            _NO_SQL_TABLES,
            engine=None,  # type: ignore[arg-type] - no transactions of SQL to wait for: a call is one step
            agent=operator.agent,
            dynamodb=operator.mirroring.authority,
            postgres=operator.mirror,
            outbox=LeftOvers(self._fleet.outbox, self._fleet.postgres.noted),  # type: ignore[arg-type]
            lost=self._lost,  # type: ignore[arg-type]
        )
        while True:
            try:
                reconciling.run()
            except IllegalTransition:
                return
            except UNREACHABLE:
                self._scheduler.sleep(_TRIED_SECONDS)
            else:
                return


_NO_SQL_TABLES: Any = SimpleNamespace(parts=())
_NOTES: Any = SimpleNamespace(depth=lambda _table, epoch: None)
