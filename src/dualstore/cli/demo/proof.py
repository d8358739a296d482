"""Judges a database by the ledger and the source data alone: what must be there, and what must not.

Three kinds of airports take writes, each judged by the strongest rule that its traffic allows:

- *owned* by one writer, so the order of writes is known: the state is exactly that after the last
  acknowledged write, or one that the writes without an answer allow;
- *shared counters*, visited by all: every acknowledged visitor is there, nobody is who never came, and the
  count is the number of visitors (a visit adds to both in one write, so one that is applied twice shows);
- *contended*, saved, closed and reopened by all: the state is that of a write after which no other
  acknowledged write began.

All others must be as in the source. Nothing here uses dualstore.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from dualstore.cli.demo.ledger import Entry, by_key
from dualstore.cli.demo.moments import Failure, Stretch
from dualstore.cli.demo.writes import Close, Record, Reopen, Save, State, Visit, states_after


class Kind(StrEnum):
    """How an airport takes part in the traffic."""

    OWNED = "owned"
    SHARED = "shared"
    CONTENDED = "contended"
    UNTOUCHED = "untouched"


CLAIMS = {
    Kind.OWNED: "every acknowledged write of an owned airport is its final state",
    Kind.SHARED: "every acknowledged visit is counted exactly once",
    Kind.CONTENDED: "no acknowledged write of a contended airport is lost",
    Kind.UNTOUCHED: "every other airport is as in the source",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One claim, and what speaks against it.

    Attributes:
        claim: what is to be shown.
        where: on which side, or between which.
        examined: how many airports, reads or writes were looked at.
        unit: what was counted.
        faults: one sentence each; none means that the claim holds.
    """

    claim: str
    where: str
    examined: int
    unit: str
    faults: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether something was examined and nothing speaks against the claim."""
        return self.examined > 0 and not self.faults


@dataclass(frozen=True, slots=True)
class Judge:
    """What the source and the ledger say that a database must hold.

    Args:
        source: every airport as it was loaded.
        kinds: the kinds of the airports that take writes; all others are untouched.
        entries: the whole ledger.
    """

    source: Mapping[str, Record]
    kinds: Mapping[str, Kind]
    entries: tuple[Entry, ...]

    def checks(self, observed: Mapping[str, Record], *, where: str) -> list[Check]:
        """Judges one database.

        Args:
            observed: every airport found there.
            where: what the database is called in the result.
        """
        ledger = by_key(self.entries)
        faults: dict[Kind, list[str]] = {kind: [] for kind in Kind}
        examined = dict.fromkeys(Kind, 0)
        for key in sorted({*self.source, *observed, *ledger}):
            kind = self.kinds.get(key, Kind.UNTOUCHED)
            examined[kind] += 1
            fault = self._fault(kind, key, observed.get(key), ledger.get(key, []))
            if fault is not None:
                faults[kind].append(f"{key}: {fault}")
        return [Check(CLAIMS[kind], where, examined[kind], "airports", tuple(faults[kind])) for kind in Kind]

    def _fault(self, kind: Kind, key: str, final: State, entries: list[Entry]) -> str | None:
        initial = self.source.get(key)
        match kind:
            case Kind.OWNED:
                return owned_fault(initial, entries, final)
            case Kind.SHARED:
                return shared_fault(initial, entries, final)
            case Kind.CONTENDED:
                return contended_fault(initial, entries, final)
            case Kind.UNTOUCHED:
                return untouched_fault(initial, entries, final)


def owned_fault(initial: State, entries: list[Entry], final: State) -> str | None:
    """What is wrong with the final state of an airport that one writer owns."""
    if len({entry.writer for entry in entries}) > 1:
        return "several writers wrote to an owned airport"
    states = frozenset({initial})
    for entry in entries:
        states = states_after(states, entry.write, entry.outcome)
        if not states:
            return f"{entry.write.do} {entry.number} of {entry.writer} was {entry.outcome}, which cannot be"
    if final in states:
        return None
    return _difference(_last(states), final)


def shared_fault(initial: State, entries: list[Entry], final: State) -> str | None:
    """What is wrong with the final state of an airport that all writers visit."""
    if initial is None or final is None:
        return _difference(initial, final)
    attributes = dict(final)
    visits, visitors = attributes.pop("visits", Decimal(0)), attributes.pop("visitors", frozenset())
    if not isinstance(visits, Decimal) or not isinstance(visitors, frozenset):
        return "visits or visitors are not of their type"
    if frozenset(attributes.items()) != initial:
        return _difference(initial, frozenset(attributes.items()))
    return _visits_fault(visits, visitors, entries)


def _visits_fault(visits: Decimal, visitors: frozenset[str], entries: list[Entry]) -> str | None:
    acknowledged = set(_visitors(entries, "acknowledged"))
    lost = acknowledged - visitors
    strange = visitors - acknowledged - set(_visitors(entries, "unknown"))
    if lost:
        return f"{len(lost)} of {len(acknowledged)} acknowledged visits are lost"
    if strange:
        return f"{len(strange)} visitors never came"
    if visits != len(visitors):
        return f"{visits} visits by {len(visitors)} visitors, who each came once"
    return None


def _visitors(entries: Iterable[Entry], outcome: str) -> Iterator[str]:
    return (
        entry.write.visitor
        for entry in entries
        if isinstance(entry.write, Visit) and entry.outcome == outcome
    )


def contended_fault(initial: State, entries: list[Entry], final: State) -> str | None:
    """What is wrong with the final state of an airport that all writers save, close and reopen.

    A write can be the last one only if no acknowledged write began after it had been answered.
    """
    effective = [entry for entry in entries if entry.outcome in {"acknowledged", "unknown"}]
    latest_start_ns = max((e.began_ns for e in effective if e.outcome == "acknowledged"), default=None)
    if final == initial and latest_start_ns is None:
        return None
    left_it_so = [entry for entry in effective if _leaves(entry, final)]
    if not left_it_so:
        return "it is deleted, which nobody asked for" if final is None else "nobody wrote its state"
    if latest_start_ns is None or any(_may_end_after(entry, latest_start_ns) for entry in left_it_so):
        return None
    newest = max(effective, key=lambda entry: entry.began_ns)
    return f"it shows an overtaken write; {newest.write.do} {newest.number} of {newest.writer} came later"


def _may_end_after(entry: Entry, moment_ns: int) -> bool:
    """Whether a write may have happened after this; what nobody was told may have happened at any time."""
    return entry.outcome == "unknown" or entry.ended_ns is None or entry.ended_ns >= moment_ns


def _leaves(entry: Entry, final: State) -> bool:
    match entry.write:
        case Save(airport) | Reopen(airport):
            return airport == final
        case Close():
            return final is None
    return False


def untouched_fault(initial: State, entries: list[Entry], final: State) -> str | None:
    """What is wrong with the final state of an airport that nobody writes to."""
    if entries:
        return "somebody wrote to it"
    return None if final == initial else _difference(initial, final)


def _difference(expected: State, final: State) -> str:
    if expected is None:
        return "it is there, and should not be"
    if final is None:
        return "it is missing"
    names = sorted({name for name, _ in expected ^ final})
    return f"differs in {', '.join(names)}"


def _last(states: frozenset[State]) -> State:
    """One of the allowed states, an existing airport rather than None."""
    return next((state for state in states if state is not None), None)


def side_by_side(dynamodb: Mapping[str, object], postgres: Mapping[str, object]) -> Check:
    """Compares the items of both sides, each as raw as it could be read.

    Args:
        dynamodb: comparable items by key.
        postgres: the same, of the other side.
    """
    faults = []
    for key in sorted({*dynamodb, *postgres}):
        if key not in postgres:
            faults.append(f"{key}: only in DynamoDB")
        elif key not in dynamodb:
            faults.append(f"{key}: only in PostgreSQL")
        elif dynamodb[key] != postgres[key]:
            faults.append(f"{key}: differs")
    return Check(
        "both sides hold the same items",
        "DynamoDB = PostgreSQL",
        len({*dynamodb, *postgres}),
        "items",
        tuple(faults),
    )


LONGEST_PAUSE_SECONDS = 8.0
"""How long dualstore lets a write wait for a move of the authority before it asks the caller to try again."""


def pauses(entries: Iterable[Entry], moves: Sequence[Stretch]) -> dict[str, float]:
    """The longest that a write waited in each move of the authority, in seconds, of those that were done."""
    longest = {move.name: 0.0 for move in moves}
    for entry in entries:
        if entry.outcome == "acknowledged" and entry.ended_ns is not None:
            for move in moves:
                if move.touches(entry.began_ns, entry.ended_ns):
                    seconds = (entry.ended_ns - entry.began_ns) / 1e9
                    longest[move.name] = max(longest[move.name], seconds)
    return longest


def named(longest: Mapping[str, float]) -> str:
    """The pauses, for people."""
    return ", ".join(f"{name} {seconds:.2f} s" for name, seconds in longest.items())


def pause_check(entries: Sequence[Entry], moves: Sequence[Stretch]) -> Check:
    """Whether writes went on soon in every move of the authority."""
    longest = pauses(entries, moves)
    faults = [
        f"{name}: no write was done" if not seconds else f"{name}: a write waited for {seconds:.1f} s"
        for name, seconds in longest.items()
        if not 0 < seconds <= LONGEST_PAUSE_SECONDS
    ]
    return Check(
        f"no write waited {LONGEST_PAUSE_SECONDS:.0f} s for a move of the authority ({named(longest)})",
        "live traffic",
        len(moves),
        "moves",
        tuple(faults),
    )


TELLING_CODES = frozenset({"ServiceUnavailable", "InternalServerError"})
"""What a caller is told while the authority is away: nothing was done, or it is not known."""


def failure_checks(failures: Sequence[Failure], *, calls: int, away: Sequence[Stretch]) -> list[Check]:
    """Whether callers saw errors only while the authority was away, and only such as say what to do.

    Args:
        failures: all calls that failed.
        calls: how many calls there were.
        away: when the authority was away.
    """

    def excused(failure: Failure) -> bool:
        return any(each.touches(failure.began_ns, failure.ended_ns) for each in away)

    meanwhile = [failure for failure in failures if excused(failure)]
    strange = _counted(failure for failure in failures if not excused(failure))
    never = Check(
        "no caller saw an error" + (" while the authority was there" if away else ""),
        "live traffic",
        calls - len(meanwhile),
        "calls",
        strange,
    )
    if not away:
        return [never]
    told = ", ".join(_counted(meanwhile)) or "none"
    vague = _counted(failure for failure in meanwhile if failure.code not in TELLING_CODES)
    return [
        never,
        Check(
            f"while it was away callers were told so ({told})",
            "live traffic",
            len(meanwhile),
            "errors",
            vague,
        ),
    ]


def _counted(failures: Iterable[Failure]) -> tuple[str, ...]:
    kinds = Counter(failure.kind for failure in failures)
    return tuple(f"{count} {kind}" for kind, count in kinds.most_common())
