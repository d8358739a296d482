"""Where PostgreSQL is served alone: removing what has expired, and what nobody needs any more."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, Self

from botocore.exceptions import ClientError

from dualstore.errors import Unavailable
from dualstore.operations import parse
from dualstore.serving.tables import ServedTables
from dualstore.stores import Store
from dualstore.stores.postgres_upkeep import PostgresUpkeep

logger = logging.getLogger(__name__)

PAUSE = timedelta(seconds=60)
# AWS, "Using time to live": what expired longer ago than five years is taken for a mistake, and stays.
_OLDEST = timedelta(days=5 * 365)
_EXPIRED = "#ttl <= :now AND #ttl > :oldest"


class Upkeep:
    """A thread that looks over the served tables every minute, until the block ends.

    Args:
        store: holds the items.
        tables: the tables.
        upkeep: removes tombstones and tokens; nobody mirrors these tables, so they need no tombstones.
        pause: between two rounds.
        now: tells the time, in seconds since the epoch.
    """

    def __init__(
        self,
        store: Store,
        tables: ServedTables,
        upkeep: PostgresUpkeep,
        *,
        pause: timedelta = PAUSE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._tables = tables
        self._upkeep = upkeep
        self._pause = pause
        self._now = now
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dualstore-serve-upkeep", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._pause.total_seconds()):
            try:
                self.round()
            except Unavailable:
                logger.warning("Upkeep of the served tables has to wait: PostgreSQL does not answer")
            except Exception as error:  # noqa: BLE001 - the next round goes on; the text may hold a value
                logger.warning("Upkeep of the served tables failed with %s", type(error).__name__)

    def round(self) -> None:
        """Look over all tables once."""
        for name, attribute in self._tables.expiring().items():
            self._sweep(name, attribute)
        self._upkeep.prune_tokens()
        for name in self._tables.names:
            self._upkeep.prune_tombstones(name, journal_oldest=None)

    def _sweep(self, table: str, attribute: str) -> None:
        """Delete the items that have expired, each unless it has been changed since it was seen."""
        now = self._now()
        values = {
            ":now": {"N": str(int(now))},
            ":oldest": {"N": str(int(now - _OLDEST.total_seconds()))},
        }
        described: Mapping[str, Any] = self._tables.operations["DescribeTable"]({"TableName": table})
        keys = [each["AttributeName"] for each in described["Table"]["KeySchema"]]
        wanted = {
            "TableName": table,
            "ExpressionAttributeNames": {"#ttl": attribute},
            "ExpressionAttributeValues": values,
        }
        scan = {**wanted, "FilterExpression": _EXPIRED}
        while not self._ended.is_set():
            page = self._store.execute(parse("Scan", scan))
            for item in page["Items"]:
                key = {name: item[name] for name in keys}
                delete = {**wanted, "Key": key, "ConditionExpression": _EXPIRED}
                with suppress(ClientError):  # it has been changed, or is gone
                    self._store.execute(parse("DeleteItem", delete))
            if "LastEvaluatedKey" not in page:
                return
            scan["ExclusiveStartKey"] = page["LastEvaluatedKey"]
