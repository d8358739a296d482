"""`dualstore dev`: both databases without Docker, on which `dualstore doctor` finds nothing wrong."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dualstore.cli import main

pytestmark = pytest.mark.usefixtures("patient_doctor")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that PostgreSQL may enter, which runs as nobody where root runs the tests."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o711)
        yield Path(name)


def dev(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["dev", *arguments])


def toml_of(told: str) -> str:
    return told.partition("\n# or in the environment")[0]


def test_detached_databases_are_found_again_are_well_and_end(folder: Path) -> None:
    place = ["--folder", str(folder / "dev")]
    assert dev("status", *place).exit_code == 1
    started = dev("up", "--detach", *place)
    try:
        assert started.exit_code == 0, started.output
        assert dev("up", "--detach", *place).output == started.output
        assert toml_of(started.output) in dev("status", *place).output
        config = folder / "dualstore.toml"
        config.write_text(toml_of(started.output))
        credentials = {"AWS_ACCESS_KEY_ID": "dualstore", "AWS_SECRET_ACCESS_KEY": "dualstore"}
        looked = CliRunner(env=credentials).invoke(main, ["doctor", "--config", str(config)])
        assert looked.exit_code == 0, looked.output
        assert "0 problem(s)" in looked.output
    finally:
        ended = dev("down", *place)
    assert ended.exit_code == 0, ended.output
    assert dev("status", *place).exit_code == 1
    assert dev("down", *place).output == "nothing runs\n"


def test_in_the_foreground_both_end_with_the_command(folder: Path) -> None:
    place = ["--folder", str(folder / "dev")]
    command = [Path(sys.executable).with_name("dualstore"), "dev", "up", *place]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stderr is not None
        for line in running.stderr:
            if "Ctrl-C" in line:
                break
        assert dev("status", *place).exit_code == 0
        os.kill(running.pid, signal.SIGINT)
        running.communicate(timeout=60)
    assert running.returncode == 0
    assert dev("status", *place).exit_code == 1
