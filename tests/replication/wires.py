"""What is between actors and databases: calls that get lost, come late, come twice, or never."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from greenlet import getcurrent, greenlet

from dualstore.errors import OutcomeUnknown, Unavailable
from dualstore.stores import dynamo_sending
from replication.simulation import Actor, Choose, Scheduler, Thunk


@dataclass
class Faults:
    """What goes wrong with calls of a store.

    Attributes:
        one_in: a call in so many meets a fault; 0 is never.
        kinds: the faults to choose from: `request` (lost on the way there), `reply` (carried out, its answer
            lost), `zombie` (given up by its sender, carried out at any later step), `duplicate` (carried out
            and answered, and once more at a later step), `slow` and `late` (the request, or the answer, is
            long on its way).
    """

    one_in: int = 0
    kinds: tuple[str, ...] = ("request", "reply")

    def chosen(self, choose: Choose) -> str | None:
        """The fault that a call meets, or None."""
        if not self.one_in or choose(self.one_in) != self.one_in - 1:
            return None
        return self.kinds[choose(len(self.kinds))]


_DELAYS_SECONDS = (0.2, 0.9, 1.2, 6.0, 11.0)


@dataclass(eq=False)
class Wire:
    """The way between actors and one database.

    Args:
        scheduler: lets others overtake before each call.
        faults: what goes wrong.
        lost: the error that a caller sees where no answer comes.
    """

    scheduler: Scheduler
    faults: Faults
    lost: Callable[[], Exception]

    def call(
        self,
        act: Thunk,
        *,
        writes: bool,
        never_sent: Callable[[], Exception] | None = None,
        unknown: Callable[[], Exception] | None = None,
        on_late: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> Any:
        """Carry a call over.

        Args:
            act: carries it out.
            writes: whether it may come late; a read is repeated by its driver, or fails.
            never_sent: the error of a request that is lost, where the driver can tell.
            unknown: that of an answer that is lost; both as the wire's where they are not given.
            on_late: told that the request may yet be carried out.
            on_lost: told that it was carried out, and its answer lost.
        """
        never_sent, unknown = never_sent or self.lost, unknown or self.lost
        scheduler = self.scheduler
        if not isinstance(getcurrent(), Actor):
            return act()  # before and after the simulation nothing goes wrong
        scheduler.step()
        fault = self.faults.chosen(scheduler.choose)
        if fault is None:
            return act()
        if fault in _DELAYED:
            return self._delayed(act, before=fault == "slow")
        if fault == "request":
            raise never_sent()
        if fault != "zombie":
            result = act()
        if fault in {"zombie", "duplicate"} and writes:
            scheduler.late.append(act)
            if on_late is not None:
                on_late()
        if fault == "duplicate":
            return result
        if fault == "reply" and on_lost is not None:
            on_lost()
        raise unknown()

    def repeated(self, act: Thunk, *, attempts: int, **options: Any) -> Any:
        """Carry a call over, and send it again where no answer comes; arguments as of `call`."""
        for _ in range(attempts - 1):
            try:
                return self.call(act, **options)
            except type(self.lost()):
                continue
        return self.call(act, **options)

    def _delayed(self, act: Thunk, *, before: bool) -> Any:
        scheduler = self.scheduler
        delay = _DELAYS_SECONDS[scheduler.choose(len(_DELAYS_SECONDS))]
        if before:
            scheduler.sleep(delay)
            return act()
        result = act()
        scheduler.sleep(delay)
        return result


LOST = ("request", "reply")
LATE = ("request", "reply", "zombie", "duplicate", "slow", "late")
_DELAYED = frozenset({"slow", "late"})
_LATENESS_SECONDS = (0.0, 0.0, 0.8, 4.0, 14.0, 35.0)


def deliver_late(scheduler: Scheduler) -> None:
    """The network: delivers requests that their senders gave up on, at any step; some never."""
    while True:
        scheduler.wait_until(lambda: bool(scheduler.late) or not scheduler.busy)
        if not scheduler.late:
            return
        scheduler.sleep(_LATENESS_SECONDS[scheduler.choose(len(_LATENESS_SECONDS))])
        late = scheduler.late.pop(scheduler.choose(len(scheduler.late)))
        if scheduler.choose(4) != 3:
            _deliver(late)


def _deliver(late: Thunk) -> None:
    with suppress(Exception):  # refused; nobody listens to the answer
        late()


class Stepped:
    """A store, or any other thing of a database, whose methods are called over a wire.

    Args:
        target: carries the calls out.
        wire: between.
        reads: the names of methods that change nothing.
        local: those that are no calls of the database.
        attempts: how often the driver sends a request whose answer is lost, as botocore does.
    """

    def __init__(
        self,
        target: Any,
        wire: Wire,
        *,
        reads: frozenset[str] = frozenset(),
        local: frozenset[str] = frozenset({"side"}),
        attempts: int = 1,
    ) -> None:
        self._target = target
        self._wire = wire
        self._reads = reads
        self._local = local
        self._attempts = attempts

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name in self._local:
            return found
        wire, writes, attempts = self._wire, name not in self._reads, self._attempts

        def call(*args: Any, **options: Any) -> Any:
            return wire.repeated(lambda: found(*args, **options), attempts=attempts, writes=writes)

        self.__dict__[name] = call
        return call


class SteppedStore:
    """A store that answers DynamoDB operations over a wire.

    Args:
        store: carries them out.
        wire: between.
        attempts: how often the driver sends a request whose answer is lost, as botocore does.
        on_late: told that a write may yet be carried out, though its sender gave it up.
        on_lost: told that one was carried out, and its answer lost.
    """

    def __init__(
        self,
        store: Any,
        wire: Wire,
        *,
        attempts: int = 1,
        on_late: Callable[[], None] | None = None,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self._on_late = on_late
        self._on_lost = on_lost
        self.side = store.side
        self._store = store
        self._wire = wire
        self._attempts = attempts

    def execute(self, operation: Any) -> Any:
        return self._wire.repeated(
            lambda: self._store.execute(operation),
            attempts=self._attempts,
            writes=not operation.reads,
            on_late=self._on_late,
            on_lost=self._on_lost,
        )


class LookedAtLast:
    """DynamoDB, as clients reach it whose requests leave after a last look at the lease (`checked_last`)."""

    def __init__(self, store: Any) -> None:
        self.side = store.side
        self._store = store

    def execute(self, operation: Any) -> Any:
        dynamo_sending._look()
        return self._store.execute(operation)


class SteppedMirror(Stepped):
    """A mirror over a wire. Key locks are kept here: an actor that waits for one lets others go on."""

    _READS = frozenset({"state", "items_of", "states_as_authority", "dirty_keys", "execute_as_mirror"})

    def __init__(
        self,
        store: Any,
        wire: Wire,
        key_name: Callable[[str, Any], bytes],
        *,
        locks: dict[tuple[str, bytes], greenlet] | None = None,
        on_late: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(store, wire, reads=self._READS)
        self._on_late = on_late
        self._key_name = key_name
        self._locks = {} if locks is None else locks

    def write_direct(self, table: str, key: Any, image: Any, **options: Any) -> bool:
        return self._locking(table, key, lambda: self._target.write_direct(table, key, image, **options))

    def write_settled(self, table: str, key: Any, image: Any, **options: Any) -> bool:
        return self._locking(table, key, lambda: self._target.write_settled(table, key, image, **options))

    def execute_as_authority(self, operation: Any, **options: Any) -> Any:
        return self._wire.call(
            lambda: self._target.execute_as_authority(operation, **options),
            writes=not operation.reads,
            never_sent=_not_reached,
            unknown=_not_reached if operation.reads else _commit_unconfirmed,
            on_late=self._on_late,
        )

    def write_settled_together(self, writes: Any, **options: Any) -> bool:
        names = {(write.table, self._key_name(write.table, write.key)) for write in writes}
        self._wire.scheduler.wait_until(lambda: names.isdisjoint(self._locks))
        result: bool = self._wire.call(
            lambda: self._target.write_settled_together(writes, **options), writes=True
        )
        return result

    @contextmanager
    def locked(self, table: str, key: Any) -> Iterator[None]:
        name, me = (table, self._key_name(table, key)), getcurrent()
        self._wire.scheduler.wait_until(lambda: self._locks.get(name, me) is me)
        self._locks[name] = me
        try:
            yield
        finally:
            del self._locks[name]  # a crash ends the database session, and its locks with it

    def _locking(self, table: str, key: Any, act: Thunk) -> bool:
        if self._locks:
            name, me = (table, self._key_name(table, key)), getcurrent()
            self._wire.scheduler.wait_until(lambda: self._locks.get(name, me) is me)
        result: bool = self._wire.call(act, writes=True)
        return result


def _not_reached() -> Exception:
    return Unavailable("simulated: PostgreSQL could not be reached")


def _commit_unconfirmed() -> Exception:
    return OutcomeUnknown("simulated: COMMIT was not confirmed, and PostgreSQL failed over")
