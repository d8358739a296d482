"""What a team writes past the service: through its own SQLAlchemy model, and in plain SQL."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from dualstore.cli.demo.example import TABLE, Example
from dualstore.cli.demo.ledger import LedgerWriter
from dualstore.cli.demo.writes import Close, Record, Rename, Save, Write, record

WRITER = "team-1"
AIRPORTS = 3
"""How many airports the team writes to."""
_NEW_NAME = "renamed by the team's own SQLAlchemy code"
_DELETE = sa.text(f"DELETE FROM {TABLE} WHERE icao = :icao")


def write_as_the_team(
    url: str, example: Example, source: Mapping[str, Record], keys: Sequence[str], *, ledgers: Path
) -> None:
    """Renames one airport, deletes another, deletes a third and adds it again; all is noted in the ledger.

    Args:
        url: of the PostgreSQL database.
        example: with the team's row model.
        source: every airport as it was loaded; nobody has written to the three since.
        keys: the three airports.
        ledgers: folder of the ledgers.
    """
    renamed, deleted, added_again = keys
    row_model = example.rows.AirportRow
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    try:
        with LedgerWriter(ledgers, WRITER) as ledger:

            @contextmanager
            def noted(key: str, write: Write) -> Iterator[Session]:
                number = ledger.intend(key, write)
                with Session(engine) as session:
                    yield session
                    session.commit()
                ledger.conclude(number, "acknowledged")

            with noted(renamed, Rename(str(dict(source[renamed])["name"]), _NEW_NAME)) as session:
                session.get_one(row_model, renamed).name = _NEW_NAME
            for key in (deleted, added_again):
                with noted(key, Close()) as session:
                    session.execute(_DELETE, {"icao": key})
            new = record({**dict(source[added_again]), "name": "added by the team's own SQLAlchemy code"})
            with noted(added_again, Save(new)) as session:
                session.add(row_model(**_columns(new)))
    finally:
        engine.dispose()


def _columns(airport: Record) -> dict[str, Any]:
    """A record as the arguments of the row model, whose coordinates are double precision."""
    return {name: float(value) if name in {"lat", "lon"} else value for name, value in airport}  # type: ignore[arg-type] # they are numbers
