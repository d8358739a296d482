"""Whether a write may be one statement that takes its lock itself (ADR 32)."""

from dualstore.stores.uptime import uptime

_UNTIL_CALM_AGAIN_S = 60.0


class Calm:
    """The tables at stage `complete`, and whether PostgreSQL answers in time.

    A statement alone has nobody to set its timeout: when it is late, it is cancelled over another connection.
    A PostgreSQL that has come to a stop is to be spared that. So after one that was late, statements have
    their timeout set again, by one before them. Shared by threads: all that is stored is replaced at once.
    """

    def __init__(self) -> None:
        self._completed: dict[str, str] = {}
        self._not_before = 0.0

    def lasts_for(self, table: str, epoch: str) -> bool:
        """Whether a table was at stage `complete` at an epoch when it was last asked, and it is calm."""
        return self._completed.get(table) == epoch and uptime() >= self._not_before

    def note(self, table: str, epoch: str, *, at_complete: bool) -> None:
        """Remember what PostgreSQL has said of a table."""
        if at_complete:
            self._completed[table] = epoch
        else:
            self._completed.pop(table, None)

    def ended(self) -> None:
        """A statement was late."""
        self._not_before = uptime() + _UNTIL_CALM_AGAIN_S
