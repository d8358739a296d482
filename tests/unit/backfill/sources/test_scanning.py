"""A table is scanned in segments, each item once, within limits; on a client that is answered by a hook."""

import json
from collections import Counter

import boto3
import botocore.awsrequest
import pytest
from botocore.config import Config

from dualstore.backfill.sources import Limits, ScanSource, ScanTuning
from dualstore.errors import ConfigurationError, UnusableSource
from dualstore.mapping.transcoding import PureTranscoder, read_lines
from dualstore.stores.scan_pages import Throttled
from mapping_cases import ORDERS

TRANSCODER = PureTranscoder(ORDERS)
ITEMS = 60
SMALL = Limits(batch_bytes=200, page_items=2)


class Raw:
    def __init__(self, body):
        self._body = body

    def stream(self, *_, **__):
        yield self._body


class Table:
    """Answers as DynamoDB does: 60 items of a read unit each, spread over the segments."""

    def __init__(self):
        self.refusals, self.scans, self.alarm = [], [], "OK"
        self.described = {"ItemCount": ITEMS, "TableSizeBytes": ITEMS * 4096}

    def __call__(self, request, **_):
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        status, answer = getattr(self, operation)(json.loads(request.body))
        return botocore.awsrequest.AWSResponse(request.url, status, {}, Raw(json.dumps(answer).encode()))

    def DescribeTable(self, _):  # noqa: N802
        return 200, {"Table": {"TableName": "orders-prod", **self.described}}

    def Scan(self, asked):  # noqa: N802
        self.scans.append(asked)
        if self.refusals:
            code = self.refusals.pop(0)
            told = [{"reason": "TableReadProvisionedThroughputExceeded"}]
            # botocore's model of one of these exceptions spells the member in lower case.
            member = "throttlingReasons" if code == "ThrottlingException" else "ThrottlingReasons"
            return 400, {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": "", member: told}
        numbers = range(asked["Segment"], ITEMS, asked["TotalSegments"])
        start = asked.get("ExclusiveStartKey")
        left = [number for number in numbers if start is None or number > int(start["number"]["N"])]
        page = left[: asked.get("Limit", 5)]
        answer = {
            "Items": [{"c": {"S": "é"}, "number": {"N": str(number)}} for number in page],
            "ConsumedCapacity": {"CapacityUnits": float(len(page))},
        }
        if page and page != left:
            answer["LastEvaluatedKey"] = {"c": {"S": "é"}, "number": {"N": str(page[-1])}}
        return 200, answer


class CloudWatch:
    def __init__(self):
        self.state = "OK"

    def describe_alarms(self, **_):
        return {"MetricAlarms": [{"AlarmName": "slow", "StateValue": self.state}]}


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        assert 0 < seconds <= 10
        self.now += seconds


@pytest.fixture(scope="module")
def client():
    account = {"aws_access_key_id": "dualstore", "aws_secret_access_key": "dualstore"}
    once = Config(retries={"total_max_attempts": 1})
    return boto3.client("dynamodb", region_name="us-east-1", config=once, **account)


@pytest.fixture
def table(client):
    table = Table()
    client.meta.events.register("before-send.dynamodb", table, unique_id="table")
    yield table
    client.meta.events.unregister("before-send.dynamodb", unique_id="table")


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def cloudwatch():
    return CloudWatch()


@pytest.fixture
def source(client, table, clock, cloudwatch):
    def make(**tuning):
        return ScanSource(
            shape=ORDERS.shape,
            client=lambda: client,
            cloudwatch=lambda: cloudwatch,
            tuning=ScanTuning(**{"segments": 3, **tuning}),
            clock=clock,
            sleep=clock.sleep,
        )

    return make


def numbers(blocks):
    items, rejected = read_lines(ORDERS.shape, b"".join(blocks).splitlines())
    assert not rejected
    return [int(item["number"]["N"]) for item in items]


def test_segments_hold_each_item_once(source):
    scan = source()
    pieces = scan.pieces()
    assert [(piece["segment"], piece["segments"], piece["items"]) for piece in pieces] == [
        (0, 3, 20),
        (1, 3, 20),
        (2, 3, 20),
    ]
    raw = [block for piece in pieces for batch in scan.read_raw(piece, None, SMALL) for block in batch.blocks]
    assert sorted(numbers(raw)) == list(range(ITEMS))
    assert scan.expected_items == ITEMS


def test_rows_are_those_of_the_raw_lines_and_cost_what_dynamodb_says(source):
    scan = source(segments=1)
    (piece,) = scan.pieces()
    batches = list(scan.read(piece, None, TRANSCODER, SMALL))
    texts = b"".join(block.text for batch in batches for block in batch.blocks)
    raw = list(scan.read_raw(piece, None, SMALL))
    assert texts == b"".join(TRANSCODER.block(block).text for batch in raw for block in batch.blocks)
    assert sum(batch.read_units for batch in batches) == ITEMS
    assert len(batches) > 5


def test_reading_can_stop_after_any_batch_and_go_on(source, table):
    scan, seen, stops = source(), Counter(), 0
    for piece in scan.pieces():
        position = None
        while True:
            reading = scan.read_raw(json.loads(json.dumps(piece)), position, SMALL)
            batch = next(reading)
            reading.close()
            seen.update(numbers(batch.blocks))
            if batch.position_after is None:
                break
            position = json.loads(json.dumps(batch.position_after))
            stops += 1
    assert seen == dict.fromkeys(range(ITEMS), 1)
    assert stops > 5
    assert all(scan["ConsistentRead"] and scan["Limit"] == 2 for scan in table.scans)


def test_the_number_of_segments_follows_the_size_of_the_table(source, table):
    for size, segments in ((0, 8), (2**30 * 100, 400), (2**40 * 9, 4096)):
        table.described["TableSizeBytes"] = size
        assert len(source(segments=None).pieces()) == segments


def test_a_limit_of_read_units_is_kept_by_each_worker_for_its_share(source, clock, table):
    scan = source(segments=1, read_units_per_second=12, workers=4)
    (piece,) = scan.pieces()
    assert numbers(block for batch in scan.read_raw(piece, None, Limits()) for block in batch.blocks)
    assert clock.now == pytest.approx(ITEMS / 3, abs=2)
    assert {asked["Limit"] for asked in table.scans} == {3}


def test_throttling_is_waited_out_and_reading_slows_down(source, clock, table):
    scan = source(segments=1)
    (piece,) = scan.pieces()
    table.refusals = ["ProvisionedThroughputExceededException", "ThrottlingException", "RequestLimitExceeded"]
    raw = list(scan.read_raw(piece, None, Limits()))
    assert sorted(numbers(block for batch in raw for block in batch.blocks)) == list(range(ITEMS))
    assert clock.now > 0
    assert scan.units_per_second is None  # nobody knows yet what the table can bear
    table.refusals = ["ThrottlingException"]
    list(scan.read_raw(piece, None, Limits()))
    assert scan.units_per_second is not None


@pytest.mark.parametrize("code", ["ThrottlingException", "ProvisionedThroughputExceededException"])
def test_throttling_without_end_is_given_up_for_now_and_says_why(source, clock, table, code):
    scan = source(segments=1)
    (piece,) = scan.pieces()
    table.refusals = [code] * 999
    empty = []
    with pytest.raises(Throttled, match="TableReadProvisionedThroughputExceeded") as raised:
        empty.extend(scan.read_raw(piece, None, Limits()))
    assert raised.value.reasons == ("TableReadProvisionedThroughputExceeded",)
    assert 300 < clock.now < 400
    assert all(batch.position_after == {"start": None} and not batch.blocks for batch in empty)
    assert empty, "a lease has to be renewed meanwhile"


def test_nothing_is_read_while_an_alarm_rings_and_that_is_said_every_ten_seconds(
    source, clock, cloudwatch, table
):
    scan = source(segments=1, pause_on_alarms=["slow"])
    (piece,) = scan.pieces()
    reading = scan.read(piece, None, TRANSCODER, SMALL)
    first = next(reading)
    cloudwatch.state = "ALARM"
    clock.now += 30
    read = len(table.scans)
    for _ in range(6):
        began = clock.now
        batch = next(reading)
        assert (list(batch.blocks), batch.position_after) == ([], first.position_after)
        assert clock.now - began <= 10
    assert len(table.scans) == read
    cloudwatch.state = "OK"
    items = [block.rows for batch in (first, *reading) for block in batch.blocks]
    assert sum(items) == ITEMS


def test_alarms_that_do_not_exist_are_found_at_the_start(source):
    with pytest.raises(UnusableSource, match="no alarm named fast"):
        source(pause_on_alarms=["fast"]).pieces()


def test_a_rate_of_nothing_is_refused(source):
    with pytest.raises(ConfigurationError, match="more than 0"):
        source(read_units_per_second=0)
