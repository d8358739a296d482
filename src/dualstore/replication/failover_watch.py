"""While PostgreSQL is the authority: whether DynamoDB's record says that a table was failed over.

Nobody can tell PostgreSQL when it is lost. So whoever acts on its record looks at DynamoDB's, too, and its
grant begins no later than that look: once a failover has been announced for a grant's length, no process that
reaches DynamoDB acts on PostgreSQL's record any more. One that does not reach DynamoDB goes on: the mirror
must not stop the authority. ADR 24.
"""

import logging
import math
import os
import platform
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.control import ControlRecord
from dualstore.errors import Unavailable
from dualstore.replication.clocks import Clock
from dualstore.replication.failover_notes import FailoverNotes, Witness
from dualstore.stores.base import ControlHome

logger = logging.getLogger(__name__)

_UNREACHABLE = (ClientError, BotoCoreError, Unavailable)


class FailoverWatch:
    """Looks out for failovers, for one process.

    Args:
        home: DynamoDB's control records. One look must end well within a grant, or fail: botocore's retries
            are better off.
        notes: takes the word of this process; None: it gives none.
        process: names one life of this process.
        clock: the agent's.
        every: how often it gives its word.
    """

    def __init__(
        self,
        home: ControlHome,
        notes: FailoverNotes | None,
        *,
        process: str,
        clock: Clock,
        every: timedelta,
    ) -> None:
        self._home = home
        self._notes = notes
        self._process = process
        self._clock = clock
        self._every_seconds = every.total_seconds()
        self._seen_at = -math.inf
        self._unreachable = False
        self._postgres_at = 0.0
        self._beat = 0
        self._said_at = -math.inf

    def look(self) -> Mapping[str, ControlRecord]:
        """The records of failed-over tables, read now; none where DynamoDB does not answer."""
        began = self._clock.now()
        try:
            records = self._home.read_all()
        except _UNREACHABLE as error:
            if not self._unreachable:
                logger.warning("DynamoDB cannot be asked about failovers: %s", type(error).__name__)
            self._unreachable = True
            return {}
        self._seen_at, self._unreachable = max(self._seen_at, began), False
        return {
            table: record
            for table, record in records.items()
            if record.decides and record.failed_over is not None
        }

    def granted_from(self, asked_at: float) -> float:
        """When a grant begins that rests on a reading of PostgreSQL's records at some moment."""
        return asked_at if self._unreachable else min(asked_at, self._seen_at)

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
        silent = self._unreachable or self._clock.now() - self._seen_at > self._every_seconds
        if self._notes is not None and self._beat and not silent:
            with suppress(*_UNREACHABLE):
                self._notes.forget_witness(self._process)
