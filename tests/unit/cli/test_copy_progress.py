"""How far a copy has come, as people and machines are told: lines, a table that changes, JSON."""

import json
from datetime import timedelta
from uuid import UUID

import pytest
from rich.console import Console

from dualstore.backfill import BackfillProgress, Phase
from dualstore.cli import copy_progress
from dualstore.cli.copy_progress import lines_of, shown_as
from dualstore.stores.ledger import WAITING, Run, RunState, WorkerSeen

RUN = Run(UUID(int=7), "backfill", "orders-prod", RunState.RUNNING, {})
DONE = BackfillProgress(
    items=1_500,
    inserted=1_490,
    settled=7,
    failed=3,
    bytes=525_000,
    pieces_done=2,
    pieces_total=8,
    elapsed=timedelta(seconds=30),
    rate=50.0,
    read_units=1_234.5,
    expected_items=10_000,
    workers=(WorkerSeen("a:1", 4, 700, 30.0), WorkerSeen("b:2", 5, 800, 20.0, f"{WAITING}a replica lags")),
)


def changed(**values):
    return BackfillProgress(**({name: getattr(DONE, name) for name in DONE.__slots__} | values))


def test_a_line_says_how_much_is_done_how_fast_and_how_long_it_will_take():
    line, *_ = lines_of("orders", DONE, run=RUN, as_json=False)

    assert line == (
        "orders: copying, 1,500 of about 10,000 items, 50/s, 2/8 pieces, 7 settled, 3 in quarantine, "
        "1,234 read units, about 2 min left, held back: a replica lags; "
        "run 00000000-0000-0000-0000-000000000007, running"
    )


def test_every_worker_has_a_line_and_says_what_it_waits_for():
    _, *workers = lines_of("orders", DONE, run=RUN, as_json=False)

    assert workers == [
        "  a:1: piece 4, 700 items, 30/s",
        "  b:2: piece 5, 800 items, 20/s, waits: a replica lags",
    ]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"paused_by": "ann: month's end"}, "paused by ann: month's end"),
        ({"phase": Phase.WAITING, "waiting_for": 2}, "waiting for 2 older transaction(s)"),
        ({"pieces_failed": 1}, "1 piece(s) given up"),
        ({"expected_items": 10_000_000}, "about 55 h 32 min left"),
        ({"expected_items": 2_000}, "about 10 s left"),
        ({"expected_items": None}, "1,500 items"),
    ],
)
def test_a_line_says_what_is_special(values, said):
    line, *_ = lines_of("orders", changed(**values), run=RUN, as_json=False)

    assert said in line


def test_json_holds_all_of_it_the_workers_too():
    (line,) = lines_of("orders", DONE, run=RUN, as_json=True)

    seen = json.loads(line)
    assert (seen["table"], seen["run"], seen["state"]) == ("orders", str(RUN.id), "running")
    assert (seen["items"], seen["rate"], seen["eta"], seen["elapsed"]) == (1_500, 50.0, 170.0, 30.0)
    assert (seen["phase"], seen["failed"], seen["read_units"]) == ("copying", 3, 1_234.5)
    assert seen["workers"][0] == {"name": "a:1", "piece": 4, "items": 700, "rate": 30.0, "error": None}
    assert seen["waits_for"] == "a replica lags"


def test_a_log_gets_a_line_at_once_when_something_changes_and_else_now_and_then(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(copy_progress.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(copy_progress, "console", lambda: Console(force_terminal=False))

    with shown_as("orders", as_json=False) as shown:
        for after, values in (
            (0, {}),
            (1, {}),
            (1, {"paused_by": "ann"}),
            (1, {"paused_by": "ann"}),
            (10, {}),
        ):
            now[0] += after
            shown(changed(**values))

    lines = capsys.readouterr().out.splitlines()
    assert ["paused by ann" in line for line in lines] == [False, True, False]


def test_a_terminal_gets_a_table_of_the_workers(monkeypatch):
    drawn = Console(force_terminal=True, width=200, record=True)
    monkeypatch.setattr(copy_progress, "console", lambda: drawn)

    with shown_as("orders", as_json=False) as shown:
        shown(changed(paused_by="ann"))
    drawn.print(copy_progress._view("orders", changed(paused_by="ann")))

    text = drawn.export_text()
    assert "paused by ann" in text
    assert all(row in text for row in ("a:1", "b:2", "30/s", "20/s"))
