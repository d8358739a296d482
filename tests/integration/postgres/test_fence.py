"""The fence on a real server: what it stops, when, and who says so (DESIGN, replication protocol, rule 8)."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import pytest
import sqlalchemy as sa

from dualstore.control import PostgresRole
from dualstore.errors import MirrorFenced, MirrorRefused
from dualstore.items import Item
from dualstore.stores.base import NOTHING, SettledWrite
from dualstore.stores.postgres import PostgresStore
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_load import Piece, PostgresLoad
from dualstore.stores.postgres_runs import PostgresRuns, TakenOver
from integration.postgres.orders import EPOCH, NOTE_TABLE, ORDERS, TABLE, call, key, order, stamp
from integration.postgres.test_interleavings import lock_held, once_waiting
from transcoding_cases import line_of

A, B = stamp(1), stamp(2)


def settled(epoch: int = EPOCH, item: Item | None = None) -> SettledWrite:
    return SettledWrite(TABLE, key(), item or order(stamp=A), NOTHING, epoch)


WRITES: Mapping[str, Callable[[PostgresStore], bool]] = {
    "direct": lambda store: store.write_direct(
        TABLE, key(), order(stamp=A), stamp=A, predecessor=None, epoch=EPOCH
    ),
    "settled": lambda store: store.write_settled(TABLE, key(), order(stamp=A), seen=NOTHING, epoch=EPOCH),
    "settled together": lambda store: store.write_settled_together([settled()]),
}


def raise_fence(engine: sa.Engine, epoch: int = EPOCH + 1, role: PostgresRole = PostgresRole.NONE) -> None:
    PostgresControl(engine).raise_fence(TABLE, epoch=epoch, role=role)


@pytest.fixture
def load(engine: sa.Engine) -> PostgresLoad:
    return PostgresLoad(engine, ORDERS, epoch=EPOCH)


@pytest.fixture
def piece(engine: sa.Engine, load: PostgresLoad) -> Iterator[Piece]:
    """A piece of a new backfill, claimed."""
    runs = PostgresRuns(engine)
    run = runs.start("backfill", TABLE, {}, pieces=1)
    yield load.piece(runs.claim(run.id, 0))
    with engine.begin() as connection:
        connection.execute(sa.text("TRUNCATE dualstore.runs CASCADE"))


def loaded(
    load: PostgresLoad, piece: Piece, *items: Item, reject: Callable[..., object] = pytest.fail
) -> Piece:
    block = load.transcoder.block(b"".join(map(line_of, items)))
    return load.load_blocks(piece, [block], position={"more": True}, reject=reject)


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_write_that_waited_for_its_lock_sees_the_fence_that_was_raised_meanwhile(store, engine, write):
    with ThreadPoolExecutor(1) as pool:
        with lock_held(engine):
            waiting: Future[bool] = pool.submit(write, store)
            once_waiting(engine)
            raise_fence(engine)
        with pytest.raises(MirrorFenced):
            waiting.result()
    assert store.state(TABLE, key()).revision == NOTHING


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_a_table_without_a_control_record_is_fenced(store, engine, write):
    with engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM dualstore.control WHERE table_name = :t"), {"t": TABLE})
    with pytest.raises(MirrorFenced):
        write(store)
    assert store.state(TABLE, key()).revision == NOTHING


def test_a_fenced_write_leaves_no_connection_or_transaction_behind(store, engine):
    raise_fence(engine)
    for write in WRITES.values():
        with pytest.raises(MirrorFenced):
            write(store)
    assert engine.pool.checkedout() == 0
    with lock_held(engine):  # nobody else has it
        pass


# --- Backfill ------------------------------------------------------------------------------------


def test_a_page_of_the_epoch_is_loaded(store, load, piece):
    piece = loaded(load, piece, order(stamp=A), order("bob"))
    assert piece.row.inserted == 2
    assert store.state(TABLE, key("bob")).item == order("bob")


@pytest.mark.parametrize("role", PostgresRole)
def test_a_page_of_an_earlier_epoch_is_not_loaded(store, engine, load, piece, role):
    raise_fence(engine, EPOCH + 1, role)
    with pytest.raises(MirrorFenced, match="start the backfill again"):
        loaded(load, piece, order())
    assert store.state(TABLE, key()).revision == NOTHING
    (row,) = PostgresRuns(engine).pieces(PostgresRuns(engine).latest_unfinished("backfill", TABLE))
    assert row.items == 0


def test_a_page_is_not_loaded_where_postgresql_has_become_something_else_at_the_same_epoch(
    store, engine, load, piece
):
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE dualstore.control SET role = 'authority'"))
    with pytest.raises(MirrorFenced):
        loaded(load, piece, order())
    assert store.state(TABLE, key()).revision == NOTHING


def test_the_merge_itself_is_fenced_so_that_no_item_of_a_fenced_page_is_called_bad(engine, load, piece):
    """Whoever inserted this one would break a rule of the SQL table."""
    raise_fence(engine)
    bad: list[Any] = []
    with pytest.raises(MirrorFenced):
        loaded(load, piece, order(price=-1), reject=lambda _, some: bad.extend(some))
    assert not bad


def test_a_page_of_rows_is_not_passed_at_another_epoch(engine, load, piece):
    page = load.row_page(revision=load.draw_revision(), start=None)
    raise_fence(engine)
    with pytest.raises(MirrorFenced):
        load.pass_rows(piece, page, unsettled=[])


def test_the_fence_between_merge_and_checkpoint_takes_the_page_back(store, engine, load, piece):
    """The last item of the page breaks a rule, so that only the checkpoint is left when that is reported."""

    def fence(_cursor: Any, _rejected: Any) -> None:
        raise_fence(engine)

    with pytest.raises(MirrorFenced):
        loaded(load, piece, order(), order("bob", price=-1), reject=fence)
    assert store.state(TABLE, key()).revision == NOTHING


def test_a_piece_that_was_taken_over_is_told_from_a_fence(engine, load, piece):
    PostgresRuns(engine).claim(UUID(str(piece.row.run_id)), 0)
    with pytest.raises(TakenOver):
        loaded(load, piece, order())


# --- Settled together ----------------------------------------------------------------------------


def tokens(engine: sa.Engine) -> dict[str, bool]:
    """The tokens, and whether each is younger than a minute."""
    young = "SELECT token, created_at > now() - interval '1 minute' AS is_young FROM dualstore.tokens"
    with engine.connect() as connection:
        return {row.token: row.is_young for row in connection.execute(sa.text(young))}


def test_what_the_sql_table_refuses_takes_the_other_keys_back(store, engine):
    other = SettledWrite(TABLE, key("bob"), order("bob", price=-1), NOTHING, EPOCH)
    with pytest.raises(MirrorRefused):
        store.write_settled_together([settled(), other], token="t")
    assert store.state(TABLE, key()).revision == NOTHING
    assert tokens(engine) == {}


def test_a_token_is_remembered_with_the_writes_and_only_with_them(store, engine):
    assert store.write_settled_together([settled()], token="first")
    assert not store.write_settled_together([settled()], token="changed since")
    with pytest.raises(MirrorFenced):
        store.write_settled_together([settled(EPOCH + 1)], token="fenced")
    assert tokens(engine) == {"first": True}


@pytest.mark.parametrize(("minutes", "renewed"), [(9, False), (11, True)])
def test_a_token_is_renewed_once_dynamodb_has_forgotten_it(store, engine, minutes, renewed):
    remembered = (
        "INSERT INTO dualstore.tokens VALUES ('t', 'digest', clock_timestamp() - make_interval(mins => :m))"
    )
    with engine.begin() as connection:
        connection.execute(sa.text(remembered), {"m": minutes})
    assert store.write_settled_together([settled()], token="t")
    assert tokens(engine) == {"t": renewed}


# --- Who writes ----------------------------------------------------------------------------------


@contextmanager
def writers_noted(engine: sa.Engine) -> Iterator[Callable[[], list[str | None]]]:
    """Gives what `dualstore.writer` was at every write of a row of orders so far."""
    with engine.begin() as connection:
        connection.exec_driver_sql("""
            CREATE TABLE noted (id serial, writer text);
            CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                INSERT INTO noted (writer) VALUES (nullif(current_setting('dualstore.writer', true), ''));
                RETURN NULL;
            END $$;
            CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON orders
                FOR EACH ROW EXECUTE FUNCTION note();
        """)

    def noted() -> list[str | None]:
        with engine.connect() as connection:
            return list(connection.scalars(sa.text("SELECT writer FROM noted ORDER BY id")))

    yield noted
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER note ON orders; DROP FUNCTION note; DROP TABLE noted")


def test_every_mirror_write_says_that_the_mirror_writes(store, engine):
    with writers_noted(engine) as noted:
        WRITES["direct"](store)
        store.write_direct(TABLE, key(), None, stamp=B, predecessor=A, epoch=EPOCH)
        with store.locked(TABLE, key()):
            seen = store.state(TABLE, key()).revision
            store.write_settled(TABLE, key(), order(), seen=seen, epoch=EPOCH)
        one = store.state(TABLE, key()).revision
        writes = [SettledWrite(TABLE, key(), None, one, EPOCH), replace_key(settled(), "bob")]
        assert store.write_settled_together(writes)
        assert noted() == ["mirror"] * 5


def replace_key(write: SettledWrite, customer: str) -> SettledWrite:
    return SettledWrite(write.table, key(customer), order(customer), write.seen, write.epoch)


def test_a_backfill_says_that_the_mirror_writes(engine, load, piece):
    with writers_noted(engine) as noted:
        loaded(load, piece, order())
        assert noted() == ["mirror"]


def test_nobody_else_is_taken_for_the_mirror_on_the_same_connection(store, engine):
    with writers_noted(engine) as noted:
        WRITES["direct"](store)
        with engine.begin() as connection:
            connection.execute(sa.text("UPDATE orders SET status = 'changed'"))
        assert noted() == ["mirror", None]


def test_the_fence_of_one_table_is_not_that_of_another(store, engine):
    raise_fence(engine)
    note = {"id": {"B": b"n"}}
    assert store.write_settled(NOTE_TABLE, note, note, seen=NOTHING, epoch=EPOCH)
    assert call(store, "GetItem", Key=key()).get("Item") is None
