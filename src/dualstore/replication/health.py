"""Whether the mirror is worth asking: a mirror known to be down costs nobody a timeout."""

import logging
from collections.abc import Callable

from dualstore.errors import MirrorUnavailable

logger = logging.getLogger(__name__)


class MirrorHealth:
    """Remembers that the mirror could not be reached, until a probe reaches it.

    Args:
        probe: asks the mirror for something small; raises MirrorUnavailable where it does not answer.
    """

    def __init__(self, probe: Callable[[], object]) -> None:
        self._probe = probe
        self.up = True

    def failed(self) -> None:
        """The mirror could not even take a note of a failure: leave it alone until a probe succeeds."""
        if self.up:
            self.up = False
            logger.warning("The mirror cannot be reached: failed mirror writes go to the journal")

    def require(self) -> None:
        """Raise MirrorUnavailable where the mirror is known to be down."""
        if not self.up:
            raise MirrorUnavailable("the mirror has not answered since its last failure")

    def probe(self) -> bool:
        """Try a mirror that is known to be down; True where it is up."""
        if not self.up:
            try:
                self._probe()
            except MirrorUnavailable:
                return False
            self.up = True
            logger.warning("The mirror can be reached again")
        return True
