"""What those who work on a backfill have to work with, and how they settle a key."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Protocol

from dualstore.backfill.sources.base import Batch, Source
from dualstore.errors import MirrorFenced, MirrorUnavailable
from dualstore.items import Key, TableShape, key_bytes
from dualstore.mapping.transcoding import Reason, Rejected
from dualstore.stores.base import Store
from dualstore.stores.bulk import patiently
from dualstore.stores.postgres_load import LEASE, Piece, PostgresLoad, Reject
from dualstore.stores.postgres_quarantine import PostgresQuarantine
from dualstore.stores.postgres_runs import PostgresRuns
from dualstore.stores.scan import transient_as_unavailable

# A second try tells a passing trouble of the mirror from a row that its table refuses.
_SETTLE_TRIES = 2
_SETTLED_TOGETHER = 100


class Admission(Protocol):
    """Says whether PostgreSQL can bear more load now."""

    def __call__(self) -> str | None:
        """Asked before each batch: None lets it go on; else why it has to wait. Asked again after a pause."""
        ...


def admit_all() -> None:
    """Let every batch go on."""


def _nowhere(_rejected: Rejected) -> None:
    """Where a key stands that was not read from a source."""


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What one process has to work with.

    Attributes:
        source: where the history is read from.
        shape: the table; `shape.name` is its physical DynamoDB name.
        authority: DynamoDB, where keys are looked up.
        load: loads batches into the SQL table.
        runs: the ledger of runs.
        quarantine: where items go that cannot be loaded.
        settle: settles one key.
        settle_many: settles different keys with few round trips; None: one after the other.
        admission: asked before each batch.
        straight: whether batches go straight into a table that nobody writes yet.
        lease: how long a piece is its worker's without a checkpoint.
        attempts: so many failures in a row give a piece up.
        patience: how long to wait for a database that is away, each time.
        backoff: how long a piece is left alone after its first failure; twice as long after each further one.
    """

    source: Source
    shape: TableShape
    authority: Store
    load: PostgresLoad
    runs: PostgresRuns
    quarantine: PostgresQuarantine
    settle: Callable[[Key], object]
    settle_many: Callable[[Sequence[Key]], object] | None = None
    admission: Admission = field(default=admit_all)
    straight: bool = False
    lease: timedelta = LEASE
    attempts: int = 5
    patience: timedelta = timedelta(minutes=1)
    backoff: timedelta = timedelta(seconds=1)

    def reject_of(self, piece: Piece, batch: Batch | None = None) -> Reject:
        """What puts items aside in the transaction that passes them by."""
        place_of = _nowhere if batch is None else batch.place_of
        return partial(self.quarantine.put, piece=piece.row, mark=not self.straight, place_of=place_of)

    def settled(self, piece: Piece, keys: Sequence[Key], *, found: int = 0) -> Piece:
        """Settle keys, and move the piece's checkpoint past them.

        Args:
            piece: the piece.
            keys: the keys; those that no SQL row can hold are put aside.
            found: how many of them the piece's checkpoint does not name.
        """
        rejected, renewed = [], time.monotonic()
        each_once = list({key_bytes(self.shape.keys, key): key for key in keys}.values())
        for start in range(0, len(each_once), _SETTLED_TOGETHER):
            rejected += self._settle_some(each_once[start : start + _SETTLED_TOGETHER])
            if time.monotonic() - renewed > self.lease.total_seconds() / 3:
                self.runs.renew(piece.row, lease=self.lease)
                renewed = time.monotonic()
        return self.load.pass_settled(piece, rejected, reject=self.reject_of(piece), found=found)

    def _settle_some(self, keys: Sequence[Key]) -> list[Rejected]:
        """Settle keys; those that could not be, because no SQL row can hold their items."""
        together = self.settle_many
        if together is not None and len(keys) > 1 and self._settle(lambda: together(keys), tries=1) is None:
            return []
        reasons = ((key, self._settle(partial(self.settle, key), tries=_SETTLE_TRIES)) for key in keys)
        return [Rejected(Reason.REFUSED, reason, b"", key) for key, reason in reasons if reason is not None]

    def _settle(self, settle: Callable[[], object], *, tries: int) -> str | None:
        """Settle, however often DynamoDB has to be asked; why PostgreSQL did not take it, or None."""
        reason: str | None = ""
        for _ in range(tries):
            reason = patiently(lambda _: self._refused(settle), self.patience)
            if reason is None:
                return None
        # Where PostgreSQL is away the checkpoint fails as well, and all of this is tried again later.
        return reason

    def _refused(self, settle: Callable[[], object]) -> str | None:
        """Settle; what PostgreSQL says, where it does not take it. `Unavailable` is DynamoDB."""
        try:
            with transient_as_unavailable(f"Settling keys of table {self.shape.name}"):
                settle()
        except MirrorFenced:
            raise
        except MirrorUnavailable as error:
            return str(error)
        return None
