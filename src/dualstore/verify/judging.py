"""Verdicts on keys that seemed to differ: looked at again, settled where that is asked for, recorded."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from uuid import UUID

from dualstore.errors import ConfigurationError, Unavailable
from dualstore.items import Item, Key, TableShape, key_bytes, key_hash
from dualstore.mapping.expiry import has_expired
from dualstore.stores.base import Mirror, Store
from dualstore.stores.bulk import patiently
from dualstore.stores.scan import transient_as_unavailable
from dualstore.telemetry import Discrepancy, DiscrepancySink, Finder
from dualstore.telemetry.discrepancies import current_trace_id
from dualstore.verify.findings import Observation
from dualstore.verify.recheck import Candidate, Sides, recheck

OPERATION = "Verify"
"""What discrepancies name as the operation that saw them."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a key.

    Attributes:
        key: the key.
        observation: what was seen of it last; None where it kept moving.
        repaired: whether the sides were found equal after the key had been settled.
    """

    key: Key
    observation: Observation | None
    repaired: bool = False


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Looks at keys again until each has a verdict.

    Attributes:
        shape: the table.
        dynamodb: the DynamoDB side.
        postgres: the PostgreSQL side.
        settle: settles keys, as many of them as it can, and raises where it could not settle all; needed for
            `repair`.
        repair: whether to settle the keys that differ, and to look at them again.
        record: takes each difference, as the comparison of reads records it.
        ttl_attribute: the attribute by which items expire, or None.
        rounds: how often a key that seems to differ is looked at again, at most.
        pause: the time between two such looks: longer than a write takes to reach the mirror.
        patience: how long to wait for a database that is away.
    """

    shape: TableShape
    dynamodb: Store
    postgres: Mirror
    settle: Callable[[Sequence[Key]], object] | None = None
    repair: bool = False
    record: DiscrepancySink = lambda _: None
    ttl_attribute: str | None = None
    rounds: int = 5
    pause: timedelta = timedelta(seconds=1)
    patience: timedelta = timedelta(minutes=1)

    def check(self) -> None:
        """See that nothing is missing.

        Raises:
            ConfigurationError: repair is asked for, but nothing to settle with was given.
        """
        if self.repair and self.settle is None:
            raise ConfigurationError("a verification that repairs needs `settle`")

    @property
    def sides(self) -> Sides:
        """Both sides, as they are looked at."""
        return Sides(self.shape, self.dynamodb, self.postgres, self._has_expired)

    def judge(self, candidates: Sequence[Candidate], *, run_id: UUID) -> list[Judged]:
        """Give each candidate a verdict, and record the differences.

        Raises:
            Unavailable: a side was away for longer than `patience`.
        """
        if not candidates:
            return []
        verdicts = self.patiently(
            lambda: list(recheck(self.sides, candidates, rounds=self.rounds, pause=self.pause))
        )
        different = [
            each.key
            for each in verdicts
            if each.observation is not None and each.observation.finding.is_difference
        ]
        repaired = self._repaired(different)
        judged = [
            Judged(each.key, each.observation, key_bytes(self.shape.keys, each.key) in repaired)
            for each in verdicts
        ]
        for each in judged:
            if each.observation is not None and each.observation.finding.is_difference:
                self._record(each.key, each.observation, repaired=each.repaired, run_id=run_id)
        return judged

    def patiently(self, call: Callable[[], T]) -> T:
        """Call again for as long as a database is away, up to `patience`."""
        return patiently(lambda _attempt: call(), self.patience)

    def mend(self, keys: Sequence[Key]) -> bool:
        """Settle keys, if that is asked for; whether it was.

        The mirror's rows are written anew with what the authority holds, into the SQL table where they
        belong, and removed from others. What cannot be settled, as where the SQL table refuses a row, stays.
        """
        settle = self.settle
        if not keys or not self.repair or settle is None:
            return False
        with (
            suppress(Unavailable),
            transient_as_unavailable(f"Settling keys of table {self.shape.name}"),
        ):
            settle(keys)
        return True

    def _repaired(self, keys: Sequence[Key]) -> frozenset[bytes]:
        """Settle keys that differ, if that is asked for, and look at them again; those that are equal now."""
        if not self.mend(keys):
            return frozenset()
        again = self.patiently(lambda: list(self.sides.observe(keys)))
        return frozenset(
            key_bytes(self.shape.keys, key) for key, seen in again if not seen.finding.is_difference
        )

    def _record(self, key: Key, observation: Observation, *, repaired: bool, run_id: UUID) -> None:
        now = datetime.now(UTC)
        assert observation.kind is not None  # noqa: S101 - it is a difference
        discrepancy = Discrepancy(
            table=self.shape.name,
            key_hash=key_hash(self.shape.keys, key),
            operation=OPERATION,
            kind=observation.kind,
            paths=observation.paths,
            first_seen=now,
            last_seen=now,
            versions=observation.versions,
            finder=Finder.VERIFY,
            trace_id=current_trace_id(),
            run_id=run_id,
            repaired=repaired,
            key=key_bytes(self.shape.keys, key),
        )
        self.patiently(lambda: self.record(discrepancy))

    def _has_expired(self, item: Item) -> bool:
        return self.ttl_attribute is not None and has_expired(item, self.ttl_attribute, now=time.time())
