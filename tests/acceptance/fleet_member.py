"""One process of a fleet: a bound PynamoDB service under load, which judges every answer.

Run as `python -m acceptance.fleet_member ORDER`; it ends in order when its standard input does.
"""

import itertools
import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from acceptance.fleet_ledger import Ledger, Place, attributes_of, is_deletion
from dualstore import DualStore
from dualstore.config import import_object
from dualstore.stages import Side
from dualstore.telemetry import OK, Event, FlagUnusable, OperationFinished, Role, ShadowCompared

READS = frozenset({"GetItem", "Query", "BatchGetItem"})
BATCHES = 7
"""So many batches have every item between them."""


@dataclass(frozen=True)
class Order:
    """What a member is to do.

    Attributes:
        configuration: the `dualstore.toml`.
        models: the module with the models `Order` and `OrderRow`.
        ledger: the ledger's file.
        places: all places, as pairs of pk and sk.
        own: the numbers of those that this member writes.
        pause_seconds: between two calls of a thread.
    """

    configuration: str
    models: str
    ledger: str
    places: Sequence[tuple[str, int]]
    own: Sequence[int]
    pause_seconds: float

    def to_json(self) -> str:
        return json.dumps(asdict(self))


_speaking = threading.Lock()


def say(kind: str, **content: Any) -> None:
    """Report to the process that started this one."""
    line = json.dumps({"kind": kind, **content}) + "\n"
    with _speaking:
        sys.stdout.write(line)
        sys.stdout.flush()


def cohort_of(pk: Any) -> str:
    """The tenant in front of a key."""
    return str(pk).partition("-")[0]


@dataclass
class Listener:
    """Hears which sides answer the reads of the thread at hand, and what became of comparisons and flags."""

    compared: Counter[str] = field(default_factory=Counter)
    _thread: threading.local = field(default_factory=threading.local)

    def __call__(self, event: Event) -> None:
        match event:
            case OperationFinished(operation=operation, side=side, role=role, outcome=outcome):
                if operation in READS and role is not Role.SHADOW and outcome == OK:
                    self._answered.append(side)
            case ShadowCompared(verdict=verdict):
                with _speaking:
                    self.compared[verdict] += 1
            case FlagUnusable(problem=problem):
                say("problem", problem=problem)

    @property
    def _answered(self) -> list[Side]:
        if not hasattr(self._thread, "answered"):
            self._thread.answered = []
        return self._thread.answered

    def heard(self) -> list[Side]:
        """The sides that answered since the last time, in their order."""
        answered, self._thread.answered = self._answered, []
        return answered


class Service:
    """What the threads of a member do.

    Args:
        order: the order.
        model: the bound PynamoDB model.
        ledger: the ledger.
        listener: hears who answers.
    """

    def __init__(self, order: Order, model: Any, ledger: Ledger, listener: Listener) -> None:
        self._order = order
        self._model = model
        self._ledger = ledger
        self._listener = listener
        self._places = [Place(pk, sk) for pk, sk in order.places]
        self._own = [self._places[number] for number in order.own]
        self._items: dict[Place, Any] = {}

    # Writing

    def write(self, stop: threading.Event) -> None:
        """Bring one own item after the other to its next version, and read it at once."""
        for turn, place in enumerate(itertools.cycle(self._own)):
            if stop.wait(self._order.pause_seconds):
                return
            version = self._ledger.done(place) + 1
            self._ledger.begin(place, version)
            self._bring_to(place, version, is_partial=turn % 2 == 0)
            self._ledger.finish(place, version)
            with self._judged("own", place.pk, [place]) as found:
                found[place] = self._get(place, consistent=True)

    def _bring_to(self, place: Place, version: int, *, is_partial: bool) -> None:
        """Delete, create, update and replace, each on condition of the version attribute."""
        if is_deletion(version):
            self._items.pop(place).delete()
            return
        attributes, item = attributes_of(place, version), self._items.get(place)
        if item is None:
            item = self._items[place] = self._model(place.pk, place.sk, **attributes)
            item.save()
        elif is_partial:
            item.update([getattr(self._model, name).set(value) for name, value in attributes.items()])
        else:
            for name, value in attributes.items():
                setattr(item, name, value)
            item.save()

    # Reading

    def read(self, stop: threading.Event) -> None:
        """Read every partition in turn, by GetItem and by Query, and batches across them.

        Eventually consistent reads are judged as all others: the servers of the tests answer them so.
        """
        partitions: dict[str, list[Place]] = {}
        for place in self._places:
            partitions.setdefault(place.pk, []).append(place)
        batches = itertools.cycle([self._places[first::BATCHES] for first in range(BATCHES)])
        for turn in itertools.count():
            if stop.wait(self._order.pause_seconds):
                return
            tour, number = divmod(turn, len(partitions))
            pk, places = list(partitions.items())[number]
            is_listed, consistent = tour % 2 == 1, (tour // 2 + number) % 2 == 0
            if is_listed:
                with self._judged("query", pk, places) as found:
                    for item in self._model.query(pk, consistent_read=consistent):
                        found[Place(pk, item.sk)] = item
            else:
                place = places[tour // 2 % len(places)]
                with self._judged("get", pk, [place]) as found:
                    found[place] = self._get(place, consistent=consistent)
            if turn % 4 == 0:
                batch = next(batches)
                with self._judged("batch", None, batch) as found:
                    keys = [(place.pk, place.sk) for place in batch]
                    for item in self._model.batch_get(keys, consistent_read=consistent):
                        found[Place(item.pk, item.sk)] = item

    def _get(self, place: Place, *, consistent: bool) -> Any:
        try:
            return self._model.get(place.pk, place.sk, consistent_read=consistent)
        except self._model.DoesNotExist:
            return None

    @contextmanager
    def _judged(self, how: str, pk: str | None, places: Sequence[Place]) -> Iterator[dict[Place, Any]]:
        """Judges what a read finds at some places, and reports who answered it."""
        since = {place: self._ledger.done(place) for place in places}
        found: dict[Place, Any] = {}
        self._listener.heard()
        began = time.monotonic()
        yield found
        ended, sides = time.monotonic(), self._listener.heard()
        for place in found.keys() - since.keys():
            say("wrong", how=how, objection=f"{place} was not asked for", sides=sides)
        for place in places:
            objection = self._ledger.objection(place, _attributes(found.get(place)), since[place])
            if objection is not None:
                say("wrong", how=how, objection=objection, sides=sides, began=began, ended=ended)
        say("read", how=how, pk=pk, began=began, ended=ended, sides=sides)


def _attributes(item: Any) -> dict[str, Any] | None:
    if item is None:
        return None
    return {"name": item.name, "n": item.n, "tags": item.tags, "lines": item.lines}


def serve(order: Order) -> None:
    """Work until standard input ends."""
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    places = [Place(pk, sk) for pk, sk in order.places]
    model = import_object(f"{order.models}:Order")
    row = import_object(f"{order.models}:OrderRow")
    listener = Listener()

    def guarded(work: Any) -> None:
        try:
            work(stop)
        except Exception as error:
            logging.getLogger(__name__).exception("A caller saw an error")
            say("error", error=f"{type(error).__name__}: {error}")

    with Ledger(Path(order.ledger), places) as ledger:
        with DualStore.from_config(order.configuration) as store:
            store.telemetry.listen(listener)
            store.bind(model, row, cohort=cohort_of)
            service = Service(order, model, ledger, listener)
            threads = [
                threading.Thread(target=guarded, args=(work,)) for work in (service.write, service.read)
            ]
            say("serving")
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        say("compared", verdicts=listener.compared)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(threadName)s %(name)s %(message)s")
    serve(Order(**json.loads(sys.argv[1])))
