"""Shadow reads between two stores in memory: what is reported, and what callers notice of it."""

import logging
import os
import threading
import time
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from opentelemetry.context import attach, detach
from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

from dualstore.errors import MirrorDirty, MirrorUnavailable, UnsupportedOperation
from dualstore.items import KeyAttribute, KeySchema, TableShape, key_hash
from dualstore.operations import BatchGetItem, GetItem, parse
from dualstore.replication.served import ServedTable
from dualstore.shadow import NO_RULES, Judge, Rules, Shadow, ShadowMismatch, request_hash
from dualstore.stages import Side
from dualstore.stores import MemoryStore
from dualstore.telemetry import DiscrepancyKind, DiscrepancyLog, Role, Telemetry, Verdict, names
from dualstore.telemetry.figures import Figures, Work

PHYSICAL = "orders-prod"
SHAPE = TableShape(PHYSICAL, KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N")))
ORDERS = ServedTable("orders", SHAPE)
CANARY = "canary-value"
STAMPS = (UUID(int=2), UUID(int=1))
PAUSE = timedelta(milliseconds=5)
LINGER = timedelta(seconds=0.5)
"""In which a test hands in all that is to be asked together."""

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
        self.asked = []

    def put(self, *items, sides=tuple(Side)):
        for side in sides:
            for written in items:
                self.stores[side].execute(parse("PutItem", {"TableName": PHYSICAL, "Item": written}))

    def read(self, side, operation):
        self.reads.append((side, operation.request.get("ConsistentRead")))
        self.asked.append((side, operation))
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

    def shadow(*, rules=NO_RULES, rechecks=3, same_side=False, **options):
        judge = Judge(
            twin.read,
            {PHYSICAL: ORDERS},
            rules_of=lambda _: rules,
            rechecks=rechecks,
            same_side=same_side,
        )
        defaults = {"telemetry": telemetry, "sink": log, "recheck_pause": PAUSE, "batch_keys": 1}
        made.append(Shadow(judge, **defaults | options))
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


def plant_type(twin):
    for side, value in zip(Side, ({"N": "1"}, {"S": "1"}), strict=True):
        twin.put(item(1, total=value), sides=[side])
    return get(1), key_hash(SHAPE.keys, get(1).key), ("total",)


def plant_stale(twin):
    """PostgreSQL shows the write before the last one, for good."""
    for side, stamp, note in zip(Side, STAMPS, ("later", "earlier"), strict=True):
        twin.put(item(1, note={"S": f"{CANARY}{note}"}, _dsv={"B": stamp.bytes}), sides=[side])
    return QUERY, key_hash(SHAPE.keys, get(1).key), ("note",)


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
    DiscrepancyKind.TYPE: plant_type,
    DiscrepancyKind.STALE: plant_stale,
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
    assert record.of_request is (hashed == request_hash(operation))
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
    whole_items = [(Side.DYNAMODB, True), (Side.POSTGRES, True)]
    assert twin.reads == first + 2 * look + whole_items


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
    "legacy",
    [
        get(1, AttributesToGet=["v"]),
        BatchGetItem({"RequestItems": {PHYSICAL: {"Keys": [get(1).key], "AttributesToGet": ["v"]}}}),
    ],
    ids=lambda operation: operation.name,
)
def test_a_read_that_only_dynamodb_understands_is_not_compared(twin, shadow, telemetry, legacy):
    """Parsing says most of these anew, as expressions."""
    assert shadow.submit(ORDERS, legacy, Side.DYNAMODB, {})
    assert shadow.drain()
    assert verdicts(telemetry) == {Verdict.INCOMPARABLE: 1}
    assert twin.reads == []


# What callers notice


def test_a_slow_other_side_does_not_delay_the_caller(twin, make, telemetry, gate):
    """It does not answer at all before the caller has gone on."""
    twin.put(item(1))
    shadow = make()
    answer = twin.stores[Side.DYNAMODB].execute(get(1))
    for _ in range(100):
        assert shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer)
    assert verdicts(telemetry) == {}
    gate.set()
    assert shadow.drain()
    assert verdicts(telemetry) == {Verdict.EQUAL: 100}


def test_a_pause_before_a_second_look_holds_up_no_worker(twin, make, telemetry):
    plant_value(twin)
    twin.put(item(2))
    shadow = make(workers=1, recheck_pause=timedelta(seconds=60), rechecks=1)
    for sk in (1, 1, 1, 2):
        shadow.submit(ORDERS, get(sk), Side.DYNAMODB, twin.stores[Side.DYNAMODB].execute(get(sk)))
    deadline = time.monotonic() + 10
    while verdicts(telemetry) != {Verdict.EQUAL: 1}:
        assert time.monotonic() < deadline
        time.sleep(0.002)


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
    asking = threading.Event()
    twin.before[Side.POSTGRES] = lambda _: asking.set() or gate.wait(10)
    shadow = make(workers=1, timeout=timedelta(seconds=1))
    answer = twin.stores[Side.DYNAMODB].execute(get(1))
    shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer)
    assert asking.wait(10)
    for _ in range(2):
        shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer)
    time.sleep(1.1)
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


def test_an_observed_read_is_its_callers_whatever_becomes_of_the_comparison(make, twin, caplog):
    shadow = make()
    malformed = {"Responses": {PHYSICAL: 1}}
    shadow.observe(ORDERS, get(1), Side.DYNAMODB, malformed, percent=100)
    assert "TypeError" in caplog.text
    shadow.observe(ORDERS, get(1), Side.DYNAMODB, {}, percent=0)
    assert not twin.reads
    shadow.observe(ORDERS, get(1), Side.DYNAMODB, {}, percent=100)
    assert shadow.drain()
    assert twin.reads


def test_where_no_thread_can_be_started_reads_are_dropped_and_none_is_kept(make, telemetry, monkeypatch):
    shadow = make()
    started = []

    def refuse(thread):
        if len(started) >= allowed:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    start, allowed = threading.Thread.start, 0
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert not shadow.submit(ORDERS, get(1), Side.DYNAMODB, {})
    assert shadow.drain(timedelta(0))
    assert telemetry.snapshot().count(names.SHADOW_DROPPED, reason="failed") == 1
    allowed = 1
    assert shadow.submit(ORDERS, get(1), Side.DYNAMODB, {}), "one worker is enough"
    assert shadow.drain()
    allowed = 2
    assert shadow.submit(ORDERS, get(1), Side.DYNAMODB, {})
    assert len(set(started)) == 2
    assert shadow.drain()
    assert verdicts(telemetry) == {Verdict.EQUAL: 2}


@pytest.mark.parametrize("batch_keys", [1, 25])
def test_a_worker_outlives_whatever_counting_meets_and_keeps_no_room(
    twin, make, telemetry, batch_keys, caplog
):
    shadow = make(workers=1, batch_keys=batch_keys)
    count, telemetry.record = telemetry.record, None  # calling it is a TypeError
    for number in range(5):
        assert shadow.submit(ORDERS, get(number), Side.DYNAMODB, {})
    assert shadow.drain(timedelta(seconds=5)), "a worker is gone, or room is kept"
    telemetry.record = count
    observe(shadow, twin, get(1))
    assert verdicts(telemetry) == {Verdict.EQUAL: 1}
    assert "TypeError" in caplog.text


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # no thread holds a lock here
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform does not fork")
def test_after_a_fork_the_child_keeps_no_reads_for_workers_that_it_lacks(make):
    shadow = make()
    child = os.fork()
    if not child:
        wanted = True
        try:
            wanted = shadow.wants(ORDERS, 100)
        finally:
            os._exit(wanted)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shadow.wants(ORDERS, 100)


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


@pytest.mark.parametrize("together", [1, 50])
def test_what_is_put_off_may_be_taken_up_at_once_by_another_worker(twin, make, telemetry, together):
    shadow = make(batch_keys=together)
    twin.put(*(item(sk) for sk in range(8)), sides=[Side.DYNAMODB])
    put_off, entered = shadow._backlog.look_later, []

    def taken_up_at_once(read, pause):
        read.context.run(entered.append, read)  # as a worker that was quicker than this one
        put_off(read, pause)

    shadow._backlog.look_later = taken_up_at_once
    answers = [twin.stores[Side.DYNAMODB].execute(get(sk)) for sk in range(8)]
    for sk, answer in enumerate(answers):
        assert shadow.submit(ORDERS, get(sk), Side.DYNAMODB, answer)
    assert shadow.drain(timedelta(seconds=10))

    assert len(entered) >= 8
    assert verdicts(telemetry) == {Verdict.MISMATCH: 8}


def test_the_latency_of_the_other_side_is_counted_as_a_shadow(twin, shadow, telemetry):
    twin.put(item(1))
    observe(shadow, twin, get(1))
    snapshot = telemetry.snapshot()
    assert snapshot.latencies(table="orders", side=Side.POSTGRES, role=Role.SHADOW, outcome="ok").count == 1
    assert snapshot.latencies(side=Side.DYNAMODB).count == 0


# What is recorded beside


def test_both_versions_are_recorded_also_where_a_projection_left_them_out(twin, shadow, log):
    _, hashed, _ = plant_stale(twin)
    observe(shadow, twin, get(1, ProjectionExpression="note"))
    (record,) = log.records()
    assert (record.key_hash, record.kind) == (hashed, DiscrepancyKind.STALE)
    assert record.versions == tuple(map(str, STAMPS))


def test_a_stamp_that_is_none_of_dualstores_is_no_version(twin, shadow, log):
    """Anybody may write to the attribute, and anything."""
    for side, stamp in zip(Side, ({"S": CANARY}, {"B": CANARY.encode()}), strict=True):
        twin.put(item(1, v={"S": side.value}, _dsv=stamp), sides=[side])
    observe(shadow, twin, get(1))
    (record,) = log.records()
    assert (record.kind, record.versions) == (DiscrepancyKind.VALUE, (None, None))


def test_the_trace_of_the_caller_is_recorded(twin, shadow, log):
    plant_value(twin)
    trace = SpanContext(trace_id=0xABC, span_id=1, is_remote=False)
    token = attach(set_span_in_context(NonRecordingSpan(trace)))
    try:
        observe(shadow, twin, get(1))
    finally:
        detach(token)
    (record,) = log.records()
    assert record.trace_id == f"{0xABC:032x}"
    observe(shadow, twin, SCAN)
    assert log.records()[0].trace_id is None, "the last sighting was not traced"


# What a team's rules leave out


def test_an_expired_item_whose_time_a_projection_hides_is_no_discrepancy(twin, make, telemetry, log):
    rules = Rules(ttl_attribute="expires", now=lambda: 1_000.0)
    for sk, expires in ((1, "900"), (2, "1100")):
        twin.put(item(sk, expires={"N": expires}), sides=[Side.DYNAMODB])
        observe(make(rules=rules), twin, get(sk, ProjectionExpression="pk"))
    (record,) = log.records()
    assert record.key_hash == key_hash(SHAPE.keys, get(2).key)
    assert verdicts(telemetry) == {Verdict.INCOMPARABLE: 1, Verdict.MISMATCH: 1}


def test_a_count_is_looked_at_again_by_the_items_where_some_may_have_expired(twin, make, telemetry, log):
    rules = Rules(ttl_attribute="expires", now=lambda: 1_000.0)
    count = parse("Query", {**QUERY.request, "Select": "COUNT"})
    twin.put(item(1))
    twin.put(item(2, expires={"N": "900"}), sides=[Side.DYNAMODB])
    observe(make(rules=rules), twin, count)
    assert verdicts(telemetry) == {Verdict.LAG: 1}
    twin.put(item(3), sides=[Side.DYNAMODB])
    observe(make(rules=rules), twin, count)
    (record,) = log.records()
    assert (record.kind, record.key_hash) == (DiscrepancyKind.COUNT, request_hash(count))


def test_a_normaliser_that_raises_is_counted_and_nobody_suffers(twin, make, telemetry, log, caplog):
    def normalise(item):
        raise RuntimeError(item)

    plant_value(twin)
    twin.put(item(2))
    shadow = make(rules=Rules(normalise=normalise))
    with caplog.at_level(logging.DEBUG):
        observe(shadow, twin, get(1))
        observe(shadow, twin, get(2))
    assert telemetry.snapshot().count(names.SHADOW_DROPPED, reason="normaliser") == 1
    assert verdicts(telemetry) == {Verdict.EQUAL: 1}, "what is equal as it is needs no normaliser"
    assert log.records() == []
    assert CANARY not in caplog.text


# Several reads asked together


def batched(twin):
    return [operation for side, operation in twin.asked if isinstance(operation, BatchGetItem)]


def test_reads_that_wait_are_asked_together_and_judged_each_for_itself(twin, make, telemetry, log):
    twin.put(*(item(n) for n in range(20)))
    twin.put(item(7, v={"S": "x"}), sides=[Side.DYNAMODB])
    shadow = make(batch_keys=25, linger=LINGER, workers=1)
    for sk in [*range(22), 3, 3]:
        assert shadow.submit(ORDERS, get(sk), Side.DYNAMODB, twin.stores[Side.DYNAMODB].execute(get(sk)))
    assert shadow.drain()
    (batch,) = batched(twin)
    assert len(batch.request["RequestItems"][PHYSICAL]["Keys"]) == 21, "one is asked alone, two are twins"
    assert verdicts(telemetry) == {Verdict.EQUAL: 23, Verdict.MISMATCH: 1}
    (record,) = log.records()
    assert record.key_hash == key_hash(SHAPE.keys, get(7).key)
    alone = telemetry.snapshot().latencies(operation="GetItem", role=Role.SHADOW)
    assert alone.count == 1, "so that the latency of single reads stays known"


def test_a_refusal_is_asked_for_alone(twin, make, telemetry):
    """It may be of the key: a batch that held it would be refused whole."""
    twin.put(*(item(n) for n in range(4)))
    shadow = make(batch_keys=25, linger=LINGER, workers=1)
    malformed = GetItem({"TableName": PHYSICAL, "Key": {"pk": {"S": "a"}}})
    for operation in [*map(get, range(4)), malformed]:
        try:
            answer = twin.stores[Side.DYNAMODB].execute(operation)
        except ClientError as error:
            answer = error
        assert shadow.submit(ORDERS, operation, Side.DYNAMODB, answer)
    assert shadow.drain()
    (batch,) = batched(twin)
    assert len(batch.request["RequestItems"][PHYSICAL]["Keys"]) == 3, "one is asked alone in any case"
    assert verdicts(telemetry) == {Verdict.EQUAL: 5}


def test_an_answer_that_cannot_be_made_is_the_trouble_of_its_read_alone(twin, telemetry, log):
    """As a row that does not decode is; and items come in the order of their keys, twice if asked twice."""
    twin.put(*(item(n) for n in range(6)))

    def decoded(key):
        if key == get(4).key:
            raise ValueError(CANARY)
        return twin.stores[Side.POSTGRES].execute(GetItem({"TableName": PHYSICAL, "Key": key})).get("Item")

    judge = Judge(
        twin.read, {PHYSICAL: ORDERS}, items_of=lambda _, table, keys: map(decoded, keys), rechecks=3
    )
    with Shadow(
        judge,
        telemetry=telemetry,
        sink=log,
        workers=1,
        batch_keys=25,
        linger=LINGER,
        recheck_pause=PAUSE,
    ) as shadow:
        twin.put(item(2, v={"S": "x"}), sides=[Side.DYNAMODB])
        for sk in [0, 1, 2, 3, 4, 5, 9, 3]:
            shadow.submit(ORDERS, get(sk), Side.DYNAMODB, twin.stores[Side.DYNAMODB].execute(get(sk)))
        assert shadow.drain()
    assert verdicts(telemetry) == {Verdict.EQUAL: 7, Verdict.MISMATCH: 1}
    (record,) = log.records()
    assert record.key_hash == key_hash(SHAPE.keys, get(2).key)
    asked = [operation.key["sk"]["N"] for _, operation in twin.asked if isinstance(operation, GetItem)]
    assert asked.count("4") == 1, "the row that did not decode is asked for again, alone"
    assert not {"1", "3", "5", "9"} & set(asked)


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (MirrorDirty("one key is in doubt"), Verdict.EQUAL),
        (ClientError({"Error": {"Code": "ValidationException"}}, "BatchGetItem"), Verdict.EQUAL),
        (RuntimeError(CANARY), Verdict.EQUAL),
        (MirrorUnavailable("down"), Verdict.FAILED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stands_in_the_way_of_a_batch_need_not_of_each_read(twin, make, telemetry, error, verdict):
    """A database that is away is not asked for each key."""

    def fail(operation):
        if isinstance(operation, BatchGetItem):
            raise error

    twin.put(*(item(n) for n in range(4)))
    twin.before[Side.POSTGRES] = fail
    shadow = make(batch_keys=25, linger=LINGER, workers=1)
    for sk in range(4):
        shadow.submit(ORDERS, get(sk), Side.DYNAMODB, twin.stores[Side.DYNAMODB].execute(get(sk)))
    assert shadow.drain()
    assert len(batched(twin)) == 1
    expected = {Verdict.EQUAL: 4} if verdict is Verdict.EQUAL else {Verdict.EQUAL: 1, Verdict.FAILED: 3}
    assert verdicts(telemetry) == expected


def test_a_key_in_doubt_is_an_answer_of_postgresql_and_no_error_of_it(twin, shadow, telemetry):
    """Or the gates of a rollout would see PostgreSQL fail wherever a write waits to be settled."""

    def doubt(_):
        raise MirrorDirty("one key is in doubt")

    twin.put(item(1))
    twin.before[Side.POSTGRES] = doubt
    observe(shadow, twin, get(1))
    asked = Figures.of(telemetry.snapshot(), "orders").by(side=Side.POSTGRES, works=tuple(Work))
    assert (asked.count, asked.errors) == (1, 0)


# What the other side bears


def test_the_share_of_reads_follows_the_load_and_is_told(twin, make, telemetry, gate):
    now = [0.0]
    twin.put(item(1))
    shadow = make(queue_size=4, workers=1, clock=lambda: now[0])
    answer = twin.stores[Side.DYNAMODB].execute(get(1))
    assert all(shadow.wants(ORDERS, 100.0) for _ in range(100))
    for _ in range(6):
        shadow.submit(ORDERS, get(1), Side.DYNAMODB, answer)
    now[0] = 1.0
    wanted = sum(shadow.wants(ORDERS, 100.0) for _ in range(2_000))
    assert 800 < wanted < 1_200
    assert telemetry.snapshot().gauge(names.SHADOW_EFFECTIVE, table="orders") == 50.0
    gate.set()
    assert shadow.drain()
    now[0] = 2.0
    shadow.wants(ORDERS, 40.0)
    now[0] = 3.0
    shadow.wants(ORDERS, 40.0)
    told = telemetry.snapshot().gauge(names.SHADOW_EFFECTIVE, table="orders")
    assert told == pytest.approx(12.0), "halved again while the queue stood full, then one step more"


def test_the_share_is_told_from_the_first_read_on_and_whenever_the_dial_moves(make, telemetry):
    shadow = make(clock=lambda: 0.0)
    for percent in (40.0, 100.0, 0.0):
        shadow.wants(ORDERS, percent)
        assert telemetry.snapshot().gauge(names.SHADOW_EFFECTIVE, table="orders") == percent


def test_of_a_dial_at_nothing_nothing_is_wanted(shadow):
    assert not any(shadow.wants(ORDERS, 0.0) for _ in range(100))


# For tests, and to measure the comparison itself


@pytest.mark.parametrize("kind", DiscrepancyKind)
def test_where_mismatches_are_raised_the_caller_meets_them_without_a_value(kind, twin, make, log):
    operation, hashed, _ = PLANTS[kind](twin)
    shadow = make(raise_on_mismatch=True)
    with pytest.raises(AssertionError) as raised:
        observe(shadow, twin, operation)
    assert isinstance(raised.value, ShadowMismatch)
    assert [each.kind for each in raised.value.discrepancies] == [kind]
    assert hashed in str(raised.value)
    assert CANARY not in f"{raised.value!s} {raised.value!r}"
    assert len(log.records()) == 1


def test_where_mismatches_are_raised_lag_and_failures_are_not(twin, make, telemetry):
    shadow = make(raise_on_mismatch=True)
    twin.put(item(1), sides=[Side.DYNAMODB])

    def catch_up(operation):
        if operation.request.get("ConsistentRead"):
            twin.put(item(1), sides=[Side.POSTGRES])

    twin.before[Side.POSTGRES] = catch_up
    observe(shadow, twin, get(1))

    def fail(_):
        raise MirrorUnavailable("down")

    twin.before[Side.POSTGRES] = fail
    observe(shadow, twin, get(1))
    assert verdicts(telemetry) == {Verdict.LAG: 1, Verdict.FAILED: 1}


def test_a_side_compared_with_itself_tells_of_noise_and_never_of_discrepancies(twin, make, telemetry, log):
    """The other side is not even asked; a side whose every other answer is wrong is very noisy."""
    twin.put(item(1))
    twin.stores[Side.POSTGRES] = MemoryStore({}, side=Side.POSTGRES)
    shadow = make(same_side=True)
    observe(shadow, twin, get(1))
    right, wrong = ({"Item": item(1, v={"S": value})} for value in ("right", "wrong"))
    answers = iter([wrong, *[right, wrong, right] * 3])
    twin.stores[Side.DYNAMODB].execute = lambda _: dict(next(answers))
    assert shadow.submit(ORDERS, get(1), Side.DYNAMODB, right)
    assert shadow.drain()
    noise = telemetry.snapshot()
    assert noise.count(names.SHADOW_NOISE, verdict=Verdict.EQUAL) == 1
    assert noise.count(names.SHADOW_NOISE, verdict=Verdict.MISMATCH) == 1
    assert verdicts(telemetry) == {}
    assert log.records() == []
    assert {side for side, _ in twin.reads} == {Side.DYNAMODB}
