"""`dualstore export` on DynamoDB and S3 as moto has them; what moto lacks, as botocore's stubs have it."""

import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import boto3
import pytest
from botocore.stub import Stubber
from click.testing import CliRunner
from moto import mock_aws

from dualstore.cli.main import main
from dualstore.errors import ConfigurationError, Unavailable
from dualstore.stores.dynamo_exports import (
    ExportRequest,
    bucket_and_prefix,
    describe_export,
    start_export,
    wait_for_export,
    windows_between,
)

T = datetime(2026, 1, 14, 10, 20, tzinfo=UTC)
ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/orders-prod"
EXPORT = f"{ARN}/export/01768385930622-efd1a093"


@pytest.fixture(scope="module")
def dynamodb():
    with mock_aws():
        client = boto3.client("dynamodb", region_name="us-east-1")
        client.create_table(
            TableName="orders-prod",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )
        client.put_item(TableName="orders-prod", Item={"id": {"S": "a"}})
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="exports")
        yield client


@pytest.fixture
def run(dynamodb, tmp_path):
    config = tmp_path / "dualstore.toml"
    config.write_text(
        '[dynamodb]\nregion = "us-east-1"\n'
        '[postgres]\nurl = "postgresql://nobody@127.0.0.1:1/none"\n'  # it is not asked
        '[tables.orders]\nphysical_name = "orders-prod"\n'
    )

    def command(*arguments):
        result = CliRunner(catch_exceptions=False).invoke(
            main, ["export", "orders", *arguments, "--config", str(config)]
        )
        return result.exit_code, result.output

    return command


def recovery(dynamodb, *, enabled):
    dynamodb.update_continuous_backups(
        TableName="orders-prod", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": enabled}
    )


def test_an_export_is_started_waited_for_and_listed(run, dynamodb):
    recovery(dynamodb, enabled=True)
    code, said = run("--to", "s3://exports/nightly", "--wait")
    assert (code, "1 items" in said) == (0, True), said
    code, said = run("--list")
    assert code == 0
    assert "full export, completed" in said


def test_without_point_in_time_recovery_it_says_how_to_switch_it_on(run, dynamodb):
    recovery(dynamodb, enabled=False)
    for at in ([], ["--at", "latest"]):
        code, said = run("--to", "s3://exports/p", *at)
        assert code == 2, said
        assert "aws dynamodb update-continuous-backups --table-name orders-prod" in said


def test_an_export_that_fails_says_why(run, dynamodb):
    recovery(dynamodb, enabled=True)
    code, said = run("--to", "s3://missing/p", "--wait")
    assert (code, "S3NoSuchBucket" in said) == (2, True), said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--to s3://bucket/prefix"),
        (["--to", "bucket"], "is not a place on S3"),
        (["--to", "s3://exports", "--at", "yesterday"], "is no time such as"),
        (["--to", "s3://exports", "--at", "2026-01-14T10:20:00"], "has no time zone"),
        (["--to", "s3://exports", "--since", "2026-01-14T10:20:00Z"], "need --incremental"),
        (["--to", "s3://exports", "--incremental"], "needs --since"),
        (
            ["--to", "s3://exports", "--incremental", "--since", "latest"],
            "stands with --at and --until alone",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(run, arguments, message):
    code, said = run(*arguments)
    assert (code, message in " ".join(said.split())) == (2, True), said


def test_a_table_that_is_not_configured_is_refused(run, dynamodb, tmp_path):
    result = CliRunner().invoke(
        main, ["export", "others", "--config", str(tmp_path / "dualstore.toml"), "--list"]
    )
    assert result.exit_code == 2
    assert "no table 'others'" in result.output


# Requests


@pytest.fixture(scope="module")
def client():
    account = {"aws_access_key_id": "dualstore", "aws_secret_access_key": "dualstore"}
    return boto3.client("dynamodb", region_name="us-east-1", **account)


@pytest.fixture
def stub(client):
    with Stubber(client) as stubber:
        yield stubber
        stubber.assert_no_pending_responses()


def described(**members):
    return {
        "ExportDescription": {"ExportArn": EXPORT, "ExportStatus": "IN_PROGRESS", "S3Bucket": "b", **members}
    }


def test_a_full_export_is_asked_for_with_its_key_its_time_and_a_token(client, stub):
    request = ExportRequest(ARN, "b", "p", at=T, kms_key="k", bucket_owner="210987654321")
    asked = request.request()
    assert asked.pop("ClientToken") == request.request()["ClientToken"]
    assert asked == {
        "TableArn": ARN, "S3Bucket": "b", "S3Prefix": "p", "S3BucketOwner": "210987654321", "ExportTime": T,
        "S3SseAlgorithm": "KMS", "S3SseKmsKeyId": "k", "ExportFormat": "DYNAMODB_JSON",
        "ExportType": "FULL_EXPORT",
    }  # fmt: skip
    stub.add_response("export_table_to_point_in_time", described(ExportTime=T), request.request())
    assert start_export(client, request).time == T


def test_the_same_request_has_the_same_token_and_another_one_another():
    request = ExportRequest(ARN, "b", window=(T, T + timedelta(hours=1)))
    others = [
        ExportRequest(ARN, "b", window=(T, T + timedelta(hours=2))),
        ExportRequest(ARN, "c", window=(T, T + timedelta(hours=1))),
        ExportRequest(ARN, "b", at=T),
    ]
    tokens = [each.request()["ClientToken"] for each in (request, request, *others)]
    assert len(set(tokens)) == 4
    assert all(len(token) == 36 for token in tokens)
    assert ExportRequest(ARN, "b", token="mine").request()["ClientToken"] == "mine"
    assert "ClientToken" not in ExportRequest(ARN, "b").request(), "each is of another moment"


def test_an_incremental_export_is_asked_for_with_its_window(client, stub):
    end = T + timedelta(hours=1)
    spec = {"ExportFromTime": T, "ExportToTime": end, "ExportViewType": "NEW_IMAGE"}
    request = ExportRequest(ARN, "b", window=(T, end))
    assert request.request()["IncrementalExportSpecification"] == spec
    stub.add_response(
        "export_table_to_point_in_time", described(IncrementalExportSpecification=spec), request.request()
    )
    state = start_export(client, request)
    assert (state.type, state.window, state.ended) == ("INCREMENTAL_EXPORT", (T, end), False)


@pytest.mark.parametrize("hours", [0.25, 1, 23.9, 24, 24.1, 48, 71.9997, 72.2, 840])
def test_windows_have_no_gap_and_a_length_that_dynamodb_takes(hours):
    end = T + timedelta(seconds=int(hours * 3600))
    windows = windows_between(T, end)
    assert (windows[0][0], windows[-1][1]) == (T, end)
    assert all(before[1] == after[0] for before, after in pairwise(windows))
    lengths = [end - begin for begin, end in windows]
    assert timedelta(minutes=15) <= min(lengths) <= max(lengths) <= timedelta(hours=24)
    assert all(not each.microsecond for window in windows for each in window)
    assert len(windows) == -(-(end - T) // timedelta(hours=24))


@pytest.mark.parametrize(("begin", "end"), [(T, T + timedelta(minutes=14)), (T.replace(microsecond=1), T)])
def test_windows_that_dynamodb_does_not_take_are_refused(begin, end):
    with pytest.raises(ConfigurationError, match="an incremental export"):
        windows_between(begin, end)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://bucket/a/b//", ("bucket", "a/b")),
    ],
)
def test_a_place_on_s3_has_a_bucket_and_a_prefix(url, parts):
    assert bucket_and_prefix(url) == parts


def test_a_completed_export_says_where_it_is_and_what_it_cost(client, stub):
    members = {"ExportStatus": "COMPLETED", "ItemCount": 3, "BilledSizeBytes": 10, "StartTime": T}
    manifest = "p/AWSDynamoDB/01768385930622-efd1a093/manifest-summary.json"
    stub.add_response("describe_export", described(**members, ExportManifest=manifest), {"ExportArn": EXPORT})
    state = describe_export(client, EXPORT)
    assert state.url == "s3://b/p/AWSDynamoDB/01768385930622-efd1a093/"
    assert (state.items, state.billed_bytes, state.begun_at, state.ended) == (3, 10, T, True)


@pytest.mark.parametrize(
    ("code", "error", "message"),
    [
        ("ExportConflictException", ConfigurationError, "give another --token"),
        ("InvalidExportTimeException", ConfigurationError, "15 minutes to 24 hours"),
        ("AccessDeniedException", ConfigurationError, "s3:PutObject"),
        ("ValidationException", ConfigurationError, "said by DynamoDB"),
        ("ThrottlingException", Unavailable, "try again"),
    ],
)
def test_a_refusal_says_what_to_do(client, stub, code, error, message):
    stub.add_client_error("export_table_to_point_in_time", code, "said by DynamoDB")
    with pytest.raises(error, match=message):
        start_export(client, ExportRequest(ARN, "b", token="t"))


class Clock:
    def __init__(self):
        self.now, self.waits = 0.0, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.waits.append(seconds)
        self.now += seconds


def test_waiting_looks_more_rarely_and_ends_with_the_export(client, stub):
    clock, seen = Clock(), []
    for _ in range(8):
        stub.add_response("describe_export", described())
    stub.add_response("describe_export", described(ExportStatus="COMPLETED", ItemCount=5))
    state = wait_for_export(
        client, EXPORT, patience=timedelta(hours=1), clock=clock, sleep=clock.sleep, seen=seen.append
    )
    assert (state.items, len(seen), clock.waits[0], clock.waits[-1]) == (5, 9, 5, 30)


def test_waiting_has_an_end(client, stub):
    clock = Clock()
    for _ in range(3):
        stub.add_response("describe_export", described())
    with pytest.raises(Unavailable, match="still being written"):
        wait_for_export(client, EXPORT, patience=timedelta(seconds=10), clock=clock, sleep=clock.sleep)


def test_a_failed_export_ends_the_waiting(client, stub):
    failed = described(ExportStatus="FAILED", FailureCode="S3AccessDenied", FailureMessage="no")
    stub.add_response("describe_export", failed)
    with pytest.raises(ConfigurationError, match="failed: S3AccessDenied: no"):
        wait_for_export(client, EXPORT, patience=timedelta(0), clock=time.monotonic, sleep=time.sleep)
