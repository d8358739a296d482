"""What the README shows does what it says: the code, the stage table, the two commands."""

import ast
import os
import re
import subprocess
import sys
import textwrap
import time
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from dualstore import DualStore, Stage
from dualstore.flags import StaticFlags
from dualstore.stages import STAGES, Side
from dualstore.stores import dynamo_clients

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for name, text in BLOCKS.findall(README) if name == language]


# The code


@pytest.fixture
def snippet() -> str:
    (found,) = blocks("python")
    return found


@pytest.fixture
def deployment(
    snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dynamodb_server: Any, postgres_url: str
) -> Any:
    """Both databases as a service of the README would have them, at stage `dualwrite`.

    boto3 and PynamoDB find the stand-in by AWS's own variable, so that the code stays as it is.
    """
    monkeypatch.setenv("AWS_ENDPOINT_URL_DYNAMODB", dynamodb_server.endpoint_url)
    definitions, with_store, _ = snippet.partition("\nwith DualStore")
    assert with_store
    defined: dict[str, Any] = {"__name__": "service"}
    exec(compile(definitions, "README.md", "exec"), defined)
    model, row, base = defined["Order"], defined["OrderRow"], defined["Base"]
    bookkeeping = f"readme-{time.time_ns()}"
    (tmp_path / "dualstore.toml").write_text(
        textwrap.dedent(f"""
            [postgres]
            url = "{postgres_url}"
            [dynamodb]
            region = "{model.Meta.region}"
            bookkeeping_table = "{bookkeeping}"
        """)
    )
    flags = StaticFlags()
    engine = sa.create_engine(postgres_url)
    with dynamo_clients(region=model.Meta.region) as clients:
        model.create_table(billing_mode="PAY_PER_REQUEST", wait=True)
        try:
            monkeypatch.chdir(tmp_path)
            with DualStore.from_config("dualstore.toml") as store:
                store.prepare()
                base.metadata.create_all(engine)
            with (
                DualStore(engine=engine, dynamodb=clients, flags=flags, options=store.options) as operator,
                operator.bound(model, row, name="orders"),
            ):
                flags.set("orders", stage=Stage.DUALWRITE)
                operator.table("orders").wait_until(
                    lambda record: record.stage is Stage.DUALWRITE, timeout=timedelta(seconds=30)
                )
            yield engine
        finally:
            engine.dispose()
            clients.reads.delete_table(TableName=model.Meta.table_name)
            clients.reads.delete_table(TableName=bookkeeping)


def test_the_code_prints_what_it_saved_and_mirrors_it(
    snippet: str, deployment: sa.Engine, tmp_path: Path
) -> None:
    (tmp_path / "service.py").write_text(snippet)
    ran = subprocess.run(
        [sys.executable, "service.py"],
        cwd=tmp_path,
        env=os.environ.copy(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (0, "9.5\n"), ran.stderr
    with deployment.connect() as connection:
        found = connection.execute(sa.text("SELECT customer, number, total FROM orders")).all()
    assert [(row.customer, int(row.number), float(row.total)) for row in found] == [("cust-1", 42, 9.5)]


# The stage table


def test_the_stage_table_is_the_one_in_the_code() -> None:
    names = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL", None: "-"}
    shown = [
        tuple(cell.strip() for cell in line.strip("|").split("|"))
        for line in README.splitlines()
        if re.match(rf"\| `({'|'.join(Stage)})` \|", line)
    ]
    dialled = "dialled, 0 to 100 % PostgreSQL"
    assert shown == [
        (
            f"`{stage}`",
            names[rule.authority],
            names[rule.mirror],
            dialled if rule.read_dial else names[rule.read_side],
            "yes" if rule.shadow_reads else "-",
        )
        for stage, rule in STAGES.items()
    ]


# The commands


def sessions() -> set[str]:
    """The names of the sessions in noxfile.py."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("session" in ast.unparse(d) for d in node.decorator_list)
    }


def test_there_are_two_commands_and_each_does_all_its_own_set_up() -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 2
    for command in commands:
        first, second, _ = command.split(" && ")
        assert first == "python3 -m venv .venv"
        assert second.startswith(".venv/bin/python -m pip install ")


def test_the_first_command_installs_and_runs_the_demo() -> None:
    command = blocks("sh")[0].strip()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extra,) = re.findall(r"'\.\[(\w+)\]'", command)
    assert extra in project["optional-dependencies"]
    program, subcommand = command.rpartition(" && ")[2].split()
    assert Path(program).name in project["scripts"]
    helped = subprocess.run(
        [sys.executable, "-c", "from dualstore.cli import main; main()", subcommand, "--help"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert helped.returncode == 0, helped.stderr


def test_the_second_command_runs_the_tests_as_ci_does() -> None:
    _, install, run = blocks("sh")[1].strip().split(" && ")
    assert install.endswith(" nox")
    program, option, session = run.split()
    assert (program, option) == (".venv/bin/nox", "-s")
    assert session in sessions()
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"pip install .*\bnox$", ci, re.MULTILINE)
    assert f"/nox -s {session} " in ci
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    (default,) = re.findall(r"^nox\.options\.sessions = (.+)$", noxfile, re.MULTILINE)
    run_by_ci = " ".join(re.findall(r"/nox -s ([a-z ]+)", ci)).split()
    assert sorted(run_by_ci) == sorted(ast.literal_eval(default))
