"""Exports as DynamoDB writes them (AWS, "DynamoDB table export output format"; real ones looked at)."""

import gzip
import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

Images = tuple[Mapping[str, Any], Mapping[str, Any] | None, Mapping[str, Any] | None]
"""Key, old image, new image."""


def md5_of(content: bytes) -> str:
    return b64encode(hashlib.md5(content).digest()).decode()


def json_value(value: Mapping[str, Any]) -> dict[str, Any]:
    """An attribute value as an export has it: binary as base64 text."""
    ((kind, content),) = value.items()
    match kind:
        case "B":
            return {kind: b64encode(content).decode()}
        case "BS":
            return {kind: [b64encode(each).decode() for each in content]}
        case "L":
            return {kind: [json_value(each) for each in content]}
        case "M":
            return {kind: {name: json_value(each) for name, each in content.items()}}
        case _:
            return {kind: content}


def json_item(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: json_value(value) for name, value in item.items()}


def line_of(item: Mapping[str, Any]) -> bytes:
    """A line of a full export, without its end."""
    return json.dumps({"Item": json_item(item)}, separators=(",", ":"), ensure_ascii=False).encode()


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class WrittenExport:
    """An export in memory; its parts can be spoilt before it is put somewhere.

    Attributes:
        id: its folder's name.
        prefix: the prefix of the bucket that was asked for.
        summary: of `manifest-summary.json`.
        files: the lines of `manifest-files.json`.
        data: the data files by key.
        checksums: whether the manifests get theirs.
    """

    id: str
    prefix: str
    summary: dict[str, Any]
    files: list[dict[str, Any]] = field(default_factory=list)
    data: dict[str, bytes] = field(default_factory=dict)
    checksums: bool = True

    @property
    def root(self) -> str:
        return f"{self.prefix}AWSDynamoDB/{self.id}/"

    def objects(self) -> dict[str, bytes]:
        """Everything that lies in the bucket, by key."""
        manifests = {
            "manifest-summary": json.dumps(self.summary, separators=(",", ":")).encode(),
            "manifest-files": b"".join(
                json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in self.files
            ),
        }
        found = dict(self.data) | {f"{self.root}_started": b""}
        for name, text in manifests.items():
            found[f"{self.root}{name}.json"] = text
            if self.checksums:
                found[f"{self.root}{name}.md5"] = md5_of(text).encode()
        return found

    def write(self, bucket: Path) -> str:
        """Write it as a copy of the bucket; its folder."""
        for key, content in self.objects().items():
            path = bucket / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return f"{bucket / self.root}"

    def upload(self, client: Any, bucket: str) -> str:
        """Put it on S3, with the ETags that S3 gives; its URL."""
        for entry in self.files:
            key = entry["dataFileS3Key"]
            entry["etag"] = client.put_object(Bucket=bucket, Key=key, Body=self.data[key])["ETag"].strip('"')
        for key, content in self.objects().items():
            if key not in self.data:
                client.put_object(Bucket=bucket, Key=key, Body=content)
        return f"s3://{bucket}/{self.root}"


def _export(
    summary: Mapping[str, Any],
    contents: Iterable[Sequence[bytes]],
    *,
    table: str,
    at: datetime,
    number: int,
    folder: str | None,
    prefix: str,
) -> WrittenExport:
    id_ = f"{int(at.timestamp() * 1000):014}-{number:08x}"
    arn = f"arn:aws:dynamodb:us-east-1:123456789012:table/{table}"
    made = WrittenExport(
        id_,
        prefix,
        {
            "exportArn": f"{arn}/export/{id_}",
            "startTime": _text(at),
            "endTime": _text(at + timedelta(minutes=5)),
            "tableArn": arn,
            "tableId": "cf263806-6bf1-4e51-a242-7067dcdecc72",
            "s3Bucket": "exports",
            "s3Prefix": prefix.rstrip("/") or None,
            "s3SseAlgorithm": "AES256",
            "s3SseKmsKeyId": None,
            "billedSizeBytes": 10_000_000,
            "outputFormat": "DYNAMODB_JSON",
            **summary,
        },
    )
    made.summary["manifestFilesS3Key"] = f"{made.root}manifest-files.json"
    for each, lines in enumerate(contents):
        data = gzip.compress(b"".join(line + b"\n" for line in lines), 6, mtime=0)
        key = f"{made.root if folder is None else prefix + folder}data/{id_[-8:]}{each:018}.json.gz"
        made.data[key] = data
        etag = f"{hashlib.md5(data + b'part').hexdigest()}-1"
        made.files.append(
            {"itemCount": len(lines), "md5Checksum": md5_of(data), "etag": etag, "dataFileS3Key": key}
        )
    made.summary["itemCount"] = sum(each["itemCount"] for each in made.files)
    return made


def full_export(
    table: str,
    contents: Iterable[Sequence[Mapping[str, Any] | bytes]],
    *,
    at: datetime,
    number: int = 1,
    prefix: str = "",
) -> WrittenExport:
    """A full export of the state at a time; a file for each sequence of items, or of lines."""
    lines = [[each if isinstance(each, bytes) else line_of(each) for each in content] for content in contents]
    summary = {"version": "2020-06-30", "exportTime": _text(at)}
    return _export(summary, lines, table=table, at=at, number=number, folder=None, prefix=prefix)


def incremental_export(
    table: str,
    contents: Iterable[Sequence[Images | bytes]],
    *,
    begin: datetime,
    end: datetime,
    view: str = "NEW_AND_OLD_IMAGES",
    number: int = 2,
    prefix: str = "",
) -> WrittenExport:
    """An incremental export; its files lie in a folder that all of them share."""
    summary = {
        "version": "2023-08-01",
        "exportFromTime": _text(begin),
        "exportToTime": _text(end),
        "outputView": view,
        "exportType": "INCREMENTAL_EXPORT",
    }
    lines = [
        [each if isinstance(each, bytes) else record_of(each, at=begin, view=view) for each in content]
        for content in contents
    ]
    return _export(summary, lines, table=table, at=end, number=number, folder="AWSDynamoDB/", prefix=prefix)


def record_of(images: Images, *, at: datetime, view: str = "NEW_AND_OLD_IMAGES") -> bytes:
    """A line of an incremental export, without its end: a deletion has no new image."""
    key, before, after = images
    record: dict[str, Any] = {
        "Metadata": {"WriteTimestampMicros": {"N": str(int(at.timestamp() * 1_000_000))}},
        "Keys": json_item(key),
    }
    if after is not None:
        record["NewImage"] = json_item(after)
    if before is not None and view == "NEW_AND_OLD_IMAGES":
        record["OldImage"] = json_item(before)
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode()
