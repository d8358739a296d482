"""Who answers a read in another's place: DynamoDB for its mirror always, for its authority by choice only."""

from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from dualstore.control import Stop
from dualstore.errors import AuthorityMoved, MirrorRefused, Unavailable
from dualstore.replication.suspects import UNMIRRORED
from dualstore.routing import ReadRules
from dualstore.stages import Side, Stage
from dualstore.telemetry import Role
from dualstore.telemetry.names import BREAKER_OPEN, FALLBACKS, STALE_READS
from unit.replication.processes import TABLE, bring
from unit.routing.conftest import Refusing, Routing, key

D, P = Side.DYNAMODB, Side.POSTGRES
STALE = {"rules": {"orders": ReadRules(stale_reads=True)}}
EVENTUAL_READS: dict[str, Callable[[Routing], object]] = {
    "GetItem": lambda routing: routing.get(),
    "Query": lambda routing: routing.query(),
    "BatchGetItem": lambda routing: routing.batch(key()),
}


def asked_as(routing: Routing) -> list[tuple[Side, Role, str]]:
    """Every answer so far that did not come of a write: by whom, as what, and with which outcome."""
    reads = {"GetItem", "Query", "Scan", "BatchGetItem", "TransactGetItems"}
    operations = routing.process.telemetry.snapshot().operations
    return [(each.side, each.role, each.outcome) for each in operations if each.operation in reads]


# PostgreSQL is the mirror


@pytest.mark.parametrize("read", EVENTUAL_READS)
def test_a_mirror_that_fails_is_not_noticed_but_counted(routing: Routing, read: str) -> None:
    routing.put()
    routing.process.mirror.down = True
    assert routing.sides(lambda: EVENTUAL_READS[read](routing)) == [D]
    assert routing.counted(FALLBACKS) == {"MirrorUnavailable": 1}
    assert (P, Role.MIRROR, "MirrorUnavailable") in asked_as(routing)


@pytest.mark.parametrize("failure", [MirrorRefused("drifted"), ValueError("a bug"), KeyError("another")])
def test_whatever_is_wrong_with_the_mirror_callers_get_the_authority_s_answer(
    routing: Routing, failure: Exception
) -> None:
    routing.put()
    routing.process.mirror.failure = failure
    Refusing(routing.process.mirror, "execute_as_mirror")
    assert routing.get() is not None
    assert routing.counted(FALLBACKS) == {type(failure).__name__: 1}


def test_one_failure_does_not_keep_the_next_read_from_the_mirror(routing: Routing) -> None:
    refusing = Refusing(routing.process.mirror, "execute_as_mirror")
    assert routing.sides(routing.get) == [D]
    refusing.stop()
    assert routing.sides(routing.get) == [P]


def test_a_mirror_that_goes_on_failing_is_left_alone_and_probed_and_asked_again(routing: Routing) -> None:
    refusing = Refusing(routing.process.mirror, "execute_as_mirror")
    calls = routing.process.mirror.calls
    for _ in range(20):
        routing.get()
    assert calls.count("execute_as_mirror") == 2
    assert breaker(routing) == {("mirror", 1.0)}
    refusing.stop()
    assert routing.sides(routing.get) == [D]
    routing.world.clock.advance(0.3)
    for _ in range(3):
        assert routing.sides(routing.get) == [P]
    assert breaker(routing) == {("mirror", 0.0)}


def breaker(routing: Routing) -> set[tuple[str, float]]:
    values = routing.process.telemetry.values(BREAKER_OPEN)
    return {(series.labels[-1], value) for series, value in values.items()}


def test_a_key_in_doubt_says_nothing_about_the_mirror_s_health(routing: Routing) -> None:
    routing.world.mirror.mark_dirty(TABLE, key(), nonce="n", reason="test")
    for _ in range(20):
        assert routing.sides(routing.get) == [D]
    assert routing.counted(FALLBACKS) == {"dirty": 20}
    assert breaker(routing) == set()


def test_a_fallback_asks_consistently_where_the_mirror_had_been_asked_and_as_its_caller_else(
    routing: Routing,
) -> None:
    seen: list[Any] = []
    routing.process.authority.before = lambda name, args: seen.append(args[0].request.get("ConsistentRead"))
    Refusing(routing.process.mirror, "execute_as_mirror")
    for _ in range(4):
        routing.get()
    assert seen == [True, True, None, None]


@pytest.mark.parametrize(
    ("index", "by", "consistent"), [("by-date", "customer", True), ("by-rank", "city", None)]
)
def test_the_fallback_of_an_index_is_consistent_where_it_can_be(
    routing: Routing, index: str, by: str, *, consistent: bool | None
) -> None:
    """A global index has no consistent reads."""
    seen: list[Any] = []
    routing.process.authority.before = lambda name, args: seen.append(args[0].request.get("ConsistentRead"))
    Refusing(routing.process.mirror, "execute_as_mirror")
    routing.of_index(index, by, "ann")
    assert seen == [consistent]


# PostgreSQL is the authority


def live(routing: Routing, stage: Stage = Stage.LIVE) -> Routing:
    """PostgreSQL decides; DynamoDB holds an earlier state of the item."""
    routing.put(note={"S": "earlier"})
    bring(stage, routing.process)
    routing.put(note={"S": "latest"})
    return routing


@pytest.mark.parametrize("read", EVENTUAL_READS)
def test_an_authority_that_fails_is_not_replaced_unasked(routing: Routing, read: str) -> None:
    live(routing).process.mirror.down = True
    with pytest.raises(ClientError) as refused:
        EVENTUAL_READS[read](routing)
    assert refused.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert routing.counted(STALE_READS) == {}


@pytest.mark.parametrize("read", EVENTUAL_READS)
@pytest.mark.parametrize("stage", [Stage.LIVE, Stage.RAMPDOWN])
def test_where_stale_reads_are_wanted_dynamodb_answers_eventual_ones_and_they_are_counted(
    routing_of: Callable[..., Routing], read: str, stage: Stage
) -> None:
    routing = live(routing_of(**STALE), stage)
    assert routing.sides(lambda: EVENTUAL_READS[read](routing)) == [P]
    routing.process.mirror.down = True
    assert routing.sides(lambda: EVENTUAL_READS[read](routing)) == [D]
    assert routing.counted(STALE_READS) == {"MirrorUnavailable": 1}  # as the link says it
    assert (D, Role.MIRROR, "ok") in asked_as(routing)


def test_a_stale_answer_is_an_earlier_one_without_stamps(routing_of: Callable[..., Routing]) -> None:
    routing = live(routing_of(**STALE))
    assert routing.get()["note"] == {"S": "latest"}
    routing.process.mirror.down = True
    assert routing.get() == {**key(), "note": {"S": "earlier"}}


@pytest.mark.parametrize(
    "read",
    [
        lambda routing: routing.get(ConsistentRead=True),
        lambda routing: routing.query(ConsistentRead=True),
        lambda routing: routing.batch(key(), ConsistentRead=True),
        lambda routing: routing.ask("Scan"),
        lambda routing: routing.of_index("by-rank", "city", "York"),
        lambda routing: routing.router.execute(
            "TransactGetItems", {"TransactItems": [{"Get": {"TableName": TABLE, "Key": key()}}]}
        ),
        lambda routing: routing.put(),
    ],
    ids=["consistent get", "consistent query", "consistent batch", "scan", "ties", "transaction", "write"],
)
def test_nothing_else_is_ever_answered_by_the_mirror_of_an_authority(
    routing_of: Callable[..., Routing], read: Callable[[Routing], object]
) -> None:
    routing = live(routing_of(**STALE))
    routing.process.mirror.down = True
    with pytest.raises(ClientError) as refused:
        read(routing)
    assert refused.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert routing.counted(STALE_READS) == {}


def test_dynamodb_is_too_far_behind_to_answer_while_anything_about_it_is_suspect(
    routing_of: Callable[..., Routing],
) -> None:
    """From `complete` back to `rampdown` it holds what it held before; the suspect says so."""
    routing = live(routing_of(**STALE), Stage.RAMPDOWN)
    home = routing.process.postgres_control
    assert home.change(routing.world.decided, suspects=frozenset({UNMIRRORED})) is not None
    routing.process.agent.refresh()
    routing.process.mirror.down = True
    with pytest.raises(ClientError) as refused:
        routing.get()
    assert refused.value.response["Error"]["Code"] == "ServiceUnavailable"
    assert routing.counted(STALE_READS) == {}


def test_at_complete_dynamodb_is_too_far_behind_to_answer(routing_of: Callable[..., Routing]) -> None:
    routing = live(routing_of(**STALE), Stage.COMPLETE)
    routing.process.mirror.down = True
    with pytest.raises(ClientError):
        routing.get()


def test_who_has_stopped_reads_gets_the_authority_s_answers_alone(routing_of: Callable[..., Routing]) -> None:
    routing = live(routing_of(**STALE, reader=Reader()))
    home = routing.process.postgres_control
    assert home.change(routing.world.decided, stopped=Stop("kim", 0.0)) is not None
    routing.process.agent.refresh()
    assert routing.get()["note"] == {"S": "latest"}
    routing.process.mirror.down = True
    with pytest.raises(ClientError):
        routing.get()


def test_an_authority_that_goes_on_failing_is_left_alone_by_those_who_take_stale_answers(
    routing_of: Callable[..., Routing],
) -> None:
    routing = live(routing_of(**STALE))
    refusing = Refusing(routing.process.mirror, "execute_as_authority")
    routing.process.mirror.failure = Unavailable("simulated")
    for _ in range(10):
        routing.get()
    assert routing.counted(STALE_READS) == {"Unavailable": 2, "breaker": 8}
    refusing.stop()
    assert routing.get(ConsistentRead=True)["note"] == {"S": "latest"}
    routing.world.clock.advance(0.3)
    assert routing.get()["note"] == {"S": "latest"}


def test_where_neither_side_answers_the_authority_s_failure_is_what_is_told(
    routing_of: Callable[..., Routing],
) -> None:
    routing = live(routing_of(**STALE))
    routing.process.mirror.down = routing.process.authority.down = True
    for _ in range(4):
        with pytest.raises(ClientError) as refused:
            routing.get()
        assert refused.value.response["Error"]["Code"] == "ServiceUnavailable"


def test_a_request_that_dynamodb_finds_wrong_is_not_to_be_tried_again(
    routing_of: Callable[..., Routing],
) -> None:
    routing = live(routing_of(**STALE))
    routing.process.mirror.down = True
    with pytest.raises(ClientError) as refused:
        routing.get(ProjectionExpression="note,")
    assert refused.value.response["Error"]["Code"] == "ValidationException"


# The reader endpoint


class Reader:
    """A replica that answers what it was told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.failure: Exception | None = None

    def execute_as_authority(self, operation: Any, *, epochs: Any) -> Any:
        self.asked.append(operation.name)
        if self.failure is not None:
            raise self.failure
        item = {**key(), "note": {"S": "the replica's"}}
        if operation.name == "BatchGetItem":
            return {"Responses": {TABLE: [item]}, "UnprocessedKeys": {}}
        return {"Item": item} if operation.name == "GetItem" else {"Items": [item], "Count": 1}


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def replicated(routing_of: Callable[..., Routing], reader: Reader) -> Routing:
    """At live, with a reader endpoint."""
    return live(routing_of(reader=reader))


@pytest.mark.parametrize("read", [*EVENTUAL_READS, "Scan"])
@pytest.mark.parametrize("stage", [Stage.LIVE, Stage.RAMPDOWN, Stage.COMPLETE])
def test_eventual_reads_of_the_authority_go_to_the_reader_endpoint(
    routing_of: Callable[..., Routing], reader: Reader, read: str, stage: Stage
) -> None:
    routing = live(routing_of(reader=reader), stage)
    act = {**EVENTUAL_READS, "Scan": lambda routing: routing.ask("Scan")}[read]
    assert routing.sides(lambda: act(routing)) == [P]
    assert reader.asked == [read]
    assert (P, Role.READER, "ok") in asked_as(routing)


@pytest.mark.parametrize(
    "read",
    [
        lambda routing: routing.get(ConsistentRead=True),
        lambda routing: routing.query(ConsistentRead=True),
        lambda routing: routing.batch(key(), ConsistentRead=True),
        lambda routing: routing.router.execute(
            "TransactGetItems", {"TransactItems": [{"Get": {"TableName": TABLE, "Key": key()}}]}
        ),
        lambda routing: routing.put(),
    ],
    ids=["get", "query", "batch", "transaction", "write"],
)
def test_everything_else_goes_to_the_writer(
    replicated: Routing, reader: Reader, read: Callable[[Routing], object]
) -> None:
    read(replicated)
    assert reader.asked == []


def test_a_mirror_is_never_read_at_the_reader_endpoint(
    routing_of: Callable[..., Routing], reader: Reader
) -> None:
    """Doubts and the grant are known at the writer alone."""
    routing = routing_of(reader=reader)
    routing.put()
    assert routing.sides(routing.get) == [P]
    assert reader.asked == []


def test_where_the_reader_endpoint_fails_the_writer_answers_and_it_is_left_alone_for_a_while(
    replicated: Routing, reader: Reader
) -> None:
    reader.failure = Unavailable("simulated")
    for _ in range(5):
        assert replicated.get()["note"] == {"S": "latest"}
    assert replicated.counted(FALLBACKS) == {"Unavailable": 2, "breaker": 3}
    assert breaker(replicated) == {("reader", 1.0)}
    assert len(reader.asked) == 2


def test_a_replica_that_has_not_seen_the_move_of_the_authority_does_not_answer_and_is_no_failure(
    replicated: Routing, reader: Reader
) -> None:
    reader.failure = AuthorityMoved("not heard of yet")
    for _ in range(5):
        assert replicated.get()["note"] == {"S": "latest"}
    assert len(reader.asked) == 5
    assert breaker(replicated) == set()


def test_where_all_of_postgresql_is_away_a_stale_answer_is_the_last_resort(
    routing_of: Callable[..., Routing], reader: Reader
) -> None:
    routing = live(routing_of(reader=reader, **STALE))
    reader.failure = Unavailable("simulated")
    routing.process.mirror.down = True
    assert routing.get()["note"] == {"S": "earlier"}
