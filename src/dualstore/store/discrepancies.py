"""The recorded discrepancies of one table, as operators deal with them: look, repair, ignore."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dualstore.errors import ConfigurationError, Unavailable
from dualstore.items import Item, Key, TableShape, key_hash
from dualstore.operations import Scan
from dualstore.stores.discrepancies import DiscrepancyState, PostgresDiscrepancies, RecordedDiscrepancy
from dualstore.stores.key_bytes import key_from_bytes
from dualstore.stores.scan import transient_as_unavailable
from dualstore.telemetry import DiscrepancyKind
from dualstore.verify.recheck import Sides

SEARCHED_KEYS = 100_000
"""The most keys of a side that are gone through for those whose hashes alone are recorded."""
_AT_ONCE = 1_000


class RepairOutcome(StrEnum):
    """What became of the repair of one discrepancy."""

    REPAIRED = "repaired"
    DIFFERENT = "still different"
    NOT_SETTLED = "not settled: a database did not take it; try again"
    NO_ITEM = "concerns no one item: `dualstore verify` compares all of them"
    NOT_FOUND = (
        "its key was not found among those searched: `dualstore verify --repair` goes through all of them, "
        "and with `plain_keys` in [shadow] keys are recorded"
    )


@dataclass(frozen=True, slots=True)
class RepairedDiscrepancy:
    """A discrepancy whose repair was asked for, and what became of it."""

    recorded: RecordedDiscrepancy
    outcome: RepairOutcome


class TableDiscrepancies:
    """The discrepancies of one table.

    Args:
        kept: where they are recorded.
        sides: both sides of the table.
        settle: makes both sides hold for some keys what the authority holds.
    """

    def __init__(
        self, kept: PostgresDiscrepancies, sides: Sides, settle: Callable[[Sequence[Key]], object]
    ) -> None:
        self._kept = kept
        self._sides = sides
        self._settle = settle

    @property
    def _shape(self) -> TableShape:
        return self._sides.shape

    def recorded(
        self,
        *,
        states: Collection[DiscrepancyState] | None = None,
        kinds: Collection[DiscrepancyKind] | None = None,
        limit: int = 100,
    ) -> list[RecordedDiscrepancy]:
        """The discrepancies, the last seen first; arguments and errors as for `PostgresDiscrepancies`."""
        return self._kept.recorded(self._shape.name, states=states, kinds=kinds, limit=limit)

    def one(self, number: int) -> RecordedDiscrepancy:
        """A discrepancy by its number.

        Raises:
            ConfigurationError: there is none (any more).
            Unavailable: PostgreSQL could not be reached in time.
        """
        found = self._kept.one(self._shape.name, number)
        if found is None:
            raise ConfigurationError(
                f"table {self._shape.name} has no discrepancy {number}; see `dualstore discrepancies list`"
            )
        return found

    def key_of(self, recorded: RecordedDiscrepancy) -> Key | None:
        """The key that a discrepancy is about, where keys are recorded."""
        encoded = recorded.discrepancy.key
        return None if encoded is None else key_from_bytes(self._shape.keys, encoded)

    def ignore(self, number: int) -> None:
        """Have a discrepancy ignored from now on, however often it is seen.

        Raises:
            ConfigurationError: there is none of that number.
            Unavailable: PostgreSQL could not be reached in time.
        """
        self.one(number)
        self._kept.mark(self._shape.name, [number], DiscrepancyState.IGNORED)

    def repair(
        self, number: int | None = None, *, searched_keys: int = SEARCHED_KEYS
    ) -> list[RepairedDiscrepancy]:
        """Settle the keys of discrepancies, and look whether the sides are equal then.

        A key of which only the hash is recorded is looked for among the first keys of DynamoDB, then of
        PostgreSQL, in one pass for all of them.

        Args:
            number: of one discrepancy; None repairs the open ones, 1,000 of them at most.
            searched_keys: the most keys of each side to go through.

        Raises:
            ConfigurationError: there is none of that number.
            Unavailable: a database could not be reached in time.
        """
        asked = (
            [self.one(number)]
            if number is not None
            else self.recorded(states=[DiscrepancyState.OPEN], limit=_AT_ONCE)
        )
        keys = {each.discrepancy.key_hash: key for each in asked if (key := self.key_of(each)) is not None}
        sought = {
            each.discrepancy.key_hash
            for each in asked
            if not each.discrepancy.of_request and each.discrepancy.key_hash not in keys
        }
        found, searched_all = self._search(sought, searched_keys)
        # A key that neither side holds any more is equal on both.
        outcomes = dict.fromkeys(sought, RepairOutcome.REPAIRED if searched_all else RepairOutcome.NOT_FOUND)
        outcomes |= self._repaired({**keys, **found})
        done = [
            RepairedDiscrepancy(each, outcomes.get(each.discrepancy.key_hash, RepairOutcome.NO_ITEM))
            for each in asked
        ]
        equal = [each.recorded.id for each in done if each.outcome is RepairOutcome.REPAIRED]
        self._kept.mark(self._shape.name, equal, DiscrepancyState.REPAIRED)
        return done

    def _repaired(self, keys: Mapping[str, Key]) -> dict[str, RepairOutcome]:
        """Settle keys, by their hashes, and look at them on both sides."""
        if not keys:
            return {}
        unequal = RepairOutcome.DIFFERENT
        try:
            with transient_as_unavailable(f"Settling keys of table {self._shape.name}"):
                self._settle(list(keys.values()))
        except Unavailable:
            unequal = RepairOutcome.NOT_SETTLED
        return {
            key_hash(self._shape.keys, key): unequal if seen.finding.is_difference else RepairOutcome.REPAIRED
            for key, seen in self._sides.observe(list(keys.values()))
        }

    def _search(self, hashes: Collection[str], limit: int) -> tuple[Mapping[str, Key], bool]:
        """The keys behind hashes, and whether all keys of both sides were looked at, or all hashes found."""
        found: dict[str, Key] = {}
        ended = True
        for pages in (self._dynamodb_pages(), self._sides.postgres.all_items(self._shape.name)):
            searched = 0
            for items in pages:
                if found.keys() >= set(hashes):
                    return found, True
                if searched >= limit:
                    ended = False
                    break
                searched += len(items)
                hashed = {key_hash(self._shape.keys, item): self._shape.keys.key_of(item) for item in items}
                found |= {each: hashed[each] for each in hashes if each in hashed}
        return found, ended

    def _dynamodb_pages(self) -> Iterator[Sequence[Item]]:
        """The keys of DynamoDB's items, page after page."""
        names = {f"#{number}": name for number, name in enumerate(self._shape.keys.names)}
        request = {
            "TableName": self._shape.name,
            "ConsistentRead": True,
            "ProjectionExpression": ", ".join(names),
            "ExpressionAttributeNames": names,
        }
        start: Key | None = None
        while True:
            with transient_as_unavailable(f"Scan of table {self._shape.name}"):
                page = self._sides.dynamodb.execute(
                    Scan(request if start is None else {**request, "ExclusiveStartKey": start})
                )
            yield page.get("Items", ())
            start = page.get("LastEvaluatedKey")
            if start is None:
                return
