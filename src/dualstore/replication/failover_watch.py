"""While PostgreSQL is the authority: whether DynamoDB's record says that a table was failed over.

Nobody can tell PostgreSQL when it is lost. So whoever acts on its record looks at DynamoDB's, too, and its
grant begins no later than that look: once a failover has been announced for a grant's length, no process that
reaches DynamoDB acts on PostgreSQL's record any more. One that does not reach DynamoDB goes on: the mirror
must not stop the authority. From `complete` on nobody can fail over, and nobody looks. ADR 24.
"""

import logging
import math
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord
from dualstore.errors import Unavailable
from dualstore.replication.clocks import Clock
from dualstore.replication.failover_notes import FailoverNotes, Witness
from dualstore.stores.control_homes import ControlHome

logger = logging.getLogger(__name__)

_UNREACHABLE = (ClientError, BotoCoreError, Unavailable)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the last look that was answered has found.

    Attributes:
        at: when it began.
        failed_over: the records of tables that were failed over.
        left: of tables that DynamoDB has been left behind by (stage `complete`), the generation of its copy.
    """

    at: float = -math.inf
    failed_over: Mapping[str, ControlRecord] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)


class FailoverWatch:
    """Looks out for failovers, for one process.

    Args:
        home: DynamoDB's control records. A look should end soon, or fail: botocore's retries are better off.
        notes: takes the word of this process; None: it gives none.
        process: names one life of this process.
        clock: the agent's.
        write_grant: the life of a grant. A look without an answer after two thirds of it counts as one that
            failed, or a DynamoDB that hangs would let the grants of PostgreSQL's tables end. By then the
            timeouts of DynamoDB's clients have passed: one that answers at all is not taken for silent.
    """

    def __init__(
        self,
        home: ControlHome,
        notes: FailoverNotes | None,
        *,
        process: str,
        clock: Clock,
        write_grant: timedelta,
    ) -> None:
        self._home = home
        self._notes = notes
        self._process = process
        self._clock = clock
        self._every_seconds = write_grant.total_seconds() / 4
        self._patience_seconds = write_grant.total_seconds() * 2 / 3
        self._seen = _Seen()
        self._unreachable = False
        self._asking_since: float | None = None
        self._postgres_at = 0.0
        self._beat = 0
        self._said_at = -math.inf

    def look(self) -> Mapping[str, ControlRecord]:
        """The records of failed-over tables, read now; none where DynamoDB does not answer."""
        began = self._clock.now()
        if self._asking_since is None:
            self._asking_since = began
        try:
            records = self._home.read_all()
        except _UNREACHABLE as error:
            if not self._unreachable:
                logger.warning("DynamoDB cannot be asked about failovers: %s", type(error).__name__)
            self._unreachable, self._asking_since = True, None
            return {}
        found = {
            table: each for table, each in records.items() if each.decides and each.failed_over is not None
        }
        left = {
            table: each.generation
            for table, each in records.items()
            if not each.decides and not each.stage.rule.mirrored
        }
        if began >= self._seen.at:
            self._seen = _Seen(began, found, left)
        self._unreachable, self._asking_since = False, None
        return found

    def granted_from(self, record: ControlRecord, asked_at: float) -> float:
        """When a grant begins that rests on a reading of one of PostgreSQL's records at some moment."""
        seen = self._seen
        if record.table in seen.failed_over:
            return -math.inf  # found by another thread, which is about to say so
        if self._is_silent(asked_at) or self.is_over(record):
            return asked_at
        return min(asked_at, seen.at)

    def _is_silent(self, now: float) -> bool:
        """Whether the last look failed, or waits for its answer for too long."""
        since = self._asking_since
        return self._unreachable or (since is not None and now - since >= self._patience_seconds)

    def is_over(self, record: ControlRecord) -> bool:
        """Whether DynamoDB has been left, by its copy of this very record: nobody can fail over to it."""
        return not record.stage.rule.mirrored and self._seen.left.get(record.table) == record.generation

    def reached_postgres(self, at: float) -> None:
        """PostgreSQL has answered this process."""
        self._postgres_at = max(self._postgres_at, at)

    def bear_witness(self, tables: frozenset[str]) -> None:
        """Leave word in DynamoDB, where that is due: this process lives, and last reached PostgreSQL then.

        Args:
            tables: those whose authority is PostgreSQL, as far as this process knows.
        """
        now = self._clock.now()
        if self._notes is None or self._unreachable or now - self._said_at < self._every_seconds:
            return
        self._said_at = now
        self._beat += 1
        word = Witness(
            id=self._process,
            label=f"{platform.node()}:{os.getpid()}",
            tables=tables,
            beat=self._beat,
            postgres_at=self._postgres_at,
            at=time.time(),
        )
        with suppress(*_UNREACHABLE):
            self._notes.note_witness(word)

    def leave(self) -> None:
        """Take back the word: this process ends. A DynamoDB that has been silent for a while is not asked."""
        silent = self._unreachable or self._clock.now() - self._seen.at > self._every_seconds
        if self._notes is not None and self._beat and not silent:
            with suppress(*_UNREACHABLE):
                self._notes.forget_witness(self._process)
