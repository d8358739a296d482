"""A store in memory that can be the authority: the model that PostgreSQL's is tested against."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dualstore.control import PostgresRole
from dualstore.errors import AuthorityMoved, RequestRejected, client_error
from dualstore.items import STAMP, Item, Key, TableShape, key_bytes
from dualstore.operations import Operation, Response
from dualstore.stages import Side
from dualstore.stores import semantics
from dualstore.stores.base import MirrorState
from dualstore.stores.memory.outbox import MemoryOutbox
from dualstore.stores.memory.store import MemoryStore
from dualstore.stores.memory.tables import Table, detached
from dualstore.stores.stamps import new_stamp

_MAY_BE_READ = frozenset({PostgresRole.AUTHORITY, PostgresRole.PAUSED})
_MAY_BE_WRITTEN = frozenset({PostgresRole.AUTHORITY})


@dataclass(frozen=True, slots=True)
class _Place:
    """A key in its table."""

    table: Table
    key: Key
    raw: bytes

    @property
    def item(self) -> Item | None:
        return self.table.item(self.raw)


class MemoryAuthority(MemoryStore):
    """A `Mirror`, a `Fence` and an `Authority` in memory, with the triggers that PostgreSQL's tables have.

    `execute` is what a writer does who does not go through dualstore, such as an ORM or psql: it is noted, or
    held back, as the triggers do it. A COMMIT without an answer is no matter here: a call is one step.

    Args:
        shapes: of the tables, by physical name; a table may be added later.
        outbox: takes every change of a key while this store is the authority.
        side: which side it stands for.
        monotonic: the clock by which a ClientRequestToken is forgotten after ten minutes, in seconds.
        stamps: makes the stamps; a simulation gives its own.
    """

    def __init__(
        self,
        shapes: Mapping[str, TableShape],
        outbox: MemoryOutbox,
        *,
        side: Side = Side.POSTGRES,
        monotonic: Callable[[], float] = time.monotonic,
        stamps: Callable[[], bytes] = new_stamp,
    ) -> None:
        super().__init__(shapes, side=side, monotonic=monotonic)
        self.outbox = outbox
        outbox.takes_notes = lambda table, epoch: self._passes(table, epoch, _MAY_BE_WRITTEN)
        self._new_stamp = stamps

    def execute_as_authority(self, operation: Operation, *, epochs: Mapping[str, int]) -> Response:
        """Carry out one operation, unless the authority has moved (see `Authority.execute_as_authority`)."""
        with self._lock:
            roles = _MAY_BE_READ if operation.reads else _MAY_BE_WRITTEN
            for table in sorted(operation.tables):
                if not self._passes(table, epochs[table], roles):
                    raise AuthorityMoved(
                        f"{operation.name} was not carried out: this store is not the authority of {table!r} "
                        f"at epoch {epochs[table]}, or its writes pause; read the control record again"
                    )
            if operation.reads:
                return super().execute(operation)
            return self._refused_as_client_error(operation, self._write_stamped)

    def _passes(self, table: str, epoch: int, roles: frozenset[PostgresRole]) -> bool:
        fence = self._fences.get(table)
        return fence is not None and fence.epoch == epoch and fence.role in roles

    def states_as_authority(
        self, table: str, keys: Iterable[Key], *, epoch: int
    ) -> Mapping[bytes, MirrorState]:
        """See `Authority.states_as_authority`."""
        with self._lock:
            if not self._passes(table, epoch, _MAY_BE_READ):
                raise AuthorityMoved(f"this store is not the authority of {table!r} at epoch {epoch}")
            return self.items_of(table, keys)

    def execute(self, operation: Operation) -> Response:
        """Carry out one operation as somebody does who does not go through dualstore."""
        if operation.reads:
            return super().execute(operation)
        with self._lock:
            roles = {fence.role for table in operation.tables if (fence := self._fences.get(table))}
            if PostgresRole.PAUSED in roles:
                raise AuthorityMoved(f"{operation.name} was not carried out: writes pause; try again")
            return self._refused_as_client_error(operation, self._write_around)

    def _refused_as_client_error(
        self, operation: Operation, write: Callable[[semantics.WritePlan, Sequence[_Place]], Response]
    ) -> Response:
        try:
            plan = semantics.plan_write(operation, self._shapes)
            response = write(plan, self._places(plan))
            self._tell_collections(response, operation, plan.writes)
            return detached(response)
        except RequestRejected as rejected:
            rejected.item, rejected.reasons = detached(rejected.item), detached(rejected.reasons)
            raise client_error(operation.name, rejected) from None

    def _write_stamped(self, plan: semantics.WritePlan, places: Sequence[_Place]) -> Response:
        if plan.token is not None:
            self._forget_tokens()
            if (earlier := self._transacted.get(plan.token)) is not None:
                plan.check_repetition(earlier.digest)
                return plan.respond_again([place.item for place in places])
        outcomes = plan.decide_unstamped([place.item for place in places])
        response = plan.respond(outcomes)
        for place, outcome in zip(places, outcomes, strict=True):
            if outcome.new_item is not outcome.old_item:
                self._keep_noted(place, outcome.new_item)
        if plan.token is not None:
            self._remember(plan.token, digest=plan.digest)
        return response

    def _write_around(self, plan: semantics.WritePlan, places: Sequence[_Place]) -> Response:
        outcomes = plan.decide([place.item for place in places])
        response = plan.respond(outcomes)
        for place, outcome in zip(places, outcomes, strict=True):
            if outcome.new_item is not outcome.old_item:
                self._keep_triggered(place, outcome.new_item)
        return response

    def _keep_triggered(self, place: _Place, new: Item | None) -> None:
        """What the triggers of a table make of a change that somebody else makes."""
        name = place.table.shape.name
        fence = self._fences.get(name)
        if fence is not None and fence.role is PostgresRole.AUTHORITY:
            self._keep_noted(place, new)
            return
        self._keep_plain(place, new)
        if fence is not None and fence.role is PostgresRole.MIRROR:
            self.mark_dirty(name, place.key, nonce=self._new_stamp().hex(), reason="written around dualstore")

    def _keep_noted(self, place: _Place, new: Item | None) -> None:
        """Hold an item under a fresh stamp, or none, and note it for the other side."""
        self._keep_plain(place, None if new is None else {**new, STAMP: {"B": self._new_stamp()}})
        self.outbox.add(place.table.shape.name, place.key)

    @staticmethod
    def _keep_plain(place: _Place, new: Item | None) -> None:
        if new is None:
            place.table.bury(place.raw)
        else:
            place.table.put(place.raw, detached(new))

    def _places(self, plan: semantics.WritePlan) -> list[_Place]:
        places = []
        for write, key in zip(plan.writes, plan.keys, strict=True):
            table = self._table(write.table)
            places.append(_Place(table, key, key_bytes(table.shape.keys, key)))
        return places
