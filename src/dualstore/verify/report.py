"""The report of a verification that an auditor keeps: inputs and result, without any value, signed."""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from dualstore.errors import ConfigurationError
from dualstore.verify.findings import Verification

FORMAT = 1
KEY_VARIABLE = "DUALSTORE_REPORT_KEY"
"""The environment variable with the secret that reports are signed with."""
_JSON_OPENS = '<script type="application/json" id="report">'
_EMBEDDED = re.compile(re.escape(_JSON_OPENS) + r"(.*?)</script>", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a verification was made of.

    Attributes:
        logical: the table's logical name.
        table_arn: the table's ARN, where it is known.
        mode: which keys were compared: `full`, `sample`, …
        source: where items were read from, in the source's own words.
        schema_revision: of the `dualstore` schema.
        code_version: of dualstore.
        threshold: the success rate that was asked for.
        bound: with 95 % confidence, the share of keys that differ is not above this; None for a full
            comparison, which has looked at all of them.
    """

    logical: str
    table_arn: str | None
    mode: str
    source: Mapping[str, Any]
    schema_revision: str | None
    code_version: str
    threshold: float
    bound: float | None = None


def document(verification: Verification, inputs: Inputs) -> dict[str, Any]:
    """The report as JSON, unsigned. Keys are hashed, and no value is in it."""
    return {
        "format": FORMAT,
        "report": "dualstore verify",
        "run_id": str(verification.run_id),
        "table": {"logical": inputs.logical, "name": verification.table, "arn": inputs.table_arn},
        "mode": inputs.mode,
        "source": dict(inputs.source),
        "started": _moment(verification.started),
        "finished": _moment(verification.finished),
        "seconds": round((verification.finished - verification.started).total_seconds(), 3),
        "schema_revision": inputs.schema_revision,
        "code_version": inputs.code_version,
        "counts": {
            "items_dynamodb": verification.items_dynamodb,
            "rows_postgres": verification.rows_postgres,
            "equal": verification.equal,
            "stamps_only": verification.stamps_only,
            "different": verification.difference_count,
            "repaired": verification.repaired,
            "moving": verification.moving,
            "expired": verification.expired,
            "unreadable": verification.unreadable,
            "unmapped": verification.unmapped,
            "later": verification.later,
            "undecided": verification.undecided,
        },
        "success_rate": verification.success_rate,
        "threshold": inputs.threshold,
        "bound_95": inputs.bound,
        "suspects": sorted(verification.suspects),
        "disturbed": verification.disturbed,
        "passed": verification.passes(inputs.threshold),
        "differences": [
            {
                "key_hash": each.key_hash,
                "class": each.finding,
                "paths": list(each.paths),
                "repaired": each.repaired,
            }
            for each in verification.differences
        ],
    }


def signed(report: Mapping[str, Any], *, key: bytes | None) -> dict[str, Any]:
    """The report with its digest over canonical JSON: an HMAC where there is a key, else a bare SHA-256.

    A bare digest tells of damage, not of forgery.
    """
    return {**report, "signature": _signature(report, key)}


def is_intact(report: Mapping[str, Any], *, key: bytes | None) -> bool:
    """Whether a report is as it was signed.

    Raises:
        ConfigurationError: it has no signature, or was signed with a key and none was given.
    """
    given = report.get("signature")
    if not isinstance(given, str):
        raise ConfigurationError("the report has no signature: it is none of `dualstore verify --report`")
    keyed = given.startswith("hmac-sha256:")
    if keyed and key is None:
        raise ConfigurationError(
            f"the report was signed with a key: give it in the environment variable {KEY_VARIABLE}"
        )
    unsigned = {name: value for name, value in report.items() if name != "signature"}
    return hmac.compare_digest(given, _signature(unsigned, key if keyed else None))


def write(report: Mapping[str, Any], place: Path) -> list[Path]:
    """Write a signed report as `.json` or `.html`, or as both into a folder.

    Returns:
        The files.
    """
    if place.suffix in _WRITERS:
        files = [place]
    else:
        place.mkdir(parents=True, exist_ok=True)
        name = f"verify-{report['table']['logical']}-{report['run_id']}"
        files = [place / f"{name}{suffix}" for suffix in _WRITERS]
    for path in files:
        path.write_text(_WRITERS[path.suffix](report), encoding="utf-8")
    return files


def read(path: Path) -> dict[str, Any]:
    """A report from its file, of either form.

    Raises:
        ConfigurationError: there is no report in it.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            found = _EMBEDDED.search(text)
            text = "" if found is None else found[1].replace("<\\/", "</")
        report = json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} holds no report: {type(error).__name__}") from None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ConfigurationError(f"{path} holds no report of format {FORMAT}")
    return report


def _signature(report: Mapping[str, Any], key: bytes | None) -> str:
    canonical = json.dumps(report, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    if key is None:
        return f"sha256:{hashlib.sha256(canonical).hexdigest()}"
    return f"hmac-sha256:{hmac.new(key, canonical, hashlib.sha256).hexdigest()}"


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _json(report: Mapping[str, Any]) -> str:
    return json.dumps(report, indent=2, ensure_ascii=False) + "\n"


def _html(report: Mapping[str, Any]) -> str:
    facts = {
        "Table": report["table"]["arn"] or report["table"]["name"],
        "Run": report["run_id"],
        "Mode": report["mode"],
        "Read from": json.dumps(report["source"], ensure_ascii=False),
        "Started": report["started"],
        "Finished": f"{report['finished']} ({report['seconds']} s)",
        "Schema revision": report["schema_revision"],
        "dualstore": report["code_version"],
        "Success rate": f"{report['success_rate']:.6%} (asked for: {report['threshold']:.4%})",
        "Upper bound of differing keys, 95 %": (
            "all keys were compared" if report["bound_95"] is None else f"{report['bound_95']:.4%}"
        ),
        "In doubt": _doubts(report),
        "Signature": report["signature"],
    }
    counts = {name.replace("_", " "): f"{value:,}" for name, value in report["counts"].items()}
    differences = "".join(
        f"<tr><td><code>{escape(each['key_hash'])}</code><td>{escape(each['class'])}"
        f"<td>{escape(', '.join(each['paths']))}<td>{'yes' if each['repaired'] else 'no'}"
        for each in report["differences"]
    )
    embedded = json.dumps(report, ensure_ascii=False).replace("</", "<\\/")
    return _PAGE.format(
        title=escape(report["table"]["logical"]),
        verdict="passed" if report["passed"] else "failed",
        facts=_rows(facts),
        counts=_rows(counts),
        differences=differences or '<tr><td colspan="4">none',
        embedded=f"{_JSON_OPENS}{embedded}</script>",
    )


def _doubts(report: Mapping[str, Any]) -> str:
    """What keeps a comparison from proving anything."""
    doubts = list(report["suspects"])
    if report["disturbed"]:
        doubts.append("the history was copied anew meanwhile, or writes passed PostgreSQL by")
    return ", ".join(doubts) or "nothing"


def _rows(entries: Mapping[str, Any]) -> str:
    return "".join(f"<tr><th>{escape(name)}<td>{escape(str(value))}" for name, value in entries.items())


_WRITERS = {".html": _html, ".json": _json}
_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>dualstore verify: {title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 3rem auto; max-width: 60rem; color: #222 }}
table {{ border-collapse: collapse; margin: 1rem 0 2rem }}
th, td {{ text-align: left; vertical-align: top; padding: .25rem 1rem .25rem 0 }}
th, td {{ border-bottom: 1px solid #ddd }}
th {{ font-weight: 600 }} td {{ overflow-wrap: anywhere }}
.passed {{ color: #17703a }} .failed {{ color: #b3261e }}
</style>
<h1>{title}: <span class="{verdict}">{verdict}</span></h1>
<table>{facts}</table>
<h2>Counts</h2><table>{counts}</table>
<h2>Differences</h2>
<table><tr><th>Key (hashed)<th>Class<th>Attributes<th>Repaired{differences}</table>
{embedded}
</html>
"""
