"""A person stops every read that the authority does not serve; PostgreSQL or the authority is enough for it.

Where the authority can be reached, the stop stands in the record that decides: no grant outlives its reading
by more than δ. Where only PostgreSQL can, and is the mirror, it stands there as a mark, and every read of a
mirror looks for it in its own statement; whoever reaches both brings it over into the record. The record wins
over the dials. A stop is taken back in both databases, by a person.

So before `live` either database is enough. From `live` on PostgreSQL is needed: DynamoDB alone has neither
the record that decides nor the mark, and what it answers meanwhile (`stale_reads`) cannot be stopped there.
"""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar, cast

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord, Stop
from dualstore.errors import Unavailable
from dualstore.replication.deciding import Change, decide
from dualstore.replication.search import Homes
from dualstore.stages import Side
from dualstore.stores.control_homes import ControlHome, StopMarks

if TYPE_CHECKING:
    from dualstore.replication.agent import Agent

_UNREACHABLE = (ClientError, BotoCoreError, Unavailable)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopping:
    """What a stop has reached.

    Attributes:
        table: the table's physical name.
        record: the control record that decides, with the stop in it; None where its database is out of reach,
            or the authority is on its way from one to the other.
        marked: whether PostgreSQL itself refuses every read of the mirror from now on.
        failures: why a database could not be reached.
    """

    table: str
    record: ControlRecord | None
    marked: bool
    failures: Mapping[Side, Exception] = field(default_factory=dict)


def stop_reads(homes: Homes, table: str, stop: Stop) -> Stopping:
    """Stop the reads of a table; harmless where they are stopped: who stopped them first stays noted.

    Both databases are asked at once, so that one that hangs does not hold up the other. When this returns, no
    read of the mirror begins for longer than δ (1 s).

    Args:
        homes: both databases; either may be out of reach.
        table: the physical name.
        stop: who, when and why.

    Raises:
        Unavailable: neither database took it; also where DynamoDB alone answers and PostgreSQL is the
            authority.
    """
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="dualstore-stop") as threads:
        marking = threads.submit(_mark_stop, marks_of(homes), table, stop)
        recording = {side: threads.submit(_record_stop, homes[side], table, stop) for side in Side}
    failures: dict[Side, Exception] = {}
    marked = _result(marking, Side.POSTGRES, failures) is True
    records = [_result(each, side, failures) for side, each in recording.items()]
    record = next(filter(None, records), None)
    if record is None and not marked:
        raise Unavailable(
            f"the reads of {table} are not stopped: neither database took it "
            f"({', '.join(f'{side}: {type(error).__name__}' for side, error in failures.items())}); try again"
        )
    return Stopping(table=table, record=record, marked=marked, failures=failures)


def release_reads(homes: Homes, table: str) -> ControlRecord:
    """Let reads go where the dials say again, whoever stopped them; harmless where they are not stopped.

    Returns:
        The control record that decides, as it is now.

    Raises:
        Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: PostgreSQL, or the
            database that decides, does not answer; the reads stay stopped.
    """

    def find() -> tuple[ControlHome, ControlRecord]:
        return _deciding(homes, table)

    marks = marks_of(homes)
    # Before the mark goes the record names the stop: where not all of it can be taken back, nothing is.
    decide(find, _marked(marks, table))
    marks.unmark_stopped(table)
    # Also where the record names no stop: whoever has seen the mark before it went, and is about to bring it
    # over, fails on the generation that is counted here.
    return decide(find, lambda _: {"stopped": None})


def bring_over(agent: "Agent", table: str) -> None:
    """Take a stop that PostgreSQL alone knows of into the record that decides.

    Raises:
        Unavailable, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError: a database does not
            answer.
    """
    marks = marks_of(agent.homes)
    if agent.view(table).record.stopped is not None or table not in marks.stop_marks():
        return

    agent.decide(table, _marked(marks, table))


def marks_of(homes: Homes) -> StopMarks:
    """Where PostgreSQL notes whose mirror is not to be read."""
    return cast("StopMarks", homes[Side.POSTGRES])


def _marked(marks: StopMarks, table: str) -> Change:
    """The change that takes PostgreSQL's mark into the record, where there is one."""

    def change(record: ControlRecord) -> Mapping[str, object]:
        # Looked for after the record was read: see `release_reads`.
        mark = marks.stop_marks().get(table)
        return {} if mark is None or record.stopped is not None else {"stopped": mark}

    return change


def _mark_stop(marks: StopMarks, table: str, stop: Stop) -> bool:
    marks.mark_stopped(table, stop)
    return True


def _record_stop(home: ControlHome, table: str, stop: Stop) -> ControlRecord | None:
    """Note a stop in the record of one database, if that is the one that decides."""
    while (record := home.read_all().get(table)) is not None and record.decides:
        if record.stopped is not None:
            return record
        changed = home.change(record, stopped=stop)
        if changed is not None:
            return changed
    return None


def _deciding(homes: Homes, table: str) -> tuple[ControlHome, ControlRecord]:
    failure: Exception | None = None
    for home in homes.values():
        try:
            record = home.read_all().get(table)
        except _UNREACHABLE as error:
            failure = error
            continue
        if record is not None and record.decides:
            return home, record
    raise failure or Unavailable(
        f"no database decides for {table} now: it has never been served, or its authority moves; try again"
    )


def _result(task: Future[T], side: Side, failures: dict[Side, Exception]) -> T | None:
    try:
        return task.result()
    except _UNREACHABLE as error:
        failures[side] = error
        return None
