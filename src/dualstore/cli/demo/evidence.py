"""What a demonstration leaves to be judged by, and the proof computed from it and both databases."""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa

from dualstore.cli.demo.example import TABLE, Example, import_example, source_of
from dualstore.cli.demo.ledger import Entry, read_ledgers
from dualstore.cli.demo.measures import Tally
from dualstore.cli.demo.moments import Stretch
from dualstore.cli.demo.proof import Check, Judge, Kind, failure_checks, pause_check, side_by_side
from dualstore.cli.demo.sides import records_of_items, scan_items, sql_records
from dualstore.config import load
from dualstore.errors import ConfigurationError
from dualstore.items import canonical, without_stamps
from dualstore.mapping import map_table
from dualstore.testing.servers import DynamoDB

CONFIGURATION = "dualstore.toml"
LEDGERS = "ledgers"
_FILE = "evidence.json"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the proof needs besides the ledger and the databases.

    Attributes:
        airports: the ICAO codes of the records that were loaded.
        kinds: the kinds of the airports that took writes.
        total: what callers saw.
        calm: what they saw in the steps in which neither side was known to be behind.
        on_the_way: what was checked while the traffic went on.
        moves: when the authority moved.
        away: when the authority was away.
        left_ns: since when DynamoDB has not been written any more; None where it was written to the end.
    """

    airports: tuple[str, ...]
    kinds: Mapping[str, Kind]
    total: Tally
    calm: Tally
    on_the_way: tuple[Check, ...]
    moves: tuple[Stretch, ...] = ()
    away: tuple[Stretch, ...] = ()
    left_ns: int | None = None

    def save(self, folder: Path) -> None:
        """Puts it beside the ledgers."""
        plain = {
            "airports": self.airports,
            "kinds": self.kinds,
            "total": self.total.to_json(),
            "calm": self.calm.to_json(),
            "on_the_way": [asdict(check) for check in self.on_the_way],
            "moves": [asdict(move) for move in self.moves],
            "away": [asdict(each) for each in self.away],
            "left_ns": self.left_ns,
        }
        (folder / _FILE).write_text(json.dumps(plain), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads what `save` put there.

        Raises:
            ConfigurationError: no demonstration has ended in this folder.
        """
        try:
            plain = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigurationError(
                f"{folder} holds no finished demonstration: give the one that `dualstore demo --keep` named"
            ) from None
        kinds = {key: Kind(kind) for key, kind in plain["kinds"].items()}
        total, calm = (Tally.from_json(plain[name]) for name in ("total", "calm"))
        on_the_way = tuple(
            Check(**{**check, "faults": tuple(check["faults"])}) for check in plain["on_the_way"]
        )
        moves, away = (tuple(Stretch(**each) for each in plain[name]) for name in ("moves", "away"))
        return cls(tuple(plain["airports"]), kinds, total, calm, on_the_way, moves, away, plain["left_ns"])


def prove(folder: Path, evidence: Evidence) -> list[Check]:
    """Computes the proof from the ledgers in a folder and from both databases as they are now.

    Args:
        folder: of the demonstration, with the configuration that names the databases.
        evidence: what the demonstration left.
    """
    settings = load(folder / CONFIGURATION)
    endpoint = settings.dynamodb.endpoint_url or ""
    os.environ["AIRPORTS_DYNAMODB_URL"] = endpoint
    example = import_example()
    wanted = set(evidence.airports)
    source = source_of([row for row in example.source.records() if row["icao"] in wanted])
    entries = tuple(read_ledgers(folder / LEDGERS))
    before, since = _split(entries, evidence.left_ns)
    items = {item["icao"]["S"]: item for item in scan_items(DynamoDB(endpoint).client(), TABLE)}
    with connected(settings.postgres.sqlalchemy_url) as connection:
        rows = sql_records(connection, TABLE)
        decoded = _decoded_items(connection, example)
    left = {entry.key for entry in since}
    of_dynamodb = "DynamoDB, as it was left" if since else "DynamoDB"
    return [
        *Judge(source, evidence.kinds, before).checks(records_of_items(items.values()), where=of_dynamodb),
        *Judge(source, evidence.kinds, entries).checks(rows, where="PostgreSQL, plain SQL"),
        side_by_side(_comparable(items, without=left), _comparable(decoded, without=left)),
        *evidence.on_the_way,
        *_live_checks(evidence.total, evidence.calm),
        *failure_checks(evidence.total.failures, calls=evidence.total.waited().count, away=evidence.away),
        *([pause_check(entries, evidence.moves)] if evidence.moves else []),
    ]


def _split(entries: tuple[Entry, ...], left_ns: int | None) -> tuple[tuple[Entry, ...], tuple[Entry, ...]]:
    """The writes before DynamoDB was left, and those since; nothing was under way at that moment."""
    if left_ns is None:
        return entries, ()
    return (
        tuple(entry for entry in entries if entry.began_ns < left_ns),
        tuple(entry for entry in entries if entry.began_ns >= left_ns),
    )


@contextmanager
def connected(url: str) -> Iterator[sa.Connection]:
    """One connection to a database, committed at the end."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _live_checks(total: Tally, calm: Tally) -> list[Check]:
    wrong = total.counts["stale reads"] + total.counts["wrong pages"]
    stale = (f"{wrong} answers did not show what they had to",) if wrong else ()
    mismatches = calm.counts["mismatches"]
    # While a fault lasts, PostgreSQL does lag, and a shadow read that finds it is right.
    differing = (f"{mismatches} answers differed, and stayed different",) if mismatches else ()
    return [
        Check("callers read their own writes", "live traffic", total.counts["own reads"], "reads", stale),
        Check(
            "both sides gave the same answers",
            "shadow reads while DynamoDB decided, but for the faults",
            calm.counts["compared"],
            "reads",
            differing,
        ),
    ]


def _decoded_items(connection: sa.Connection, example: Example) -> dict[str, dict[str, Any]]:
    """The items that the rows of the table stand for, by ICAO code: dualstore's own reading of them."""
    mapping = map_table(TABLE, example.models.Airport, example.rows.AirportRow)
    columns = ", ".join(mapping.read_expressions())
    rows = connection.execute(sa.text(f"SELECT {columns} FROM {TABLE}"))
    return {item["icao"]["S"]: item for item in (mapping.decode(tuple(row)) for row in rows)}


def _comparable(items: Mapping[str, dict[str, Any]], *, without: Collection[str]) -> dict[str, object]:
    """Items without stamps, in a form that is equal exactly where DynamoDB calls them equal.

    Args:
        items: by key.
        without: the keys to leave out.
    """
    return {key: canonical({"M": without_stamps(item)}) for key, item in items.items() if key not in without}
