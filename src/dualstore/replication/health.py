"""Whether the mirror is worth asking: while it is known to be down or slow, nobody waits for a timeout."""

import logging
from collections.abc import Callable

from dualstore.errors import MirrorUnavailable
from dualstore.replication.clocks import SYSTEM_CLOCK, Clock

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 8.0


class GrowingPause:
    """A pause after each failure, twice as long as the one before it until something succeeds.

    Args:
        clock: measures the pauses.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._pause_seconds = 0.0
        self._resume_at = 0.0

    @property
    def lasts(self) -> bool:
        """Whether nothing should be tried yet."""
        return self._pause_seconds > 0 and self._clock.now() < self._resume_at

    def failed(self) -> None:
        """Something failed. Failures side by side count once."""
        if self.lasts:
            return
        doubled = max(_FIRST_PAUSE_SECONDS, 2 * self._pause_seconds)
        self._pause_seconds = min(doubled, _LONGEST_PAUSE_SECONDS)
        self._resume_at = self._clock.now() + self._pause_seconds

    def relieved(self) -> None:
        """Something succeeded."""
        self._pause_seconds = 0.0


class MirrorHealth:
    """Remembers that the mirror could not be reached, or not written in time.

    *Down*: it could not even take a note of a failure. Nothing is asked of it until a probe reaches it.
    *Strained*: a write failed. For a while, longer after each failure in a row, writes are not tried; their
    keys are noted as dirty at once, which a locked or overloaded table does not hold up.

    Args:
        probe: asks the mirror for something small; raises MirrorUnavailable where it does not answer.
        clock: measures the pauses.
    """

    def __init__(self, probe: Callable[[], object], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._probe = probe
        self._pause = GrowingPause(clock=clock)
        self.up = True

    def failed(self) -> None:
        """The mirror could not even take a note of a failure: leave it alone until a probe succeeds."""
        if self.up:
            self.up = False
            logger.warning("The mirror cannot be reached: failed mirror writes go to the journal")

    def strained(self) -> None:
        """A write failed, not for what it wrote: try none for a while. Failures side by side count once."""
        self._pause.failed()

    def relieved(self) -> None:
        """A write succeeded."""
        self._pause.relieved()

    def require(self) -> None:
        """Raise MirrorUnavailable where the mirror is known to be down, or is given a pause."""
        if not self.up:
            raise MirrorUnavailable("the mirror has not answered since its last failure")
        if self._pause.lasts:
            raise MirrorUnavailable("the mirror is given a pause after a failed write")

    def probe(self) -> bool:
        """Try a mirror that is known to be down; True where it is up."""
        if not self.up:
            try:
                self._probe()
            except MirrorUnavailable:
                return False
            self.up = True
            self.relieved()
            logger.warning("The mirror can be reached again")
        return True
