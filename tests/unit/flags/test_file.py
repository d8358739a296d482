"""Flags from a file, evaluated by LaunchDarkly's SDK (a file in a temporary folder, no network)."""

import json
import logging
import os
import threading
import time
from datetime import timedelta

import ldclient
import pytest

from dualstore.errors import ConfigurationError
from dualstore.flags import FileFlags, FlagProblem, ProblemKind, Requested
from dualstore.stages import Stage

POLL = timedelta(milliseconds=20)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flags.json"


@pytest.fixture
def flags(path):
    with FileFlags(path, poll_interval=POLL) as following:
        yield following


def put(path, content):
    """Writes as `set` does: the SDK may otherwise read a file that is only half written."""
    new = path.with_suffix(".new")
    new.write_text(content)
    new.replace(path)


def eventually(condition, *, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def sdk_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ldclient")]


def test_every_flag_of_a_table_is_read_from_the_file(path, flags):
    values = {
        "dualstore-orders-stage": "shadow",
        "dualstore-orders-read-percent": 12.5,
        "dualstore-orders-mirror-percent": 100,
        "dualstore-orders-shadow-percent": 0,
    }
    path.write_text(json.dumps({"flagValues": values}))
    assert flags.requested("orders") == Requested(Stage.SHADOW, 12.5, 100.0, 0.0)


def test_a_full_flag_definition_is_evaluated_for_the_service_context(path, flags):
    """Targeting rules work as in LaunchDarkly: this flag is `live` for the context kind `service` only."""
    rule = {"id": "r", "variation": 1, "clauses": [
        {"attribute": "kind", "op": "in", "values": ["service"]}]}  # fmt: skip
    flag = {"key": "dualstore-orders-stage", "on": True, "variations": ["off", "live"],
            "fallthrough": {"variation": 0}, "rules": [rule], "salt": "x"}  # fmt: skip
    path.write_text(json.dumps({"flags": {flag["key"]: flag}}))
    assert flags.requested("orders").stage is Stage.LIVE


def test_a_change_of_the_file_is_seen_at_the_next_poll(flags):
    flags.set("orders", stage="dualwrite")
    assert flags.requested("orders").stage is Stage.DUALWRITE
    flags.set("orders", stage="shadow", postgres_read_percent=10)
    eventually(lambda: flags.requested("orders") == Requested(Stage.SHADOW, 10.0))


def test_a_written_file_is_always_later_than_the_one_it_replaces(path, flags):
    """Followers compare times, and clocks step back and tick slowly."""
    flags.set("orders", postgres_read_percent=1)
    in_a_minute = time.time() + 60
    os.utime(path, (in_a_minute, in_a_minute))
    before = path.stat().st_mtime
    flags.set("orders", postgres_read_percent=2)
    assert path.stat().st_mtime > before


def test_a_flag_file_that_appears_later_is_followed(path, flags, capsys):
    assert flags.requested("orders") == Requested()
    assert "FileNotFoundError" in capsys.readouterr().err, "the SDK itself prints this"
    put(path, '{"flagValues": {"dualstore-orders-stage": "dualwrite"}}')
    eventually(lambda: flags.requested("orders").stage is Stage.DUALWRITE)


def test_a_file_that_breaks_leaves_the_flags_as_they_were(path, flags, caplog, capsys):
    flags.set("orders", stage="shadow")
    flags.requested("orders")
    put(path, '{"flagValues": {')
    unreachable = FlagProblem(None, str(path), ProblemKind.UNREACHABLE)
    eventually(lambda: flags.problems.counts().get(unreachable))
    assert flags.requested("orders").stage is Stage.SHADOW
    eventually(lambda: any("staying" in r.message and str(path) in r.message for r in caplog.records))
    flags_text = json.dumps({"flagValues": {"dualstore-orders-stage": "dualwrite"}})
    put(path, flags_text)
    eventually(lambda: flags.requested("orders").stage is Stage.DUALWRITE)
    capsys.readouterr()


@pytest.mark.parametrize("value", ["Shadow", "", 3, False, ["off"], {"stage": "off"}, None])
def test_a_stage_that_is_none_asks_nothing_and_is_counted(path, flags, value):
    path.write_text(json.dumps({"flagValues": {"dualstore-orders-stage": value}}))
    assert flags.requested("orders").stage is None
    assert (
        flags.problems.counts()[FlagProblem("orders", "dualstore-orders-stage", ProblemKind.MALFORMED)] == 1
    )


@pytest.mark.parametrize("value", [-0.1, 100.1, "50", True, None])
def test_a_percentage_that_is_none_asks_nothing(path, flags, value):
    path.write_text(json.dumps({"flagValues": {"dualstore-orders-read-percent": value}}))
    assert flags.requested("orders").postgres_read_percent is None


def test_a_missing_flag_is_warned_of_once_and_counted_each_time(path, flags, caplog):
    flags.set("orders", stage="off", postgres_read_percent=0, mirror_percent=100)
    flags.requested("orders")
    for percent in (1, 2, 3):
        flags.set("orders", postgres_read_percent=percent)
        eventually(lambda percent=percent: flags.requested("orders").postgres_read_percent == percent)
    missing = FlagProblem("orders", "dualstore-orders-shadow-percent", ProblemKind.MISSING)
    assert flags.problems.counts() == {missing: 4}
    assert sum("shadow-percent" in r.message and r.levelno == logging.WARNING for r in caplog.records) == 1


def test_a_problem_listener_hears_every_occurrence(path):
    path.write_text('{"flagValues": {}}')
    heard = []
    with FileFlags(path, on_problem=heard.append) as flags:
        flags.requested("orders")
    assert [problem.kind for problem in heard] == [ProblemKind.MISSING] * 4


def test_setting_one_flag_keeps_all_others_and_the_files_mode(path, flags):
    full = {"key": "theirs", "on": False, "variations": [1], "offVariation": 0}
    replaced = {"key": "dualstore-orders-stage", "on": False, "variations": ["off"], "offVariation": 0}
    path.write_text(json.dumps({
        "flags": {"theirs": full, "dualstore-orders-stage": replaced},
        "flagValues": {"mine": "é", "dualstore-orders-read-percent": 5},
        "segments": {},
    }))  # fmt: skip
    path.chmod(0o640)
    flags.set("orders", stage=Stage.SHADOW, postgres_read_percent=None)
    assert json.loads(path.read_text()) == {
        "flags": {"theirs": full},
        "flagValues": {"mine": "é", "dualstore-orders-stage": "shadow"},
        "segments": {},
    }
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_what_was_set_can_be_put_back_definitions_and_absence_included(path, flags):
    full = {
        "key": "dualstore-orders-stage",
        "on": True,
        "variations": ["off"],
        "fallthrough": {"variation": 0},
    }
    before = {"flags": {full["key"]: full}, "flagValues": {"dualstore-orders-read-percent": 5}}
    path.write_text(json.dumps(before))
    put_back = flags.set("orders", stage="shadow", postgres_read_percent=10, shadow_percent=1)
    flags.set("carts", stage="dualwrite")
    put_back()
    before["flagValues"]["dualstore-carts-stage"] = "dualwrite"
    assert json.loads(path.read_text()) == before


def test_writers_in_several_threads_do_not_undo_each_other(path):
    def dial(table):
        with FileFlags(path) as flags:
            for percent in range(10):
                flags.set(table, postgres_read_percent=percent)

    threads = [threading.Thread(target=dial, args=(f"t{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert json.loads(path.read_text())["flagValues"] == {
        f"dualstore-t{n}-read-percent": 9.0 for n in range(8)
    }


@pytest.mark.parametrize("content", ["flagValues: {a: 1}", "[]", '{"flagValues": []}', '{"flags": 1}'])
def test_a_file_of_another_kind_is_never_written_over(path, flags, content):
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="Flag file"):
        flags.set("orders", stage="off")
    assert path.read_text() == content


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match="folder cannot be opened"):
        FileFlags(tmp_path / "absent" / "flags.json").set("orders", stage="off")


def test_creating_the_file_never_replaces_one(path, flags):
    flags.create()
    assert json.loads(path.read_text()) == {"flagValues": {}}
    flags.set("orders", stage="off")
    flags.create()
    assert "dualstore-orders-stage" in path.read_text()


def test_closing_ends_the_sdks_thread_and_keeps_what_was_known(path):
    flags = FileFlags(path)
    assert not sdk_threads(), "a constructor does no I/O"
    flags.set("orders", stage="shadow")
    flags.requested("orders")
    assert len(sdk_threads()) == 1
    flags.close()
    eventually(lambda: not sdk_threads())
    assert flags.requested("orders").stage is Stage.SHADOW
    assert flags.requested("carts") == Requested()
    flags.close()


def test_the_sdks_global_client_is_left_alone(flags):
    flags.create()
    flags.requested("orders")
    with pytest.raises(Exception, match="set_config was not called"):
        ldclient.get()


def test_asking_costs_a_look_up_and_no_evaluation(flags, monkeypatch):
    flags.set("orders", stage="shadow")
    assert flags.requested("orders").stage is Stage.SHADOW
    asked = []
    evaluate = ldclient.LDClient.variation_detail
    monkeypatch.setattr(
        ldclient.LDClient, "variation_detail", lambda *which: asked.append(which[1]) or evaluate(*which)
    )
    for _ in range(1_000):
        flags.requested("orders")
    assert len(asked) < 100, "a change of the file may be noticed late, and evaluated once more"
    flags.set("orders", stage="live")
    eventually(lambda: flags.requested("orders").stage is Stage.LIVE)
    assert "dualstore-orders-stage" in asked, "what is counted here are evaluations"
