"""Charts as inline SVG."""

from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest

from dualstore.rollout.screens.charts import Line, Mark, chart

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"


def paths(drawn: str, tone: str) -> list[str]:
    """The lines of a tone, without that of the legend."""
    tree = ET.fromstring(drawn)
    found = [each.attrib["d"] for each in tree.iter("path") if each.attrib.get("class") == f"line {tone}"]
    return found[:-1]


def values(*heights: float | None) -> list[tuple[datetime, float | None]]:
    return [(NOON + timedelta(seconds=n), height) for n, height in enumerate(heights)]


def test_a_gap_breaks_the_line_and_is_not_drawn_as_nought() -> None:
    assert len(paths(chart("c", [Line("a", "ink", values(1, 2, None, 3, 4))]), "ink")) == 2


def test_a_lone_value_is_still_to_be_seen() -> None:
    (path,) = paths(chart("c", [Line("a", "ink", values(1))]), "ink")
    assert path.endswith("h2")


def test_a_dial_holds_until_it_moves() -> None:
    (path,) = paths(chart("c", [Line("a", "ink", values(0, 100), steps=True)]), "ink")
    assert "H" in path
    assert "L" not in path


def test_what_is_above_the_scale_stays_on_the_chart() -> None:
    (path,) = paths(chart("c", [Line("a", "ink", values(0, 500))], ceiling=100.0), "ink")
    assert path.endswith(" 30.0")


def test_without_a_value_words_say_so() -> None:
    assert "nothing was counted" in chart("Errors", [Line("a", "ink", values(None))])


@pytest.mark.parametrize("hostile", ['"><script>', "<b>&"])
def test_names_and_marks_are_text_whatever_they_hold(hostile: str) -> None:
    drawn = chart(hostile, [Line(hostile, "ink", values(1, 2))], marks=[Mark(NOON, hostile)], unit=hostile)
    assert hostile not in drawn
    ET.fromstring(drawn)
