"""Looking again at a read whose answers differed: was it a write in between, or a difference that stays?"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dualstore.items import TableShape
from dualstore.operations import BatchGetItem, Operation, PagedRead, Response, TransactGetItems
from dualstore.shadow.answers import ask
from dualstore.shadow.comparison import Finding, compare, request_hash
from dualstore.shadow.rules import NO_RULES, Rules
from dualstore.stages import Side

Read = Callable[[Side, Operation], Response]


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A finding that no look has refuted so far, and how many have confirmed it."""

    finding: Finding
    confirmed: int = 0


@dataclass(frozen=True, slots=True)
class SecondLook:
    """What reading both sides again showed.

    Attributes:
        findings: the differences that are there now, by identity.
        moved: hashes of the keys that a write changed while the other side was read: of these, a
            difference proves nothing.
        request: hash of the request: what is wrong with the answer as a whole proves nothing once
            anything moved.
    """

    findings: Mapping[object, Finding]
    moved: frozenset[str]
    request: str

    def judge(self, suspicions: tuple[Suspicion, ...]) -> tuple[Suspicion, ...]:
        """Confirm, keep or (by leaving it out) refute each suspicion."""
        return tuple(
            suspicion if self._has_moved(suspicion.finding) else self._confirmed(suspicion)
            for suspicion in suspicions
            if self._has_moved(suspicion.finding) or suspicion.finding.identity in self.findings
        )

    def _has_moved(self, finding: Finding) -> bool:
        return finding.key_hash in self.moved or (finding.key_hash == self.request and bool(self.moved))

    def _confirmed(self, suspicion: Suspicion) -> Suspicion:
        return Suspicion(self.findings[suspicion.finding.identity], suspicion.confirmed + 1)


def look_again(
    read: Read,
    shapes: Mapping[str, TableShape],
    operation: Operation,
    *,
    sides: tuple[Side, Side],
    rules: Mapping[str, Rules],
) -> SecondLook:
    """Read the primary side, the other side, and the primary side once more, consistently.

    Args:
        read: runs a read on a side.
        shapes: the tables by physical name.
        operation: the read, as its caller made it.
        sides: the primary side, and the one that it is compared with: the other one, or itself.
        rules: what comparisons leave out, by the tables' physical names.

    Raises:
        NoAnswer: a side gave no answer.
        NormaliserFailed: a normaliser raised.
    """
    primary, other = sides
    consistent = _countable(consistently(operation, shapes), rules)
    before = ask(lambda: read(primary, consistent))
    between = ask(lambda: read(other, consistent))
    answers = {primary: before, primary.other: between}
    found = compare(operation, shapes, answers, rules=rules, limit=None).findings
    moved: frozenset[str] = frozenset()
    if found:
        after = ask(lambda: read(primary, consistent))
        # One side twice. Stamps count: a write that put the same content back is a write too.
        answers = {primary: before, primary.other: after}
        changes = compare(operation, shapes, answers, with_stamps=True, limit=None)
        moved = frozenset(change.key_hash for change in changes.findings)
    return SecondLook({finding.identity: finding for finding in found}, moved, request_hash(operation))


def _countable(operation: Operation, rules: Mapping[str, Rules]) -> Operation:
    """The items in place of their number, where some of them may have expired."""
    if not isinstance(operation, PagedRead) or operation.select != "COUNT":
        return operation
    if rules.get(operation.table, NO_RULES).ttl_attribute is None:
        return operation
    request = {name: value for name, value in operation.request.items() if name != "Select"}
    return type(operation)(request)


def consistently(operation: Operation, shapes: Mapping[str, TableShape]) -> Operation:
    """The same read, strongly consistent where DynamoDB has that: not on a global index."""
    if isinstance(operation, TransactGetItems):
        return operation
    if isinstance(operation, BatchGetItem):
        requests = operation.request["RequestItems"]
        together = {table: {**request, "ConsistentRead": True} for table, request in requests.items()}
        return type(operation)({**operation.request, "RequestItems": together})
    if isinstance(operation, PagedRead) and operation.index is not None:
        index = shapes[operation.table].indexes.get(operation.index)
        if index is None or index.is_global:
            return operation
    return type(operation)({**operation.request, "ConsistentRead": True})
