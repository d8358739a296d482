"""One process of the demo's service: serves callers through the example's DAO, bound to dualstore on order.

Started by `fleet` as `python -m dualstore.cli.demo.worker SPECIFICATION`. Orders come as lines on standard
input (`serve`, `bind`, `die`, a tempo, `stop`; its end means stop), reports go as JSON to standard output.
A tempo comes when callers are there to follow it: after `serving`.
"""

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dualstore.cli.demo.example import MODEL, TABLE, Example, import_example, source_of
from dualstore.cli.demo.measures import Meter, side_tally
from dualstore.cli.demo.traffic import Beat, Caller, Dial, Tempo

if TYPE_CHECKING:
    from dualstore import DualStore
    from dualstore.telemetry import Snapshot

logger = logging.getLogger(__name__)

REPORT_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Specification:
    """What a worker is to do.

    Attributes:
        name: the process's name.
        configuration: the `dualstore.toml` that `bind` uses.
        ledgers: folder of the ledgers.
        airports: the ICAO codes of the records that were loaded.
        beats: one for each thread.
        bound: whether to bind and serve at once, without waiting for orders.
    """

    name: str
    configuration: Path
    ledgers: Path
    airports: tuple[str, ...]
    beats: tuple[Beat, ...]
    bound: bool

    def to_json(self) -> str:
        """This specification as a text."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "Specification":
        """The specification that `to_json` made this text of."""
        plain = json.loads(text)
        beats = tuple(Beat(**{**beat, **_tuples(beat)}) for beat in plain.pop("beats"))
        return cls(
            name=plain["name"],
            configuration=Path(plain["configuration"]),
            ledgers=Path(plain["ledgers"]),
            airports=tuple(plain["airports"]),
            beats=beats,
            bound=plain["bound"],
        )


def _tuples(beat: dict[str, Any]) -> dict[str, Any]:
    """What JSON made lists of."""
    return {name: tuple(value) for name, value in beat.items() if isinstance(value, list)}


class Fuse:
    """Kills this process between its two writes: after DynamoDB's reply, before anything reaches PostgreSQL.

    botocore emits `after-call` once a reply has been parsed and before it is returned.

    Args:
        keys: the airports whose next save burns it: those of this process alone, so that the two databases
            are sure to differ then.
    """

    def __init__(self, keys: frozenset[str]) -> None:
        self.lit = False
        self._keys = keys

    def lay(self, client: Any) -> None:
        """Listens to the items that this boto3 client puts."""
        client.meta.events.register("provide-client-params.dynamodb.PutItem", self._remember)
        client.meta.events.register("after-call.dynamodb.PutItem", self._burn)

    @staticmethod
    def _remember(*, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["demo_key"] = params["Item"].get("icao", {}).get("S")

    def _burn(self, *, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        if self.lit and "Error" not in parsed and context.get("demo_key") in self._keys:
            os.kill(os.getpid(), signal.SIGKILL)


class Worker:
    """The process: its callers, its store once bound, its orders and reports."""

    def __init__(self, specification: Specification) -> None:
        self._specification = specification
        self._meter = Meter()
        self._serving = threading.Event()
        self._dial = Dial()
        self._stopping = threading.Event()
        self._resources = ExitStack()
        self._fuse = Fuse(frozenset(key for beat in specification.beats for key in beat.owned))
        self._store: DualStore | None = None
        self._seen: Snapshot | None = None

    def run(self) -> None:
        """Serves from the order to do so until the order to stop."""
        example = import_example()
        callers = self._callers(example)
        if self._specification.bound:
            self._bind(example)
            self._serving.set()
        threading.Thread(target=self._obey, args=(example, callers), daemon=True).start()
        self._serving.wait()
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.warm.wait()
        _say("serving")
        while not self._stopping.wait(REPORT_SECONDS):
            self._report()
        for caller in callers:
            caller.join()
        self._resources.close()
        self._report()
        _say("stopped")

    def _callers(self, example: Example) -> list[Caller]:
        wanted = set(self._specification.airports)
        source = source_of([row for row in example.source.records() if row["icao"] in wanted])
        return [
            Caller(
                beat,
                dao=example.dao.AirportDao(),
                airport=example.models.Airport,
                conflict=example.dao.AirportConflictError,
                not_found=example.dao.AirportNotFoundError,
                source=source,
                ledgers=self._specification.ledgers,
                meter=self._meter,
                dial=self._dial,
                stop=self._stopping,
            )
            for beat in self._specification.beats
        ]

    def _obey(self, example: Example, callers: Sequence[Caller]) -> None:
        for line in sys.stdin:
            match line.strip():
                case "serve":
                    self._serving.set()
                case "bind":
                    self._bind(example)
                case "steady" | "rush" as tempo:
                    self._dial.tempo = Tempo(tempo)
                case "rest":
                    self._rest(callers)
                case "die":
                    self._fuse.lit = True
                case "stop":
                    break
        self._stopping.set()
        self._serving.set()

    def _rest(self, callers: Sequence[Caller]) -> None:
        self._dial.tempo = Tempo.REST
        for caller in callers:
            caller.resting.clear()
        for caller in callers:
            caller.resting.wait()
        _say("resting")

    def _bind(self, example: Example) -> None:
        from dualstore import DualStore  # noqa: PLC0415 - the service ran without it until now

        store = DualStore.from_config(self._specification.configuration)
        # Below dualstore's surface, where a fault comes from.
        self._fuse.lay(store._clients.writes)  # noqa: SLF001
        self._store = self._resources.enter_context(store)
        store.bind(example.models.Airport, example.rows.AirportRow, name=TABLE)
        _say("bound", model=MODEL)

    def _report(self) -> None:
        tally = self._meter.take()
        if self._store is not None:
            seen = self._store.telemetry.snapshot()
            tally += side_tally(seen if self._seen is None else seen.since(self._seen))
            self._seen = seen
        _say("tally", tally=tally.to_json())


_saying = threading.Lock()


def _say(event: str, **what: Any) -> None:
    with _saying:
        print(json.dumps({"event": event, **what}), flush=True)  # noqa: T201 - the parent reads it


def main() -> None:
    """Runs the worker whose specification is the file named on the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which then ends us in order
    specification = Specification.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    logging.basicConfig(
        level=logging.WARNING,
        format=f"%(asctime)s {specification.name} %(threadName)s %(name)s %(levelname)s %(message)s",
    )
    Worker(specification).run()


if __name__ == "__main__":
    main()
