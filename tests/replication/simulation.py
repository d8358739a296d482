"""A deterministic simulation: actors that take turns at every call of a store, as a chooser says."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ReadTimeoutError

from dualstore.errors import MirrorUnavailable
from dualstore.items import Item, Key, key_bytes
from dualstore.operations import Operation, Response
from dualstore.stores.base import DirtyKey, MirrorState, Revision
from dualstore.stores.memory import MemoryStore

Choose = Callable[[int], int]
"""Gives a number from 0 up to, but without, its argument."""


class Crash(BaseException):
    """The actor's process dies here: nothing that it does from now on has an effect."""


@dataclass
class Actor:
    name: str
    act: Callable[[], None]
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    parked: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    finished: bool = False
    crashed: bool = False
    error: BaseException | None = None


class Scheduler:
    """Runs actors in threads, one at a time; `choose` decides who goes on at each step."""

    def __init__(self, choose: Choose) -> None:
        self.choose = choose
        self.actors: list[Actor] = []
        self._current = threading.local()
        self.steps = 0

    def spawn(self, name: str, act: Callable[[], None]) -> Actor:
        actor = Actor(name, act)
        self.actors.append(actor)
        return actor

    def step(self) -> None:
        """Let others go on; called by an actor wherever a real process could be overtaken, or die."""
        actor: Actor | None = getattr(self._current, "actor", None)
        if actor is None:
            return  # the test itself, before or after the simulation
        if actor.crashed:
            raise Crash
        actor.parked.release()
        actor.go.acquire()
        if actor.crashed:
            raise Crash

    def run(self, *, crashes: int = 0, max_steps: int = 5_000) -> None:
        """Run all actors to their ends; up to `crashes` of those named `writer…` die on the way."""
        threads = [threading.Thread(target=self._body, args=(actor,), daemon=True) for actor in self.actors]
        for thread, actor in zip(threads, self.actors, strict=True):
            thread.start()
            actor.parked.acquire()
        actor = self.actors[0]
        while live := [actor for actor in self.actors if not actor.finished]:
            self.steps += 1
            assert self.steps < max_steps, "the simulation does not end"
            # Faults of interleaving need few switches, but in the right places: most steps make none.
            if actor.finished or self.choose(3) == 0:
                actor = live[self.choose(len(live))]
            if crashes and actor.name.startswith("writer") and self.choose(12) == 0:
                actor.crashed, crashes = True, crashes - 1
            actor.go.release()
            actor.parked.acquire()
        for thread in threads:
            thread.join()
        for actor in self.actors:
            if actor.error is not None:
                raise actor.error

    def _body(self, actor: Actor) -> None:
        self._current.actor = actor
        try:
            self.step()
            actor.act()
        except Crash:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by `run`, in the test's thread
            actor.error = error
        finally:
            actor.finished = True
            actor.parked.release()


@dataclass
class Faults:
    """How often, one time in so many, something goes wrong; 0 is never."""

    lost_reply: int = 0
    lost_request: int = 0
    mirror_down: int = 0

    def happens(self, choose: Choose, one_in: int) -> bool:
        return bool(one_in) and choose(one_in) == 0


class SteppedAuthority:
    """A store that lets others overtake before each call, and loses requests and replies of writes."""

    def __init__(self, store: MemoryStore, scheduler: Scheduler, faults: Faults) -> None:
        self.side = store.side
        self._store = store
        self._scheduler = scheduler
        self._faults = faults

    def execute(self, operation: Operation) -> Response:
        self._scheduler.step()
        choose = self._scheduler.choose
        if operation.reads:
            return self._store.execute(operation)
        if self._faults.happens(choose, self._faults.lost_request):
            raise ReadTimeoutError(endpoint_url="simulated")
        response = self._store.execute(operation)
        if self._faults.happens(choose, self._faults.lost_reply):
            raise ReadTimeoutError(endpoint_url="simulated")
        return response


class SteppedMirror:
    """A mirror that lets others overtake before each call, and is out of reach now and then.

    Key locks are kept here: an actor that waits for one lets others go on.
    """

    def __init__(self, store: MemoryStore, scheduler: Scheduler, faults: Faults) -> None:
        self.side = store.side
        self._store = store
        self._scheduler = scheduler
        self._faults = faults
        self._locks: dict[tuple[str, bytes], int] = {}

    def write_direct(self, table: str, key: Key, image: Item | None, **stamps: Any) -> bool:
        return self._call(lambda: self._store.write_direct(table, key, image, **stamps), table, key)

    def write_settled(self, table: str, key: Key, image: Item | None, *, seen: Revision) -> bool:
        return self._call(lambda: self._store.write_settled(table, key, image, seen=seen), table, key)

    def state(self, table: str, key: Key) -> MirrorState:
        return self._call(lambda: self._store.state(table, key))

    def items_of(self, table: str, keys: Any) -> Any:
        return self._call(lambda: self._store.items_of(table, keys))

    def mark_dirty(self, table: str, key: Key, *, nonce: str, reason: str) -> None:
        self._call(lambda: self._store.mark_dirty(table, key, nonce=nonce, reason=reason))

    def clear_dirty(self, table: str, key: Key, *, nonce: str) -> bool:
        return self._call(lambda: self._store.clear_dirty(table, key, nonce=nonce))

    def dirty_keys(self, table: str, *, limit: int = 1000) -> Any:
        self._scheduler.step()
        return self._store.dirty_keys(table, limit=limit)

    @contextmanager
    def locked(self, table: str, key: Key) -> Iterator[None]:
        name = (table, self._name(table, key))
        me = threading.get_ident()
        while self._locks.get(name, me) != me:
            self._scheduler.step()
        self._locks[name] = me
        try:
            yield
        finally:
            del self._locks[name]  # a crash ends the database session, and its locks with it

    def _name(self, table: str, key: Key) -> bytes:
        return key_bytes(self._store._shapes[table].keys, key)

    def _call(self, act: Callable[[], Any], table: str | None = None, key: Key | None = None) -> Any:
        self._scheduler.step()
        if table is not None and key is not None:
            name, me = (table, self._name(table, key)), threading.get_ident()
            while self._locks.get(name, me) != me:
                self._scheduler.step()
        choose, one_in = self._scheduler.choose, self._faults.mirror_down
        if self._faults.happens(choose, one_in):
            raise MirrorUnavailable("simulated: the request was lost")
        result = act()
        if self._faults.happens(choose, one_in):
            raise MirrorUnavailable("simulated: the reply was lost")
        return result


__all__ = ["Choose", "Crash", "DirtyKey", "Faults", "Scheduler", "SteppedAuthority", "SteppedMirror"]
