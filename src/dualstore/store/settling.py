"""Both sides of a table are made to hold the same for some keys: what the authority holds."""

import time
from collections.abc import Sequence

from dualstore.errors import MirrorUnavailable
from dualstore.items import Key
from dualstore.replication.agent import Agent
from dualstore.replication.mirroring import Mirroring
from dualstore.replication.served import ServedTable
from dualstore.replication.settle import settle
from dualstore.stages import Side
from dualstore.verify.recheck import Sides

_PAUSE_SECONDS = 0.05
_HANDED_ON_WITHIN_SECONDS = 10.0


class Settling:
    """Settles keys of one table, on whichever side is the mirror.

    Args:
        served: the table.
        mirroring: both sides.
        agent: knows which of them decides.
    """

    def __init__(self, served: ServedTable, mirroring: Mirroring, agent: Agent) -> None:
        self._served = served
        self._mirroring = mirroring
        self._agent = agent

    def settle(self, keys: Sequence[Key]) -> None:
        """Settle different keys; errors as for `MigratedTable.settle`."""
        physical = self._served.physical
        record = self._agent.located(physical).record
        if record.authority is Side.POSTGRES:
            self._mirroring.outbox.enqueue(physical, keys, epoch=record.epoch, reason="found to differ")
            self._wait_until_equal(keys)
            return
        failure: MirrorUnavailable | None = None
        for key in keys:
            try:
                self.settle_on_postgres(key)
            except MirrorUnavailable as error:
                failure = error
        if failure is not None:
            raise failure

    def settle_on_postgres(self, key: Key) -> None:
        """Settle a key on PostgreSQL, the mirror, which refuses it where it is none."""
        epoch = self._agent.located(self._served.physical).record.epoch
        settle(self._mirroring.mirror, self._mirroring.authority, self._served.shape, key, epoch=epoch)

    def _wait_until_equal(self, keys: Sequence[Key]) -> None:
        """Wait until a relay has brought DynamoDB after PostgreSQL, for as long as it gets on with it."""
        sides = Sides(self._served.shape, self._mirroring.authority, self._mirroring.mirror)
        give_up = time.monotonic() + _HANDED_ON_WITHIN_SECONDS
        while True:
            left = [key for key, seen in sides.observe(keys) if seen.finding.is_difference]
            if not left:
                return
            now = time.monotonic()
            if len(left) < len(keys):
                give_up = now + _HANDED_ON_WITHIN_SECONDS
            elif now > give_up:
                raise MirrorUnavailable(
                    f"{len(left)} key(s) of {self._served.physical} have not reached DynamoDB; see that "
                    "`dualstore relay` runs"
                )
            keys = left
            time.sleep(_PAUSE_SECONDS)
