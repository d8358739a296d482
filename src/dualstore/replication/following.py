"""Carries what the flags ask for into the control record, one safe step at a time, in any process.

A step that moves the authority pauses writes, waits until nothing is under way, and decides at one point: the
old record goes from `closed` to `moved`, or back to `open`. DESIGN, replication protocol, rule 8.
"""

import logging
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord, Gate, Phase, PostgresRole, ProcessEntry
from dualstore.errors import DualStoreError, IllegalTransition
from dualstore.flags import FlagSource, Requested
from dualstore.replication.suspects import silent
from dualstore.replication.transitions import next_step
from dualstore.stages import Side, Stage
from dualstore.stores.control_homes import Fence

if TYPE_CHECKING:
    from dualstore.replication.agent import Agent

logger = logging.getLogger(__name__)

# A grant ends by this process's clock, a silence is measured by another's; clocks of one second's length
# differ by parts per million, and requests are in flight for some of the time.
_SILENCE_MARGIN_SECONDS = 1.0
# What stands in the way of a stage is looked up in both databases: not at every poll.
_OBSTACLE_PAUSE_SECONDS = 1.0
# Who did not pause the writes helps only when the one that did seems to have died.
_HELP_AFTER_SECONDS = 1.0

_UNREACHABLE = (ClientError, BotoCoreError, DualStoreError)

Refused = Callable[[str, str], None]
"""Is told that what the flags ask for may not be done: the table's logical name, and why in one word."""


class Passage(Protocol):
    """Knows what stands in the way of a table's next stage."""

    def obstacles(self, record: ControlRecord, target: Stage) -> Sequence[str]:
        """Why a table may not go to a stage now, a sentence each, with what to do; empty where it may."""
        ...

    def undrained(self, record: ControlRecord) -> str | None:
        """While writes pause: what the mirror has not been brought after yet; None where it holds everything.

        Asked again and again; must answer soon.

        Args:
            record: closed; its generation names the pause.
        """
        ...


class Unobstructed:
    """Nothing ever stands in the way: for tables in memory, where there is nothing but the two stores."""

    def obstacles(self, record: ControlRecord, target: Stage) -> Sequence[str]:  # noqa: ARG002
        """Nothing."""
        return ()

    def undrained(self, record: ControlRecord) -> str | None:  # noqa: ARG002
        """Nothing."""
        return None


@dataclass
class _Followed:
    """A table, and how far its request has been followed by this process."""

    logical: str
    passage: Passage
    request: Requested | None = None
    satisfied: bool = False
    refusal: str | None = None
    logged: str | None = None
    look_again_at: float = -math.inf
    unread_since: tuple[int, float] | None = None
    closed_since: float | None = None
    closed_by_me: bool = False


class Following:
    """Follows the flags of one process's tables, and looks for processes that have fallen silent.

    Args:
        agent: knows the records, and is told when one has changed.
        flags: where requests come from.
        refused: told at each look at a request that may not be followed.
    """

    def __init__(
        self, agent: "Agent", flags: FlagSource, *, refused: Refused = lambda _table, _reason: None
    ) -> None:
        self._agent = agent
        self._flags = flags
        self._refused = refused
        self._tables: dict[str, _Followed] = {}
        self._looked_at = -math.inf

    def add(self, table: str, *, logical: str, passage: Passage) -> None:
        """Follow the flags of another table."""
        self._tables = {**self._tables, table: _Followed(logical, passage)}

    def drop(self, table: str) -> None:
        """Follow the flags of a table no longer."""
        self._tables = {name: followed for name, followed in self._tables.items() if name != table}

    def refusal_of(self, table: str) -> str | None:
        """Why the request of a table may not be followed as things stand, looked up now; None where it may.

        A process that has just started has not followed any yet.
        """
        followed = self._tables[table]
        record, requested = self._agent.view(table).record, self._flags.requested(followed.logical)
        if followed.refusal is not None or followed.satisfied or record.phase is not Phase.OPEN:
            return followed.refusal
        try:
            step = next_step(record, requested, reads_stopped=self._reads_stopped(followed))
            if step.towards is not None:
                _require_clear(followed, record, step.towards)
        except IllegalTransition as refusal:
            return str(refusal)
        return None

    def refusals(self) -> Mapping[str, str]:
        """Why the present request of a table is not followed, by physical name."""
        return {table: followed.refusal for table, followed in self._tables.items() if followed.refusal}

    def round(self) -> None:
        """One step for each table; then the register.

        Raises:
            botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: for a table, once
                the others have been seen to.
        """
        failure: Exception | None = None
        for table, followed in self._tables.items():
            if table not in self._agent.views():
                continue
            try:
                self._attend(table, followed)
            except _UNREACHABLE as error:
                failure = error
        self._find_silent_processes()
        if failure is not None:
            raise failure

    def _attend(self, table: str, followed: _Followed) -> None:
        record = self._agent.view(table).record
        _note_unread(followed, record, self._agent.clock.now())
        requested = self._flags.requested(followed.logical)
        if requested != followed.request:
            followed.request, followed.satisfied, followed.look_again_at = requested, False, -math.inf
            followed.refusal, followed.logged = None, None
        if not record.decides or record.takes_over:
            return  # whoever fails a table over opens it
        if record.phase is Phase.CLOSED:
            self._move(followed, record, requested)
            return
        followed.closed_since, followed.closed_by_me = None, False
        if self._asks_for_another(followed, record, requested):
            self._change(record, target=None)
        elif (deferred := self._wanted_deferred(table, record)) is not record.deferred:
            self._defer(record, deferred=deferred)
        elif not followed.satisfied:  # done once: a later change by somebody else is not fought over
            self._follow(table, followed, record, requested)

    @staticmethod
    def _asks_for_another(followed: _Followed, record: ControlRecord, requested: Requested) -> bool:
        """Whether something new is asked for in the place of a move that was given up."""
        if record.target is None or followed.satisfied:
            return False
        return requested.stage not in {None, record.target}

    def _follow(self, table: str, followed: _Followed, record: ControlRecord, requested: Requested) -> None:
        try:
            step = next_step(record, requested, reads_stopped=self._reads_stopped(followed))
            if step.towards is not None:
                if self._agent.clock.now() < followed.look_again_at:
                    return
                followed.look_again_at = self._agent.clock.now() + _OBSTACLE_PAUSE_SECONDS
                _require_clear(followed, record, step.towards)
        except IllegalTransition as refusal:
            self._refuse(followed, str(refusal), refusal.reason)
            return
        followed.refusal = None
        if step.changes:
            if step.fence is not None:
                self._fence.raise_fence(table, epoch=step.fence, role=PostgresRole.MIRROR)
            changed = self._change(record, **step.changes)
            if changed is None:
                return
            followed.closed_by_me = changed.phase is Phase.CLOSED
        followed.satisfied = step.satisfied

    def _wanted_deferred(self, table: str, record: ControlRecord) -> bool:
        """Whether the record should say that a process mirrors after it has answered its callers."""
        if record.authority is Side.POSTGRES:
            return record.deferred
        if table in self._agent.deferring:
            return True
        if not record.deferred:
            return False
        return any(table in entry.deferring for entry in self._agent.registry_of(table).processes())

    def _defer(self, record: ControlRecord, *, deferred: bool) -> None:
        """Say so, before it is done; or that it has ended, and have reads wait for who does not know yet."""
        if deferred:
            self._change(record, deferred=True)
        else:
            self._change(record, deferred=False, gate=Gate.SHUT)

    # The move of the authority

    def _move(self, followed: _Followed, record: ControlRecord, requested: Requested) -> None:
        """One step of a move that somebody has begun: on, once nothing is under way, or back."""
        now = self._agent.clock.now()
        if followed.closed_since is None:
            followed.closed_since = now
        waited = now - followed.closed_since
        if not followed.closed_by_me and waited < _HELP_AFTER_SECONDS:
            return
        asked_for = requested.stage in {None, record.target}
        # One that was fulfilled before the pause may be an old one: flags reach processes at different times.
        withdrawn = not asked_for and not followed.satisfied
        hopeless = bool(record.suspects) or (record.authority is Side.DYNAMODB and record.stopped is not None)
        reason = self._unfinished(followed, record) if asked_for else "it is not asked for any more"
        if reason is None:
            self._complete(record)
        elif withdrawn or hopeless or waited > self._agent.times.move.total_seconds():
            self._give_up(followed, record, reason)

    def _unfinished(self, followed: _Followed, record: ControlRecord) -> str | None:
        """What a move still has to wait for, or None."""
        try:
            if record.authority is Side.DYNAMODB:
                if record.suspects:
                    return "a process ended without finishing; run `dualstore verify --repair`"
                if record.stopped is not None:
                    return f"reads from PostgreSQL were {record.stopped}"
                # PostgreSQL refuses late writes by itself. Of DynamoDB's, each process says that it has none.
                entries = self._agent.registries[Side.DYNAMODB].processes()
                late = [
                    e.label
                    for e in entries
                    if e.confirmed.get(record.table, record.generation) < record.generation
                ]
                if late:
                    named = ", ".join(sorted(late))
                    return f"these processes have writes under way, or have not seen the pause: {named}"
            else:
                self._agent.homes[Side.DYNAMODB].read_all()  # that it can be reached
            return followed.passage.undrained(record)
        except _UNREACHABLE as error:
            return f"it cannot be told whether all is drained ({type(error).__name__})"

    def _complete(self, record: ControlRecord) -> None:
        """The point of no return, and then the other database's record."""
        moved = self._change(
            record,
            phase=Phase.MOVED,
            stage=record.target,
            target=None,
            epoch=record.epoch + 1,
            failed_over=None,
            refresh=False,
        )
        if moved is not None:
            opened = replace(moved, phase=Phase.OPEN, generation=moved.generation + 1)
            self._agent.homes[moved.authority].install(opened)  # else whoever looks next does it
            logger.warning(
                "%s is at stage %s now: %s is the authority", record.table, moved.stage, moved.authority
            )
        self._agent.refresh(table=record.table)

    def _give_up(self, followed: _Followed, record: ControlRecord, reason: str) -> None:
        """Let writes go on where they were. The target stays noted: nobody pauses them again for it."""
        given_up = self._change(record, phase=Phase.OPEN)
        if given_up is not None:
            self._refuse(
                followed,
                f"the move of {record.table} to {record.target} was given up: {reason}. Ask for it again",
                "given_up",
            )

    @property
    def _fence(self) -> Fence:
        fence: Fence = self._agent.homes[Side.POSTGRES]  # type: ignore[assignment]
        return fence

    def _change(
        self, record: ControlRecord, *, refresh: bool = True, **changes: object
    ) -> ControlRecord | None:
        changed = self._agent.home_of(record.table).change(record, **changes)
        if refresh:
            self._agent.refresh(table=record.table)
        return changed

    def _refuse(self, followed: _Followed, refusal: str, reason: str) -> None:
        """Count a refusal; log it once for each request, and again for another reason."""
        self._refused(followed.logical, reason)
        said = _without_figures(refusal)
        if followed.logged != said:
            logger.warning("Flags are not followed: %s", refusal)
        followed.logged, followed.refusal = said, refusal

    def _reads_stopped(self, followed: _Followed) -> bool:
        since = followed.unread_since
        grant = self._agent.times.read.total_seconds()
        return since is not None and self._agent.clock.now() - since[1] > grant

    # Processes that fell silent

    def _find_silent_processes(self) -> None:
        now = self._agent.clock.now()
        write_grant = self._agent.times.write.total_seconds()
        if now - self._looked_at < write_grant / 4:
            return
        self._looked_at = now
        for side, registry in self._agent.registries.items():
            if not registry.entered:
                continue
            quiet = registry.silent(registry.processes(), for_seconds=write_grant + _SILENCE_MARGIN_SECONDS)
            for entry in quiet:
                # PostgreSQL itself refuses what a process sends too late: there it owes nothing.
                if side is Side.POSTGRES or self._suspect_all(entry):
                    logger.warning("Process %s ended without finishing", entry.label)
                    registry.remove(entry)

    def _suspect_all(self, entry: ProcessEntry) -> bool:
        """Make every table of a process suspect, though it fails for one; True where all stand."""
        stands = [self._suspect(entry, table) for table in entry.confirmed]
        return all(stands)

    def _suspect(self, entry: ProcessEntry, table: str) -> bool:
        """Make a table suspect; True once that stands, or where the process owes the mirror nothing.

        Where nothing is mirrored, a process that had not confirmed that may yet write the mirror.
        """
        home = self._agent.homes[Side.DYNAMODB]
        record = home.read_all().get(table)
        name = silent(entry.id, entry.beat)
        if record is None or name in record.suspects or not record.decides:
            return True
        if not record.stage.rule.mirrored and entry.confirmed[table] >= record.generation:
            return True
        return home.change(record, suspects=record.suspects | {name}, verified=False) is not None


def _require_clear(followed: _Followed, record: ControlRecord, target: Stage) -> None:
    obstacles = followed.passage.obstacles(record, target)
    if obstacles:
        raise IllegalTransition(
            f"{record.table} cannot go from {record.stage} to {target} yet: {'; '.join(obstacles)}",
            reason="obstructed",
        )


def _without_figures(refusal: str) -> str:
    """A refusal without what moves from look to look: ages, and numbers of keys."""
    return re.sub(r"\d+", "#", refusal)


def _note_unread(followed: _Followed, record: ControlRecord, now: float) -> None:
    """Remember since when this process has known that nobody may read the mirror."""
    if record.dials.postgres_read_percent or record.loaded:
        followed.unread_since = None
    elif followed.unread_since is None or followed.unread_since[0] != record.generation:
        # Any change counts anew: the mirror may have been readable between two looks.
        followed.unread_since = (record.generation, now)
