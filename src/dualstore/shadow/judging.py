"""Judges one read: are the answers equal, was a difference lag, or does it persist?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime

from botocore.exceptions import ClientError

from dualstore.items import Item, Key, TableShape, key_bytes, without_stamps
from dualstore.operations import GetItem, Operation, Response
from dualstore.replication.served import ServedTable
from dualstore.shadow.answers import Answer, NoAnswer, Refusal, ask, is_legacy, refusal
from dualstore.shadow.batches import apart, together
from dualstore.shadow.comparison import Finding, compare
from dualstore.shadow.differences import kind_with, versions_of
from dualstore.shadow.rechecks import Read, Suspicion, look_again
from dualstore.shadow.rules import NO_RULES, Rules
from dualstore.stages import Side
from dualstore.telemetry import Discrepancy, DiscrepancyKind, Verdict
from dualstore.telemetry.discrepancies import Versions, current_trace_id

RulesOf = Callable[[str], Rules]
"""Gives the rules of a table, by its physical name."""

ItemsOf = Callable[[Side, str, Sequence[Key]], Iterator[Item | None] | None]
"""Gives the items of keys of a table (physical name) in the keys' order, None for each that there is not, if
the side has a quicker way to them than BatchGetItem; else None. It need not look whether a key is in doubt: a
difference is looked at again."""

_MISSING = frozenset({DiscrepancyKind.MISSING_ON_DYNAMODB, DiscrepancyKind.MISSING_ON_POSTGRES})


@dataclass(slots=True, eq=False)
class ShadowRead:
    """A read that one side answered, on its way through comparison.

    Attributes:
        table: the table, or one of the tables, that was read.
        operation: the read, as its caller made it.
        side: who answered.
        answer: the response or the refusal; let go once it is compared.
        weight: how much room it takes in the queue.
        context: the caller's, in which all of it runs.
        deadline: when it is dropped, by the monotonic clock.
        seen_at: when it was answered, in seconds since the epoch.
        looks: how often both sides were read again.
        suspicions: what no look has refuted yet.
        confirmed: what persists, in the end.
    """

    table: ServedTable
    operation: Operation
    side: Side
    answer: Response | ClientError
    weight: int
    context: Context
    deadline: float
    seen_at: float
    looks: int = 0
    suspicions: tuple[Suspicion, ...] = ()
    confirmed: tuple[Discrepancy, ...] = ()


def equal_at_sight(read: ShadowRead, other: Response) -> bool:
    """Whether a GetItem's two answers are the same as they stand, as nearly all are.

    `compare` then finds nothing, whatever the rules are, and takes ten times as long to.

    Args:
        read: a GetItem that was answered, not refused.
        other: the other side's answer.
    """
    assert not isinstance(read.answer, ClientError)  # noqa: S101 - see `batches.group_of`
    ours, theirs = read.answer.get("Item"), other.get("Item")
    if ours is None or theirs is None:
        return ours is theirs
    return without_stamps(ours) == without_stamps(theirs)


def _answer_of(item: Item | None) -> Response:
    return {} if item is None else {"Item": item}


class Judge:
    """Compares, looks again, and says what persists. Keeps nothing: a read carries its own state.

    A difference that one look refutes was lag; one that no look refutes and two confirm is a discrepancy.
    What a write changes during a look is neither refuted nor confirmed by it.

    Args:
        read: runs a read on a side.
        tables: the tables by physical name; may grow.
        rules_of: what comparisons leave out.
        items_of: reads many items at once.
        rechecks: how often a difference is looked at again.
        same_side: whether the primary's own side is asked again, to measure the noise of comparing.
    """

    def __init__(
        self,
        read: Read,
        tables: Mapping[str, ServedTable],
        *,
        rules_of: RulesOf = lambda _: NO_RULES,
        items_of: ItemsOf = lambda *_: None,
        rechecks: int = 3,
        same_side: bool = False,
    ) -> None:
        self.read = read
        self._tables = tables
        self._rules_of = rules_of
        self._items_of = items_of
        self._rechecks = rechecks
        self.same_side = same_side

    def other(self, side: Side) -> Side:
        """The side that a read is compared with."""
        return side if self.same_side else side.other

    def read_together(
        self, side: Side, shape: TableShape, gets: Sequence[GetItem]
    ) -> Iterator[Response | None]:
        """Run several GetItems of one group (`batches.group_of`) at once.

        Returns:
            What each would have been answered, in their order; None for one that is to be asked alone.
        """
        if gets[0].projection is None:
            items = self._items_of(side, shape.name, [get.key for get in gets])
            if items is not None:
                return map(_answer_of, items)
        return iter(apart(shape, gets, self.read(side, together(shape, gets))))

    def shapes(self, operation: Operation) -> Mapping[str, TableShape]:
        """The shapes of the tables that a read touches.

        Raises:
            NoAnswer: one of them is not served here, or one side alone understands the read.
        """
        if is_legacy(operation):
            raise NoAnswer("legacy parameters", comparable=False)
        try:
            return {table: self._tables[table].shape for table in operation.tables}
        except KeyError:
            raise NoAnswer("not served", comparable=False) from None

    def first_look(self, read: ShadowRead, other: Answer) -> Verdict | None:
        """Compare with what the other side answered; None where that has to be looked at again.

        Raises:
            NoAnswer: there is nothing to compare with.
            NormaliserFailed: the table's normaliser raised.
        """
        operation, side = read.operation, read.side
        primary = refusal(read.answer) if isinstance(read.answer, ClientError) else read.answer
        read.answer = {}  # let go: from here on both sides are read again
        answers = {side: primary, side.other: other}
        found = compare(operation, self.shapes(operation), answers, rules=self._rules(operation))
        read.suspicions = tuple(map(Suspicion, found.findings))
        if read.suspicions:
            return None
        return Verdict.EQUAL if found.comparable else Verdict.INCOMPARABLE

    def look_again(self, read: ShadowRead) -> Verdict | None:
        """Read both sides again; None where that is to be done once more.

        Raises:
            NoAnswer: a side gave no answer.
            NormaliserFailed: the table's normaliser raised.
        """
        operation = read.operation
        look = look_again(
            self.read,
            self.shapes(operation),
            operation,
            sides=(read.side, self.other(read.side)),
            rules=self._rules(operation),
        )
        read.looks += 1
        read.suspicions = look.judge(read.suspicions)
        if not read.suspicions:
            return Verdict.LAG
        if read.looks < self._rechecks:
            return None
        certain = [s.finding for s in read.suspicions if s.confirmed >= min(2, self._rechecks)]
        if self.same_side:  # noise, which nobody records
            return Verdict.MISMATCH if certain else Verdict.INCOMPARABLE
        read.confirmed = tuple(found for each in certain if (found := self._record(read, each)) is not None)
        return Verdict.MISMATCH if read.confirmed else Verdict.INCOMPARABLE

    def _rules(self, operation: Operation) -> Mapping[str, Rules]:
        return {table: self._rules_of(table) for table in operation.tables}

    def _record(self, read: ShadowRead, finding: Finding) -> Discrepancy | None:
        """A finding as a record; None where its item turns out to have expired."""
        versions = Versions()
        keys = self._tables[finding.table].shape.keys
        if finding.key is not None:
            items = {side: self._whole_item(side, finding) for side in Side}
            there = [item for item in items.values() if item is not None]
            if finding.kind in _MISSING and any(map(self._rules_of(finding.table).has_expired, there)):
                return None  # a projection had hidden it
            versions = versions_of(items[Side.DYNAMODB], items[Side.POSTGRES])
        return Discrepancy(
            table=finding.table,
            key_hash=finding.key_hash,
            operation=read.operation.name,
            kind=kind_with(versions, finding.kind),
            paths=finding.paths,
            first_seen=datetime.fromtimestamp(read.seen_at, UTC),
            last_seen=datetime.now(UTC),
            versions=versions,
            of_request=finding.key is None,
            trace_id=current_trace_id(),
            key=None if finding.key is None else key_bytes(keys, finding.key),
        )

    def _whole_item(self, side: Side, finding: Finding) -> Item | None:
        """The item that a finding is about, as it is stored: what was read may be a part of it."""
        request = {"TableName": finding.table, "Key": finding.key, "ConsistentRead": True}
        answer = ask(lambda: self.read(side, GetItem(request)))
        return None if isinstance(answer, Refusal) else answer.get("Item")
