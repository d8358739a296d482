"""A fleet of service processes on both databases, what they report, and the command line beside them."""

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from acceptance.fleet_ledger import Place
from acceptance.fleet_member import Order, cohort_of
from dualstore.cli import main
from dualstore.flags import included, share
from dualstore.items import KeyAttribute, KeySchema, partition_bytes
from dualstore.stages import Side
from integration.deployment import REGION, Deployment, eventually

NAME = "orders"
MEMBERS = 3
PATIENCE_SECONDS = 60.0
BANDS = ((0, 1, 2), (1, 10, 3), (10, 25, 3), (25, 50, 4), (50, 100, 4))
"""From and to which share of the keys there are how many partitions."""
_KEYS = KeySchema(KeyAttribute("pk", "S"), KeyAttribute("sk", "N"))
_ITEMS_PER_PARTITION = 2


def share_of(pk: str) -> float:
    """Where a partition stands between 0 and 100, by the documented hash."""
    return share(NAME, partition_bytes(_KEYS, {"pk": {"S": pk}}))


def partitions() -> list[str]:
    """Keys of customers, some between any two steps of the dial, and of two tenants that are cohorts."""
    found = ["internal-1", "internal-2", "bank-1", "bank-2"]
    for low, high, count in BANDS:
        numbered = (f"customer-{number}" for number in range(100_000))
        found += [pk for pk, _ in zip(_between(numbered, low, high), range(count), strict=False)]
    return found


def _between(keys: Iterator[str], low: float, high: float) -> Iterator[str]:
    return (pk for pk in keys if low <= share_of(pk) < high)


PARTITIONS = partitions()
PLACES = [Place(pk, sk) for pk in PARTITIONS for sk in range(_ITEMS_PER_PARTITION)]


def dialled(percent: float) -> set[str]:
    """The partitions that PostgreSQL is to serve at a percentage."""
    by_share = {pk for pk in PARTITIONS if cohort_of(pk) == "customer" and included(share_of(pk), percent)}
    return by_share | {pk for pk in PARTITIONS if cohort_of(pk) == "internal"}


@dataclass(frozen=True, slots=True)
class Read:
    """A read of a member.

    Attributes:
        member: whose.
        how: `get`, `query`, `batch`, or `own`: of what was written just before.
        pk: the partition, or None of a batch.
        began: by the machine's monotonic clock, which all processes share.
        ended: likewise.
        sides: which sides answered, in their order; the last one had the last word.
        told: when it was reported, later than any that was reported before it.
    """

    member: int
    how: str
    pk: str | None
    began: float
    ended: float
    sides: tuple[Side, ...]
    told: float

    @property
    def is_by_postgres(self) -> bool:
        """Whether PostgreSQL had the last word."""
        return self.sides[-1:] == (Side.POSTGRES,)


@dataclass
class Member:
    """A process, and what it has reported so far."""

    number: int
    process: "subprocess.Popen[str]"
    reads: list[Read] = field(default_factory=list)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    compared: Counter[str] | None = None
    is_serving: bool = False

    def __post_init__(self) -> None:
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            said = json.loads(line)
            match said.pop("kind"):
                case "read":
                    sides = tuple(Side(side) for side in said.pop("sides"))
                    self.reads.append(Read(self.number, **said, sides=sides, told=time.monotonic()))
                case "problem":
                    self.problems[said["problem"]] += 1
                case "compared":
                    self.compared = Counter(said["verdicts"])
                case "serving":
                    self.is_serving = True
                case _:
                    self.wrong.append(said)

    def since(self, moment: float) -> Iterator[Read]:
        """Its reads that began after a moment, the last one first."""
        for read in reversed(list(self.reads)):
            if read.told <= moment:
                return
            if read.began > moment:
                yield read

    def end(self) -> None:
        """Have it end in order."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def exit_code(self) -> int:
        """Its exit code, once all is taken in that it reports."""
        code = self.process.wait(PATIENCE_SECONDS)
        self._listening.join(PATIENCE_SECONDS)
        return code


@dataclass
class Fleet:
    """The members, and the command line.

    Attributes:
        deployment: the two databases.
        folder: of configuration, ledger and logs.
        members: the processes.
    """

    deployment: Deployment
    folder: Path
    members: Sequence[Member]

    @property
    def configuration(self) -> Path:
        return self.folder / "dualstore.toml"

    def dualstore(self, *arguments: str, code: int = 0) -> str:
        """What a command says, which ends with this exit code."""
        outcome = CliRunner().invoke(main, [*arguments, "--config", str(self.configuration)])
        assert outcome.exit_code == code, outcome.output
        return outcome.output

    @property
    def wrong(self) -> list[dict[str, Any]]:
        """What no caller should have seen."""
        return [each for member in self.members for each in member.wrong]

    def reads(self, *, since: float) -> list[Read]:
        """The reads that began after a moment."""
        return [read for member in self.members for read in member.since(since)]

    def served_by_postgres(self, *, since: float) -> set[str]:
        """The partitions of which PostgreSQL answered a read that began after a moment."""
        return {read.pk for read in self.reads(since=since) if read.pk is not None and read.is_by_postgres}

    def holds(self, expected: Collection[str], *, since: float) -> set[str]:
        """Wait until every member has read every partition, and has had the expected ones from PostgreSQL.

        Returns:
            The partitions that PostgreSQL has served since.
        """
        everywhere = {(member.number, pk) for member in self.members for pk in PARTITIONS}
        wanted = {(member.number, pk) for member in self.members for pk in expected}

        def left() -> set[tuple[int, str | None]]:
            """The members and partitions that are waited for."""
            reads = [read for read in self.reads(since=since) if read.how in {"get", "query"}]
            read = {(each.member, each.pk) for each in reads}
            moved = {(each.member, each.pk) for each in reads if each.is_by_postgres}
            return (everywhere - read) | (wanted - moved)

        with suppress(AssertionError):
            eventually(lambda: self.wrong or not left(), seconds=PATIENCE_SECONDS)
        assert self.wrong == [], self.wrong
        assert left() == set(), f"not read, or not from PostgreSQL: {sorted(left())}"
        return self.served_by_postgres(since=since)

    def everybody(self, holds: Callable[[Member], Any]) -> None:
        """Wait until something holds of every member."""
        eventually(lambda: all(holds(member) for member in self.members), seconds=PATIENCE_SECONDS)

    def finish(self) -> None:
        """End every member in order."""
        for member in self.members:
            member.end()
        assert [member.exit_code() for member in self.members] == [0] * len(self.members), self.logs()
        assert self.wrong == [], self.wrong

    def logs(self) -> str:
        """What the members wrote to their logs, the last of it."""
        return "\n".join(path.read_text()[-2_000:] for path in sorted(self.folder.glob("member-*.log")))


@contextmanager
def fleet_of(
    deployment: Deployment, table: str, folder: Path, flags: str, *, pause_seconds: float = 0.05
) -> Iterator[Fleet]:
    """A fleet that serves a table.

    Args:
        deployment: the two databases.
        table: the physical name.
        folder: for configuration, ledger and logs; commands are to find the models from here.
        flags: the section `[flags]`.
        pause_seconds: between two calls of a thread; each member has two.
    """
    module = f"models_of_{table.replace('-', '_')}"
    (folder / f"{module}.py").write_text(
        "from integration.deployment import order_model, order_row\n"
        f"Order = order_model({table!r}, {deployment.endpoint_url!r})\n"
        f"OrderRow = order_row({table.replace('-', '_')!r})\n"
    )
    (folder / "dualstore.toml").write_text(_configuration(deployment, module, flags))
    with ExitStack() as stack:
        processes = []
        for number in range(MEMBERS):
            order = Order(
                configuration=str(folder / "dualstore.toml"),
                models=module,
                ledger=str(folder / "ledger"),
                places=[(place.pk, place.sk) for place in PLACES],
                own=list(range(number, len(PLACES), MEMBERS)),
                pause_seconds=pause_seconds,
            )
            log = stack.enter_context((folder / f"member-{number}.log").open("w"))
            process = subprocess.Popen(
                [sys.executable, "-m", "acceptance.fleet_member", order.to_json()],
                cwd=folder,
                env=_environment(folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            stack.callback(_end, process)
            processes.append(process)
        members = [Member(number, process) for number, process in enumerate(processes)]
        fleet = Fleet(deployment, folder, members)
        eventually(
            lambda: (
                all(member.is_serving and member.reads for member in members)
                or any(process.poll() is not None for process in processes)
            ),
            seconds=2 * PATIENCE_SECONDS,
        )
        assert all(member.is_serving for member in members), fleet.logs()
        yield fleet


def _end(process: "subprocess.Popen[str]") -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def _environment(folder: Path) -> dict[str, str]:
    """This one, with the tests and the models among the modules that can be imported."""
    found = [str(Path(__file__).parents[1]), str(folder), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, found))}


def _configuration(deployment: Deployment, module: str, flags: str) -> str:
    url = deployment.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    return f"""
[postgres]
url = {json.dumps(url)}
[dynamodb]
endpoint_url = {json.dumps(deployment.endpoint_url)}
region = {json.dumps(REGION)}
bookkeeping_table = {json.dumps(deployment.bookkeeping)}
[control]
poll_interval_seconds = 0.1
[telemetry]
rollup_seconds = 0.5
[flags]
{flags}
[tables.{NAME}]
model = "{module}:Order"
row = "{module}:OrderRow"
[tables.{NAME}.cohorts]
always_on = ["internal"]
always_off = ["bank"]
"""
