"""The manifests of an export (AWS, "DynamoDB table export output format"): checked, then believed."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from posixpath import dirname, relpath
from typing import Any

import msgspec

from dualstore.errors import UnusableSource
from dualstore.stores.dynamo_exports import TableIdentity
from dualstore.stores.places import Folder, content

SUMMARY = "manifest-summary.json"
_VERSIONS = ("2020-06-30", "2023-08-01")
# The page calls them .checksum; what DynamoDB writes is .md5.
_CHECKSUMS = ("md5", "checksum")


class ExportType(StrEnum):
    """What an export tells."""

    FULL = "FULL_EXPORT"
    INCREMENTAL = "INCREMENTAL_EXPORT"


class _Summary(msgspec.Struct, rename="camel"):
    """`manifest-summary.json`."""

    version: str
    export_arn: str
    table_arn: str
    manifest_files_s3_key: str
    item_count: int
    output_format: str
    s3_bucket: str
    export_type: str = ExportType.FULL
    table_id: str | None = None
    export_time: datetime | None = None
    export_from_time: datetime | None = None
    export_to_time: datetime | None = None


class _File(msgspec.Struct, rename="camel"):
    """A line of `manifest-files.json`."""

    item_count: int
    md5_checksum: str
    data_file_s3_key: str
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class ExportFile:
    """A data file of an export.

    Attributes:
        name: relative to the folder of the export.
        items: how many lines it has.
        md5: of the file, in base64.
        etag: as DynamoDB left it; a copy has another.
    """

    name: str
    items: int
    md5: str
    etag: str | None


@dataclass(frozen=True)
class Export:
    """An export, as its manifests tell.

    Attributes:
        url: its folder.
        type: full or incremental.
        arn: of the export.
        table: the name of the table.
        items: how many lines all files have.
        time: the moment whose state a full export holds.
        begin: of an incremental export: the moment from which on changes are told.
        end: of an incremental export: the moment from which on they are not.
        in_place: whether it lies where DynamoDB wrote it, so that the ETags are still the same.
        files: the data files.
    """

    url: str
    type: ExportType
    arn: str
    table: str
    items: int
    time: datetime | None
    begin: datetime | None
    end: datetime | None
    in_place: bool
    files: Sequence[ExportFile] = field(repr=False)


def read_export(folder: Folder, *, table: str, identity: TableIdentity | None = None) -> Export:
    """Read an export's manifests, and see that they fit together and belong to the table.

    Args:
        folder: of the export, `…/AWSDynamoDB/<export id>/`.
        table: the table's physical name.
        identity: of the table; None: its name has to do.

    Raises:
        UnusableSource: they do not, or it is an export that cannot be copied from.
        Unavailable: they could not be read for now.
    """
    text = _checked(folder, SUMMARY)
    summary = _decoded(text, _Summary, folder, SUMMARY)
    _check_format(summary, text, folder)
    _check_table(summary, folder, table, identity)
    root = dirname(summary.manifest_files_s3_key)
    name = relpath(summary.manifest_files_s3_key, root)
    lines = _checked(folder, name).splitlines()
    found = [_decoded(line, _File, folder, name) for line in lines if line.strip()]
    items = sum(each.item_count for each in found)
    if items != summary.item_count:
        raise UnusableSource(
            f"{folder.url}: the files are said to have {items} items together, and the export "
            f"{summary.item_count}: take the export again"
        )
    return Export(
        url=folder.url,
        type=ExportType(summary.export_type),
        arn=summary.export_arn,
        table=table,
        items=items,
        time=summary.export_time,
        begin=summary.export_from_time,
        end=summary.export_to_time,
        in_place=folder.url == f"s3://{summary.s3_bucket}/{root}/",
        files=[
            ExportFile(
                _within(each.data_file_s3_key, root, folder), each.item_count, each.md5_checksum, each.etag
            )
            for each in found
        ],
    )


def _checked(folder: Folder, name: str) -> bytes:
    """A manifest, once its check sum has been found right."""
    text = content(folder, name)
    stem = name.rpartition(".")[0]
    there = folder.stats([f"{stem}.{suffix}" for suffix in _CHECKSUMS])
    if not there:
        raise UnusableSource(f"{folder.url}{stem}.md5 is missing: copy the whole folder of the export")
    (sums, *_) = sorted(there, reverse=True)
    if content(folder, sums).strip() != b64encode(hashlib.md5(text, usedforsecurity=False).digest()):
        raise UnusableSource(f"{folder.url}{name} is damaged: its MD5 is not that of {sums}. Copy it again")
    return text


def _decoded(text: bytes, type_: Any, folder: Folder, name: str) -> Any:
    try:
        return msgspec.json.decode(text, type=type_)
    except msgspec.MsgspecError as error:
        raise UnusableSource(f"{folder.url}{name} is not a manifest of DynamoDB: {error}") from None


def _check_format(summary: _Summary, text: bytes, folder: Folder) -> None:
    if summary.version not in _VERSIONS or summary.export_type not in set(ExportType):
        raise UnusableSource(
            f"{folder.url}: an export of version {summary.version}, type {summary.export_type}, is not known "
            f"to this version of dualstore, which reads {' and '.join(_VERSIONS)}"
        )
    if summary.output_format != "DYNAMODB_JSON":
        raise UnusableSource(
            f"{folder.url}: the export is in {summary.output_format}. Take it again in DynamoDB JSON, "
            "with `dualstore export`, or `--export-format DYNAMODB_JSON` of the AWS command line"
        )
    others: Mapping[str, Any] = msgspec.json.decode(text)
    if any("filter" in name.lower() or "projection" in name.lower() for name in others):
        raise UnusableSource(
            f"{folder.url}: the export leaves out items or attributes by a filter. Take a whole one"
        )
    times = (
        (summary.export_time,)
        if summary.export_type == ExportType.FULL
        else (summary.export_from_time, summary.export_to_time)
    )
    if None in times:
        raise UnusableSource(f"{folder.url}{SUMMARY} does not say of what time the export is: take it again")


def _check_table(summary: _Summary, folder: Folder, table: str, identity: TableIdentity | None) -> None:
    exported = summary.table_arn.rpartition("/")[2]
    if exported != table:
        raise UnusableSource(f"{folder.url} is an export of the table {exported}, not of {table}")
    if identity is None:
        return
    if summary.table_arn != identity.arn:
        raise UnusableSource(
            f"{folder.url} is an export of {summary.table_arn}, and the table here is {identity.arn}"
        )
    if None not in (summary.table_id, identity.id) and summary.table_id != identity.id:
        raise UnusableSource(
            f"{folder.url} is an export of a former table {table}, which was deleted and made again since: "
            "take an export of the present one"
        )


def _within(key: str, root: str, folder: Folder) -> str:
    """A data file, relative to the export's folder; incremental exports share a folder beside theirs."""
    name = relpath(key, root or ".")
    if name.startswith(("../../", "/")) or name == "..":
        raise UnusableSource(f"{folder.url}: a data file lies outside of the export: {key}")
    return name
