"""Why a table may not go to a stage yet: one sentence for each reason, with what to do about it.

What the control record itself says comes first, and alone where it says anything: flags ask every second, and
DynamoDB allows few descriptions. Then both databases are asked. Whatever cannot be asked is itself an
obstacle: nothing is decided on a guess.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord, Gate, Stop
from dualstore.errors import Unavailable
from dualstore.stages import Side, Stage
from dualstore.stores.dynamo_description import TableDescription
from dualstore.stores.outbox import OutboxDepth

_FOLLOWS_CLOSELY = timedelta(seconds=10)
"""A relay or a sender that lags by more would make the pause of writes too long."""


@dataclass(frozen=True, kw_only=True)
class Witnesses:
    """Who is asked about one table; each may raise, and is asked only where its answer matters.

    Attributes:
        description: DynamoDB's description of the table.
        journal_keys: how many keys wait in the journal (a lower bound will do).
        relay_within: whether the relay has brought over every change that DynamoDB made so long ago.
        dirty_keys: how many keys PostgreSQL knows to be in doubt (a lower bound will do).
        outbox: what the outbox holds for DynamoDB.
        triggers_installed: whether the mapped SQL table has its triggers, of this version.
        hazards: what of the SQL table's schema the triggers cannot see, a sentence each.
        stop: that a person has stopped reads of the mirror, where PostgreSQL knows of it; None where not.
    """

    description: Callable[[], TableDescription]
    journal_keys: Callable[[], int]
    relay_within: Callable[[timedelta], bool]
    dirty_keys: Callable[[], int]
    outbox: Callable[[], OutboxDepth]
    triggers_installed: Callable[[], bool]
    hazards: Callable[[], Sequence[str]]
    stop: Callable[[], Stop | None] = lambda: None


def obstacles(record: ControlRecord, target: Stage, witnesses: Witnesses) -> list[str]:
    """The reasons why a table may not go to a stage now; empty where it may.

    Args:
        record: the control record that decides.
        target: the stage asked for; one that may follow the present one.
        witnesses: who is asked.
    """
    questions = _questions(record, target)
    found = [reason for ask in questions.of_record for reason in ask(record)]
    return found or list(_asked(questions.of_databases, witnesses))


@dataclass(frozen=True, slots=True)
class _Question:
    """One thing to look up in a database.

    Attributes:
        side: the database.
        about: what is looked up, for the sentence that says that it could not be.
        ask: finds the obstacles.
    """

    side: Side
    about: str
    ask: Callable[[Witnesses], Iterator[str]]


@dataclass(frozen=True, slots=True)
class _Questions:
    """What to look at before a step."""

    of_record: Sequence[Callable[[ControlRecord], Iterator[str]]] = ()
    of_databases: Sequence[_Question] = ()


def _asked(questions: Sequence[_Question], witnesses: Witnesses) -> Iterator[str]:
    unreachable: set[Side] = set()
    for question in questions:
        if question.side in unreachable:
            continue  # it would be waited for again, for the same answer
        try:
            found = list(question.ask(witnesses))
        except Exception as failure:  # noqa: BLE001 - not to know is an obstacle, whatever the cause
            if isinstance(failure, _UNREACHABLE):
                unreachable.add(question.side)
            found = [_not_known(question, failure)]
        yield from found


_UNREACHABLE = (Unavailable, BotoCoreError)


def _not_known(question: _Question, failure: Exception) -> str:
    return (
        f"{question.about} could not be looked up ({_named(failure)}): see that "
        f"{_DATABASES[question.side]} can be reached and that this process may ask it"
    )


def _named(failure: Exception) -> str:
    """An exception by its code or class: its text may hold an item's value."""
    if isinstance(failure, ClientError):
        return str(failure.response.get("Error", {}).get("Code", type(failure).__name__))
    return type(failure).__name__


_DATABASES = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}


# -- what the control record says ---------------------------------------------------------------


def _reconciled(record: ControlRecord) -> Iterator[str]:
    if record.unreconciled:
        yield (
            f"the table was {record.failed_over}: run `dualstore failover --reconcile` once PostgreSQL is "
            "back"
        )


def _unsuspected(record: ControlRecord) -> Iterator[str]:
    if record.suspects:
        yield (
            f"{len(record.suspects)} process(es) or gaps in the stream may have left writes unmirrored: run "
            "`dualstore verify --repair`, or wait until the relay has passed them"
        )


def _history_is_loaded(record: ControlRecord) -> Iterator[str]:
    if not record.loaded:
        yield "PostgreSQL does not hold the table's history: run `dualstore backfill`"


def _is_verified(record: ControlRecord) -> Iterator[str]:
    if not record.verified:
        yield (
            "no verification has proved both sides equal since the history was copied or anything became "
            "suspect: run `dualstore verify --repair`"
        )


def _gate_is_open(record: ControlRecord) -> Iterator[str]:
    if record.gate is not Gate.OPEN:
        yield (
            "failed mirror writes are still being repaired (the gate is shut): wait for it, or run "
            "`dualstore repair`"
        )


def _every_key_is_mirrored(record: ControlRecord) -> Iterator[str]:
    percent = record.dials.mirror_percent
    if percent != 100:  # noqa: PLR2004 - per cent
        yield f"mirror-percent is {percent:g}: set it to 100, and backfill again"


def _mirrored_inline(record: ControlRecord) -> Iterator[str]:
    if record.deferred:
        yield 'some process mirrors after it has answered: set mirroring = "inline" in every process'


# -- what the databases say ---------------------------------------------------------------------


def _is_writable_here_alone(witnesses: Witnesses) -> Iterator[str]:
    yield from _of_description(witnesses.description())


def _has_stream_too(witnesses: Witnesses) -> Iterator[str]:
    description = witnesses.description()
    yield from _of_description(description)
    if description.stream_view is None:
        yield "the DynamoDB table has no stream: enable one, with view type NEW_AND_OLD_IMAGES"
    elif not description.streams_images:
        yield (
            f"the stream of the DynamoDB table has view type {description.stream_view}: disable it, and "
            "enable one with NEW_AND_OLD_IMAGES"
        )


def _of_description(description: TableDescription) -> Iterator[str]:
    if not description.active:
        yield "the DynamoDB table is not active: wait until it is"
    if description.other_regions:
        yield (
            f"the DynamoDB table is a global table, replicated to {', '.join(description.other_regions)}: "
            "writes there would pass dualstore by, and no stream orders them; remove these replicas first"
        )


def _journal_is_empty(witnesses: Witnesses) -> Iterator[str]:
    if keys := witnesses.journal_keys():
        yield f"{keys} key(s) wait in the journal to be settled: wait for it, or run `dualstore repair`"


def _relay_follows(witnesses: Witnesses) -> Iterator[str]:
    if not witnesses.relay_within(_FOLLOWS_CLOSELY):
        seconds = f"{_FOLLOWS_CLOSELY.total_seconds():.0f} s"
        yield (
            f"the relay is not within {seconds} of the table's stream, or none runs: start "
            "`dualstore relay`, or wait until it has caught up"
        )


def _nothing_is_dirty(witnesses: Witnesses) -> Iterator[str]:
    if keys := witnesses.dirty_keys():
        yield f"{keys} key(s) are in doubt on PostgreSQL: wait for their repair, or run `dualstore repair`"


def _nothing_is_left_over(witnesses: Witnesses) -> Iterator[str]:
    """A second look may wait: at `live` it is taken as well."""
    depth = witnesses.outbox()
    if entries := depth.entries - depth.second_looks:
        yield (
            f"{entries} change(s) of an earlier time at live are left in the outbox: run `dualstore verify "
            "--repair`, and see that the relay works them off"
        )


def _outbox_is_followed(witnesses: Witnesses) -> Iterator[str]:
    """As far as it can be under traffic: from `complete` on DynamoDB falls behind in any case."""
    age = witnesses.outbox().oldest_age
    if age > _FOLLOWS_CLOSELY:
        yield (
            f"DynamoDB is {age.total_seconds():.0f} s behind the outbox: start `dualstore relay`, or wait "
            "until it has caught up"
        )


def _outbox_is_worked_off(witnesses: Witnesses) -> Iterator[str]:
    depth = witnesses.outbox()
    if depth.second_looks:
        yield (
            f"{depth.second_looks} request(s) to DynamoDB had no answer and may still be carried out: ask "
            "again when they no longer can, 15 minutes after they were sent"
        )
    yield from _outbox_is_followed(witnesses)
    if depth.refused:
        yield (
            f"DynamoDB refuses {depth.refused} change(s), which going back would lose: mend or delete these "
            "rows (`dualstore status` says why they are refused)"
        )


def _triggers_are_there(witnesses: Witnesses) -> Iterator[str]:
    if not witnesses.triggers_installed():
        yield "the mapped SQL table lacks dualstore's triggers: run `dualstore schema upgrade`"


def _reads_are_not_stopped(witnesses: Witnesses) -> Iterator[str]:
    """The control record says so too, once a process that reaches both databases has brought it over."""
    if (stop := witnesses.stop()) is not None:
        yield f"reads from PostgreSQL were {stop}: `dualstore stop --release` takes that back"


def _schema_is_safe(witnesses: Witnesses) -> Iterator[str]:
    yield from witnesses.hazards()


_DESCRIBED = _Question(Side.DYNAMODB, "the DynamoDB table", _is_writable_here_alone)
_TRIGGERS = _Question(Side.POSTGRES, "the triggers of the mapped SQL table", _triggers_are_there)

_TO_MIRROR = _Questions(of_databases=(_DESCRIBED,))
_TO_POSTGRES = _Questions(
    of_record=(
        _reconciled,
        _every_key_is_mirrored,
        _mirrored_inline,
        _history_is_loaded,
        _unsuspected,
        _is_verified,
        _gate_is_open,
    ),
    of_databases=(
        _TRIGGERS,
        _Question(Side.POSTGRES, "the mapped SQL table's schema", _schema_is_safe),
        _Question(Side.POSTGRES, "whether reads are stopped", _reads_are_not_stopped),
        _Question(Side.POSTGRES, "the list of keys in doubt", _nothing_is_dirty),
        _Question(Side.POSTGRES, "the outbox", _nothing_is_left_over),
        _Question(Side.POSTGRES, "the relay's progress", _relay_follows),
        _Question(Side.DYNAMODB, "the DynamoDB table", _has_stream_too),
        _Question(Side.DYNAMODB, "the journal", _journal_is_empty),
    ),
)
_BACK_TO_DYNAMODB = _Questions(
    of_record=(_unsuspected,),
    of_databases=(
        _TRIGGERS,
        _Question(Side.POSTGRES, "the outbox", _outbox_is_worked_off),
        _DESCRIBED,
    ),
)
_TO_COMPLETE = _Questions(of_databases=(_Question(Side.POSTGRES, "the outbox", _outbox_is_followed),))

# By the side that is authoritative before and after.
_MOVES: Mapping[tuple[Side, Side], _Questions] = {
    (Side.DYNAMODB, Side.POSTGRES): _TO_POSTGRES,
    (Side.POSTGRES, Side.DYNAMODB): _BACK_TO_DYNAMODB,
}


def _questions(record: ControlRecord, target: Stage) -> _Questions:
    """What to look at before a table goes from its stage to another."""
    move = _MOVES.get((record.authority, target.rule.authority))
    if move is not None:
        return move
    if target is Stage.COMPLETE and record.stage is not target:
        return _TO_COMPLETE
    begins_to_mirror = target.rule.mirrored and not record.stage.rule.mirrored
    return _TO_MIRROR if begins_to_mirror and record.authority is Side.DYNAMODB else _Questions()
