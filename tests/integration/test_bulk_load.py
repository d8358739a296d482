"""Blocks of an export, COPY and merge on a real PostgreSQL: the same rows as the exact way, and no others."""

import threading

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bulk_sides import EPOCH, BulkSides, bulk_sides, mapping_of, order
from dualstore import schema
from dualstore.control import PostgresRole
from dualstore.errors import ConfigurationError, MirrorFenced
from dualstore.items import KeyAttribute, KeySchema, TableShape, key_bytes, normalized_item
from dualstore.mapping import unmapped_table
from dualstore.mapping.text import quoted
from dualstore.mapping.transcoding import Reason
from dualstore.mapping.transcoding.binary_rows import END, HEAD, packing
from dualstore.stores.memory import MemoryStore
from dualstore.stores.postgres_control import PostgresControl
from dualstore.stores.postgres_runs import PieceState, TakenOver
from dualstore.stores.postgres_staging import MIRROR, LoadStatements
from mapping_cases import MAPPINGS, items
from mapping_cases import Base as MappedBase
from transcoding_cases import TRANSCODERS, line_of
from volume import examples

TABLE = "orders-prod"
each_transcoder = pytest.mark.parametrize("transcoder", TRANSCODERS)
through_postgres = settings(
    max_examples=examples(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture
def sides(bulk_url):
    with bulk_sides(bulk_url, MemoryStore({TABLE: mapping_of(TABLE).shape}), TABLE) as both:
        yield both


def piece_of(sides: BulkSides, *, pieces=1):
    run = sides.runs.start("backfill", TABLE, {}, pieces=pieces)
    return sides.load.piece(sides.runs.claim(run.id, 0))


def blocks_of(sides: BulkSides, *lines, transcoder="python", block_lines=4):
    transcode = TRANSCODERS[transcoder](sides.mapping).block
    return [
        transcode(b"".join(lines[start : start + block_lines])) for start in range(0, len(lines), block_lines)
    ]


def load(sides: BulkSides, *some, piece=None, position=None, straight=False):
    """Load items (or lines) in one transaction; the piece and what was rejected."""
    lines = [each if isinstance(each, bytes) else line_of(each) for each in some]
    rejected = []
    step = sides.load.load_straight if straight else sides.load.load_blocks
    piece = step(
        piece or piece_of(sides),
        blocks_of(sides, *lines),
        position=position,
        reject=lambda _, some: rejected.extend(some),
    )
    return piece, rejected


def not_live(sides: BulkSides):
    with sides.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE dualstore.control SET role = 'none'")


@each_transcoder
@pytest.mark.parametrize("table", MAPPINGS)
def test_rows_of_copy_text_are_the_rows_of_the_exact_way(postgres_url, table, transcoder):
    mapping = MAPPINGS[table]
    engine = sa.create_engine(postgres_url, poolclass=sa.NullPool)
    schema.upgrade(engine)
    MappedBase.metadata.create_all(engine)
    columns = ", ".join(map(quoted, mapping.column_names))
    as_text = f"SELECT ROW({columns})::text FROM {mapping.table.name}"
    copy_in = f"COPY {mapping.table.name} ({columns}) FROM STDIN"

    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        driver.autocommit = True
        with driver.cursor() as cursor:
            cursor.execute(LoadStatements(mapping, MIRROR).straight.types, prepare=False)
            assert cursor.nextset()
            (types,) = cursor.fetchone()

        @through_postgres
        @given(data=st.data())
        def loaded_alike(data):
            item = normalized_item(data.draw(items(mapping)))
            done = TRANSCODERS[transcoder](mapping).block(line_of(item))
            if not done.rows:
                return
            pack = packing(types, keys=len(mapping.key_columns))
            rows = []
            with driver.cursor() as cursor:
                for way in ("text", "exact", "binary"):
                    packed = pack([done.text]) if way == "binary" and pack else None
                    binary = b"".join((HEAD, *packed.rows, END)) if packed and not packed.left else None
                    with cursor.copy(copy_in + (" (FORMAT BINARY)" if binary else "")) as copy:
                        if way == "exact":
                            copy.set_types(mapping.pg_types)
                            copy.write_row(mapping.encode(item))
                        else:
                            copy.write(binary or done.text)
                    rows.append(cursor.execute(as_text).fetchall())
                    cursor.execute(f"TRUNCATE {mapping.table.name}")
            assert rows[0] == rows[1] == rows[2]

        loaded_alike()
    engine.dispose()


@each_transcoder
def test_everything_of_an_export_is_loaded_once_and_counted(sides: BulkSides, transcoder):
    some = [order(n) for n in range(30)]
    sides.put(*some)
    blocks = blocks_of(sides, *map(line_of, some), transcoder=transcoder)

    piece = sides.load.load_blocks(piece_of(sides), blocks, position=None, reject=pytest.fail)

    sides.assert_equal()
    assert (piece.row.items, piece.row.inserted, piece.row.settled) == (30, 30, 0)
    assert piece.row.size_bytes == sum(len(line_of(item)) for item in some)
    assert piece.read_to_the_end
    assert piece.unsettled == ()


def test_items_that_the_fast_path_declines_are_loaded_by_the_exact_one(sides: BulkSides):
    some = [order(1, total={"N": "1." + "1" * 37}), order(2), order(3, x={"N": "9" * 38})]
    sides.put(*some)

    piece, rejected = load(sides, *some)

    sides.assert_equal()
    assert (piece.row.items, piece.row.inserted, rejected) == (3, 3, [])


def test_the_position_is_found_again_by_the_next_claim(sides: BulkSides):
    piece, _ = load(sides, order(1), position={"file": 3, "line": 17})

    claimed = sides.load.piece(sides.runs.claim(piece.row.run_id, 0))

    assert claimed.position == {"file": 3, "line": 17}
    assert claimed.row.state is PieceState.COPYING
    assert not claimed.read_to_the_end


def test_rows_that_are_there_stay_and_what_differs_is_given_back(sides: BulkSides):
    sides.mirror(order(1), order(1))
    sides.mirror(order(2), order(2, name={"S": "newer"}))

    piece, _ = load(sides, *(order(n) for n in range(5)))

    assert [key["number"]["N"] for key in piece.unsettled] == ["2"]
    assert (piece.row.inserted, piece.row.settled) == (3, 1)
    rows = sides.rows_on_postgres().values()
    assert {"S": "newer"} in [item["name"] for item in rows]


@pytest.mark.parametrize("customer", ["a", "a\x00\x01\x00b", "\x01", "é\\", "\U00010000"])
def test_a_key_with_a_tombstone_does_not_come_back(sides: BulkSides, customer):
    gone, stays = order(1, customer={"S": customer}), order(2, customer={"S": customer})
    sides.dual_write(gone, gone)
    sides.dual_write(gone, None)
    assert not sides.rows_on_postgres()

    piece, _ = load(sides, gone, stays)

    assert [item["number"]["N"] for item in sides.rows_on_postgres().values()] == ["2"]
    assert [key["number"]["N"] for key in piece.unsettled] == ["1"]


_KEYS = {
    "S": st.sampled_from(["a", "\x00", "\x01", "\x01\x02", "\x00\x01\x01\x00é", "\\000", "a\\b"]) | st.text(
        st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6
    ),
    "N": st.sampled_from(["0", "-1.5", "1E125", "1E-130", "100", "0.10", "1234567890" * 3 + "12345678"]),
    "B": st.binary(min_size=1, max_size=6),
}  # fmt: skip


@pytest.mark.parametrize("types", [("S", "N"), ("B", "S"), ("N", "B")], ids="-".join)
def test_sql_knows_the_bytes_of_every_key(postgres_url, types):
    mapping = unmapped_table(
        "t", TableShape("t", KeySchema(*(KeyAttribute(f"k{each}", each) for each in types)))
    )
    statements, parameters = LoadStatements(mapping, MIRROR), {"table": "t", "epoch": EPOCH}
    engine = sa.create_engine(postgres_url)
    schema.upgrade(engine)
    mapping.table.create(engine)
    PostgresControl(engine).raise_fence("t", epoch=EPOCH, role=PostgresRole.MIRROR)
    with engine.connect() as connection:
        driver = connection.connection.driver_connection

        @through_postgres
        @given(data=st.data())
        def known(data):
            item = normalized_item({f"k{each}": {each: data.draw(_KEYS[each])} for each in types})
            with driver.cursor() as cursor:
                cursor.execute(statements.begin, prepare=False)
                with cursor.copy(statements.staged.text) as copy:
                    copy.set_types(mapping.pg_types)
                    copy.write_row(mapping.encode(item))
                cursor.execute(
                    "INSERT INTO dualstore.tombstones (table_name, key, revision) VALUES ('t', %s, 1),"
                    " ('t', '\\x00', 1)",
                    [key_bytes(mapping.shape.keys, item)],
                )
                buried = cursor.execute(statements.insert, parameters).rowcount
                cursor.execute("DELETE FROM dualstore.tombstones WHERE key <> '\\x00'")
                free = cursor.execute(statements.insert, parameters).rowcount
            driver.rollback()
            assert (buried, free) == (0, 1)

        known()
    engine.dispose()


def test_what_is_no_item_is_rejected_with_a_reason_and_the_rest_is_loaded(sides: BulkSides):
    bad = [b"not JSON\n", b'{"Item":{"customer":{"S":"a"}}}\n', line_of(order(3, x={"N": "secret"}))]

    piece, rejected = load(sides, order(1), bad[0], order(2), *bad[1:])

    assert (piece.row.items, piece.row.inserted, piece.row.rejected) == (5, 2, 3)
    assert [each.reason for each in rejected] == [Reason.NOT_JSON, Reason.NO_KEY, Reason.INVALID]
    assert [each.line + b"\n" for each in rejected] == bad
    assert "secret" not in repr(rejected)


def test_rows_that_the_table_refuses_are_rejected_alone(sides: BulkSides):
    some = [order(n) for n in range(20)]
    some[7] = order(7, name={"S": "forbidden"})
    some[11] = order(11, name={"S": "forbidden"}, x={"N": "9" * 38})  # declined, so encoded

    piece, rejected = load(sides, *some)

    assert (piece.row.items, piece.row.inserted, piece.row.rejected) == (20, 18, 2)
    assert {each.key["number"]["N"] for each in rejected} == {"7", "11"}
    assert all(each.reason is Reason.REFUSED and "check" in each.detail for each in rejected)
    assert "forbidden" not in repr(rejected)
    assert len(sides.rows_on_postgres()) == 18


def test_what_differs_is_given_back_once_though_rows_are_refused(sides: BulkSides):
    for n in (1, 4):
        sides.mirror(order(n), order(n, name={"S": "newer"}))

    piece, rejected = load(sides, *(order(n) for n in range(6)), order(9, name={"S": "forbidden"}))

    assert sorted(key["number"]["N"] for key in piece.unsettled) == ["1", "4"]
    assert (piece.row.inserted, piece.row.settled, len(rejected)) == (4, 2, 1)


def test_what_is_done_with_the_rejected_is_committed_with_the_rows(sides: BulkSides):
    def fail(cursor, _):
        cursor.execute("CREATE TABLE shop.quarantine (n int)")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        sides.load.load_blocks(
            piece_of(sides), blocks_of(sides, line_of(order(1)), b"{}\n"), position=None, reject=fail
        )

    assert not sides.rows_on_postgres()
    with sides.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT to_regclass('shop.quarantine')").scalar() is None


def test_a_piece_that_was_taken_over_loads_nothing_more(sides: BulkSides):
    piece = piece_of(sides)
    sides.runs.claim(piece.row.run_id, 0)

    with pytest.raises(TakenOver):
        load(sides, order(1), piece=piece)

    assert not sides.rows_on_postgres()


def test_nothing_is_loaded_once_postgresql_is_no_mirror(sides: BulkSides):
    piece = piece_of(sides)
    PostgresControl(sides.engine).raise_fence(TABLE, epoch=EPOCH + 1, role=PostgresRole.MIRROR)

    with pytest.raises(MirrorFenced):
        load(sides, order(1), piece=piece)

    assert not sides.rows_on_postgres()


def test_blocks_may_be_made_while_they_are_asked_for(sides: BulkSides):
    asked = []
    blocks = blocks_of(sides, *(line_of(order(n)) for n in range(12)))

    def one_by_one():
        for block in blocks:
            asked.append(block)
            yield block

    piece = sides.load.load_blocks(piece_of(sides), one_by_one(), position=None, reject=pytest.fail)

    assert asked == blocks
    assert piece.row.inserted == 12


def test_an_empty_table_that_nobody_writes_is_copied_straight(sides: BulkSides):
    not_live(sides)
    sides.load.check_straight()
    sides.put(*(order(n) for n in range(30)))

    piece, rejected = load(sides, *(order(n) for n in range(30)), straight=True)

    sides.assert_equal()
    assert (piece.row.inserted, rejected, piece.read_to_the_end) == (30, [], True)


def test_rows_that_a_straight_copy_meets_are_merged(sides: BulkSides):
    not_live(sides)
    first, _ = load(sides, order(1), order(2), straight=True, position={"n": 1})

    piece, rejected = load(
        sides, order(2), order(3, name={"S": "forbidden"}), order(4), straight=True, piece=first
    )

    assert {item["number"]["N"] for item in sides.rows_on_postgres().values()} == {"1", "2", "4"}
    assert [each.key["number"]["N"] for each in rejected] == ["3"]
    assert (piece.row.items, piece.row.inserted, piece.row.rejected) == (5, 3, 1)


def test_a_table_that_is_mirrored_or_holds_rows_is_not_copied_into_straight(sides: BulkSides):
    with pytest.raises(ConfigurationError, match="mirrored already"):
        sides.load.check_straight()
    with pytest.raises(ConfigurationError, match="mirrored by now"):
        load(sides, order(1), straight=True)
    assert not sides.rows_on_postgres()

    sides.mirror(order(1), order(1))
    not_live(sides)
    with pytest.raises(ConfigurationError, match="holds rows"):
        sides.load.check_straight()


def test_nobody_begins_to_mirror_a_table_beside_a_straight_copy(sides: BulkSides):
    not_live(sides)
    began = threading.Event()
    fence = PostgresControl(sides.engine)
    mirroring = threading.Thread(
        target=lambda: (began.set(), fence.raise_fence(TABLE, epoch=EPOCH + 1, role=PostgresRole.MIRROR))
    )
    alive_while_copied = []

    def blocks():
        mirroring.start()
        assert began.wait(5)
        mirroring.join(0.3)
        alive_while_copied.append(mirroring.is_alive())
        yield from blocks_of(sides, line_of(order(1)))

    piece = sides.load.load_straight(piece_of(sides), blocks(), position=None, reject=pytest.fail)
    mirroring.join(20)

    assert alive_while_copied == [True]
    assert piece.row.inserted == 1
    with pytest.raises(ConfigurationError, match="mirrored already"):
        sides.load.check_straight()
