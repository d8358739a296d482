"""What screens say, in words: never a bare code word."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from dualstore.control import ControlRecord, Gate
from dualstore.rollout.durations import said
from dualstore.rollout.judgement import Judgement
from dualstore.rollout.screens.picture import Picture, PlanPicture, TablePicture
from dualstore.stages import Side
from dualstore.store import TableStatus
from dualstore.store.status import failover_in_words
from dualstore.stores.ledger import RunState
from dualstore.stores.outbox import OutboxDepth
from dualstore.stores.postgres_screens import RunSeen

SIDES = {Side.DYNAMODB: "DynamoDB", Side.POSTGRES: "PostgreSQL"}

_GATES = {
    Gate.OPEN: "the mirror may be read",
    Gate.SHUT: "the mirror may not be read: writes to it failed",
    Gate.REOPENING: "the mirror may be read again shortly",
}


def position(table: TablePicture) -> str:
    """The stage and whose word is final: `live (PostgreSQL authoritative)`."""
    if table.shown is not None:
        return table.shown.status.position
    if table.last_known is None:
        return "unknown"
    record = table.last_known
    return f"last known: {record.stage} ({SIDES[record.authority]} authoritative){failover_in_words(record)}"


def reads(record: ControlRecord) -> str:
    """Which share of reads PostgreSQL answers."""
    if record.authority is Side.POSTGRES:
        return "all"
    if record.stopped is not None:
        return "stopped"
    return f"{record.dials.postgres_read_percent:g} %" + ("" if record.loaded else ", not loaded")


def dials(record: ControlRecord) -> str:
    """The dials in force."""
    shadow = record.effective_dials.effective_shadow_percent(record.stage)
    parts = [f"reads from PostgreSQL: {reads(record)}", f"reads compared: {shadow:g} %"]
    if record.stage.rule.mirrored and record.authority is Side.DYNAMODB:
        parts.insert(1, f"writes mirrored: {record.dials.mirror_percent:g} %")
    return ", ".join(parts)


def pending(status: TableStatus) -> str:
    """What is still to be brought after on the mirror."""
    record = status.record
    waiting = []
    if status.dirty_keys is None:
        waiting.append("PostgreSQL does not answer")
    elif status.dirty_keys:
        waiting.append(f"{status.dirty_keys:,} key(s) in doubt")
    if status.journal_keys:
        waiting.append(f"{status.journal_keys:,} in the journal")
    if record.suspects:
        waiting.append(f"{len(record.suspects)} suspect(s): only a verification clears them")
    if record.authority is Side.DYNAMODB and record.gate is not Gate.OPEN:
        waiting.append(_GATES[record.gate])
    if record.authority is Side.POSTGRES and status.outbox is not None and status.outbox.entries:
        waiting.append(f"for DynamoDB: {outbox(status.outbox)}")
    return "pending mirror writes: " + ("; ".join(waiting) or "none")


def outbox(depth: OutboxDepth | None) -> str:
    """What waits for DynamoDB; `?` where PostgreSQL does not answer."""
    if depth is None:
        return "?"
    waiting = depth.entries - depth.second_looks - depth.refused
    parts = [f"{waiting:,} waiting"] if waiting or not depth.entries else []
    parts += [f"{depth.refused:,} refused by DynamoDB"] if depth.refused else []
    parts += [f"{depth.second_looks:,} to be looked at once more"] if depth.second_looks else []
    parts += [f"oldest {age(depth.oldest_age)}"] if depth.oldest_age else []
    return ", ".join(parts)


def relay(status: TableStatus) -> str:
    """How far the relay is behind the stream."""
    return "not caught up, or none" if status.stream_lag is None else f"{age(status.stream_lag)} behind"


def run(seen: RunSeen) -> str:
    """A run, with how far it is."""
    began = f"since {moment(seen.started_at)}"
    rejected = f", {seen.rejected:,} put aside" if seen.rejected else ""
    if seen.state is not RunState.RUNNING:
        took = "" if seen.finished_at is None else f" in {said(_whole(seen.finished_at - seen.started_at))}"
        result = _verdict(seen)
        return f"{seen.kind} {seen.state}{took}, {began}: {seen.items:,} items{rejected}{result}"
    of_all = f" of about {seen.expected_items:,}" if seen.expected_items else ""
    asked = "" if seen.wish == "go" else f", asked to {seen.wish} by {seen.wish_by or 'somebody'}"
    phase = f", {seen.phase}" if seen.phase else ""
    return (
        f"{seen.kind} under way{phase}, {began}: {seen.items:,} items{of_all}, "
        f"{seen.pieces_done}/{seen.pieces} pieces{rejected}{asked}"
    )


def _verdict(seen: RunSeen) -> str:
    differences = (seen.result or {}).get("difference_count")
    if differences is None:
        return ""
    repaired = (seen.result or {}).get("repaired") or 0
    return f", {differences:,} difference(s), {repaired:,} repaired"


def plan(seen: PlanPicture) -> str:
    """Where a plan stands, in one line."""
    if seen.problem is not None:
        return f"plan {seen.name}: its steps cannot be told: {seen.problem}"
    parts = [f"plan {seen.name}: {seen.steps_done} of {len(seen.steps)} steps done"]
    if seen.current is not None:
        state = dict(seen.steps)[seen.current]
        parts.append(f"at {seen.current} ({state})")
    if seen.halted is not None:
        why = f": {seen.halted.reason}" if seen.halted.reason else ""
        parts.append(f"halted by {seen.halted.by} at {moment(seen.halted.at)}{why}")
    parts.append(f"carried out by {seen.holder}" if seen.holder else "nobody carries it out now")
    return ", ".join(parts)


def problems(picture: Picture) -> Iterator[str]:
    """What an operator has to know first, a sentence each."""
    yield from (said_ for said_ in picture.databases.values() if said_ is not None)
    for table in picture.tables:
        for what in table.missing:
            yield f"{table.name}: cannot be shown: {what}"
        if table.shown is None:
            continue
        status = table.shown.status
        if status.record.unreconciled:
            yield (
                f"{table.name}: {status.record.failed_over}; no read goes to PostgreSQL until `dualstore "
                "failover --reconcile` and a verification"
            )
        if status.record.stopped is not None:
            yield f"{table.name}: reads from PostgreSQL and comparisons are {status.record.stopped}"
        for kind, seen in sorted(status.rogues.items()):
            yield (
                f"{table.name}: {seen.count:,} change(s) in DynamoDB passed dualstore by ({kind}); last "
                f"{seen.last_at:%Y-%m-%d %H:%M:%S} UTC, of key {seen.key_hash}"
            )
        if status.refusal is not None:
            yield f"{table.name}: {status.refusal}"
        yield from (f"{table.name}: {problem}" for problem in table.shown.flag_problems)


def gates(table: TablePicture) -> str:
    """What the gates say together, in one line."""
    if not table.gates:
        return "gates cannot be judged"
    asked = [each for each in table.gates if each.judgement is not Judgement.NOT_ASKED]
    met = sum(each.judgement is Judgement.MET for each in asked)
    return f"{met} of {len(asked)} gates met, by {table.gates_of}"


def age(duration: timedelta) -> str:
    """A short duration, in seconds."""
    return f"{duration.total_seconds():.1f} s"


def moment(at: datetime) -> str:
    """A moment, in UTC."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _whole(duration: timedelta) -> timedelta:
    return timedelta(seconds=round(duration.total_seconds()))
