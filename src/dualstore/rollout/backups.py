"""Backups of both sides: made, looked up, and a restored one held against what there is now."""

import base64
import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.items import Item, TableShape, items_equal, key_bytes
from dualstore.rollout.registry import Check, Evidence
from dualstore.stores.base import Mirror, MirrorState

_CLOCKS_DIFFER_BY = timedelta(minutes=5)
_PAGE_ITEMS = 500
IN_FLIGHT_REVISIONS = 1_000
"""Revisions are drawn before their transactions commit: so many of the last may not be in a backup yet."""


class BackupState(StrEnum):
    """How far a backup is."""

    UNDER_WAY = "under way"
    THERE = "there"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup of one table.

    Attributes:
        place: its ARN, or its file.
        state: how far it is.
        made_at: the moment whose items it holds, or when it was begun.
        size_bytes: as far as it is known.
        items: as far as it is known.
    """

    place: str
    state: BackupState
    made_at: datetime | None = None
    size_bytes: int | None = None
    items: int | None = None

    def to_json(self) -> Evidence:
        """Plain values, for the record."""
        made_at = None if self.made_at is None else self.made_at.isoformat()
        return {"place": self.place, "made_at": made_at, "size_bytes": self.size_bytes, "items": self.items}


def backup_check(name: str, found: Backup | None) -> Check:
    """Whether a backup of a table is there."""
    what = f"the backup of {name} is there"
    if found is None:
        return Check(what, "there is none yet")
    if found.state is BackupState.UNDER_WAY:
        return Check(what, "it is under way", passing=True)
    return Check(what, None if found.state is BackupState.THERE else f"it failed: look at {found.place}")


def code_of(error: Exception) -> str:
    """An AWS error by its code, another by its class: its text may hold a value."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", type(error).__name__))
    return type(error).__name__


# -- DynamoDB's own backups ----------------------------------------------------------------------


def recovery_check(client: Any, table: str, *, required: bool) -> Check:
    """Whether DynamoDB can restore a table to any moment of the last days.

    AWS, DynamoDB API reference, DescribeContinuousBackups.

    Args:
        client: a boto3 DynamoDB client.
        table: the physical name.
        required: whether a table without it is an obstacle; else it is only said.
    """
    what = f"point-in-time recovery of {table} is on"
    try:
        described = client.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
    except (ClientError, BotoCoreError) as error:
        problem = f"DynamoDB does not say ({code_of(error)}): allow dynamodb:DescribeContinuousBackups"
        return Check(what, problem if required else None, passing=isinstance(error, BotoCoreError))
    recovery = described.get("PointInTimeRecoveryDescription", {})
    if recovery.get("PointInTimeRecoveryStatus") == "ENABLED" or not required:
        return Check(what if recovery.get("PointInTimeRecoveryStatus") == "ENABLED" else f"{what} (advised)")
    remedy = "turn it on: aws dynamodb update-continuous-backups --point-in-time-recovery-specification …"
    return Check(what, remedy)


def find_on_demand(client: Any, table: str, name: str, *, since: datetime) -> Backup | None:
    """The last on-demand backup of this name that was made since a moment, or None.

    AWS, DynamoDB API reference, ListBackups and DescribeBackup. Names are not unique, hence the moment.
    """
    request: dict[str, Any] = {"TableName": table}
    found: Mapping[str, Any] | None = None
    while True:
        answer = client.list_backups(**request)
        for each in answer.get("BackupSummaries", ()):
            ours = each["BackupName"] == name and each["BackupCreationDateTime"] >= since - _CLOCKS_DIFFER_BY
            if ours and (found is None or each["BackupCreationDateTime"] >= found["BackupCreationDateTime"]):
                found = each
        if (last := answer.get("LastEvaluatedBackupArn")) is None:
            break
        request["ExclusiveStartBackupArn"] = last
    return None if found is None else _of_summary(found)


def _of_summary(summary: Mapping[str, Any]) -> Backup:
    state = {"AVAILABLE": BackupState.THERE, "CREATING": BackupState.UNDER_WAY}
    return Backup(
        place=summary["BackupArn"],
        state=state.get(summary["BackupStatus"], BackupState.FAILED),
        made_at=summary["BackupCreationDateTime"],
        size_bytes=summary.get("BackupSizeBytes"),
    )


def start_on_demand(client: Any, table: str, name: str) -> None:
    """Begin an on-demand backup (AWS, DynamoDB API reference, CreateBackup)."""
    client.create_backup(TableName=table, BackupName=name)


def start_export(client: Any, table_arn: str, *, bucket: str, prefix: str, token: str) -> Backup:
    """Begin an export to S3, or find the one that was begun with the same token.

    AWS, DynamoDB API reference, ExportTableToPointInTime: a token makes the call idempotent for eight hours.
    """
    answer = client.export_table_to_point_in_time(
        TableArn=table_arn,
        S3Bucket=bucket,
        ClientToken=token,
        **({"S3Prefix": prefix} if prefix else {}),
    )
    return _of_export(answer["ExportDescription"])


def find_export(client: Any, arn: str) -> Backup:
    """An export by its ARN (AWS, DynamoDB API reference, DescribeExport)."""
    return _of_export(client.describe_export(ExportArn=arn)["ExportDescription"])


def _of_export(described: Mapping[str, Any]) -> Backup:
    state = {"COMPLETED": BackupState.THERE, "IN_PROGRESS": BackupState.UNDER_WAY}
    return Backup(
        place=described["ExportArn"],
        state=state.get(described["ExportStatus"], BackupState.FAILED),
        made_at=described.get("ExportTime"),
        size_bytes=described.get("BilledSizeBytes"),
        items=described.get("ItemCount"),
    )


# -- every item in a file ------------------------------------------------------------------------


def write_lines(client: Any, table: str, path: Path) -> None:
    """Write every item of a table as lines of DynamoDB JSON, as an export has them; all of them, or none.

    It is read by a consistent Scan, so what is written meanwhile may be in it or not. For small tables, and
    for stand-ins that make no backups.
    """
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as written:
        try:
            with gzip.open(written, "wt", encoding="utf-8") as lines:
                for page in pages:
                    for item in page["Items"]:
                        lines.write(json.dumps({"Item": item}, default=_base64, separators=(",", ":")) + "\n")
            written.flush()
            os.fsync(written.fileno())
            Path(written.name).replace(path)
        except BaseException:
            Path(written.name).unlink(missing_ok=True)
            raise


def find_lines(path: Path, *, since: datetime) -> Backup | None:
    """The file of `write_lines`, where it was written since a moment, or None."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    made_at = datetime.fromtimestamp(status.st_mtime, since.tzinfo)
    if made_at < since - _CLOCKS_DIFFER_BY:
        return None
    return Backup(str(path), BackupState.THERE, made_at, status.st_size)


def read_lines(path: Path) -> Iterator[Item]:
    """The items of a file of `write_lines`."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            item: Item = {name: _restored(value) for name, value in json.loads(line)["Item"].items()}
            yield item


def _base64(value: object) -> str:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    raise TypeError(f"DynamoDB JSON has no {type(value).__name__}")


def _restored(value: Mapping[str, Any]) -> Any:
    """A value as boto3 gives it: binary as bytes."""
    ((kind, content),) = value.items()
    match kind:
        case "B":
            return {"B": base64.b64decode(content)}
        case "BS":
            return {"BS": [base64.b64decode(each) for each in content]}
        case "L":
            return {"L": [_restored(each) for each in content]}
        case "M":
            return {"M": {name: _restored(each) for name, each in content.items()}}
        case _:
            return {kind: content}


# -- a restored backup, against what there is now ------------------------------------------------


@dataclass(frozen=True, slots=True)
class Restored:
    """What came of holding a restored backup against the present.

    Attributes:
        items: how many the backup has.
        unchanged: those that nobody has written since, and that are the same.
        changed: those that were written or deleted since.
        differing: those that nobody has written since, and that are not the same.
        missing: items that are older than the backup, and not in it.
    """

    items: int
    unchanged: int
    changed: int
    differing: int
    missing: int

    @property
    def is_good(self) -> bool:
        """Whether the backup has all that it should have, as it was; an empty one proves nothing."""
        return bool(self.items) and not self.differing and not self.missing

    def to_json(self) -> Evidence:
        """Plain values, for the record."""
        return {
            "items": self.items,
            "unchanged": self.unchanged,
            "changed_since": self.changed,
            "differing": self.differing,
            "missing": self.missing,
        }


def compare_database(
    restored: Mirror, present: Mirror, shape: TableShape, *, in_flight: int = IN_FLIGHT_REVISIONS
) -> Restored:
    """Hold a restored PostgreSQL database against the present one, in bounded memory and in both directions.

    A row's revision changes with every write to it: rows of the same revision have to be the same, and what
    the present has of a revision before the backup's last has to be in the backup.

    Args:
        restored: the restored database.
        present: the one that was backed up.
        shape: the table.
        in_flight: how many of the last revisions may have been uncommitted when the backup was made.
    """
    table, keys = shape.name, shape.keys
    items = unchanged = differing = missing = last = 0
    for page in restored.all_items(table, page_items=_PAGE_ITEMS):
        named = [keys.key_of(item) for item in page]
        before, now = restored.items_of(table, named), present.items_of(table, named)
        for key in named:
            name = key_bytes(keys, key)
            then, today = before[name], now.get(name)
            items += 1
            last = max(last, _revision(then))
            if today is None or today.item is None or _revision(today) != _revision(then):
                continue
            same = then.item is not None and items_equal(then.item, today.item, ignore_stamps=False)
            unchanged, differing = unchanged + same, differing + (not same)
    for page in present.all_items(table, page_items=_PAGE_ITEMS):
        named = [keys.key_of(item) for item in page]
        held, now = restored.items_of(table, named), present.items_of(table, named)
        for name in (key_bytes(keys, key) for key in named):
            old_enough = name in now and 0 < _revision(now[name]) <= last - in_flight
            missing += old_enough and (name not in held or held[name].item is None)
    return Restored(items, unchanged, items - unchanged - differing, differing, missing)


def _revision(state: MirrorState) -> int:
    return int(state.revision.row or 0)


def compare_lines(lines: Iterator[Item], present: Mirror, shape: TableShape) -> Restored:
    """Hold a file of `write_lines` against PostgreSQL: items with the same stamp have to be the same.

    What is missing in the file cannot be told from what was written since; nor can a difference of an item
    without a stamp: whoever is not bound yet writes none.
    """
    items = unchanged = differing = 0
    while page := [item for _, item in zip(range(_PAGE_ITEMS), lines, strict=False)]:
        states = present.items_of(shape.name, [shape.keys.key_of(item) for item in page])
        for item in page:
            state = states.get(key_bytes(shape.keys, shape.keys.key_of(item)))
            items += 1
            if state is None or state.item is None or state.item.get("_dsv") != item.get("_dsv"):
                continue
            same = items_equal(item, state.item)
            unchanged, differing = unchanged + same, differing + (not same and "_dsv" in item)
    return Restored(items, unchanged, items - unchanged - differing, differing, 0)


def problems(found: Mapping[str, Restored]) -> Sequence[str]:
    """What is wrong with restored backups, a sentence for each table."""
    return [
        f"{name}: "
        + (
            "the restored backup is empty"
            if not each.items
            else f"{each.differing:,} item(s) differ that nobody has written since, {each.missing:,} lack"
        )
        for name, each in found.items()
        if not each.is_good
    ]
