"""Exports and files are read whole from disks and S3, in spite of faults; whatever is wrong is refused."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from moto import mock_aws

from dualstore.backfill.sources import (
    Limits,
    SourceContext,
    TableIdentity,
    source_from,
    source_of,
)
from dualstore.errors import ConfigurationError, UnusableSource
from dualstore.mapping.transcoding import PureTranscoder, Reason, read_lines
from dualstore.stores.source_clients import SourceClients
from exports import full_export, incremental_export, line_of, md5_of
from mapping_cases import ORDERS

T = datetime(2026, 1, 14, 10, 20, tzinfo=UTC)
TABLE = ORDERS.shape.name
SMALL = Limits(batch_bytes=800, block_bytes=200, batch_keys=7)
TRANSCODER = PureTranscoder(ORDERS)


def order(number):
    return {"c": {"S": f"é{number % 7}"}, "number": {"N": str(number)}, "photo": {"B": bytes([number % 256])}}


def key(number):
    return {name: order(number)[name] for name in ("c", "number")}


ORDERS_OF_FILES = [[order(number) for number in range(begin, begin + 90)] for begin in (0, 100, 200)]
NUMBERS = sorted(int(item["number"]["N"]) for items in ORDERS_OF_FILES for item in items)


def exported(**options):
    return full_export(TABLE, [*ORDERS_OF_FILES, []], at=T, **options)


def increment(*images, begin=T, hours=2, **options):
    contents = [images[0::2], images[1::2], []]
    return incremental_export(TABLE, contents, begin=begin, end=begin + timedelta(hours=hours), **options)


@pytest.fixture(scope="module")
def aws():
    """S3 as moto has it, and what reads there; making a client takes longer than any of the tests."""
    with mock_aws(), SourceClients(region="us-east-1") as clients:
        clients.s3().create_bucket(Bucket="exports")
        yield clients


@pytest.fixture
def context(aws):
    return SourceContext(ORDERS.shape, aws)


@pytest.fixture
def s3(aws):
    client = aws.s3()
    yield client
    for each in client.list_objects_v2(Bucket="exports").get("Contents", ()):
        client.delete_object(Bucket="exports", Key=each["Key"])


@pytest.fixture(params=["disk", "s3"])
def put(request, tmp_path):
    """Puts an export onto a disk or to S3; its URL."""
    if request.param == "disk":
        return lambda export: export.write(tmp_path / "bucket")
    client = request.getfixturevalue("s3")
    return lambda export: export.upload(client, "exports")


def numbers_of(batches):
    lines = [line for batch in batches for block in batch.blocks for line in block.splitlines()]
    items, rejected = read_lines(ORDERS.shape, lines)
    assert not rejected
    return [int(item["number"]["N"]) for item in items]


def read_raw(source, pieces, limits=SMALL):
    return [batch for piece in pieces for batch in source.read_raw(piece, None, limits)]


# Full exports


@pytest.mark.parametrize("prefix", ["", "nightly/2026/"])
def test_an_export_is_read_whole(put, context, prefix):
    source = source_from([put(exported(prefix=prefix))], context)
    pieces = source.pieces()
    assert [piece["items"] for piece in pieces] == [90, 90, 90, 0]
    assert all(piece["bytes"] > 0 for piece in pieces)
    assert (source.kind, source.expected_items) == ("export", 270)
    assert sorted(numbers_of(read_raw(source, pieces))) == NUMBERS


def test_reading_can_stop_after_any_batch_and_go_on_in_another_process(put, context):
    source = source_from([put(exported())], context)
    pieces = json.loads(json.dumps(source.pieces()))
    parameters = json.loads(json.dumps(source.parameters()))
    seen: Counter[int] = Counter()
    stops = 0
    for piece in pieces:
        position = None
        while True:
            reading = source_of(parameters, context).read_raw(piece, position, SMALL)
            batch = next(reading)
            reading.close()
            seen.update(numbers_of([batch]))
            if batch.position_after is None:
                break
            position = json.loads(json.dumps(batch.position_after))
            stops += 1
    assert stops > 10
    assert seen == dict.fromkeys(NUMBERS, 1)


def test_batches_come_transcoded_and_with_the_place_of_each_line(put, context):
    source = source_from([put(full_export(TABLE, [[order(1), b"secret", order(2)]], at=T))], context)
    (batch,) = source.read(source.pieces()[0], None, TRANSCODER, Limits())
    (block,) = batch.blocks
    assert block.rows == 2
    _, (rejected,) = read_lines(ORDERS.shape, block.declined_lines())
    assert rejected.reason is Reason.NOT_JSON
    assert batch.place_of(rejected).endswith(".json.gz, line 2")
    assert batch.size_bytes == len(line_of(order(1)) + line_of(order(2)) + b"secret\n\n\n")


def test_a_copy_of_an_export_may_lie_anywhere(s3, context):
    export = exported(prefix="here/")
    for name, content in export.objects().items():
        s3.put_object(Bucket="exports", Key=f"moved/{name}", Body=content)
    source = source_from([f"s3://exports/moved/{export.root}"], context)
    assert sorted(numbers_of(read_raw(source, source.pieces()))) == NUMBERS


def spoilt_summary(**changes):
    def spoil(export):
        export.summary |= changes

    return spoil


def without_checksums(export):
    export.checksums = False


def without_a_file(export):
    del export.data[export.files[1]["dataFileS3Key"]]
    export.files[1]["md5Checksum"] = md5_of(b"")


def of_fewer_items(export):
    export.files[0]["itemCount"] -= 1


def outside(export):
    export.files[0]["dataFileS3Key"] = "../../../etc/passwd"


OTHER = "arn:aws:dynamodb:us-east-1:123456789012:table/customers"
BAD_EXPORTS = {
    "in Ion": (spoilt_summary(outputFormat="ION"), "is in ION. Take it again in DynamoDB JSON"),
    "of another table": (
        spoilt_summary(tableArn=OTHER),
        "is an export of the table customers, not of orders",
    ),
    "of a version to come": (spoilt_summary(version="2031-01-01"), "version 2031-01-01"),
    "of a kind to come": (spoilt_summary(exportType="PARTIAL_EXPORT"), "type PARTIAL_EXPORT"),
    "filtered": (spoilt_summary(filterSpecification={"FilterExpression": "a = :b"}), "by a filter"),
    "of no time": (spoilt_summary(exportTime=None), "of what time the export is"),
    "without a count": (spoilt_summary(itemCount=None), "is not a manifest of DynamoDB"),
    "of other counts": (of_fewer_items, "269 items together, and the export 270"),
    "without check sums": (without_checksums, r"manifest-summary.md5 is missing"),
    "with files elsewhere": (outside, "outside of the export"),
}


@pytest.mark.parametrize(("spoil", "message"), BAD_EXPORTS.values(), ids=BAD_EXPORTS)
def test_an_export_that_is_not_one_of_this_table_is_refused_before_anything_is_read(
    tmp_path, context, spoil, message
):
    export = exported()
    spoil(export)
    with pytest.raises(UnusableSource, match=message):
        source_from([export.write(tmp_path)], context).pieces()


def test_a_missing_file_is_refused_before_anything_is_read(tmp_path, context):
    export = exported()
    del export.data[export.files[1]["dataFileS3Key"]]
    with pytest.raises(UnusableSource, match=r"1 of 4 data files are missing \(data/.*json\.gz\)"):
        source_from([export.write(tmp_path)], context).pieces()


@pytest.mark.parametrize("manifest", ["manifest-summary", "manifest-files"])
def test_a_damaged_manifest_is_refused(tmp_path, context, manifest):
    folder = exported().write(tmp_path)
    path = tmp_path / folder / f"{manifest}.json"
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    with pytest.raises(UnusableSource, match=f"{manifest}.json is damaged"):
        source_from([folder], context).pieces()


def test_check_sums_may_have_the_name_of_the_documentation(tmp_path, context):
    folder = exported().write(tmp_path)
    for manifest in ("manifest-summary", "manifest-files"):
        (tmp_path / folder / f"{manifest}.md5").rename(tmp_path / folder / f"{manifest}.checksum")
    assert len(source_from([folder], context).pieces()) == 4


@pytest.mark.parametrize(
    ("identity", "message"),
    [
        (
            TableIdentity(f"arn:aws:dynamodb:us-east-1:999999999999:table/{TABLE}"),
            "and the table here is arn",
        ),
        (TableIdentity(f"arn:aws:dynamodb:us-east-1:123456789012:table/{TABLE}", "f00"), "of a former table"),
    ],
)
def test_a_table_of_the_same_name_is_not_the_same_table(tmp_path, context, identity, message):
    folder = exported().write(tmp_path)
    with pytest.raises(UnusableSource, match=message):
        source_from([folder], SourceContext(ORDERS.shape, context.clients, identity)).pieces()


def test_a_folder_that_is_no_export_is_refused(put, tmp_path, context):
    put(exported())
    with pytest.raises(UnusableSource, match=r"manifest-summary\.json: it is missing"):
        source_from([str(tmp_path)], context).pieces()


def test_a_file_that_is_not_what_dynamodb_wrote_never_ends(tmp_path, context):
    export = exported()
    name = export.files[0]["dataFileS3Key"]
    source = source_from([export.write(tmp_path)], context)
    piece, *_ = source.pieces()
    whole = export.data[name]
    others = {
        "cut off": whole[:-20],
        "another export's": gzip.compress(b"".join(line_of(order(n)) + b"\n" for n in range(90)), mtime=5),
        "too short": gzip.compress(line_of(order(1)) + b"\n"),
    }
    for content in others.values():
        (tmp_path / name).write_bytes(content)
        batches = []
        with pytest.raises(UnusableSource):
            batches.extend(source.read(piece, None, TRANSCODER, SMALL))
        assert None not in [batch.position_after for batch in batches]


# S3


def test_another_etag_is_found_before_anything_is_read(s3, context):
    export = exported()
    url = export.upload(s3, "exports")
    s3.put_object(Bucket="exports", Key=export.files[2]["dataFileS3Key"], Body=b"other")
    with pytest.raises(UnusableSource, match="another ETag"):
        source_from([url], context).pieces()


def test_an_object_that_is_replaced_after_planning_is_refused(s3, context):
    export = exported()
    source = source_from([export.upload(s3, "exports")], context)
    piece, *_ = source.pieces()
    s3.put_object(Bucket="exports", Key=export.files[0]["dataFileS3Key"], Body=b"other")
    with pytest.raises(UnusableSource, match="it has changed since"):
        list(source.read_raw(piece, None, SMALL))
    s3.delete_object(Bucket="exports", Key=export.files[0]["dataFileS3Key"])
    with pytest.raises(UnusableSource, match=r"data/.*: it is missing"):
        list(source.read_raw(piece, None, SMALL))


def test_an_object_that_is_replaced_between_two_attempts_is_not_read_on(s3, context):
    export = exported()
    source = source_from([export.upload(s3, "exports")], context)
    piece, *_ = source.pieces()
    first = next(iter(source.read_raw(piece, None, SMALL)))
    key = export.files[0]["dataFileS3Key"]
    s3.put_object(Bucket="exports", Key=key, Body=gzip.compress(b"other lines\n" * 1000))
    with pytest.raises(UnusableSource, match="it has changed since"):
        list(source.read_raw(piece, first.position_after, SMALL))


# Incremental exports


CHANGES = [
    *((key(number), None, order(number)) for number in range(10)),  # created
    *((key(number), order(number), order(number)) for number in range(10, 20)),  # changed
    *((key(number), order(number), None) for number in range(20, 30)),  # deleted
]


@pytest.mark.parametrize("view", ["NEW_AND_OLD_IMAGES", "NEW_IMAGE"])
def test_the_keys_of_an_incremental_export_are_to_be_settled_deleted_ones_too(put, context, view):
    source = source_from([put(increment(*CHANGES, view=view))], context)
    pieces = source.pieces()
    assert (source.kind, source.expected_items) == ("catch-up", 30)
    limits = Limits(batch_keys=7)
    batches = [batch for piece in pieces for batch in source.read(piece, None, TRANSCODER, limits)]
    keys = [each for batch in batches for each in batch.keys]
    assert sorted(keys, key=lambda each: int(each["number"]["N"])) == [key(number) for number in range(30)]
    assert all(len(batch.keys) <= 7 and not list(batch.blocks) for batch in batches)
    assert len(batches) > 6


def test_keys_are_read_exactly_once_wherever_reading_stops(put, context):
    source = source_from([put(increment(*CHANGES))], context)
    seen = []
    for piece in source.pieces():
        assert piece["catch_up"]
        position = None
        while True:
            batch = next(iter(source.read(piece, position, TRANSCODER, SMALL)))
            seen += [int(each["number"]["N"]) for each in batch.keys]
            position = batch.position_after
            if position is None:
                break
    assert sorted(seen) == list(range(30))


def test_a_full_export_and_what_follows_it_are_one_source(put, context):
    urls = [put(increment(*CHANGES[:4], number=5)), put(exported())]
    source = source_from(urls, context)
    pieces = source.pieces()
    assert [bool(piece.get("catch_up")) for piece in pieces] == [False] * 4 + [True] * 3
    assert (source.kind, source.expected_items) == ("export", 274)
    source.covers(T + timedelta(hours=1))
    with pytest.raises(UnusableSource, match="take an incremental export from 2026-01-14T12:20"):
        source.covers(T + timedelta(hours=3))
    again = source_of(json.loads(json.dumps(source.parameters())), context)
    assert (again.kind, again.expected_items, again.pieces()) == ("export", 274, pieces)


def test_increments_with_a_gap_are_refused(put, context):
    late = increment(*CHANGES, begin=T + timedelta(hours=1))
    with pytest.raises(UnusableSource, match="take an incremental export from 2026-01-14T10:20"):
        source_from([put(exported()), put(late)], context).pieces()


def test_a_record_without_a_key_of_the_table_is_put_aside_and_not_shown(tmp_path, context):
    bad = [
        b"secret",
        line_of({"c": {"S": "secret"}}),
        b'{"Keys":{"c":{"S":"secret"}}}',
        b'{"Keys":{"c":{"S":"secret"},"number":{"S":"1"}}}',
        b'{"Keys":{"c":{"S":"secret"},"number":{"N":"1"},"x":{"N":"1"}}}',
    ]
    export = incremental_export(TABLE, [[*bad, CHANGES[0]]], begin=T, end=T + timedelta(hours=1))
    source = source_from([export.write(tmp_path)], context)
    batches = list(source.read(source.pieces()[0], None, TRANSCODER, Limits()))
    rejected = [each for batch in batches for each in batch.rejected]
    assert [each.line for each in rejected] == bad
    assert [each for batch in batches for each in batch.keys] == [key(0)]
    assert [f"line {number}" in each.detail for number, each in enumerate(rejected, 1)] == [True] * 5
    assert "secret" not in repr(rejected)


# Files of lines


@pytest.mark.parametrize("name", ["orders.jsonl", "orders.jsonl.gz"])
def test_files_of_lines_are_read_and_gone_on_with(tmp_path, context, name):
    lines = [line_of(order(n)) if n % 2 else line_of(order(n))[8:-1] for n in range(90)]
    content = b"\n".join(lines)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    source = source_from([str(tmp_path / name)], context)
    (piece,) = source.pieces()
    whole = list(source.read_raw(piece, None, SMALL))
    assert numbers_of(whole) == list(range(90))
    rest = source_of(source.parameters(), context).read_raw(piece, whole[2].position_after, SMALL)
    assert numbers_of([*whole[:3], *rest]) == list(range(90))


def test_a_file_that_has_changed_since_the_run_began_is_refused(tmp_path, context):
    path = tmp_path / "orders.jsonl"
    path.write_bytes(line_of(order(1)) + b"\n")
    source = source_from([str(path)], context)
    (piece,) = source.pieces()
    path.write_bytes(line_of(order(2)) + b"\n" + line_of(order(3)))
    with pytest.raises(UnusableSource, match="changed since it was first looked at"):
        list(source.read_raw(piece, None, SMALL))
    path.unlink()
    with pytest.raises(UnusableSource, match="missing"):
        list(source.read_raw(piece, None, SMALL))
    with pytest.raises(UnusableSource, match="no such file"):
        source.pieces()


def test_files_of_lines_lie_on_s3_as_well(s3, context):
    s3.put_object(Bucket="exports", Key="a/orders.jsonl", Body=line_of(order(1)))
    source = source_from(["s3://exports/a/orders.jsonl"], context)
    (piece,) = source.pieces()
    assert numbers_of(source.read_raw(piece, None, SMALL)) == [1]


def test_lines_tell_their_time_or_are_refused(tmp_path, context):
    path = tmp_path / "orders.jsonl"
    path.write_bytes(b"")
    with pytest.raises(UnusableSource, match="--taken-at"):
        source_from([str(path)], context).covers(T)
    taken = source_from([str(path)], context, taken_at=T)
    source_of(taken.parameters(), context).covers(T - timedelta(hours=1))
    with pytest.raises(UnusableSource, match="read the table again"):
        taken.covers(T)


@pytest.mark.parametrize("places", [[], ["scan", "s3://a/b"], ["-", "x.jsonl"], ["scan", "scan"]])
def test_places_of_different_kinds_are_no_source(context, places):
    with pytest.raises(ConfigurationError, match="one of these"):
        source_from(places, context)


def test_a_source_of_a_later_version_is_left_to_it(context):
    with pytest.raises(ConfigurationError, match="go on with the version that began it"):
        source_of({"kind": "stream"}, context)
