"""Looks, again and again, whether anything waits to be brought after; without dualstore."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from botocore.exceptions import BotoCoreError, ClientError

from soak.recording import Pen

_PAUSE_SECONDS = 0.25
_BOOKKEEPING = "dualstore"
_NO_JOURNAL = {"control", "process", "postgres"}
_BEHIND = """
SELECT EXISTS (SELECT FROM dualstore.dirty)
    OR EXISTS (SELECT FROM dualstore.outbox WHERE done_at IS NULL AND due_at <= clock_timestamp()
               AND created_at < clock_timestamp() - interval '2 seconds')
"""


@contextmanager
def watching(client: Any, dsn: str, pen: Pen) -> Iterator[None]:
    """Note, while the block runs, when one side falls behind the other, and when both are even again.

    Args:
        client: a plain boto3 client.
        dsn: libpq's, of the database.
        pen: takes an event at each change.
    """
    stop = threading.Event()

    def watch() -> None:
        before = None
        while not stop.wait(_PAUSE_SECONDS):
            even = _even(client, dsn)
            if even is not before:
                pen.event("even" if even else "behind")
                before = even

    thread = threading.Thread(target=watch, name="watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _even(client: Any, dsn: str) -> bool:
    """Whether both databases answer, the gates are open, and no key is known to be in doubt."""
    try:
        items = client.scan(TableName=_BOOKKEEPING, ConsistentRead=True)["Items"]
        with psycopg.connect(dsn, connect_timeout=2) as connection:
            behind = connection.execute(_BEHIND).fetchone()
    except (BotoCoreError, ClientError, psycopg.Error):
        return False
    journal = any(item["pk"]["S"] not in _NO_JOURNAL for item in items)
    shut = any(item.get("gate", {}).get("S", "open") != "open" and _decides(item) for item in items)
    return not (journal or shut or behind is None or behind[0])


def _decides(item: dict[str, Any]) -> bool:
    return bool(item["phase"]["S"] != "moved")
