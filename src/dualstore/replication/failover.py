"""DynamoDB takes over from PostgreSQL without asking it: the way out where the authority is lost.

Everything here needs DynamoDB alone. The copy of the control record there becomes the one that decides, in
two steps: *announced* (closed: writes pause, and whoever sees it acts on PostgreSQL's record no more), and,
once every grant that was given before has ended, *open*. ADR 24.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from dualstore.control import ControlRecord, FailedOver, Phase
from dualstore.errors import IllegalTransition, Unavailable
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock
from dualstore.replication.control import DynamoControl
from dualstore.replication.failover_notes import DepthNote, FailoverNotes, Witness
from dualstore.replication.search import Homes
from dualstore.replication.suspects import FAILED_OVER, renewed
from dualstore.stages import Side, Stage

LEAP = 1_000_000
"""By so much a failover's record is ahead of the copy that it takes the place of, in epoch and generation.

PostgreSQL's own record may have counted on since it was copied; never so far.
"""

# A grant ends by its process's clock, this waits by another's.
_MARGIN = timedelta(seconds=1)
_TRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a failover would find, as far as DynamoDB knows.

    Attributes:
        record: DynamoDB's control record: a copy of PostgreSQL's, or the one of a failover.
        depth: how far DynamoDB was behind when that was last noted; None where nobody has.
    """

    record: ControlRecord
    depth: DepthNote | None

    @property
    def done(self) -> bool:
        """Whether the table has been failed over already."""
        return self.record.unreconciled and self.record.phase is Phase.OPEN


@dataclass(frozen=True, slots=True)
class SignsOfLife:
    """Who could be seen to reach PostgreSQL, and who could be seen at all.

    Attributes:
        postgres_answers: whether it answered here; then nobody was looked for.
        reaching: the processes that reached it while this one was looking.
        cut_off: those that live, and did not.
        silent: those that said nothing while this one was looking: they have ended, or do not reach DynamoDB.
            Whether they reach PostgreSQL is not known.
    """

    postgres_answers: bool
    reaching: tuple[Witness, ...] = ()
    cut_off: tuple[Witness, ...] = ()
    silent: tuple[Witness, ...] = ()

    @property
    def postgres_lives(self) -> bool:
        """Whether PostgreSQL is known not to be gone."""
        return self.postgres_answers or bool(self.reaching)


def foresee(homes: Homes, notes: FailoverNotes, table: str) -> Foreseen:
    """What a failover of a table would find.

    Raises:
        IllegalTransition: there is nothing to fail over, or DynamoDB cannot stand in.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: DynamoDB does not
            answer.
    """
    record = homes[Side.DYNAMODB].read_all().get(table)
    if record is None:
        raise IllegalTransition(
            f"DynamoDB has no control record of {table}: it was never served with this bookkeeping table"
        )
    if record.decides and not record.unreconciled:
        raise IllegalTransition(
            f"DynamoDB is the authority of {table} already, at stage {record.stage}: there is nothing to "
            "fail over. `dualstore stop` ends reads from PostgreSQL"
        )
    if not record.decides and not record.stage.rule.mirrored:
        raise IllegalTransition(
            f"{table} is at stage {record.stage}: DynamoDB has not been written since, and cannot stand in. "
            "Restore PostgreSQL from its backup"
        )
    return Foreseen(record, None if record.decides else notes.depth(table, epoch=record.epoch))


def look_for_life(
    homes: Homes, notes: FailoverNotes, table: str, *, period: timedelta, clock: Clock = SYSTEM_CLOCK
) -> SignsOfLife:
    """See for a while whether PostgreSQL answers, here or to any process of the fleet.

    No clocks of two machines are compared: a process lives if it has said something new since the look began,
    and reaches PostgreSQL if what it says of that has changed.

    Args:
        homes: both databases.
        notes: what processes say.
        table: the physical name.
        period: how long to look; longer than the time between two words of a process.
        clock: measures it.

    Raises:
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: DynamoDB does not
            answer.
    """
    before = notes.witnesses(table)
    if _answers(homes, clock.now() + period.total_seconds(), clock):
        return SignsOfLife(postgres_answers=True)
    after = notes.witnesses(table)
    spoke = {each.id: each for each in after.values() if _has_spoken(each, before)}
    reaching = tuple(each for each in spoke.values() if _has_reached_postgres(each, before))
    return SignsOfLife(
        postgres_answers=False,
        reaching=reaching,
        cut_off=tuple(each for each in spoke.values() if each not in reaching),
        silent=tuple(each for each in after.values() if each.id not in spoke),
    )


def fail_over(
    home: DynamoControl,
    foreseen: Foreseen,
    *,
    by: str,
    reason: str,
    at: float,
    write_grant: timedelta,
    clock: Clock = SYSTEM_CLOCK,
) -> ControlRecord:
    """Make DynamoDB the authority of a table; done again, it goes on where the last one stopped.

    Args:
        home: DynamoDB's control records.
        foreseen: what was found just before.
        by: who decides it, for those who find it so.
        reason: why, in a few words; no item's value.
        at: now, in seconds since the epoch, for people.
        write_grant: how long a process may act on what it read: that of all processes.
        clock: measures it.

    Returns:
        The record that decides.

    Raises:
        IllegalTransition: somebody who reaches PostgreSQL has changed the copy meanwhile.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, Unavailable: DynamoDB does not
            answer; try again.
    """
    if foreseen.done:
        return foreseen.record
    announced = foreseen.record
    if not announced.decides:
        announced = _announced(foreseen, by=by, reason=reason, at=at)
        if not home.take_over(foreseen.record, announced) and not _stands(home, announced):
            raise IllegalTransition(
                f"somebody who reaches PostgreSQL has just changed the control record of {announced.table}, "
                "so PostgreSQL is not gone: nothing was done. Look again"
            )
    clock.sleep((write_grant + _MARGIN).total_seconds())
    return _opened(home, announced)


def _announced(foreseen: Foreseen, *, by: str, reason: str, at: float) -> ControlRecord:
    """The record of a failover that nobody acts under yet."""
    copy, depth = foreseen.record, foreseen.depth
    generation = copy.generation + LEAP
    return replace(
        copy,
        stage=Stage.SHADOW,
        phase=Phase.CLOSED,
        # As after a move that was given up: the flags may still ask for `live`, and nobody has asked anew.
        target=Stage.LIVE,
        dials=replace(copy.dials, postgres_read_percent=0.0),
        epoch=copy.epoch + LEAP,
        generation=generation,
        suspects=renewed(copy.suspects, FAILED_OVER, generation),
        verified=False,
        failed_over=FailedOver(
            by=by,
            at=at,
            reason=reason,
            recovery_point=None if depth is None else depth.recovery_point,
            rows=None if depth is None else depth.rows,
            rows_at=None if depth is None else depth.at,
        ),
    )


def _stands(home: DynamoControl, announced: ControlRecord) -> bool:
    """Whether a record has been written after all: the answer was lost, and the request sent again."""
    record = home.read_all().get(announced.table)
    return record is not None and record.failed_over == announced.failed_over


def _opened(home: DynamoControl, announced: ControlRecord) -> ControlRecord:
    record: ControlRecord | None = announced
    while record is not None and record.phase is Phase.CLOSED:
        opened = home.change(record, phase=Phase.OPEN)
        if opened is not None:
            return opened
        record = home.read_all().get(announced.table)
    if record is None:
        raise Unavailable(f"the control record of {announced.table} is gone from DynamoDB")
    return record  # somebody else was at it, too


def _answers(homes: Homes, ends: float, clock: Clock) -> bool:
    """Whether PostgreSQL answers within a time; asked again and again, at least once."""
    while True:
        try:
            homes[Side.POSTGRES].read_all()
        except Unavailable:
            if clock.now() >= ends:
                return False
            clock.sleep(min(_TRY_SECONDS, max(0.0, ends - clock.now())))
        else:
            return True


def _has_spoken(word: Witness, before: Mapping[str, Witness]) -> bool:
    return word.id not in before or before[word.id].beat != word.beat


def _has_reached_postgres(word: Witness, before: Mapping[str, Witness]) -> bool:
    earlier = before.get(word.id)
    return word.postgres_at > (0.0 if earlier is None else earlier.postgres_at)
