"""Lines for CloudWatch: AWS's format and limits, and the figures in them."""

import json

import pytest

from dualstore.stages import Side
from dualstore.telemetry import FellBack, JournalSeen, Role, ShadowCompared, Telemetry, Verdict, names
from dualstore.telemetry.emf import MAX_METRICS, MAX_VALUES, EmfWriter, dimensions_of, to_stream


class Written:
    def __init__(self, telemetry):
        self.lines = []
        self.writer = EmfWriter(telemetry, self.lines.append, clock=lambda: 1_700_000_000.5)

    def documents(self):
        self.lines.clear()
        self.writer.flush()
        assert all(line.endswith("\n") and line.count("\n") == 1 for line in self.lines)
        return [json.loads(line) for line in self.lines]


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def written(telemetry):
    return Written(telemetry)


def published(documents, metric):
    """The values of a metric by each set of dimensions that it is published under."""
    found = []
    for document in documents:
        for directive in document["_aws"]["CloudWatchMetrics"]:
            if metric.name in [each["Name"] for each in directive["Metrics"]]:
                found += [
                    ({name: document[name] for name in dimensions}, document[metric.name])
                    for dimensions in directive["Dimensions"]
                ]
    return found


def test_every_document_is_of_awss_format(telemetry, written, events):
    for event in events:
        telemetry.record(event)
    documents = written.documents()
    assert documents
    for document in documents:
        assert document["_aws"]["Timestamp"] == 1_700_000_000_500
        for directive in document["_aws"]["CloudWatchMetrics"]:
            assert set(directive) == {"Namespace", "Dimensions", "Metrics"}
            assert directive["Namespace"] == "dualstore"
            assert 1 <= len(directive["Metrics"]) <= MAX_METRICS
            for dimensions in directive["Dimensions"]:
                assert len(dimensions) <= 30
                assert all(isinstance(document[name], str) and document[name] for name in dimensions)
            for metric in directive["Metrics"]:
                assert metric["Unit"] in {"Seconds", "Percent", "Count"}
                value = document[metric["Name"]]
                numbers = value if isinstance(value, list) else [value]
                assert 1 <= len(numbers) <= MAX_VALUES
                assert all(isinstance(number, int | float) for number in numbers)


def test_every_metric_is_told(telemetry, written, events):
    for event in events:
        telemetry.record(event)
    documents = written.documents()
    for metric in names.METRICS:
        assert published(documents, metric), metric.name


def test_a_counter_is_told_by_how_much_it_grew(telemetry, written):
    telemetry.record(FellBack("orders", "Query", "dirty"))
    telemetry.record(FellBack("orders", "GetItem", "dirty"))
    by_reason = {"db.collection.name": "orders", "dualstore.reason": "dirty"}
    assert published(written.documents(), names.FALLBACKS) == [
        (by_reason, 2),
        ({"db.collection.name": "orders"}, 2),
    ]
    assert written.documents() == []
    telemetry.record(FellBack("orders", "Query", "dirty"))
    assert published(written.documents(), names.FALLBACKS)[0] == (by_reason, 1)


def test_a_gauge_is_told_as_it_is_each_time(telemetry, written):
    telemetry.record(JournalSeen("orders", 3, 1.5))
    for _ in range(2):
        documents = written.documents()
        assert published(documents, names.JOURNAL_AGE) == [({"db.collection.name": "orders"}, 1.5)]


def test_of_many_durations_an_even_sample_is_told_and_all_are_counted(telemetry, written):
    for n in range(10_000):
        seconds = 1.0 if n % 10 == 0 else 0.001
        telemetry.operation("orders", "GetItem", Side.POSTGRES, Role.SHADOW, seconds)
    documents = written.documents()
    ((dimensions, durations),) = published(documents, names.DURATION)
    assert dimensions == {
        "db.collection.name": "orders",
        "db.system.name": "postgresql",
        "dualstore.role": "shadow",
    }
    assert len(durations) == pytest.approx(MAX_VALUES, abs=1)
    assert sum(seconds > 0.5 for seconds in durations) == pytest.approx(10, abs=1)
    assert published(documents, names.OPERATIONS) == [(dimensions, 10_000)]


def test_an_error_has_a_dimension_that_an_answer_has_not(telemetry, written):
    telemetry.operation("orders", "GetItem", Side.POSTGRES, Role.SHADOW, 0.001, "Unavailable")
    ((dimensions, _),) = published(written.documents(), names.OPERATIONS)
    assert dimensions["error.type"] == "Unavailable"


def test_a_verdict_is_told_by_itself_and_all_verdicts_by_table(telemetry, written):
    for verdict in (Verdict.EQUAL, Verdict.MISMATCH):
        telemetry.record(ShadowCompared("orders", "GetItem", verdict))
    found = published(written.documents(), names.SHADOW_COMPARED)
    assert ({"db.collection.name": "orders", "dualstore.verdict": "mismatch"}, 1) in found
    assert sum(value for dimensions, value in found if len(dimensions) == 1) == 2


def test_no_metric_has_the_operation_for_a_dimension():
    assert all(
        "db.operation.name" not in dimensions
        for metric in names.METRICS
        for dimensions in dimensions_of(metric)
    )


def test_lines_go_to_the_output_of_the_process(capsys):
    to_stream("stdout")("{}\n")
    to_stream("stderr")("[]\n")
    assert capsys.readouterr() == ("{}\n", "[]\n")


def test_closing_writes_what_is_left(telemetry, written):
    telemetry.record(FellBack("orders", "Query", "dirty"))
    written.writer.start()
    written.writer.close()
    assert len(written.lines) == 1
