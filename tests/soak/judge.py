"""Judges both databases by the ledger alone; shares no code with dualstore.

A write took effect somewhere between its beginning and its end, by the clock of the ledgers. So it explains
the state of a key only if no acknowledged write began after it had ended; the same holds for what a read
showed, with the acknowledged writes that had ended before the read began. The end of a write that was not
answered for certain is when its last request can have been carried out: requests wait in the sockets of a
server that is stopped.
"""

import bisect
import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from soak.recording import Effect, Ledger, Outcome, Seen, Written
from soak.tables import COUNTERS, TABLES, Place, proof

GRACE_NS = 15_000_000_000
"""Within this time a running server has carried out, or refused, what was sent to it."""
_SENT_AGAIN_NS = 20_000_000_000
"""A transaction is sent again at once; so long ago, at most, it was sent first."""

Item = Mapping[str, Any]
_FOREVER = 1 << 62


AGAIN = "transaction again"
"""The kind of a write that was sent before, with the same ClientRequestToken."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A time."""

    began_ns: int
    ended_ns: int


@dataclass(frozen=True, slots=True)
class _Act:
    """One effect of one write."""

    written: Written
    effect: Effect
    ended_ns: int

    @property
    def began_ns(self) -> int:
        return self.written.began_ns

    @property
    def acknowledged(self) -> bool:
        return self.written.outcome == "acknowledged"


@dataclass
class Verdict:
    """What speaks against the claims, a sentence each.

    Attributes:
        lost: final states that the ledger does not explain.
        differing: keys at which the sides differ.
        stale: reads that missed an acknowledged write, or showed what nobody wrote.
        wrong: answers that no order of the writes explains, mixtures, halves of transactions.
        keys: how many keys were judged.
        reads: how many reads of a key were judged.
        answers: how many answers to conditions were judged.
        double: increments counted more often than they were sent, where the documentation says so.
    """

    lost: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    keys: int = 0
    reads: int = 0
    answers: int = 0
    double: int = 0

    @property
    def clean(self) -> bool:
        """Whether something was judged and nothing speaks against it."""
        found = self.lost or self.differing or self.stale or self.wrong
        return not found and self.keys > 0 and self.reads > 0


class _Ends:
    """The latest end among acts, by when they began; but for one of them."""

    def __init__(self, acts: Iterable[_Act]) -> None:
        self._began: list[int] = []
        self._best: list[tuple[tuple[int, int], tuple[int, int]]] = []
        first = second = (-1, -1)
        for act in sorted(acts, key=lambda act: act.began_ns):
            end = (act.ended_ns, id(act))
            if end > first:
                first, second = end, first
            elif end > second:
                second = end
            self._began.append(act.began_ns)
            self._best.append((first, second))

    def latest(self, before_ns: int, besides: _Act | None = None) -> int:
        place = bisect.bisect_left(self._began, before_ns)
        if not place:
            return -1
        first, second = self._best[place - 1]
        return second[0] if besides is not None and first[1] == id(besides) else first[0]


class Register:
    """The writes of one register."""

    def __init__(self, acts: Sequence[_Act]) -> None:
        self._acts = acts
        possible = [act for act in acts if act.written.outcome not in {"refused", "undone"}]
        self._by_token: dict[str | None, list[_Act]] = collections.defaultdict(list)
        for act in possible:
            self._by_token[act.effect.token].append(act)
        self._present = _Ends(act for act in possible if act.effect.token is not None)
        self._absent = _Ends(act for act in possible if act.effect.token is None)
        done = sorted(
            (act for act in possible if act.acknowledged), key=lambda act: act.written.ended_ns or 0
        )
        self._ends = [act.written.ended_ns or 0 for act in done]
        self._begins: list[int] = []
        latest = -1
        for act in done:
            latest = max(latest, act.began_ns)
            self._begins.append(latest)

    def explains(self, token: str | None, began_ns: int = _FOREVER, ended_ns: int = _FOREVER) -> bool:
        """Whether the register may have shown this at some moment between these."""
        overtaken = self._overtaken(began_ns)
        if token is None and overtaken < 0:
            return True  # it may not have been written yet
        return any(
            act.began_ns < ended_ns and act.ended_ns >= overtaken for act in self._by_token.get(token, ())
        )

    def answered_wrongly(self) -> Iterator[str]:
        """The answers to conditions that no state explains, a sentence each."""
        for act in self.conditional():
            met = act.acknowledged
            present = (act.effect.expects == "present") is met
            if not self._may_be(act, present=present):
                state = "present" if present else "absent"
                yield (
                    f"{act.effect.place}: {_named(act.written)} was {act.written.outcome}, "
                    f"but the item cannot have been {state}"
                )

    def conditional(self) -> Iterator[_Act]:
        """The conditional writes that had an answer of the first attempt."""
        for act in self._acts:
            answered = act.written.outcome in {"acknowledged", "refused"}
            if act.effect.expects and answered and not act.written.late and not act.written.lost:
                yield act

    def _may_be(self, act: _Act, *, present: bool) -> bool:
        overtaken = self._overtaken(act.began_ns)
        if not present and overtaken < 0:
            return True
        ends = self._present if present else self._absent
        return ends.latest(act.written.ended_ns or _FOREVER, act) >= max(overtaken, 0)

    def _overtaken(self, before_ns: int) -> int:
        """The latest beginning of a write acknowledged by then: what ended earlier is overwritten."""
        place = bisect.bisect_left(self._ends, before_ns)
        return self._begins[place - 1] if place else -1


class Counter:
    """The increments of one counter."""

    def __init__(self, acts: Sequence[_Act], moves: Sequence[Interval]) -> None:
        self._shared = acts[0].effect.place.kind == "sum" if acts else False
        self._acts = acts
        self._sure = {act.effect.token for act in acts if act.acknowledged}
        self._possible = {
            act.effect.token for act in acts if act.written.outcome not in {"refused", "undone"}
        }
        firsts: dict[str | None, int] = {}
        for act in acts:
            if act.acknowledged:
                end = act.written.ended_ns or 0
                firsts[act.effect.token] = min(end, firsts.get(act.effect.token, end))
        self._ends = sorted(firsts.values())
        self._begins = sorted(
            {
                act.effect.token: act.began_ns for act in reversed(acts) if act.effect.token in self._possible
            }.values()
        )
        # An increment whose reply was lost counts twice where two others come before its retry
        # (docs/explanation/protection.md), and one whose request is carried out after its sender gave up.
        # So does a transaction that is sent again, with its token, across a move of the authority.
        self.tolerated = sum(
            act.written.late
            + (act.written.lost if self._shared else 0)
            + (act.written.kind == AGAIN and any(_touch(act, move) for move in moves))
            for act in acts
        )

    @staticmethod
    def moves_of(ledger: Ledger, table: str) -> list[Interval]:
        """When the authority of a table moved."""
        return [
            Interval(event["since"], event["at"])
            for event in ledger.events
            if event["event"] in {"stage", "step not made"} and event["table"] == table and event["moved"]
        ]

    def fault(self, number: int, members: frozenset[str]) -> str | None:
        """What is wrong with the final state."""
        if lost := self._sure - members:
            return f"{len(lost)} of {len(self._sure)} acknowledged increments are lost"
        if strange := members - self._possible:
            return f"{len(strange)} increments that were refused, or never sent, are counted"
        if not 0 <= number - len(members) <= self.tolerated:
            return f"it stands at {number}, by {len(members)} increments ({self.tolerated} may count twice)"
        return None

    def explains(self, number: int | None, began_ns: int, ended_ns: int) -> bool:
        """Whether a read between these moments may have shown this."""
        at_least = bisect.bisect_left(self._ends, began_ns)
        at_most = bisect.bisect_left(self._begins, ended_ns) + self.tolerated
        return at_least <= (number or 0) <= at_most


def judge(
    ledger: Ledger,
    dynamodb: Mapping[Place, Item],
    postgres: Mapping[Place, Item],
    *,
    deaths: Mapping[str, int],
) -> Verdict:
    """Judge a whole soak.

    Args:
        ledger: what all processes noted.
        dynamodb: every item, as boto3 reads it, without stamps.
        postgres: every row as such an item.
        deaths: when each process ended, by its name.
    """
    verdict = Verdict()
    frozen = _frozen(ledger)
    moves = {table: Counter.moves_of(ledger, table) for table in TABLES}
    acts: dict[Place, list[_Act]] = collections.defaultdict(list)
    for written in ledger.writes:
        ended = _end(written, frozen, deaths)
        for effect in written.effects:
            acts[effect.place].append(_Act(_judged(written), effect, ended))
    seen: dict[Place, list[Seen]] = collections.defaultdict(list)
    for each in ledger.seen:
        seen[each.place].append(each)
    for place in sorted({*dynamodb, *postgres, *acts, *seen}):
        ours, theirs = postgres.get(place), dynamodb.get(place)
        verdict.keys += 1
        if ours != theirs:
            verdict.differing.append(f"{place}: {_difference(theirs, ours)}")
        sides = (("DynamoDB", theirs), ("PostgreSQL", ours))
        if place.kind in COUNTERS:
            counter = Counter(acts[place], moves[place.table])
            _judge_counter(verdict, place, counter, sides, seen[place])
        else:
            _judge_register(verdict, place, acts[place], sides, seen[place])
    verdict.wrong += [
        f"{event['by']}: {event['event']} {event.get('at_place') or event.get('error')}"
        for event in ledger.events
        if event["event"] in {"half a transaction", "wrong return value", "unexpected"}
    ]
    verdict.wrong += [
        f"{written.writer}: {_named(written)} ended in {written.error}"
        for written in ledger.writes
        if written.error
        in {"AssertionError", "KeyError", "TypeError", "IdempotentParameterMismatchException"}
    ]
    return verdict


def _judge_register(
    verdict: Verdict,
    place: Place,
    acts: Sequence[_Act],
    sides: Iterable[tuple[str, Item | None]],
    seen: Iterable[Seen],
) -> None:
    register = Register(acts)
    for side, item in sides:
        token = None if item is None else item.get("written", {}).get("S", "?")
        if item is not None and not _is_whole(item):
            verdict.wrong.append(f"{place}: {side} holds a mixture of items")
        elif not register.explains(token):
            verdict.lost.append(f"{place}: {side} shows {_source(acts, token)}, newest is {_newest(acts)}")
    for read in seen:
        verdict.reads += 1
        assert not isinstance(read.token, int)
        if not register.explains(read.token, read.began_ns, read.ended_ns):
            verdict.stale.append(
                f"{place}: a {read.how} at {read.stage} ({read.began_ns}) showed {_source(acts, read.token)}"
            )
    verdict.answers += sum(1 for _ in register.conditional())
    verdict.wrong += register.answered_wrongly()


def _judge_counter(
    verdict: Verdict,
    place: Place,
    counter: Counter,
    sides: Iterable[tuple[str, Item | None]],
    seen: Iterable[Seen],
) -> None:
    for side, item in sides:
        number = int(item["n"]["N"]) if item else 0
        members = frozenset(item["members"]["SS"]) if item else frozenset()
        if (fault := counter.fault(number, members)) is not None:
            verdict.lost.append(f"{place}: on {side} {fault}")
        elif side == "DynamoDB":
            verdict.double += number - len(members)
    for read in seen:
        verdict.reads += 1
        assert not isinstance(read.token, str)
        if not counter.explains(read.token, read.began_ns, read.ended_ns):
            verdict.stale.append(
                f"{place}: a {read.how} at {read.stage} ({read.began_ns}) showed {read.token}"
            )


def _judged(written: Written) -> Written:
    """A write that was given up with a request on its way is unknown, whatever its caller was told last."""
    if written.late and written.outcome in {"undone", "refused"}:
        outcome: Outcome = "unknown"
        return Written(
            written.writer,
            written.kind,
            written.stage,
            written.effects,
            outcome,
            written.began_ns,
            written.ended_ns,
            written.late,
            written.lost,
            written.error,
        )
    return written


def _touch(act: _Act, move: Interval) -> bool:
    """Whether the authority moved while a transaction was sent, or a while before: it had been sent then."""
    ended = act.written.ended_ns or _FOREVER
    return move.began_ns <= ended and move.ended_ns + _SENT_AGAIN_NS >= act.began_ns


def _end(written: Written, frozen: Sequence[Interval], deaths: Mapping[str, int]) -> int:
    """When the last request of a write can have been carried out."""
    ended = written.ended_ns
    if ended is not None and written.outcome != "unknown" and not written.late:
        return ended
    if ended is None:
        ended = deaths.get(written.writer, _FOREVER)
    for interval in frozen:
        if interval.began_ns <= ended + GRACE_NS and interval.ended_ns >= written.began_ns:
            ended = max(ended, interval.ended_ns)
    return ended + GRACE_NS


def _frozen(ledger: Ledger) -> list[Interval]:
    """The times for which DynamoDB was stopped, in order."""
    return [
        Interval(event["since"], event["at"])
        for event in sorted(ledger.events, key=lambda event: event["at"])
        if event["event"] == "DynamoDB goes on"
    ]


def _is_whole(item: Item) -> bool:
    token = str(item.get("written", {}).get("S", ""))
    extra = item.get("extra", {}).get("S")
    whole = item.get("proof", {}).get("S") == proof(token)
    return whole and bool(extra == (token if token.startswith("p") else None))


def _difference(theirs: Item | None, ours: Item | None) -> str:
    if theirs is None:
        return "only in PostgreSQL"
    if ours is None:
        return "only in DynamoDB"
    return "differs in " + ", ".join(
        sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
    )


def _source(acts: Iterable[_Act], token: str | None) -> str:
    if token is None:
        return "nothing"
    named = [_named(act.written) for act in acts if act.effect.token == token]
    return f"{token} of {', '.join(named) or 'nobody'}"


def _newest(acts: Sequence[_Act]) -> str:
    sure = [act for act in acts if act.acknowledged]
    return _named(max(sure, key=lambda act: act.began_ns).written) if sure else "nothing"


def _named(written: Written) -> str:
    return (
        f"{written.kind} of {written.writer} ({written.outcome}, at {written.stage}, {written.began_ns} to "
        f"{written.ended_ns}, {written.lost} replies lost, {written.late} requests given up)"
    )
