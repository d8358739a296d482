"""Where the history of a table is read from: exports, a Scan, lines of other tools."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dualstore.backfill.sources.base import (
    Batch,
    Description,
    Position,
    RawBatch,
    Source,
)
from dualstore.backfill.sources.exports import ExportSource
from dualstore.backfill.sources.lines import STANDARD_INPUT, LineFiles, StandardInput
from dualstore.backfill.sources.manifests import SUMMARY
from dualstore.backfill.sources.scanning import ScanSource, ScanTuning
from dualstore.errors import ConfigurationError
from dualstore.items import TableShape
from dualstore.stores.batch_limits import Limits
from dualstore.stores.dynamo_exports import TableIdentity
from dualstore.stores.places import is_s3
from dualstore.stores.source_clients import SourceClients

SCAN = "scan"
_LINE_SUFFIXES = (".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".ndjson.gz")


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What sources need besides their parameters.

    Attributes:
        shape: the table.
        clients: make the AWS clients.
        identity: of the table, which exports have to be of; None: its name has to do.
    """

    shape: TableShape
    clients: SourceClients
    identity: TableIdentity | None = None


def source_from(
    places: Sequence[str],
    context: SourceContext,
    *,
    scan: ScanTuning | None = None,
    taken_at: datetime | None = None,
) -> Source:
    """The source that a person names.

    Args:
        places: `scan`; or `-`, standard input; or files of lines; or exports, a full one and what follows it.
        context: the table and its clients.
        scan: how to scan; None: as `ScanTuning` is made.
        taken_at: when what lines hold was read from the table.

    Raises:
        ConfigurationError: these are not the places of one source.
    """
    if tuple(places) == (SCAN,):
        return ScanSource(
            shape=context.shape,
            client=context.clients.scan,
            cloudwatch=context.clients.cloudwatch,
            tuning=scan,
        )
    if tuple(places) == (STANDARD_INPUT,):
        return StandardInput(sys.stdin.buffer, taken_at=taken_at)
    if places and all(place.endswith(_LINE_SUFFIXES) for place in places):
        if any(Path(place).name == SUMMARY for place in places):
            raise ConfigurationError(f"give the folder of an export, not its {SUMMARY}")
        # Workers may run in another folder.
        files = [place if is_s3(place) else str(Path(place).absolute()) for place in places]
        return LineFiles(files, s3=context.clients.s3, taken_at=taken_at)
    if not places or {SCAN, STANDARD_INPUT} & set(places):
        raise ConfigurationError(
            f"a source is `{SCAN}`, `{STANDARD_INPUT}`, files that end with {', '.join(_LINE_SUFFIXES)}, or "
            "exports (s3://bucket/prefix/AWSDynamoDB/<export id>/ or a copied folder): one of these"
        )
    folders = [place if is_s3(place) else str(Path(place).absolute()) for place in places]
    return ExportSource(folders, shape=context.shape, s3=context.clients.s3, identity=context.identity)


def source_of(parameters: Mapping[str, Any], context: SourceContext) -> Source:
    """A source again, from its `parameters`, in this or another process.

    Raises:
        ConfigurationError: no such source is known to this version.
    """
    make = _MAKERS.get(parameters.get("kind", ""))
    if make is None:
        raise ConfigurationError(
            f"a run reads from {parameters.get('kind')!r}, which this version of dualstore does not know: "
            "go on with the version that began it"
        )
    return make(parameters, context)


def _scan(parameters: Mapping[str, Any], context: SourceContext) -> Source:
    tuning = dict(parameters["tuning"])
    expected_items = tuning.pop("expected_items", None)
    return ScanSource(
        shape=context.shape,
        client=context.clients.scan,
        cloudwatch=context.clients.cloudwatch,
        consistent=parameters["consistent"],
        tuning=ScanTuning(**tuning),
        expected_items=expected_items,
    )


def _export(parameters: Mapping[str, Any], context: SourceContext) -> Source:
    return ExportSource(
        parameters["exports"],
        shape=context.shape,
        s3=context.clients.s3,
        identity=context.identity,
        expected_items=parameters["tuning"].get("expected_items"),
        kind=parameters["kind"],
    )


def _taken_at(parameters: Mapping[str, Any]) -> datetime | None:
    return None if parameters["taken_at"] is None else datetime.fromisoformat(parameters["taken_at"])


_MAKERS: dict[str, Callable[[Mapping[str, Any], SourceContext], Source]] = {
    "scan": _scan,
    "export": _export,
    "catch-up": _export,
    "lines": lambda parameters, context: LineFiles(
        parameters["files"], s3=context.clients.s3, taken_at=_taken_at(parameters)
    ),
    "stdin": lambda parameters, _: StandardInput(sys.stdin.buffer, taken_at=_taken_at(parameters)),
}

__all__ = [
    "Batch",
    "Description",
    "ExportSource",
    "Limits",
    "LineFiles",
    "Position",
    "RawBatch",
    "ScanSource",
    "ScanTuning",
    "Source",
    "SourceContext",
    "StandardInput",
    "TableIdentity",
    "source_from",
    "source_of",
]
