"""The report that an auditor keeps: signed, complete, and without a key or a value."""

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from dualstore.errors import ConfigurationError
from dualstore.verify import Difference, Finding, Verification
from dualstore.verify.report import Inputs, document, is_intact, read, signed, write

BEGAN = datetime(2026, 1, 31, 12, tzinfo=UTC)
INPUTS = Inputs(
    logical="orders",
    table_arn="arn:aws:dynamodb:eu-central-1:123456789012:table/orders-prod",
    mode="full",
    source={"kind": "scan", "note": "</script><b>"},
    schema_revision="0008",
    code_version="0.1.0",
    threshold=0.999,
)


def verification(**changes) -> Verification:
    values = {
        "run_id": UUID(int=7),
        "table": "orders-prod",
        "items_dynamodb": 10,
        "rows_postgres": 10,
        "equal": 9,
        "stamps_only": 0,
        "differences": (
            Difference("00ff00ff00ff00ff", Finding.VALUE, ("total",), key={"pk": {"S": "secret"}}),
        ),
        "difference_count": 1,
        "repaired": 0,
        "moving": 0,
        "started": BEGAN,
        "finished": BEGAN + timedelta(seconds=90),
    }
    return Verification(**values | changes)


def report(*, key: bytes | None = None):
    return signed(document(verification(), INPUTS), key=key)


@pytest.mark.parametrize("name", ["r.json", "r.html"])
@pytest.mark.parametrize("key", [None, b"of the auditor"])
def test_a_report_is_read_back_and_found_intact(tmp_path, name, key):
    (path,) = write(report(key=key), tmp_path / name)

    assert read(path) == report(key=key)
    assert is_intact(read(path), key=key)


@pytest.mark.parametrize("key", [None, b"of the auditor"])
def test_a_report_that_was_changed_is_not_intact(key):
    changed = report(key=key)
    changed["counts"] = {**changed["counts"], "different": 0}

    assert not is_intact(changed, key=key)


def test_another_key_does_not_fit_and_a_bare_digest_does_not_pass_for_a_keyed_one():
    assert not is_intact(report(key=b"one"), key=b"another")
    with pytest.raises(ConfigurationError, match="DUALSTORE_REPORT_KEY"):
        is_intact(report(key=b"one"), key=None)


def test_what_is_no_report_is_refused(tmp_path):
    (tmp_path / "other.json").write_text('{"format": 99}')

    with pytest.raises(ConfigurationError, match="no report"):
        read(tmp_path / "other.json")
    with pytest.raises(ConfigurationError, match="no signature"):
        is_intact(document(verification(), INPUTS), key=None)


def test_a_folder_takes_both_forms_and_neither_says_a_key(tmp_path):
    files = write(report(), tmp_path / "reports")

    assert {path.suffix for path in files} == {".html", ".json"}
    for path in files:
        text = path.read_text()
        assert "secret" not in text
        assert "00ff00ff00ff00ff" in text
        assert text.count("</script>") == 1  # the source's own neither ends the page's nor is lost


def test_a_report_names_all_that_it_was_made_of():
    told = json.loads(json.dumps(report()))

    assert told["table"]["arn"].endswith("table/orders-prod")
    assert (told["schema_revision"], told["code_version"], told["seconds"]) == ("0008", "0.1.0", 90.0)
    assert (told["success_rate"], told["threshold"], told["passed"]) == (0.9, 0.999, False)
    assert told["differences"] == [
        {"key_hash": "00ff00ff00ff00ff", "class": "value", "paths": ["total"], "repaired": False}
    ]


@pytest.mark.parametrize(
    ("changes", "threshold", "passes"),
    [
        ({}, 0.9, True),
        ({}, 0.999, False),
        ({"repaired": 1}, 1.0, True),
        ({"equal": 10_000, "differences": (), "difference_count": 1}, 0.999, True),
        ({"equal": 10_000, "differences": (), "difference_count": 1}, 1.0, False),
        ({"difference_count": 0, "moving": 1, "equal": 10_000}, 1.0, False),
        ({"equal": 0, "difference_count": 0}, 1.0, True),
    ],
)
def test_the_threshold_decides_and_the_highest_one_wants_proof(changes, threshold, passes):
    assert verification(**changes).passes(threshold) is passes
