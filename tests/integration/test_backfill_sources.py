"""A backfill from exports and lines ends equal, with what was written and deleted in between."""

from datetime import UTC, datetime, timedelta

import pytest

from bulk_sides import BulkSides, bulk_sides, mapping_of, order
from dualstore.backfill.sources import SourceContext, source_from
from dualstore.errors import UnusableSource
from dualstore.stores.memory import MemoryStore
from dualstore.stores.source_clients import SourceClients
from exports import full_export, incremental_export, line_of

TABLE = "orders-prod"
T = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=5)
"""When the exports were taken: tombstones of the deletions since are still there."""
MIRRORED_SINCE = T + timedelta(hours=1, minutes=30)


@pytest.fixture
def sides(bulk_url):
    with bulk_sides(bulk_url, MemoryStore({TABLE: mapping_of(TABLE).shape}), TABLE) as both:
        yield both


@pytest.fixture
def source(sides):
    context = SourceContext(sides.mapping.shape, SourceClients())
    return lambda *places, **options: source_from(places, context, **options)


def written_behind(sides, begin, end):
    """Changes, creates and deletes items without mirroring them, and exports which; the folder's content."""
    changed = [(order(n), order(n, name={"S": "changed"})) for n in range(begin, begin + 5)]
    deleted = [order(n) for n in range(begin + 5, begin + 10)]
    created = [order(n) for n in range(1000 + begin, 1005 + begin)]
    sides.put(*(after for _, after in changed), *created)
    for item in deleted:
        sides.delete(sides.key(item))
    images = [
        *((sides.key(before), before, after) for before, after in changed),
        *((sides.key(item), item, None) for item in deleted),
        *((sides.key(item), None, item) for item in created),
    ]
    return incremental_export(
        TABLE, [images[0::2], images[1::2]], begin=begin_of(begin), end=end, number=begin + 2
    )


def begin_of(begin):
    return T + timedelta(hours=begin // 10)


def test_an_export_from_before_the_dual_writes_ends_equal_with_its_catch_ups(
    sides: BulkSides, source, tmp_path
):
    sides.put(*(order(n) for n in range(60)))
    items = [order(n) for n in range(60)]
    exports = [full_export(TABLE, [items[:30], items[30:], []], at=T)]
    exports += [written_behind(sides, begin, begin_of(begin + 10)) for begin in (0, 10)]
    folders = [each.write(tmp_path) for each in exports]

    result = sides.backfill(source=source(*folders), dual_writes_since=MIRRORED_SINCE).run()

    sides.assert_equal()
    assert result.succeeded
    assert result.totals.items >= 60


def test_an_export_alone_is_refused_since_it_would_bring_deleted_items_back(
    sides: BulkSides, source, tmp_path
):
    sides.put(*(order(n) for n in range(20)))
    export = source(full_export(TABLE, [[order(n) for n in range(20)]], at=T).write(tmp_path))
    sides.delete(sides.key(order(3)))

    with pytest.raises(UnusableSource, match="take an incremental export"):
        sides.backfill(source=export, dual_writes_since=MIRRORED_SINCE).run()
    assert not sides.rows_on_postgres()

    sides.backfill(source=export, dual_writes_since=T - timedelta(hours=1)).run()  # which was not so
    assert sides.rows_on_postgres().keys() - sides.items_on_dynamodb().keys()


def test_keys_to_catch_up_with_are_claimed_once_everything_else_is_copied_or_given_up(sides: BulkSides):
    runs = sides.runs
    planned = [{"catch_up": True}, {"file": "a"}, {"file": "b", "catch_up": False}]
    run = runs.start("backfill", TABLE, {}, planned=planned)

    def claimed(worker):
        return runs.claim_next(run.id, worker=worker, lease=timedelta(minutes=1))

    one, two = claimed("one"), claimed("two")
    assert (one.number, two.number) == (1, 2)
    assert claimed("three") is None
    sides.load.load_blocks(sides.load.piece(one), (), position=None, reject=pytest.fail)
    assert claimed("one") is None
    runs.fail(two, "damaged", attempts=1, backoff=timedelta(0))
    assert claimed("one").number == 0


def test_lines_are_copied_and_bad_ones_put_aside_with_their_place(sides: BulkSides, source, tmp_path):
    sides.put(*(order(n) for n in range(20)))
    path = tmp_path / "orders.jsonl"
    lines = [line_of(order(n)) if n % 2 else line_of(order(n))[8:-1] for n in range(20)]
    path.write_bytes(b"\n".join([*lines[:7], b"secret", *lines[7:]]))

    lines_of_then = source(str(path), taken_at=MIRRORED_SINCE + timedelta(hours=1))
    result = sides.backfill(source=lines_of_then, dual_writes_since=MIRRORED_SINCE).run()

    sides.assert_equal()
    assert not result.succeeded
    (aside,) = (each for page in sides.quarantine.entries() for each in page)
    assert f"({path}, line 8)" in aside.detail
    assert "secret" not in aside.detail
