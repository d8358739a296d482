"""The ledger files of the demo, from which its proof is computed."""

import subprocess
import sys
import textwrap

from dualstore.cli.demo.ledger import LedgerWriter, read_ledgers
from dualstore.cli.demo.writes import Close, Rename, Reopen, Save, Visit, record

AIRPORT = record({"icao": "BIKF", "name": "Keflavík", "lat": 63.985, "visitors": {"a", "b"}})
WRITES = (Save(AIRPORT), Reopen(AIRPORT), Close(), Rename("Keflavík", "x"), Visit("w-1#5"))


def test_every_write_is_read_back_as_it_was_noted(tmp_path):
    with LedgerWriter(tmp_path, "w-1") as ledger:
        for write in WRITES:
            ledger.conclude(ledger.intend("BIKF", write), "acknowledged")
    entries = read_ledgers(tmp_path)
    assert tuple(entry.write for entry in entries) == WRITES
    assert all(entry.began_ns <= entry.ended_ns for entry in entries)
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]


def test_a_write_that_was_never_answered_is_unknown(tmp_path):
    with LedgerWriter(tmp_path, "w-1") as ledger:
        ledger.intend("BIKF", Close())
    (entry,) = read_ledgers(tmp_path)
    assert (entry.outcome, entry.ended_ns) == ("unknown", None)


def test_a_line_cut_short_does_not_count(tmp_path):
    with LedgerWriter(tmp_path, "w-1") as ledger:
        ledger.conclude(ledger.intend("BIKF", Close()), "acknowledged")
    path = tmp_path / "w-1.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    (entry,) = read_ledgers(tmp_path)
    assert entry.outcome == "unknown"


def test_what_was_noted_outlives_a_kill(tmp_path):
    script = textwrap.dedent(
        """
        import os, signal, sys
        from pathlib import Path
        from dualstore.cli.demo.ledger import LedgerWriter
        from dualstore.cli.demo.writes import Close
        with LedgerWriter(Path(sys.argv[1]), "victim-1") as ledger:
            ledger.conclude(ledger.intend("BIKF", Close()), "acknowledged")
            ledger.intend("BIKF", Close())
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], check=False, timeout=120)
    assert ended.returncode == -9
    assert [entry.outcome for entry in read_ledgers(tmp_path)] == ["acknowledged", "unknown"]
