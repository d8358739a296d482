"""What a verification has found so far, as rows of the `dualstore` schema, so that it can be gone on with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.items import Key, KeySchema, key_bytes, key_hash
from dualstore.stores.key_bytes import key_from_bytes
from dualstore.stores.postgres_transaction import Cursor, transaction

_WAITING = (
    "SELECT key FROM dualstore.verify_findings WHERE run_id = %(run)s AND finding IS NULL"
    " AND (%(piece)s::integer IS NULL OR piece = %(piece)s) LIMIT %(limit)s"
)
_JUDGE = (
    "UPDATE dualstore.verify_findings SET finding = %s, class = %s, paths = %s, repaired = %s, key = NULL,"
    " found_at = clock_timestamp() WHERE run_id = %s AND digest = %s AND finding IS NULL"
)
_NOTE = (
    "INSERT INTO dualstore.verify_findings"
    " (run_id, digest, key_hash, piece, finding, class, paths, repaired, found_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp()) ON CONFLICT (run_id, digest) DO NOTHING"
)
_SUMS = (
    "SELECT finding, piece IS NOT NULL, count(*), count(*) FILTER (WHERE repaired)"
    " FROM dualstore.verify_findings WHERE run_id = %s GROUP BY 1, 2"
)
_FIRST = (
    "SELECT key_hash, finding, paths, repaired FROM dualstore.verify_findings"
    " WHERE run_id = %s AND finding = ANY(%s) ORDER BY found_at, key_hash LIMIT %s"
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to be remembered of a key.

    Attributes:
        key: the key.
        finding: what was found, in the words of `verify.findings`.
        kind: the class of a difference, None where it is none.
        paths: the attributes that differ.
        repaired: whether it has been repaired.
    """

    key: Key
    finding: str
    kind: str | None = None
    paths: Sequence[str] = ()
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Sum:
    """How often something was found.

    Attributes:
        finding: what; None for keys that have no verdict yet.
        of_items: of items, or else of rows without one.
        count: how often.
        repaired: how many of them have been repaired.
    """

    finding: str | None
    of_items: bool
    count: int
    repaired: int


@dataclass(frozen=True, slots=True)
class Kept:
    """A finding as it is kept: without its key."""

    key_hash: str
    finding: str
    paths: tuple[str, ...]
    repaired: bool


def note_verdicts(
    cursor: Cursor, schema: KeySchema, run_id: UUID, piece: int, verdicts: Sequence[Verdict]
) -> int:
    """Note verdicts on keys that waited for none, in a transaction of the caller's; how many were new."""
    rows = []
    for each in verdicts:
        digest = sha256(key_bytes(schema, each.key)).digest()
        told = (each.finding, each.kind, Jsonb(list(each.paths)), each.repaired)
        rows.append((run_id, digest, key_hash(schema, each.key), piece, *told))
    if rows:
        cursor.executemany(_NOTE, rows)
    return len(rows) and cursor.rowcount


class PostgresFindings:
    """The findings of verifications of one table.

    Args:
        engine: an engine with the psycopg driver.
        keys: the table's key.
    """

    def __init__(self, engine: Engine, keys: KeySchema) -> None:
        self._engine = engine
        self._keys = keys

    def waiting(self, run_id: UUID, *, piece: int | None = None, limit: int) -> Sequence[Key]:
        """Keys without a verdict, of one piece or of all."""
        with transaction(self._engine, f"Reading the findings of run {run_id}") as cursor:
            cursor.execute(_WAITING, {"run": run_id, "piece": piece, "limit": limit})
            return [key_from_bytes(self._keys, bytes(key)) for (key,) in cursor]

    def judge(self, run_id: UUID, verdicts: Iterable[Verdict]) -> None:
        """Note verdicts, and forget the keys. What has a verdict already keeps it."""
        rows = [
            (
                *(each.finding, each.kind, Jsonb(list(each.paths)), each.repaired, run_id),
                sha256(key_bytes(self._keys, each.key)).digest(),
            )
            for each in verdicts
        ]
        if rows:
            with transaction(self._engine, f"Noting verdicts of run {run_id}") as cursor:
                cursor.executemany(_JUDGE, rows)

    def sums(self, run_id: UUID) -> Sequence[Sum]:
        """How often each was found."""
        with transaction(self._engine, f"Adding up the findings of run {run_id}") as cursor:
            return [Sum(*row) for row in cursor.execute(_SUMS, [run_id])]

    def first(self, run_id: UUID, findings: Iterable[str], *, limit: int) -> Sequence[Kept]:
        """The first findings of some kinds."""
        with transaction(self._engine, f"Reading the findings of run {run_id}") as cursor:
            rows: Iterable[Any] = cursor.execute(_FIRST, [run_id, list(findings), limit])
            return [
                Kept(hashed, finding, tuple(paths), repaired) for hashed, finding, paths, repaired in rows
            ]
