"""Shadow reads between two stores in memory: what is reported, and what callers notice of it."""

import logging
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from dualstore.errors import MirrorUnavailable, UnsupportedOperation
from dualstore.items import KeyAttribute, KeySchema, TableShape, key_hash
from dualstore.operations import GetItem, parse
from dualstore.replication.served import ServedTable
from dualstore.shadow import Shadow, request_hash
from dualstore.stages import Side
from dualstore.stores import MemoryStore
from dualstore.telemetry import DiscrepancyKind, DiscrepancyLog, Role, Telemetry, Verdict, names

PHYSICAL = "orders-prod"
SHAPE = TableShape(PHYSICAL, KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N")))
ORDERS = ServedTable("orders", SHAPE)
CANARY = "canary-value"
PAUSE = timedelta(milliseconds=5)

SCAN = parse("Scan", {"TableName": PHYSICAL})
QUERY = parse(
    "Query",
    {
        "TableName": PHYSICAL,
        "KeyConditionExpression": "pk = :p",
        "ExpressionAttributeValues": {":p": {"S": CANARY}},
    },
)


def item(sk, **attributes):
    return {"pk": {"S": CANARY}, "sk": {"N": str(sk)}, **attributes}


def get(sk, **options):
    key = {"pk": {"S": CANARY}, "sk": {"N": str(sk)}}
    return GetItem({"TableName": PHYSICAL, "Key": key, **options})


class Twin:
    """Two stores, and what happens before each of their reads."""

    def __init__(self):
        self.stores = {side: MemoryStore({PHYSICAL: SHAPE}, side=side) for side in Side}
        self.before = {side: lambda _: None for side in Side}
        self.reads = []

    def put(self, *items, sides=tuple(Side)):
        for side in sides:
            for written in items:
                self.stores[side].execute(parse("PutItem", {"TableName": PHYSICAL, "Item": written}))

    def read(self, side, operation):
        self.reads.append((side, operation.request.get("ConsistentRead")))
        self.before[side](operation)
        return self.stores[side].execute(operation)


@pytest.fixture
def twin():
    return Twin()


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def log():
    return DiscrepancyLog()


@pytest.fixture
def make(twin, telemetry, log):
    made = []

    def shadow(**options):
        defaults = {"read": twin.read, "tables": {PHYSICAL: ORDERS}, "telemetry": telemetry, "sink": log}
        made.append(Shadow(**defaults | {"recheck_pause": PAUSE} | options))
        return made[-1]

    yield shadow
    for each in made:
        each.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dualstore-shadow")]


@pytest.fixture
def shadow(make):
    return make()


def observe(shadow, twin, operation, side=Side.DYNAMODB):
    """A caller's read, handed in and judged."""
    try:
        answer = twin.stores[side].execute(operation)
    except ClientError as error:
        answer = error
    assert shadow.submit(ORDERS, operation, side, answer)
    assert shadow.drain(timedelta(seconds=10))


def verdicts(telemetry):
    snapshot = telemetry.snapshot()
    counts = {verdict: snapshot.count(names.SHADOW_COMPARED, verdict=verdict) for verdict in Verdict}
    return {verdict: count for verdict, count in counts.items() if count}


# What is reported


def test_equal_answers_are_equal_whichever_side_is_primary(twin, shadow, telemetry, log):
    twin.put(item(1, v={"S": "x"}))
    for side in Side:
        observe(shadow, twin, get(1), side)
        observe(shadow, twin, QUERY, side)
    assert verdicts(telemetry) == {Verdict.EQUAL: 4}
    assert log.records() == []


def plant_missing_on_postgres(twin):
    twin.put(item(1), sides=[Side.DYNAMODB])
    return get(1), key_hash(SHAPE.keys, get(1).key), ()


def plant_missing_on_dynamodb(twin):
    twin.put(item(1))
    twin.put(item(2), sides=[Side.POSTGRES])
    return QUERY, key_hash(SHAPE.keys, get(2).key), ()


def plant_value(twin):
    for side, value in zip(Side, ("1", "2"), strict=True):
        twin.put(item(1, total={"N": value}, note={"S": f"{CANARY}{value}"}), sides=[side])
    return SCAN, key_hash(SHAPE.keys, get(1).key), ("note", "total")


def plant_order(twin):
    twin.put(item(1), item(2))
    orderly = twin.stores[Side.POSTGRES].execute

    def disorderly(operation):
        page = orderly(operation)
        return {**page, "Items": page["Items"][::-1]}

    twin.stores[Side.POSTGRES].execute = disorderly
    return QUERY, request_hash(QUERY), ()


def plant_count(twin):
    twin.put(item(1))
    twin.put(item(2), sides=[Side.DYNAMODB])
    count = parse("Query", {**QUERY.request, "Select": "COUNT"})
    return count, request_hash(count), ()


def plant_error(twin):
    twin.stores[Side.POSTGRES] = MemoryStore({}, side=Side.POSTGRES)  # it has no such table
    return get(1), request_hash(get(1)), ()


PLANTS = {
    DiscrepancyKind.MISSING_ON_POSTGRES: plant_missing_on_postgres,
    DiscrepancyKind.MISSING_ON_DYNAMODB: plant_missing_on_dynamodb,
    DiscrepancyKind.VALUE: plant_value,
    DiscrepancyKind.ORDER: plant_order,
    DiscrepancyKind.COUNT: plant_count,
    DiscrepancyKind.ERROR: plant_error,
}


def test_every_kind_of_discrepancy_is_planted_here():
    assert set(PLANTS) == set(DiscrepancyKind)


@pytest.mark.parametrize("primary", Side)
@pytest.mark.parametrize("kind", DiscrepancyKind)
def test_a_planted_difference_is_reported_once_correctly_classed_and_without_a_value(
    *, kind, primary, twin, shadow, telemetry, log, caplog
):
    operation, hashed, paths = PLANTS[kind](twin)
    began = datetime.now(UTC)
    with caplog.at_level(logging.DEBUG):
        observe(shadow, twin, operation, primary)
        observe(shadow, twin, operation, primary)
    (record,) = log.records()
    assert (record.table, record.key_hash, record.operation) == (PHYSICAL, hashed, operation.name)
    assert (record.kind, record.paths, record.count) == (kind, paths, 2)
    assert began - timedelta(seconds=1) <= record.first_seen < record.last_seen <= datetime.now(UTC)
    assert verdicts(telemetry) == {Verdict.MISMATCH: 2}
    assert len([r for r in caplog.records if r.name.startswith("dualstore")]) == 1, "logged once"
    everything = f"{record!r} {caplog.text} {telemetry.snapshot()!r}"
    assert CANARY not in everything


def test_a_difference_is_looked_at_again_consistently_on_both_sides(twin, make):
    plant_value(twin)
    observe(make(rechecks=2), twin, get(1))
    first = [(Side.POSTGRES, None)]
    look = [(Side.DYNAMODB, True), (Side.POSTGRES, True), (Side.DYNAMODB, True)]
    assert twin.reads == first + 2 * look


def test_a_write_that_the_mirror_had_not_seen_yet_was_lag(twin, shadow, telemetry, log):
    twin.put(item(1, v={"S": "new"}), sides=[Side.DYNAMODB])
    twin.put(item(1, v={"S": "old"}), sides=[Side.POSTGRES])

    def catch_up(operation):
        if operation.request.get("ConsistentRead"):
            twin.put(item(1, v={"S": "new"}), sides=[Side.POSTGRES])

    twin.before[Side.POSTGRES] = catch_up
    observe(shadow, twin, get(1))
    assert verdicts(telemetry) == {Verdict.LAG: 1}
    assert log.records() == []


def test_a_key_that_is_written_during_every_look_is_not_judged(twin, shadow, telemetry, log):
    """The mirror is always one write behind; nothing is wrong with it."""
    writes = iter(range(100))

    def write(_):
        twin.put(item(1, n={"N": str(next(writes))}), sides=[Side.DYNAMODB])

    write(None)
    twin.put(item(1, n={"N": "-1"}), sides=[Side.POSTGRES])
    twin.before[Side.POSTGRES] = write
    observe(shadow, twin, get(1))
    assert verdicts(telemetry) == {Verdict.INCOMPARABLE: 1}
    assert log.records() == []


def test_a_write_that_puts_the_same_content_back_is_a_write_too(twin, shadow, telemetry, log):
    """Only its stamp tells."""
    stamps = iter(range(100))

    def write(_):
        stamp = {"B": b"%d" % next(stamps)}
        twin.put(item(1, v={"S": "x"}, _dsv=stamp), sides=[Side.DYNAMODB])

    write(None)
    twin.put(item(1, v={"S": "y"}), sides=[Side.POSTGRES])
    twin.before[Side.POSTGRES] = write
    observe(shadow, twin, get(1))
    assert verdicts(telemetry) == {Verdict.INCOMPARABLE: 1}
    assert log.records() == []


def test_a_hot_key_does_not_hide_the_difference_of_its_neighbour(twin, shadow, log):
    writes = iter(range(100))

    def write(_):
        twin.put(item(1, n={"N": str(next(writes))}), sides=[Side.DYNAMODB])

    twin.put(item(1))
    twin.put(item(2), sides=[Side.DYNAMODB])
    twin.before[Side.POSTGRES] = write
    observe(shadow, twin, QUERY)
    (record,) = log.records()
    assert (record.kind, record.key_hash) == (
        DiscrepancyKind.MISSING_ON_POSTGRES,
        key_hash(SHAPE.keys, get(2).key),
    )


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (MirrorUnavailable("down"), Verdict.FAILED),
        (EndpointConnectionError(endpoint_url="http://x"), Verdict.FAILED),
        (ClientError({"Error": {"Code": "ThrottlingException"}}, "GetItem"), Verdict.FAILED),
        (RuntimeError(CANARY), Verdict.FAILED),
        (UnsupportedOperation("no"), Verdict.INCOMPARABLE),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_side_that_gives_no_answer_is_no_discrepancy(
    *, twin, shadow, telemetry, log, caplog, error, verdict
):
    def fail(_):
        raise error

    twin.put(item(1))
    twin.before[Side.POSTGRES] = fail
    observe(shadow, twin, get(1))
    assert verdicts(telemetry) == {verdict: 1}
    assert log.records() == []
    assert CANARY not in caplog.text
    twin.before[Side.POSTGRES] = lambda _: None
    observe(shadow, twin, get(1))
    assert verdicts(telemetry) == {verdict: 1} | {Verdict.EQUAL: 1}, "the worker goes on"


def test_a_sink_that_fails_stops_nothing_and_its_words_are_not_logged(twin, make, telemetry, caplog):
    def fail(discrepancy):
        raise RuntimeError(CANARY)

    plant_value(twin)
    shadow = make(sink=fail)
    observe(shadow, twin, get(1))
    observe(shadow, twin, get(1))
    assert verdicts(telemetry) == {Verdict.MISMATCH: 2}
    assert "RuntimeError" in caplog.text
    assert CANARY not in caplog.text


def test_a_read_that_also_touches_a_table_of_somebody_else_is_not_compared(twin, shadow, telemetry):
    requests = {PHYSICAL: {"Keys": [get(1).key]}, "theirs": {"Keys": [{"id": {"S": "x"}}]}}
    batch = parse("BatchGetItem", {"RequestItems": requests})
    assert shadow.submit(ORDERS, batch, Side.DYNAMODB, {"Responses": {}})
    assert shadow.drain()
    assert verdicts(telemetry) == {Verdict.INCOMPARABLE: 1}


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("GetItem", {"TableName": PHYSICAL, "Key": get(1).key, "AttributesToGet": ["v"]}),
        ("BatchGetItem", {"RequestItems": {PHYSICAL: {"Keys": [get(1).key], "AttributesToGet": ["v"]}}}),
    ],
)
def test_a_read_that_only_dynamodb_understands_is_not_compared(twin, shadow, telemetry, name, request_):
    assert shadow.submit(ORDERS, parse(name, request_), Side.DYNAMODB, {})
    assert shadow.drain()
    assert verdicts(telemetry) == {Verdict.INCOMPARABLE: 1}
    assert twin.reads == []


# What callers notice


def test_a_slow_other_side_does_not_delay_the_caller(twin, make):
    twin.put(item(1))
    twin.before[Side.POSTGRES] = lambda _: time.sleep(0.2)
    shadow = make()
    answer = twin.stores[Side.DYNAMODB].execute(get(1))
    started = time.perf_counter()
    for _ in range(100):
        shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer)
    assert time.perf_counter() - started < 0.1, "half of what a single read of the other side takes"
    shadow.close()


def test_a_pause_before_a_second_look_holds_up_no_worker(twin, make, telemetry):
    plant_value(twin)
    twin.put(item(2))
    shadow = make(workers=1, recheck_pause=timedelta(milliseconds=300), rechecks=1)
    for sk in (1, 1, 1, 2):
        shadow.submit(ORDERS, get(sk), Side.DYNAMODB, twin.stores[Side.DYNAMODB].execute(get(sk)))
    deadline = time.monotonic() + 0.25
    while verdicts(telemetry) != {Verdict.EQUAL: 1}:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert shadow.drain()
    assert verdicts(telemetry) == {Verdict.EQUAL: 1, Verdict.MISMATCH: 3}


@pytest.fixture
def gate(twin):
    """Holds every read of PostgreSQL until it is set."""
    gate = threading.Event()
    twin.before[Side.POSTGRES] = lambda _: gate.wait(10)
    yield gate
    gate.set()


def test_the_queue_is_bounded_and_what_it_has_no_room_for_is_counted(twin, make, telemetry, gate):
    twin.put(item(1))
    shadow = make(queue_size=5)
    answer = twin.stores[Side.DYNAMODB].execute(get(1))
    taken = [shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer) for _ in range(12)]
    assert taken == [True] * 5 + [False] * 7
    assert telemetry.snapshot().count(names.SHADOW_DROPPED, table="orders", reason="queue_full") == 7
    gate.set()
    assert shadow.drain()
    assert shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer), "there is room again"


def test_a_page_takes_as_much_room_as_it_has_items(twin, make, gate):
    twin.put(*[item(n) for n in range(8)])
    page = twin.stores[Side.DYNAMODB].execute(QUERY)
    batch = parse("BatchGetItem", {"RequestItems": {PHYSICAL: {"Keys": [get(n).key for n in range(8)]}}})
    together = twin.stores[Side.DYNAMODB].execute(batch)
    shadow = make(queue_size=10)
    assert shadow.submit(ORDERS, get(1), Side.DYNAMODB, {})
    assert shadow.submit(ORDERS, QUERY, Side.DYNAMODB, page)
    assert not shadow.submit(ORDERS, batch, Side.DYNAMODB, together)
    gate.set()
    assert shadow.drain()
    tight = make(queue_size=2)
    assert tight.submit(ORDERS, batch, Side.DYNAMODB, together), "an empty queue takes any page"


def test_what_waits_too_long_is_dropped_and_counted(twin, make, telemetry, gate):
    twin.put(item(1))
    shadow = make(workers=1, timeout=timedelta(milliseconds=50))
    answer = twin.stores[Side.DYNAMODB].execute(get(1))
    for _ in range(3):
        shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer)
    time.sleep(0.1)
    gate.set()
    assert shadow.drain()
    assert telemetry.snapshot().count(names.SHADOW_DROPPED, reason="timeout") == 2
    assert verdicts(telemetry) == {Verdict.EQUAL: 1}


def test_closing_drops_what_waits_and_takes_nothing_more(twin, make, telemetry, gate):
    plant_value(twin)
    shadow = make(workers=1, recheck_pause=timedelta(seconds=60))
    answer = twin.stores[Side.DYNAMODB].execute(get(1))
    gate.set()
    shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer)
    assert not shadow.drain(timedelta(milliseconds=50)), "it waits for its second look"
    gate.clear()
    for _ in range(3):
        shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer)
    threading.Timer(0.05, gate.set).start()
    shadow.close()
    assert shadow.drain(timedelta(0))
    assert not shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer)
    assert telemetry.snapshot().count(names.SHADOW_DROPPED, reason="closed") == 5
    shadow.close()


def test_a_shadow_that_nobody_used_has_no_threads(make):
    make().close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dualstore-shadow")]


def test_the_callers_context_is_carried_to_the_workers(twin, shadow):
    request_id, seen = ContextVar("request_id", default=None), []
    twin.before[Side.POSTGRES] = lambda _: seen.append(request_id.get())
    twin.put(item(1))
    for name in ("first", "second"):
        token = request_id.set(name)
        observe(shadow, twin, get(1))
        request_id.reset(token)
    assert seen == ["first", "second"]


def test_the_latency_of_the_other_side_is_counted_as_a_shadow(twin, shadow, telemetry):
    twin.put(item(1))
    observe(shadow, twin, get(1))
    snapshot = telemetry.snapshot()
    assert snapshot.latencies(table="orders", side=Side.POSTGRES, role=Role.SHADOW, outcome="ok").count == 1
    assert snapshot.latencies(side=Side.DYNAMODB).count == 0
