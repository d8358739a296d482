"""What a developer of dualstore can run: `nox -l` lists it, `nox` runs what CI runs."""

import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.2"
# pip alone: it obeys the machine's pip configuration, and nothing else need be installed.
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True
nox.options.sessions = ["lint", "layers", "typing", "wheel", "tests"]

PYPROJECT = nox.project.load_toml("pyproject.toml")
SPREAD = ("-n", "4", "--dist", "worksteal")
"""Over test processes, each with servers of its own: twice as many as CI has cores, since most tests wait.

Stealing, since the longest tests are neighbours, and one process would get them all.
"""

EXTRAS = ".[demo,serve,fast]"

# What the wheel has to bring besides the modules, as patterns of paths in it.
IN_THE_WHEEL = {
    "the typing marker": "dualstore/py.typed",
    "the Alembic environment": "dualstore/schema/migrations/env.py",
    "an Alembic migration": "dualstore/schema/migrations/versions/*.py",
    "the service of the demo": "dualstore/examples/airports/models.py",
    "the plan of the demo": "dualstore/examples/airports/migration.yml",
    "the schema of plans": "dualstore/rollout/migration-plan.schema.json",
    "the guard of the servers": "dualstore/testing/servers/guard.py",
    "the licence": "*.dist-info/licenses/LICENSE",
}


def group(name: str) -> list[str]:
    """The requirements of a dependency group."""
    return list(nox.project.dependency_groups(PYPROJECT, name))


@nox.session
def tests(session: nox.Session) -> None:
    """All tests, on servers that it starts itself. `nox -s tests -- tests/unit -k items`."""
    required = _with_everything(session)
    session.run("python", "-m", "pytest", *SPREAD, "--durations=25", *session.posargs, env=required)


@nox.session(default=False)
def thorough(session: nox.Session) -> None:
    """The tests that could go on for ever, for longer than `tests` lets them: see tests/volume.py."""
    required = _with_everything(session) | {"DUALSTORE_THOROUGH": "1"}
    using = [
        str(path) for path in Path("tests").rglob("test_*.py") if "from volume import" in path.read_text()
    ]
    session.run("python", "-m", "pytest", *SPREAD, *using, *session.posargs, env=required)


@nox.session(name="backfill-kill", default=False)
def backfill_kill(session: nox.Session) -> None:
    """Workers and coordinators of a backfill killed at every step, on more items than `tests` has."""
    session.install("-e", EXTRAS, *group("test"))
    _fetch_dynoxide(session)
    required = {"DUALSTORE_REQUIRE_SERVERS": "1", "DUALSTORE_KILL_ITEMS": "5000"}
    names = ("", "_processes", "_faults", "_guard")
    paths = [f"tests/integration/test_backfill{name}.py" for name in names]
    session.run("python", "-m", "pytest", "-n0", "--timeout=600", *paths, *session.posargs, env=required)


@nox.session(name="verify-million", default=False)
def verify_million(session: nox.Session) -> None:
    """A million items with random damage in 0.01 %, found exactly whatever is killed; tells the memory."""
    required = _with_everything(session) | {"DUALSTORE_VERIFY_ITEMS": "1000000"}
    paths = [f"tests/integration/test_verify_{name}.py" for name in ("million", "commands")]
    session.run("python", "-m", "pytest", "-n0", "--timeout=0", *paths, *session.posargs, env=required)


@nox.session(default=False)
def spark(session: nox.Session) -> None:
    """A backfill and a verification by Spark jobs on this machine, tasks killed and doubled; needs Java."""
    session.install("-e", f"{EXTRAS[:-1]},spark]", *group("test"))
    _fetch_dynoxide(session)
    required = {"DUALSTORE_REQUIRE_SERVERS": "1", "DUALSTORE_SPARK": "1"}
    paths = [f"tests/integration/test_{what}_spark.py" for what in ("backfill", "verify")]
    session.run("python", "-m", "pytest", "-n0", *paths, *session.posargs, env=required)


@nox.session(default=False)
def entities(session: nox.Session) -> None:
    """The whole contract on a table in several SQL tables, and at `complete`; many histories of one."""
    session.install("-e", EXTRAS, *group("test"))
    _fetch_dynoxide(session)
    env = {
        "DUALSTORE_CONTRACT_EVERYTHING": "1",
        "DUALSTORE_ENTITY_EXAMPLES": "500",
        "DUALSTORE_REQUIRE_SERVERS": "1",
    }
    chosen = "entities or complete"
    session.run("python", "-m", "pytest", "tests/contract", "-k", chosen, *session.posargs, env=env)
    path = "tests/equivalence/test_entities_against_memory.py"
    session.run("python", "-m", "pytest", "--timeout=0", path, *session.posargs, env=env)


@nox.session(default=False)
def pgbouncer(session: nox.Session) -> None:
    """The contract of PostgreSQL through PgBouncer's transaction pooling; needs pgbouncer 1.21 or later."""
    session.install("-e", EXTRAS, *group("test"))
    _fetch_dynoxide(session)
    env = {"DUALSTORE_REQUIRE_SERVERS": "1", "PYTHONPATH": "tests"}
    session.run("python", "-m", "pgbouncer", *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: every rule, and the format. `nox -s lint -- --fix` mends what it can."""
    session.install(*group("lint"))
    if "--fix" in session.posargs:
        session.run("ruff", "check", "--fix", ".")
        session.run("ruff", "format", ".")
    else:
        session.run("ruff", "check", ".")
        session.run("ruff", "format", "--check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Mypy, strict, and pyright for its second opinion."""
    session.install("-e", EXTRAS, *group("typing"))
    session.run("mypy")
    session.run("pyright", env={"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})


@nox.session
def layers(session: nox.Session) -> None:
    """Imports point one way, down the list in pyproject.toml."""
    session.install("-e", ".", *group("layers"))
    session.run("lint-imports")


@nox.session
def wheel(session: nox.Session) -> None:
    """Builds the wheel and tries it in an environment where nothing else is installed."""
    session.install("build", "virtualenv")
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        session.run("python", "-m", "build", "--outdir", name, silent=True)
        (built,) = scratch.glob("*.whl")
        _check_contents(session, built)
        session.run("python", "-m", "virtualenv", "--quiet", str(scratch / "clean"))
        python = str(scratch / "clean" / "bin" / "python")
        command = str(scratch / "clean" / "bin" / "dualstore")
        session.run(python, "-m", "pip", "install", "--quiet", str(built), external=True)
        with session.chdir(scratch):  # away from the sources
            session.run(command, "--help", external=True)


@nox.session
def acceptance(session: nox.Session) -> None:
    """The README's commands, as they stand there, each in a fresh clone of what is committed."""
    commands = _readme_commands(Path("README.md"))
    if not commands:
        session.error("README.md has no line of shell with `pip install` in it")
    for command in commands:
        with tempfile.TemporaryDirectory() as clone:
            session.run("git", "clone", "--quiet", ".", clone, external=True)
            with session.chdir(clone):
                session.run("bash", "-euo", "pipefail", "-c", command, external=True)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks; prints ratios. `nox -s bench -- --help`."""
    session.install("-e", EXTRAS, *group("test"), *group("bench"))
    _fetch_dynoxide(session)
    for program in sorted(Path("benchmarks").glob("*.py")):
        session.run("python", str(program), *session.posargs)


@nox.session
def conformance(session: nox.Session) -> None:
    """The public DynamoDB suite against `dualstore serve`; DYNAMODB_CONFORMANCE names its folder."""
    suite = os.environ.get("DYNAMODB_CONFORMANCE")
    if suite is None:
        session.error("set DYNAMODB_CONFORMANCE to a clone of nubo-db/dynamodb-conformance, after npm ci")
    session.install("-e", EXTRAS)
    dualstore = str(Path(session.bin) / "dualstore")
    command = [dualstore, "serve", "--side", "postgres", "--embedded", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            listening = re.search(r"http://\S+:\d+", server.stdout.readline() if server.stdout else "")
            if listening is None:
                session.error("dualstore serve did not start")
            with session.chdir(suite):
                session.run(
                    *("npx", "vitest", "run", *session.posargs),
                    external=True,
                    env={"DYNAMODB_ENDPOINT": listening[0]},
                )
        finally:
            server.terminate()


@nox.session
def simulate(session: nox.Session) -> None:
    """A million schedules of the protocol. `nox -s simulate -- --schedules 10000 --scenario flipping`."""
    session.install("-e", ".", *group("test"))
    session.run("python", "-m", "replication.simulate", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Takes away rule after rule; writes docs/explanation/mutants.md (not with `-- --scenario counting`)."""
    session.install("-e", ".", *group("test"))
    session.run("python", "-m", "replication.page", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def planted(session: nox.Session) -> None:
    """Plants faults in the PostgreSQL store, which the equivalence kit must catch; writes their page."""
    session.install("-e", EXTRAS, *group("test"))
    _fetch_dynoxide(session)
    session.run("python", "-m", "equivalence.planted", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def soak(session: nox.Session) -> None:
    """Ten minutes of traffic and faults on real databases, and a judge. `nox -s soak -- --minutes 60`."""
    session.install("-e", EXTRAS, *group("test"))
    _fetch_dynoxide(session)
    session.run("python", "-m", "soak", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def rollout(session: nox.Session) -> None:
    """A plan under traffic, its runner killed before and after every act; load by two. Ten minutes."""
    session.install("-e", EXTRAS, *group("test"))
    _fetch_dynoxide(session)
    env = {"DUALSTORE_PLAN_KILLS": "all", "DUALSTORE_LOAD_PROCESSES": "2", "DUALSTORE_REQUIRE_SERVERS": "1"}
    tests = ("tests/integration/test_plan.py", "tests/integration/test_load.py")
    session.run("python", "-m", "pytest", *tests, *session.posargs, env=env)


@nox.session
def demo(session: nox.Session) -> None:
    """A whole migration of real data, under traffic. `nox -s demo -- --fast`."""
    session.install("-e", EXTRAS)
    session.run("dualstore", "demo", *session.posargs)


def _with_everything(session: nox.Session) -> dict[str, str]:
    """Installs all that tests use; gives the variables that let no test be skipped for the want of it."""
    session.install("-e", EXTRAS, *group("test"))
    _fetch_dynoxide(session)
    required = {"DUALSTORE_REQUIRE_SERVERS": os.environ.get("DUALSTORE_REQUIRE_SERVERS", "1")}
    if _build_accelerator(session):
        required["DUALSTORE_REQUIRE_ACCELERATOR"] = "1"
    return required


def _fetch_dynoxide(session: nox.Session) -> None:
    """Installs the better DynamoDB stand-in where npm is; the other one came from PyPI."""
    if shutil.which("npm") is None:
        session.warn("npm is not installed: DynamoDB is played by ministack, not by dynoxide")
        return
    install = "from dualstore.testing.servers import install_dynoxide; print(install_dynoxide())"
    session.run("python", "-c", install)


def _build_accelerator(session: nox.Session) -> bool:
    """Installs the compiled twin of the transcoder where there is a C compiler."""
    if shutil.which("cc") is None:
        session.warn("there is no C compiler: the transcoder is tested in Python only")
        return False
    session.install("./accelerator")
    return True


def _check_contents(session: nox.Session, built: Path) -> None:
    with zipfile.ZipFile(built) as archive:
        contents = [Path(name) for name in archive.namelist()]
    missing = [
        what for what, pattern in IN_THE_WHEEL.items() if not any(path.match(pattern) for path in contents)
    ]
    if missing:
        session.error(f"{built.name} lacks {', '.join(missing)}")
    if strays := [path for path in contents if "__pycache__" in path.parts or ".mypy_cache" in path.parts]:
        session.error(f"{built.name} holds what only our machine needs: {strays[0]}, ...")


def _readme_commands(readme: Path) -> list[str]:
    """The lines of shell that set themselves up: what a stranger copies."""
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", readme.read_text(), re.MULTILINE | re.DOTALL)
    lines = (line.strip().removeprefix("$ ") for block in blocks for line in block.splitlines())
    return [line for line in lines if "pip install" in line]
