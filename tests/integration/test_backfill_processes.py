"""A backfill by several processes, killed at every step: the exact set of items, nothing twice."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import boto3
import psycopg
import pytest

from bulk_sides import EPOCH, BulkSides, bulk_sides, bulk_sides_at, create_table, order
from dualstore.backfill import Backfill, Equipment, Phase, Processes
from dualstore.backfill.worker import PACE, QUARANTINE_LIMIT
from dualstore.errors import ConfigurationError, RunHalted
from dualstore.stores.dynamo import DynamoStore
from dualstore.stores.ledger import PieceState, RunState, Wish
from dualstore.stores.postgres_load import PostgresLoad
from integration.test_backfill_live import fill

ITEMS = int(os.environ.get("DUALSTORE_KILL_ITEMS", "240"))
LEASE = timedelta(seconds=1)
LOOK = timedelta(milliseconds=50)

# Steps of a worker at which it can be killed, by the SQL statement that comes next.
STEPS = {
    "before the copy": "CREATE TEMPORARY TABLE",
    "in the middle of COPY": "COPY ",
    "after COPY, before the merge": "INSERT INTO",
    "after the merge, before the checkpoint": "UPDATE dualstore.run_pieces SET state = %(state)s",
    "after the checkpoint, before COMMIT": "COMMIT",
    "between batches": "SELECT id, kind",
    "while it claims": "UPDATE dualstore.run_pieces SET attempts",
}
SETTLING = {"before a key is settled": False, "after a key was settled, before the checkpoint": True}
"""Steps of a worker at which it can be killed while keys differ: whether the mirror has been written."""
FEWER_STEPS = {"in the middle of COPY": 2, "after the merge, before the checkpoint": 1}
"""With so many workers. Processes take seconds to start: all steps are behind `nox -s backfill-kill`."""


def kill_at(step: str, nth: int) -> None:
    """Have this process kill itself with SIGKILL just before it sends a statement for the nth time."""
    begins, left = STEPS[step], [nth]

    def look(text: str) -> None:
        if begins in text[: max(len(begins), 120)]:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    execute, copy, commit = psycopg.Cursor.execute, psycopg.Cursor.copy, psycopg.Connection.commit

    def executed(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        look(query if isinstance(query, str) else query.as_string(self))
        return execute(self, query, *args, **options)

    def copied(self: Any, statement: Any, *args: Any, **options: Any) -> Any:
        begun = copy(self, statement, *args, **options)

        @contextmanager
        def killed_inside() -> Iterator[Any]:
            with begun as sending:
                yield sending
                if begins == "COPY ":
                    look("COPY ")

        return killed_inside()

    def committed(self: Any) -> None:
        if begins == "COMMIT":
            look("COMMIT")
        commit(self)

    psycopg.Cursor.execute = executed  # type: ignore[method-assign]
    psycopg.Cursor.copy = copied  # type: ignore[method-assign]
    psycopg.Connection.commit = committed  # type: ignore[method-assign]


@contextmanager
def opening(
    url: str, endpoint: str, table: str, killed: tuple[str, int] | None, marker: str
) -> Iterator[Equipment]:
    """What a worker's process works with; the first one to open is killed at a step, and no other."""
    client = boto3.client("dynamodb", endpoint_url=endpoint)
    with bulk_sides_at(url, DynamoStore(reads=client, writes=client), table) as sides:
        dies = killed is not None and _is_first(marker)
        if killed is not None and dies and killed[0] in SETTLING:
            yield equipment(sides, settle=killed_settling(sides.settle, *killed))
            return
        if killed is not None and dies:
            kill_at(*killed)
        yield equipment(sides)


def killed_settling(settle: Callable[[Any], None], step: str, nth: int) -> Callable[[Any], None]:
    """Settles keys until this process kills itself with SIGKILL, before or after the nth."""
    left = [nth]

    def settled(key: Any) -> None:
        left[0] -= 1
        if left[0] or SETTLING[step]:
            settle(key)
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)

    return settled


def _is_first(marker: str) -> bool:
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def equipment(sides: BulkSides, **changed: Any) -> Equipment:
    load = PostgresLoad(sides.engine, sides.mapping, epoch=EPOCH, lease=LEASE)
    return sides.equipment(**({"segments": 4, "page_items": 20, "load": load, "lease": LEASE} | changed))


@pytest.fixture
def sides(bulk_url, dynamodb, table_name):
    create_table(dynamodb, table_name)
    with bulk_sides(bulk_url, DynamoStore(reads=dynamodb, writes=dynamodb), table_name) as both:
        fill(dynamodb, table_name, [order(n) for n in range(ITEMS)])
        yield both


@pytest.fixture
def crew(sides: BulkSides, dynamodb_server, tmp_path) -> Callable[..., Processes]:
    def make(workers: int = 2, killed: tuple[str, int] | None = None) -> Processes:
        url = sides.engine.url.render_as_string(hide_password=False)
        marker = str(tmp_path / "killed")
        opens = partial(opening, url, dynamodb_server.endpoint_url, sides.table, killed, marker)
        return Processes(workers, opens, look=LOOK)

    return make


def backfill(sides: BulkSides, crew: Processes, **options: Any) -> Backfill:
    return sides.backfill(equipment=equipment(sides), crew=crew, **options)


def assert_exact(sides: BulkSides, run_id: Any) -> None:
    """Both sides hold the same, and the ledger has counted every item once."""
    sides.assert_equal()
    run = sides.runs.find(run_id)
    pieces = sides.runs.pieces(run)
    assert {piece.state for piece in pieces} == {PieceState.DONE}
    assert sum(piece.items for piece in pieces if piece.description is not None) == ITEMS
    assert sum(piece.inserted for piece in pieces) == ITEMS


@pytest.mark.parametrize(
    ("step", "workers"),
    (dict.fromkeys(STEPS, 2) if "DUALSTORE_KILL_ITEMS" in os.environ else FEWER_STEPS).items(),
)
def test_a_worker_that_is_killed_loses_nothing_and_does_nothing_twice(
    sides: BulkSides, crew, step, workers, tmp_path
):
    result = backfill(sides, crew(workers, killed=(step, 3))).run()

    assert (tmp_path / "killed").exists()
    assert result.succeeded
    assert_exact(sides, result.run_id)


@pytest.mark.skipif(
    "DUALSTORE_KILL_ITEMS" not in os.environ, reason="the larger volume: nox -s backfill-kill"
)
@pytest.mark.parametrize("step", SETTLING)
def test_a_worker_that_is_killed_while_it_settles_leaves_no_key_unsettled(sides: BulkSides, crew, step):
    differing = range(0, ITEMS, 8)
    for n in differing:
        sides.mirror(order(n), order(n, name={"S": "an older image"}))

    result = backfill(sides, crew(1, killed=(step, 3))).run()

    assert any(piece.attempt > 1 for piece in sides.runs.pieces(sides.runs.find(result.run_id)))
    assert result.succeeded
    assert (result.totals.items, result.totals.inserted) == (ITEMS, ITEMS - len(differing))
    assert result.totals.settled == len(differing)
    sides.assert_equal()


def in_thread(backfill: Backfill) -> tuple[threading.Thread, list[Any]]:
    """Run a backfill beside the test; what it ended with is in the list then."""
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(backfill.run())
        except Exception as error:  # noqa: BLE001 - the test looks at it
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, ended


def until(holds: Callable[[], Any], *, seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)
    return found


def test_a_second_backfill_joins_the_first_and_one_of_them_closes_the_run(sides: BulkSides):
    first, ended = in_thread(sides.backfill(workers=1, page_items=2, settings={PACE: 100}))
    until(lambda: sides.runs.latest_unfinished("backfill", sides.table))
    until(lambda: len(sides.rows_on_postgres()) > 20)

    second = sides.backfill(workers=1, settings={PACE: 100_000}).run()
    first.join(30)

    assert [each.run_id for each in ended] == [second.run_id]
    assert second.succeeded
    assert len({piece.worker for piece in sides.runs.pieces(sides.runs.find(second.run_id))[:-1]}) == 2
    assert_exact(sides, second.run_id)


def test_a_backfill_from_something_else_does_not_join(sides: BulkSides):
    run = sides.runs.start(
        "backfill", sides.table, {"epoch": 1, "source": {"kind": "export", "exports": ["s3://elsewhere"]}}
    )

    with pytest.raises(ConfigurationError, match="copies from something else"):
        sides.backfill().run()

    assert sides.runs.find(run.id).state is RunState.RUNNING


def test_a_run_is_paused_and_goes_on_and_is_cancelled_from_elsewhere(sides: BulkSides):
    thread, ended = in_thread(sides.backfill(page_items=2, settings={PACE: 40}))
    run = until(lambda: sides.runs.latest_unfinished("backfill", sides.table))
    until(lambda: len(sides.rows_on_postgres()) > 20)

    sides.runs.ask(run.id, Wish.PAUSE, by="somebody", reason="month's end")
    until(lambda: not sides.runs.totals(run.id).workers)
    held = len(sides.rows_on_postgres())
    time.sleep(0.3)
    assert len(sides.rows_on_postgres()) == held < ITEMS

    sides.runs.ask(run.id, Wish.GO, by="somebody")
    until(lambda: len(sides.rows_on_postgres()) > held)
    sides.runs.ask(run.id, Wish.HALT, by="somebody", reason="cancelled by somebody")
    sides.runs.finish(run, RunState.ABANDONED, {})
    thread.join(30)

    assert isinstance(ended[0], RunHalted)
    assert "cancelled by somebody" in str(ended[0])
    assert len(sides.rows_on_postgres()) < ITEMS


def test_sql_tells_the_same_of_a_run_as_the_ledger(sides: BulkSides):
    thread, ended = in_thread(sides.backfill(page_items=2, settings={PACE: 50}))
    run = until(lambda: sides.runs.latest_unfinished("backfill", sides.table))
    until(lambda: sides.runs.totals(run.id).items)
    sides.runs.ask(run.id, Wish.PAUSE, by="somebody")
    until(lambda: not sides.runs.totals(run.id).workers)
    totals = sides.runs.totals(run.id)
    with sides.engine.connect() as connection:
        (seen,) = connection.exec_driver_sql("SELECT * FROM dualstore.progress").all()
    sides.runs.set_parameters(run.id, {PACE: 100_000})
    sides.runs.ask(run.id, Wish.GO, by="somebody")
    thread.join(120)

    assert (seen.table_name, seen.kind, seen.run_id) == (sides.table, "backfill", run.id)
    assert (seen.state, seen.phase, seen.wish) == ("running", "copying", "pause")
    assert (seen.items, seen.pieces, seen.pieces_done) == (totals.items, totals.pieces, totals.pieces_done)
    assert (seen.workers, seen.rejected, seen.pieces_failed) == (0, 0, 0)
    assert 0 < seen.items < ITEMS
    assert seen.items_per_second > 0
    assert ended[0].succeeded


def test_a_run_halts_when_more_is_put_aside_than_may_be_and_goes_on_with_a_greater_limit(sides: BulkSides):
    sides.put(*(order(n, name={"S": "forbidden"}) for n in range(9)))

    with pytest.raises(RunHalted, match="max-quarantine"):
        sides.backfill(workers=1, settings={QUARANTINE_LIMIT: "3"}).run()
    halted = sides.runs.latest_unfinished("backfill", sides.table)
    result = sides.backfill(settings={QUARANTINE_LIMIT: "9"}).run()

    assert (result.run_id, result.state) == (halted.id, RunState.FINISHED_WITH_FAILURES)
    assert (result.totals.items, result.totals.failed) == (ITEMS, 9)
    assert sides.numbers_of_dirty_keys() == set(range(9))
    entries = [entry for page in sides.quarantine.entries() for entry in page]
    assert {int(entry.key["number"]["N"]) for entry in entries} == set(range(9))
    assert not any("forbidden" in entry.detail for entry in entries)


def test_what_is_in_quarantine_is_settled_from_the_authority_not_from_what_was_kept(sides: BulkSides):
    from dualstore.backfill.quarantine import retry  # noqa: PLC0415

    sides.put(*(order(n, name={"S": "forbidden"}) for n in (3, 4)))
    sides.backfill().run()
    sides.dual_write(order(3), order(3, name={"S": "mended"}))

    done = retry(sides.quarantine, sides.settle)

    assert (done.closed, done.refused) == (1, 1)
    kept = [entry for page in sides.quarantine.entries() for entry in page]
    assert [entry.key["number"] for entry in kept] == [{"N": "4"}]
    assert sides.rows_on_postgres().keys() == sides.items_on_dynamodb().keys() - {
        key for key, item in sides.items_on_dynamodb().items() if item["number"] == {"N": "4"}
    }


class Damaged:
    """A source one of whose pieces cannot be read to its end."""

    def __init__(self, source: Any, *, times: int) -> None:
        self._source = source
        self.limits: list[Any] = []
        self._left = times

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def read(self, description, position, transcoder, limits):
        batches = self._source.read(description, position, transcoder, limits)
        for number, batch in enumerate(batches):
            if description["segment"] == 1 and (position is not None or number) and self._left:
                self._left -= 1
                self.limits.append(limits)
                raise ValueError("the piece is damaged")
            yield batch


@pytest.mark.parametrize("times", [2, 10_000])
def test_a_piece_that_fails_is_tried_again_smaller_and_given_up_in_the_end(sides: BulkSides, times):
    whole = equipment(sides, segments=2)
    damaged = Damaged(whole.source, times=times)
    loaded = []

    result = sides.backfill(
        equipment=replace(whole, source=damaged, attempts=4, backoff=timedelta(0)),
        workers=1,
        loaded=loaded.append,
    ).run()

    # The first page of the piece is there before it fails, and each failure halves what is tried next.
    tried = [limits.batch_bytes for limits in damaged.limits]
    assert tried == [tried[0] >> failures for failures in range(min(times, 4))]
    if times == 2:
        assert result.succeeded
        assert loaded == [1]
        assert_exact(sides, result.run_id)
        return
    assert result.state is RunState.FINISHED_WITH_FAILURES
    (failed,) = result.failed_pieces
    assert (failed.number, failed.state, failed.failures) == (1, PieceState.FAILED, 4)
    assert "ValueError" in failed.error
    assert "damaged" not in failed.error  # an error that is not ours may quote a value
    assert loaded == []  # nobody may read the mirror: items are missing


def test_a_worker_whose_lease_ran_out_writes_nothing_more(sides: BulkSides):
    run = sides.runs.start("backfill", sides.table, {}, planned=[{}])
    slow = sides.load.piece(sides.runs.claim_next(run.id, worker="slow", lease=timedelta(0)))
    assert sides.runs.claim_next(run.id, worker="other", lease=LEASE) is not None
    assert sides.runs.claim_next(run.id, worker="third", lease=LEASE) is None

    with pytest.raises(Exception, match="taken over"):
        sides.load.load_blocks(
            slow,
            [sides.load.transcoder.block(b'{"Item":{"customer":{"S":"x"},"number":{"N":"1"}}}\n')],
            position=None,
            reject=pytest.fail,
        )

    assert not sides.rows_on_postgres()


def test_two_workers_share_one_rate(sides: BulkSides):
    began = time.monotonic()

    assert sides.backfill(settings={PACE: ITEMS / 1.5}).run().succeeded

    assert time.monotonic() - began > 1


@pytest.mark.skipif(
    "DUALSTORE_KILL_ITEMS" not in os.environ, reason="the larger volume: nox -s backfill-kill"
)
@pytest.mark.timeout(400)  # three processes start, one after the other
@pytest.mark.parametrize("step", [*Phase, *SETTLING])
def test_a_coordinator_that_is_killed_is_taken_over(sides: BulkSides, crew, dynamodb_server, step):
    sides.mirror(order(ITEMS), order(ITEMS))
    context = multiprocessing.get_context("spawn")
    url = sides.engine.url.render_as_string(hide_password=False)
    process = context.Process(
        target=coordinate, args=(url, dynamodb_server.endpoint_url, sides.table, str(step))
    )
    process.start()
    process.join(240)
    assert process.exitcode == -signal.SIGKILL

    result = backfill(sides, crew()).run()

    assert result.succeeded
    sides.assert_equal()


def coordinate(url: str, endpoint: str, table: str, step: str) -> None:
    """A coordinator that is killed when it has come to a phase, or while it settles when it closes."""
    client = boto3.client("dynamodb", endpoint_url=endpoint)
    with bulk_sides_at(url, DynamoStore(reads=client, writes=client), table) as sides:

        def look(progress: Any) -> None:
            if progress.phase == step and (progress.items or step != "copying"):
                os.kill(os.getpid(), signal.SIGKILL)
            if progress.phase is Phase.WAITING and not sides.tombstone(order(3)):
                sides.bury(order(3))

        # The first key that it settles is that of the row from before, the second that of the buried row.
        settle = killed_settling(sides.settle, step, 2) if step in SETTLING else sides.settle
        opens = partial(opening, url, endpoint, table, None, "")
        sides.backfill(
            equipment=equipment(sides, settle=settle), crew=Processes(1, opens, look=LOOK), progress=look
        ).run()
