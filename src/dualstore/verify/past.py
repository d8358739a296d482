"""Verdicts against what DynamoDB held at a moment that has passed: what has changed since is told apart."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from dualstore.errors import ConfigurationError
from dualstore.items import STAMP, Item, Key, key_bytes
from dualstore.stores.base import NOTHING, MirrorState
from dualstore.verify.findings import Finding, Observation, observe_pair
from dualstore.verify.judging import Judge, Judged
from dualstore.verify.recheck import Candidate, recheck, states_of

MARGIN = timedelta(minutes=5)
"""What clocks differ by, and what the other side may lag by."""

# Before dualstore: a random time is hardly ever one of the few years since.
_EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
_LATER = Observation(Finding.LATER, (), None)
_UNDECIDED = Observation(Finding.UNDECIDED, (), None)


@dataclass(frozen=True, kw_only=True)
class PastJudge(Judge):
    """Gives verdicts on what an export says of its moment, where PostgreSQL decides by now.

    A row that was written after the export says nothing against it: its stamp tells when, the tombstone of a
    deletion does. Where neither is there (a transaction's stamp has no time in it, and PostgreSQL keeps no
    tombstones once it decides), DynamoDB is asked for as long as it is brought after PostgreSQL: where both
    are equal now, it is what has become of the item since. Else nothing is known, and nothing is guessed.

    Attributes:
        taken_at: the moment of the export.
        margin: a write is later than the export where it is later than so long before it.
        follows: whether DynamoDB is still brought after PostgreSQL.
        deleted_at: when keys were deleted last, of those whose tombstones are there, by `items.key_bytes`.
    """

    taken_at: datetime
    follows: bool
    margin: timedelta = MARGIN
    deleted_at: Callable[[Sequence[Key]], Mapping[bytes, datetime]] = lambda _: {}

    def check(self) -> None:
        """See that nothing is to be repaired.

        Raises:
            ConfigurationError: repair is asked for.
        """
        if self.repair:
            raise ConfigurationError("an export of the past decides nothing: leave out --repair")

    @property
    def context(self) -> Mapping[str, Any]:
        """What makes this judge this one, as JSON."""
        return {"taken_at": self.taken_at.astimezone(UTC).isoformat()}

    def judge(
        self, candidates: Sequence[Candidate], *, run_id: UUID, items: Mapping[bytes, Item] | None = None
    ) -> list[Judged]:
        """Give each candidate a verdict, and record the differences.

        Args:
            candidates: the keys, each once.
            run_id: the run.
            items: what the export holds of them, by `items.key_bytes`; what is not in it has no item.
        """
        keys = [each.key for each in candidates]
        if not keys:
            return []
        schema = self.shape.keys
        states = self.patiently(lambda: states_of(self.postgres, self.shape, keys))
        deleted = self.patiently(lambda: self.deleted_at(keys))
        judged, unknown = [], {}
        for key in keys:
            name = key_bytes(schema, key)
            item, state = (items or {}).get(name), states.get(name)
            seen = self._observed(item, state)
            if seen.finding.is_difference:
                when = _written_at(state) if state is not None and state.item is not None else None
                moment = deleted.get(name) if state is None or state.item is None else when
                if moment is None:
                    unknown[name] = Judged(key, seen)
                    continue
                seen = _LATER if moment > self.taken_at - self.margin else seen
            judged.append(Judged(key, seen))
        judged += self._of_today(unknown)
        for each in judged:
            if each.observation is not None and each.observation.finding.is_difference:
                self._record(each.key, each.observation, repaired=False, run_id=run_id)
        return judged

    def _observed(self, item: Item | None, state: MirrorState | None) -> Observation:
        """What the export says of a key, beside its row."""
        revision = NOTHING if state is None else state.revision
        row = None if state is None else state.item
        if row is None and item is not None and self._has_expired(item):
            return Observation(Finding.EXPIRED, (), None)
        return observe_pair(item, row, revision=revision, has_expired=self._has_expired)

    def _of_today(self, unknown: Mapping[bytes, Judged]) -> list[Judged]:
        """Verdicts by how both sides stand now, on keys that nothing tells the last write of."""
        if not self.follows:
            return [replace(each, observation=_UNDECIDED) for each in unknown.values()]
        candidates = [Candidate(each.key) for each in unknown.values()]
        verdicts = self.patiently(
            lambda: list(recheck(self.sides, candidates, rounds=self.rounds, pause=self.pause))
        )
        judged = []
        for each in verdicts:
            if each.observation is None or each.observation.finding is Finding.EXPIRED:
                judged.append(Judged(each.key, each.observation))
            elif each.observation.finding.is_difference:
                judged.append(unknown[key_bytes(self.shape.keys, each.key)])
            else:
                judged.append(Judged(each.key, _LATER))
        return judged


def _written_at(state: MirrorState) -> datetime | None:
    """When a row was written, by the UUIDv7 that is its stamp; None where it has another one, or none."""
    value = (state.item or {}).get(STAMP, {}).get("B")
    stamp = b"" if value is None else bytes(value)
    if len(stamp) != 16 or stamp[6] >> 4 != 7 or stamp[8] >> 6 != 0b10:  # noqa: PLR2004 - RFC 9562, section 5.7
        return None
    seconds = int.from_bytes(stamp[:6]) / 1000
    # One of a transaction may look like a UUIDv7, of a random time.
    credible = _EARLIEST.timestamp() < seconds < time.time() + MARGIN.total_seconds()
    return datetime.fromtimestamp(seconds, UTC) if credible else None
