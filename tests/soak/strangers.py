"""Writers that go around dualstore: psycopg while PostgreSQL is the authority, boto3 while DynamoDB is."""

import random
import threading
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from soak.recording import Effect, Outcome, Pen
from soak.tables import ORDERS, TABLES, Place, proof, register_item

_PAUSE_SECONDS = 0.25
_ROLE = "SELECT role FROM dualstore.control WHERE table_name = %s"
_UPSERT = """
INSERT INTO orders (pk, sk, written, proof) VALUES (%(pk)s, %(sk)s, %(token)s, %(proof)s)
ON CONFLICT (pk, sk) DO UPDATE
SET written = EXCLUDED.written, proof = EXCLUDED.proof, dualstore_overflow = NULL
"""
_DELETE = "DELETE FROM orders WHERE pk = %(pk)s AND sk = %(sk)s"


class _NotTheAuthority(Exception):  # noqa: N818 - control flow within this module
    """PostgreSQL is not what this writer took it for: nothing was written."""


class Strangers:
    """Both of them, each a thread of its own.

    Args:
        dsn: libpq's, of the database.
        client: a plain boto3 client that does not retry.
        pen: their ledger.
        keys: how many keys they write.
        seed: of their choices.
    """

    def __init__(self, *, dsn: str, client: Any, pen: Pen, keys: int, seed: int) -> None:
        self._dsn = dsn
        self._client = client
        self._pen = pen
        self._keys = keys
        self._seed = seed
        self._stop = threading.Event()
        self._allowed: dict[str, bool] = dict.fromkeys(TABLES, False)
        self._writing = threading.Lock()
        self._threads = [
            threading.Thread(target=self._run, args=(act,), name=act.__name__, daemon=True)
            for act in (self._write_sql, self._write_dynamodb)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Stop; returns once nothing is under way."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def allow(self, table: str, *, allowed: bool) -> None:
        """Whether DynamoDB is, and stays, a table's authority; false waits until nothing is under way."""
        with self._writing:
            self._allowed[table] = allowed

    def _run(self, act: Callable[[random.Random], None]) -> None:
        chance = random.Random(f"{self._seed}/{act.__name__}")
        while not self._stop.wait(_PAUSE_SECONDS * chance.random() * 2):
            act(chance)

    def _write_sql(self, chance: random.Random) -> None:
        place = Place(ORDERS, "sql-0", chance.randrange(self._keys))
        token = None if chance.random() < 0.25 else f"upsql.{uuid.uuid4().hex[:12]}"
        number = self._pen.intend("SQL", "?", [Effect(place, token)])
        outcome: Outcome = "acknowledged"
        error = None
        try:
            self._carry_out(place, token)
        except _NotTheAuthority:
            outcome = "undone"
        except psycopg.Error as failure:
            error = type(failure).__name__
            # What fails at COMMIT may have been committed; what the trigger refuses was not.
            outcome = "undone" if failure.sqlstate == "DS001" else "unknown"
        self._pen.conclude(number, outcome, error=error)

    def _carry_out(self, place: Place, token: str | None) -> None:
        values = {"pk": place.pk, "sk": place.sk, "token": token, "proof": proof(token or "")}
        with psycopg.connect(self._dsn, connect_timeout=2) as connection:
            _require_authority(connection, place.table)
            connection.execute(_DELETE if token is None else _UPSERT, values)
            _require_authority(connection, place.table)

    def _write_dynamodb(self, chance: random.Random) -> None:
        place = Place(chance.choice(TABLES), "rogue-0", chance.randrange(self._keys))
        with self._writing:
            if not self._allowed[place.table]:
                return
            token = None if chance.random() < 0.25 else f"progue.{uuid.uuid4().hex[:12]}"
            number = self._pen.intend("rogue", "?", [Effect(place, token)])
            outcome, late, error = self._send(place, token)
            self._pen.conclude(number, outcome, late=late, error=error)

    def _send(self, place: Place, token: str | None) -> tuple[Outcome, int, str | None]:
        try:
            if token is None:
                self._client.delete_item(TableName=place.table, Key=place.key)
            else:
                self._client.put_item(TableName=place.table, Item=register_item(place, token))
        except (EndpointConnectionError, ConnectTimeoutError) as error:
            return "undone", 0, type(error).__name__
        except (BotoCoreError, ClientError) as error:
            return "unknown", int(isinstance(error, ReadTimeoutError)), type(error).__name__
        return "acknowledged", 0, None


def _require_authority(connection: psycopg.Connection[Any], table: str) -> None:
    found = connection.execute(_ROLE, [table]).fetchone()
    if found is None or found[0] != "authority":
        raise _NotTheAuthority
