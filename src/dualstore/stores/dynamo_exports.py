"""Exports of a DynamoDB table to S3: started, looked at, waited for."""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import ConfigurationError, Unavailable
from dualstore.stores.dynamo import Outcome, outcome

FULL, INCREMENTAL = "FULL_EXPORT", "INCREMENTAL_EXPORT"
# AWS, "Requesting a table export in DynamoDB": the period of an incremental export.
SHORTEST_WINDOW, LONGEST_WINDOW = timedelta(minutes=15), timedelta(hours=24)
_BUCKET_URL = re.compile(r"s3://(?P<bucket>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(?P<prefix>.*?)/*)?")
_REMEDIES = {
    "PointInTimeRecoveryUnavailableException": (
        "point-in-time recovery is off. Switch it on and take the export at a time after that: "
        "`aws dynamodb update-continuous-backups --table-name {table} "
        "--point-in-time-recovery-specification PointInTimeRecoveryEnabled=true`"
    ),
    "InvalidExportTimeException": (
        "there is no export of this time: it has to be within the time of point-in-time recovery, "
        "and an incremental export has to span 15 minutes to 24 hours that have passed"
    ),
    "ExportConflictException": "another export was asked for under the same token: give another --token",
    "LimitExceededException": "too many exports are being written at this time: wait until one has ended",
    "TableNotFoundException": "there is no such table in this account and region",
    "ResourceNotFoundException": "there is no such table in this account and region",
    "ExportNotFoundException": "there is no such export in this account and region",
    "AccessDeniedException": (
        "the role may not: it needs dynamodb:ExportTableToPointInTime, dynamodb:DescribeExport and "
        "dynamodb:ListExports, and s3:PutObject and s3:AbortMultipartUpload on the bucket"
    ),
    "UnknownOperationException": "this DynamoDB writes no exports",
}


@dataclass(frozen=True, slots=True)
class TableIdentity:
    """Which table it is, beyond its name.

    Attributes:
        arn: its ARN.
        id: changes when a table is deleted and made again; None where a stand-in has none.
    """

    arn: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """An export to be taken.

    Attributes:
        table_arn: of the table.
        bucket: where it goes.
        prefix: below which it goes, without a slash at its end; may be empty.
        at: whose state a full export is to hold, to the second; None: the moment of the request.
        window: of an incremental export: from when, inclusive, to when, exclusive; None: a full one.
        kms_key: encrypts the files; None: S3's own key does.
        bucket_owner: the account of the bucket, where it is another.
        token: two requests with the same token are one, for eight hours; None: made of the rest.
    """

    table_arn: str
    bucket: str
    prefix: str = ""
    at: datetime | None = None
    window: tuple[datetime, datetime] | None = None
    kms_key: str | None = None
    bucket_owner: str | None = None
    token: str | None = None

    def request(self) -> dict[str, Any]:
        """As ExportTableToPointInTime takes it."""
        request: dict[str, Any] = {
            "TableArn": self.table_arn,
            "S3Bucket": self.bucket,
            "ExportFormat": "DYNAMODB_JSON",
            "ExportType": FULL if self.window is None else INCREMENTAL,
        }
        if self.prefix:
            request["S3Prefix"] = self.prefix
        if self.bucket_owner is not None:
            request["S3BucketOwner"] = self.bucket_owner
        if self.kms_key is not None:
            request |= {"S3SseAlgorithm": "KMS", "S3SseKmsKeyId": self.kms_key}
        if self.at is not None:
            request["ExportTime"] = self.at
        if self.window is not None:
            begin, end = self.window
            request["IncrementalExportSpecification"] = {
                "ExportFromTime": begin,
                "ExportToTime": end,
                "ExportViewType": "NEW_IMAGE",  # keys are all that is needed; this is the smaller view
            }
        token = self.token
        if token is None and (self.at is not None or self.window is not None):
            token = hashlib.sha256(repr(sorted(request.items())).encode()).hexdigest()[:36]
        return request if token is None else request | {"ClientToken": token}


@dataclass(frozen=True, slots=True)
class ExportState:
    """An export as DynamoDB tells of it.

    Attributes:
        arn: of the export.
        status: `IN_PROGRESS`, `COMPLETED` or `FAILED`.
        url: of its folder on S3; None until it is known where that is.
        type: `FULL_EXPORT` or `INCREMENTAL_EXPORT`.
        time: whose state a full export holds.
        window: of an incremental export.
        items: how many there are, once it is completed.
        billed_bytes: what it costs, once it is completed.
        failure: why it failed.
        begun_at: when it was started.
    """

    arn: str
    status: str
    url: str | None = None
    type: str = FULL
    time: datetime | None = None
    window: tuple[datetime, datetime] | None = None
    items: int | None = None
    billed_bytes: int | None = None
    failure: str | None = None
    begun_at: datetime | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.status != "IN_PROGRESS"


def bucket_and_prefix(url: str) -> tuple[str, str]:
    """The parts of `s3://bucket/prefix`.

    Raises:
        ConfigurationError: it is no such URL.
    """
    match = _BUCKET_URL.fullmatch(url)
    if match is None:
        raise ConfigurationError(f"{url!r} is not a place on S3: write s3://bucket or s3://bucket/prefix")
    return match["bucket"], match["prefix"] or ""


def windows_between(begin: datetime, end: datetime) -> Sequence[tuple[datetime, datetime]]:
    """The windows of incremental exports that follow each other without a gap, as few as can be.

    Args:
        begin: inclusive; such as the time of a full export.
        end: exclusive.

    Raises:
        ConfigurationError: they are less than 15 minutes apart, or no whole seconds.
    """
    if begin.microsecond or end.microsecond:
        raise ConfigurationError(
            "an incremental export begins and ends at whole seconds: where the full export before it does "
            "not, take that again with --at"
        )
    if end - begin < SHORTEST_WINDOW:
        raise ConfigurationError(
            f"an incremental export spans 15 minutes at least, and this one {end - begin}: take it later"
        )
    seconds = int((end - begin).total_seconds())
    count = -(-seconds // int(LONGEST_WINDOW.total_seconds()))
    # About equally long, so that the last one is not too short.
    edges = [begin + timedelta(seconds=seconds * number // count) for number in range(count + 1)]
    return list(pairwise(edges))


def table_identity(client: Any, table: str) -> TableIdentity:
    """Which table it is that goes by a name.

    Raises:
        ConfigurationError: there is none, or it may not be described.
        Unavailable: DynamoDB does not answer.
    """
    with _explained(table):
        described = client.describe_table(TableName=table)["Table"]
    return TableIdentity(described["TableArn"], described.get("TableId"))


def start_export(client: Any, request: ExportRequest) -> ExportState:
    """Ask for an export; the same request asks for the same export.

    Raises:
        ConfigurationError: DynamoDB refuses it; says what to do.
        Unavailable: DynamoDB does not answer.
    """
    with _explained(request.table_arn):
        answer = client.export_table_to_point_in_time(**request.request())
    return _state(answer["ExportDescription"])


def describe_export(client: Any, arn: str) -> ExportState:
    """How an export stands; the errors are those of `start_export`."""
    with _explained(arn):
        answer = client.describe_export(ExportArn=arn)
    return _state(answer["ExportDescription"])


def exports_of(client: Any, table_arn: str) -> Iterator[ExportState]:
    """The exports of a table that DynamoDB remembers, for 90 days; the errors are those of `start_export`."""
    request: dict[str, Any] = {"TableArn": table_arn}
    while True:
        with _explained(table_arn):
            answer = client.list_exports(**request)
        for each in answer.get("ExportSummaries", ()):
            yield describe_export(client, each["ExportArn"])
        if not answer.get("NextToken"):
            return
        request["NextToken"] = answer["NextToken"]


def wait_for_export(
    client: Any,
    arn: str,
    *,
    patience: timedelta,
    clock: Callable[[], float],
    sleep: Callable[[float], None],
    seen: Callable[[ExportState], None] = lambda _: None,
) -> ExportState:
    """Wait until an export has ended, looking more and more rarely: an empty one takes minutes.

    Args:
        client: a boto3 DynamoDB client.
        arn: of the export.
        patience: how long to wait.
        clock: monotonic seconds.
        sleep: waits some seconds.
        seen: called with each state.

    Raises:
        ConfigurationError: it failed; says why.
        Unavailable: it is still being written, or DynamoDB does not answer.
    """
    begun, pause = clock(), _FIRST_LOOK_SECONDS
    while not (state := describe_export(client, arn)).ended:
        seen(state)
        if clock() - begun > patience.total_seconds():
            raise Unavailable(f"{arn} is still being written; `--wait` again to go on waiting")
        sleep(pause)
        pause = min(_LAST_LOOK_SECONDS, pause * 1.5)
    seen(state)
    if state.status == "FAILED":
        raise ConfigurationError(f"{arn} failed: {state.failure}")
    return state


_FIRST_LOOK_SECONDS, _LAST_LOOK_SECONDS = 5.0, 30.0


def latest_restorable(client: Any, table: str) -> datetime:
    """The last second whose state can be exported, about five minutes ago.

    Raises:
        ConfigurationError: point-in-time recovery is off.
        Unavailable: DynamoDB does not answer.
    """
    with _explained(table):
        answer = client.describe_continuous_backups(TableName=table)
    recovery = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    latest = recovery.get("LatestRestorableDateTime")
    if recovery.get("PointInTimeRecoveryStatus") != "ENABLED" or not isinstance(latest, datetime):
        remedy = _REMEDIES["PointInTimeRecoveryUnavailableException"].format(table=table)
        raise ConfigurationError(f"{table} cannot be exported: {remedy}")
    return latest.astimezone(UTC).replace(microsecond=0)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        if not isinstance(error, ClientError):
            raise Unavailable(f"{what}: DynamoDB does not answer ({type(error).__name__})") from error
        code, said = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        if code not in _REMEDIES and outcome(error) is not Outcome.REFUSED:
            raise Unavailable(f"{what}: DynamoDB did not carry it out ({code}); try again") from error
        table = what.rpartition("table/")[2].partition("/")[0]
        remedy = _REMEDIES.get(code, "").format(table=table)
        raise ConfigurationError(
            f"{what}: {remedy or said} ({code}{f': {said}' if remedy else ''})"
        ) from error


def _state(described: dict[str, Any]) -> ExportState:
    spec = described.get("IncrementalExportSpecification") or {}
    begin, end = spec.get("ExportFromTime"), spec.get("ExportToTime")
    code, message = described.get("FailureCode"), described.get("FailureMessage")
    return ExportState(
        arn=described["ExportArn"],
        status=described["ExportStatus"],
        url=_url(described),
        # DescribeExport may leave the type out; the specification tells.
        type=described.get("ExportType") or (INCREMENTAL if spec else FULL),
        time=described.get("ExportTime"),
        window=None if begin is None or end is None else (begin, end),
        items=described.get("ItemCount"),
        billed_bytes=described.get("BilledSizeBytes"),
        failure=f"{code}: {message}" if code else None,
        begun_at=described.get("StartTime"),
    )


def _url(described: dict[str, Any]) -> str | None:
    manifest = described.get("ExportManifest")
    if manifest is None:
        return None
    return f"s3://{described['S3Bucket']}/{manifest.rpartition('/')[0]}/"
