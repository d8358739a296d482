"""One process of the soak's service: threads that write and read through dualstore, and note everything.

Started by `processes` as `python -m soak.writer ORDER`; SIGTERM ends it in order.
"""

import json
import logging
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, EndpointConnectionError

from dualstore import DualStore
from dualstore.errors import DualStoreError
from soak.faults import Faults
from soak.recording import Effect, Expected, Outcome, Pen, now_ns
from soak.tables import TABLES, Place, proof, register_item

logger = logging.getLogger(__name__)

_COUNTER_TURNS = 150
"""A counter is left for the next after so many turns: its set of members must not grow for ever."""
_CAPACITY = {"TransactionConflict", "ProvisionedThroughputExceeded", "ThrottlingError", "None"}
_UNDONE_CODES = frozenset(
    {
        "ServiceUnavailable",
        "ProvisionedThroughputExceededException",
        "ThrottlingException",
        "RequestLimitExceeded",
        "TransactionConflictException",
        "TransactionInProgressException",
        "ValidationException",
    }
)
_NEVER_SENT = (ConnectTimeoutError, EndpointConnectionError)


@dataclass(frozen=True, slots=True)
class Order:
    """What a writer process is to do.

    Attributes:
        name: of the process, used once.
        slot: of the keys that its threads own; a replacement takes over its predecessor's.
        threads: how many.
        keys: how many keys each partition has.
        calls_per_second: that each thread aims at.
        seed: of its choices.
        configuration: the `dualstore.toml`.
        ledgers: folder of the ledgers.
        rates: see `faults.Faults`.
    """

    name: str
    slot: int
    threads: int
    keys: int
    calls_per_second: float
    seed: int
    configuration: str
    ledgers: str
    rates: str

    def to_json(self) -> str:
        """This order as a text."""
        return json.dumps(asdict(self))


class Caller(threading.Thread):
    """One thread: picks calls at random, at its own pace."""

    def __init__(
        self, order: Order, number: int, *, store: DualStore, pen: Pen, faults: Faults, stop: threading.Event
    ) -> None:
        super().__init__(name=f"{order.name}.{number}", daemon=True)
        self._order = order
        self._number = number
        self._store = store
        self._client = store.client()
        self._pen = pen
        self._faults = faults
        self._stopping = stop
        self._random = random.Random(f"{order.seed}/{order.name}/{number}")
        self._turns = 0
        self._calls: dict[Callable[[], None], int] = {
            self._get: 14,
            self._query: 3,
            self._get_batch: 2,
            self._get_twins: 3,
            self._put: 12,
            self._create: 5,
            self._replace: 3,
            self._update: 10,
            self._delete: 5,
            self._delete_present: 2,
            self._count: 9,
            self._batch: 4,
            self._write_twins: 5,
            self._transact_with_token: 4,
        }

    def run(self) -> None:
        """Call until told to stop."""
        interval = 1 / self._order.calls_per_second
        calls, weights = list(self._calls), list(self._calls.values())
        due = time.monotonic() + self._random.random() * interval
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            (call,) = self._random.choices(calls, weights)
            try:
                call()
            except (ClientError, BotoCoreError) as error:
                self._pen.event("failed", call=call.__name__, error=_code(error))
            except Exception as error:  # the next call follows, as in a service
                logger.exception("An error that no caller expects")
                self._pen.event("unexpected", call=call.__name__, error=f"{type(error).__name__}: {error}")
            due = max(due + interval, time.monotonic() - interval)

    # Where

    def _partition(self, *kinds: str) -> tuple[str, str]:
        kind = self._random.choice(kinds)
        mine = f"-{self._order.slot}-{self._number}"
        return self._random.choice(TABLES), kind + (mine if kind in {"own", "cnt"} else "-0")

    def _register(self) -> Place:
        return Place(*self._partition("own", "hot"), self._random.randrange(self._order.keys))

    def _counter(self) -> Place:
        self._turns += 1
        return Place(*self._partition("sum", "cnt"), self._turns // _COUNTER_TURNS)

    def _readable(self) -> Place:
        kind = self._random.choice(("own", "hot", "hot", "twin", "sum", "sql", "old", "other"))
        if kind == "sum":
            return Place(self._random.choice(TABLES), "sum-0", self._turns // _COUNTER_TURNS)
        if kind == "other":  # what another thread owns
            pk = f"own-{self._random.randrange(4)}-{self._random.randrange(self._order.threads)}"
            return Place(self._random.choice(TABLES), pk, self._random.randrange(self._order.keys))
        if kind == "twin":
            return self._random.choice(self._twins())
        return Place(*self._partition(kind), self._random.randrange(self._order.keys))

    def _token(self, form: str = "p") -> str:
        return f"{form}{self.name}.{uuid.uuid4().hex[:12]}"

    def _stage(self, place: Place) -> str:
        return self._store.table(place.table).stage.value

    # Reads

    def _get(self) -> None:
        self._read(self._readable(), consistent=self._random.random() < 0.5)

    def _read(self, place: Place, *, consistent: bool) -> None:
        stage, began = self._stage(place), now_ns()
        answer = self._client.get_item(TableName=place.table, Key=place.key, ConsistentRead=consistent)
        how = "consistent get" if consistent else "get"
        self._pen.saw(how, stage, began, {place: shown(place, answer.get("Item"))})

    def _query(self) -> None:
        table, pk = self._partition("own", "hot")
        at = [Place(table, pk, sk) for sk in range(self._order.keys)]
        stage, began = self._stage(at[0]), now_ns()
        found: dict[Place, Any] = {}
        start: dict[str, Any] = {}
        while True:
            answer = self._client.query(
                TableName=table,
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": pk}},
                ConsistentRead=self._random.random() < 0.5,
                **start,
            )
            found |= {Place.of_item(table, item): item for item in answer["Items"]}
            if "LastEvaluatedKey" not in answer:
                break
            start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
        self._pen.saw("query", stage, began, {place: shown(place, found.get(place)) for place in at})

    def _get_batch(self) -> None:
        at = {self._register() for _ in range(5)}
        stage, began = self._stage(next(iter(at))), now_ns()
        keys = {
            table: {"Keys": [place.key for place in at if place.table == table], "ConsistentRead": True}
            for table in {place.table for place in at}
        }
        answer = self._client.batch_get_item(RequestItems=keys)
        left = {
            Place.of_item(table, key)
            for table, asked in answer.get("UnprocessedKeys", {}).items()
            for key in asked["Keys"]
        }
        found = {
            Place.of_item(table, item): item for table, items in answer["Responses"].items() for item in items
        }
        self._pen.saw("batch get", stage, began, {p: shown(p, found.get(p)) for p in at - left})

    def _get_twins(self) -> None:
        twins = self._twins()
        stage, began = self._stage(twins[0]), now_ns()
        answer = self._client.transact_get_items(
            TransactItems=[{"Get": {"TableName": place.table, "Key": place.key}} for place in twins]
        )
        found = [
            shown(place, each.get("Item")) for place, each in zip(twins, answer["Responses"], strict=True)
        ]
        self._pen.saw("transact get", stage, began, dict(zip(twins, found, strict=True)))
        if found[0] != found[1]:
            self._pen.event("half a transaction", at_place=str(twins[0]), stage=stage)

    # Writes

    def _put(self) -> None:
        place, token = self._register(), self._token()
        self._write_one("put", Effect(place, token), lambda: self._put_item(place, token))

    def _create(self) -> None:
        place, token = self._register(), self._token()
        self._write_one(
            "create",
            Effect(place, token, "absent"),
            lambda: self._put_item(place, token, ConditionExpression="attribute_not_exists(pk)"),
        )

    def _replace(self) -> None:
        place, token = self._register(), self._token()
        self._write_one(
            "replace",
            Effect(place, token, "present"),
            lambda: self._put_item(place, token, ConditionExpression="attribute_exists(pk)"),
        )

    def _put_item(self, place: Place, token: str, **options: Any) -> None:
        answer = self._client.put_item(
            TableName=place.table, Item=register_item(place, token), ReturnValues="ALL_OLD", **options
        )
        shown(place, answer.get("Attributes"))

    def _update(self) -> None:
        place, token = self._register(), self._token("u")
        self._write_one("update", Effect(place, token), lambda: self._update_item(place, token))

    def _update_item(self, place: Place, token: str) -> None:
        returned = self._random.choice(("NONE", "ALL_NEW", "ALL_OLD", "UPDATED_NEW"))
        answer = self._client.update_item(
            TableName=place.table, Key=place.key, ReturnValues=returned, **register_update(token)
        )
        if returned == "ALL_NEW" and shown(place, answer["Attributes"]) != token:
            self._pen.event("wrong return value", at_place=str(place), token=token)

    def _delete(self) -> None:
        self._remove("delete", self._register(), None)

    def _delete_present(self) -> None:
        self._remove("delete present", self._register(), "present")

    def _remove(self, kind: str, place: Place, expects: Expected | None) -> None:
        options = {"ConditionExpression": "attribute_exists(pk)"} if expects else {}
        self._write_one(
            kind,
            Effect(place, None, expects),
            lambda: self._client.delete_item(TableName=place.table, Key=place.key, **options),
        )

    def _count(self) -> None:
        place, member = self._counter(), self._token("m")
        self._write_one(
            "add",
            Effect(place, member),
            lambda: self._client.update_item(
                TableName=place.table,
                Key=place.key,
                UpdateExpression="ADD n :one, members :member",
                ExpressionAttributeValues={":one": {"N": "1"}, ":member": {"SS": [member]}},
            ),
        )

    def _batch(self) -> None:
        places = sorted({self._register() for _ in range(self._random.randint(2, 6))})
        effects = [Effect(p, self._token() if self._random.random() < 0.7 else None) for p in places]
        requests: dict[str, list[dict[str, Any]]] = {}
        for place, token in ((effect.place, effect.token) for effect in effects):
            entry = (
                {"DeleteRequest": {"Key": place.key}}
                if token is None
                else {"PutRequest": {"Item": register_item(place, token)}}
            )
            requests.setdefault(place.table, []).append(entry)

        def send() -> list[int]:
            left = self._client.batch_write_item(RequestItems=requests).get("UnprocessedItems", {})
            unprocessed = {
                Place.of_item(table, _key_in(entry)) for table, entries in left.items() for entry in entries
            }
            return [number for number, effect in enumerate(effects) if effect.place in unprocessed]

        self._write("batch", effects, send)

    def _twins(self) -> list[Place]:
        table, sk = self._random.choice(TABLES), self._random.randrange(max(self._order.keys // 2, 1))
        return [Place(table, f"twin-{half}", sk) for half in "ab"]

    def _write_twins(self) -> None:
        twins, token = self._twins(), self._token()
        actions = [_put_action(place, token) for place in twins]
        effects = [Effect(place, token) for place in twins]
        self._write("transaction", effects, lambda: self._transact(actions))

    def _transact_with_token(self) -> None:
        """A counter and a register, sent with a token, and half the time sent again by a caller in doubt."""
        counter, token = self._counter(), self._token("m")
        register = Place(counter.table, f"own-{self._order.slot}-{self._number}", self._order.keys)
        put = self._token()
        actions = [
            _put_action(register, put),
            {
                "Update": {
                    "TableName": counter.table,
                    "Key": counter.key,
                    "UpdateExpression": "ADD n :one, members :member",
                    "ExpressionAttributeValues": {":one": {"N": "1"}, ":member": {"SS": [token]}},
                }
            },
        ]
        effects = [Effect(register, put), Effect(counter, token)]
        request_token = uuid.uuid4().hex

        def send() -> None:
            self._transact(actions, ClientRequestToken=request_token)

        for kind in ("transaction with token", "transaction again")[: self._random.randint(1, 2)]:
            self._write(kind, effects, send)

    def _transact(self, actions: Sequence[Mapping[str, Any]], **options: Any) -> None:
        self._client.transact_write_items(TransactItems=actions, **options)

    def _write_one(self, kind: str, effect: Effect, send: Callable[[], object]) -> None:
        def once() -> None:
            send()

        self._write(kind, [effect], once)
        if self._random.random() < 0.5:
            self._read(effect.place, consistent=self._random.random() < 0.5)

    def _write(self, kind: str, effects: Sequence[Effect], send: Callable[[], Sequence[int] | None]) -> None:
        """Note the intent, write, note the outcome."""
        number = self._pen.intend(kind, self._stage(effects[0].place), effects)
        with self._faults.toll() as toll:
            outcome, code, undone = _sent(send)
        self._pen.conclude(number, outcome, late=toll.late, lost=toll.lost, error=code, undone=undone)


def _sent(send: Callable[[], Sequence[int] | None]) -> tuple[Outcome, str | None, Sequence[int]]:
    try:
        undone = send()
    except Exception as error:
        code = _code(error)
        if not isinstance(error, ClientError | BotoCoreError):
            logger.exception("An error that no caller expects")
        return _outcome(error, code), code, ()
    return "acknowledged", None, undone or ()


def _outcome(error: Exception, code: str) -> Outcome:
    """What a caller may conclude, by the documentation of AWS and of dualstore."""
    if code == "ConditionalCheckFailedException":
        return "refused"
    if code == "TransactionCanceledException" and isinstance(error, ClientError):
        reasons = {reason.get("Code") for reason in error.response.get("CancellationReasons", ())}
        return "undone" if reasons <= _CAPACITY else "refused"
    if code in _UNDONE_CODES or isinstance(error, _NEVER_SENT):
        return "undone"
    return "unknown"


def _code(error: Exception) -> str:
    return error.response["Error"]["Code"] if isinstance(error, ClientError) else type(error).__name__


def shown(place: Place, item: Mapping[str, Any] | None) -> str | int | None:
    """What an item says of its last write.

    Raises:
        AssertionError: it is half an item, or a mixture of two.
    """
    if item is None:
        return None
    if place.kind in {"sum", "cnt"}:
        return int(item["n"]["N"])
    token = str(item["written"]["S"])
    extra = item.get("extra", {}).get("S")
    if item["proof"]["S"] != proof(token) or extra != (token if token.startswith("p") else None):
        raise AssertionError(f"the item at {place} is a mixture")
    if "_dsv" in item or "_dsp" in item:
        raise AssertionError(f"the item at {place} shows a stamp")
    return token


def register_update(token: str) -> dict[str, Any]:
    """The expression that writes a token into a register, and takes away what only a put leaves."""
    return {
        "UpdateExpression": "SET written = :w, proof = :p REMOVE extra",
        "ExpressionAttributeValues": {":w": {"S": token}, ":p": {"S": proof(token)}},
    }


def _put_action(place: Place, token: str) -> dict[str, Any]:
    return {"Put": {"TableName": place.table, "Item": register_item(place, token)}}


def _key_in(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    put = entry.get("PutRequest")
    found: Mapping[str, Any] = put["Item"] if put else entry["DeleteRequest"]["Key"]
    return found


def _opened(store: DualStore) -> bool:
    """Whether the store serves its tables; a database may be away just now."""
    try:
        store.tables()
    except (ClientError, BotoCoreError, DualStoreError):
        return False
    return True


def main() -> None:
    """Carry out the order on the command line."""
    order = Order(**json.loads(sys.argv[1]))
    logging.basicConfig(
        level=logging.INFO,
        format=f"%(asctime)s {order.name} %(threadName)s %(levelname)s %(name)s %(message)s",
    )
    logging.getLogger("botocore").setLevel(logging.WARNING)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    faults = Faults(order.seed, Path(order.rates))
    faults.infect()
    with Pen(Path(order.ledgers), order.name) as pen, DualStore.from_config(order.configuration) as store:
        while not _opened(store):  # as whoever supervises a service would start it again
            pen.event("could not start")
            time.sleep(1)
        callers = [
            Caller(order, number, store=store, pen=pen, faults=faults, stop=stop)
            for number in range(order.threads)
        ]
        for caller in callers:
            caller.start()
        pen.event("serving")
        while not stop.wait(2):
            pen.event("injected", counts=dict(faults.injected))
        for caller in callers:
            caller.join()
        pen.event("stopped", counts=dict(faults.injected))


if __name__ == "__main__":
    main()
