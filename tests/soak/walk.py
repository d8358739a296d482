"""The flag owner of the soak: takes the tables through the stages and back, with proofs between."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError
from sqlalchemy.exc import SQLAlchemyError

from dualstore import DualStore, Stage
from dualstore.control import ControlRecord, Phase
from dualstore.errors import DualStoreError
from dualstore.flags import FileFlags
from dualstore.stages import Side
from dualstore.store import MigratedTable
from soak.havoc import Havoc
from soak.recording import Pen, now_ns
from soak.strangers import Strangers
from soak.tables import TABLES

_AWAY = (DualStoreError, ClientError, BotoCoreError, SQLAlchemyError)
_LOOK_SECONDS = 0.25
_NEXT: Mapping[Stage, Sequence[Stage]] = {
    Stage.OFF: (Stage.DUALWRITE,),
    Stage.DUALWRITE: (Stage.SHADOW,),
    Stage.SHADOW: (Stage.LIVE, Stage.LIVE, Stage.LIVE, Stage.DUALWRITE),
    Stage.LIVE: (Stage.SHADOW, Stage.SHADOW, Stage.RAMPDOWN),
    Stage.RAMPDOWN: (Stage.LIVE,),
}


@dataclass
class Tally:
    """What the walk has done.

    Attributes:
        moves: of the authority, made.
        given_up: moves of the authority that were asked for and not made in time.
        steps: to other stages, made.
        verifications: that proved both sides equal.
        repaired: keys that a verification repaired.
        refusals: why steps were refused, by the sentence's beginning.
    """

    moves: int = 0
    given_up: int = 0
    steps: int = 0
    verifications: int = 0
    repaired: int = 0
    refusals: dict[str, int] = field(default_factory=dict)


class Walk:
    """Goes from stage to stage until the time is over.

    Args:
        store: a store that may ask and look; it writes nothing.
        seed: of its choices.
        pen: notes every step.
        strangers: told where DynamoDB is the authority.
        havoc: kept off some of the moves.
        stay_seconds: at each stage, from and to.
        patience_seconds: for one step.
    """

    def __init__(
        self,
        store: DualStore,
        *,
        seed: int,
        pen: Pen,
        strangers: Strangers,
        havoc: Havoc,
        stay_seconds: tuple[float, float],
        patience_seconds: float,
    ) -> None:
        assert isinstance(store.flags, FileFlags)
        self._flags = store.flags
        self._store = store
        self._random = random.Random(f"{seed}/walk")
        self._pen = pen
        self._strangers = strangers
        self._havoc = havoc
        self._stay = stay_seconds
        self._patience = patience_seconds
        self.tally = Tally()

    def load(self, deadline: float) -> None:
        """Bring every table to `dualwrite`, copy its history and prove the copy, under traffic."""
        for name in TABLES:
            table = self._store.table(name)
            self._strangers.allow(name, allowed=True)
            self._step(table, Stage.DUALWRITE)
            while not self._attempt("backfill", lambda table=table: table.backfill(segments=2).succeeded):  # type: ignore[misc]
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the history of {name} could not be copied in time")
                time.sleep(1)
            self.prove(table)

    def go_on(self, deadline: float) -> None:
        """Walk until a moment."""
        while time.monotonic() < deadline:
            table = self._store.table(self._random.choice(TABLES))
            record = self.record(table)
            if record is None:
                time.sleep(_LOOK_SECONDS)
                continue
            self._dial(table, record)
            stage = self._random.choice(_NEXT[record.stage])
            if stage is Stage.LIVE and record.stage is Stage.SHADOW:
                self.prove(table)
            if self._random.random() < 0.5:
                self._step(table, stage)
            else:
                with self._havoc.peace():
                    self._step(table, stage)
            time.sleep(self._random.uniform(*self._stay))
            if self._random.random() < 0.15:
                self.prove(self._store.table(self._random.choice(TABLES)))

    def prove(self, table: MigratedTable) -> bool:
        """One verification that repairs what it finds; whether it proved both sides equal."""
        began = now_ns()

        def verify() -> bool:
            found = table.verify(repair=True, segments=2)
            self.tally.repaired += found.repaired
            self._pen.event(
                "verified",
                table=table.served.logical,
                since=began,
                proven=found.proven,
                different=found.difference_count,
                repaired=found.repaired,
                moving=found.moving,
            )
            return found.proven

        proven = self._attempt("verify", verify)
        self.tally.verifications += proven
        return proven

    def record(self, table: MigratedTable) -> ControlRecord | None:
        """The record that decides, or None where a database is away."""
        try:
            return table.status().record
        except _AWAY:
            return None

    def _dial(self, table: MigratedTable, record: ControlRecord) -> None:
        if record.authority is Side.DYNAMODB and record.loaded:
            percent = self._random.choice((0.0, 30.0, 100.0, 100.0))
            self._flags.set(table.served.logical, postgres_read_percent=percent)

    def _step(self, table: MigratedTable, stage: Stage) -> None:
        """Ask for a stage, and do what the refusals say until it is there or patience ends."""
        name, before = table.served.logical, self.record(table)
        if before is None:
            return
        moves = before.authority is not stage.rule.authority
        if moves:
            self._strangers.allow(name, allowed=False)
        began, deadline = now_ns(), time.monotonic() + self._patience
        self._flags.set(name, stage=stage)
        while (record := self.record(table)) is None or record.stage is not stage or not record.decides:
            if time.monotonic() > deadline:
                self._give_up(table, before, began, moves=moves)
                break
            if record is not None:
                self._help(table, record, stage)
            time.sleep(_LOOK_SECONDS)
        else:
            self.tally.steps += 1
            self.tally.moves += moves
            self._pen.event("stage", table=name, stage=stage, since=began, moved=moves)
        settled = self.record(table)
        if settled is not None and settled.authority is Side.DYNAMODB and settled.target is None:
            self._strangers.allow(name, allowed=self._flags.requested(name).stage is settled.stage)

    def _help(self, table: MigratedTable, record: ControlRecord, stage: Stage) -> None:
        name = table.served.logical
        if stage is Stage.LIVE and record.authority is Side.DYNAMODB and _needs_proof(record):
            self.prove(table)
            return
        refusal = self._refusal(table)
        if refusal is None and record.target is not stage:
            return
        refusal = refusal or "was given up"
        reason = refusal[:60]
        self.tally.refusals[reason] = self.tally.refusals.get(reason, 0) + 1
        if record.phase is Phase.OPEN and record.target is stage:
            self._pen.event("move given up", table=name, reason=refusal)
            self.tally.given_up += 1
            self._flags.set(name, stage=record.stage)
            time.sleep(1.5)
            self._flags.set(name, stage=stage)
        elif "backfill" in refusal:
            self._attempt("backfill", lambda: table.backfill(segments=2).succeeded)

    def _refusal(self, table: MigratedTable) -> str | None:
        try:
            return table.status().refusal
        except _AWAY:
            return None

    def _give_up(self, table: MigratedTable, before: ControlRecord, since: int, *, moves: bool) -> None:
        record, refusal = self.record(table), self._refusal(table)
        self.tally.given_up += moves
        self._pen.event(
            "step not made",
            table=table.served.logical,
            since=since,
            moved=moves,
            refusal=refusal,
            record=None if record is None else repr(record),
        )
        self._flags.set(table.served.logical, stage=(record or before).stage)

    def _attempt(self, what: str, act: Callable[[], bool]) -> bool:
        try:
            return act()
        except _AWAY as error:
            self._pen.event("attempt failed", what=what, error=f"{type(error).__name__}: {error}")
            return False


def _needs_proof(record: ControlRecord) -> bool:
    """Whether only a verification brings the record further."""
    return record.phase is Phase.OPEN and bool(record.suspects or not record.verified)
