"""The copy of the control records in PostgreSQL, so that either database tells where a table stands."""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb
from sqlalchemy import Engine

from dualstore.stages import Dials, Stage
from dualstore.stores.postgres_transaction import transaction

# Processes copy without asking each other: an older generation never replaces a newer one.
_UPSERT = """
INSERT INTO dualstore.control AS known
       (table_name, epoch, stage, read_percent, mirror_percent, shadow_percent, gate, gate_sequence,
        generation, loaded, mirrored_since, suspects)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (table_name) DO UPDATE
   SET (epoch, stage, read_percent, mirror_percent, shadow_percent, gate, gate_sequence, generation,
        loaded, mirrored_since, suspects, updated_at)
     = (excluded.epoch, excluded.stage, excluded.read_percent, excluded.mirror_percent,
        excluded.shadow_percent, excluded.gate, excluded.gate_sequence, excluded.generation,
        excluded.loaded, excluded.mirrored_since, excluded.suspects, clock_timestamp())
 WHERE known.generation < excluded.generation
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRow:
    """A control record as a row; the fields of `replication.control.ControlRecord`."""

    table: str
    epoch: int
    stage: Stage
    dials: Dials
    gate: str
    gate_sequence: int
    generation: int
    loaded: bool
    mirrored_since: int
    suspects: Sequence[str]


class PostgresControlCopy:
    """Writes copies of control records.

    Args:
        engine: an engine with the psycopg driver.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def write(self, row: ControlRow) -> None:
        """Copy a record, unless a newer one is there.

        Raises:
            Unavailable: PostgreSQL could not be reached in time.
        """
        dials = row.dials
        with transaction(self._engine, f"Copying the control record of {row.table}") as cursor:
            cursor.execute(
                _UPSERT,
                [
                    row.table,
                    row.epoch,
                    row.stage,
                    dials.postgres_read_percent,
                    dials.mirror_percent,
                    dials.shadow_percent,
                    row.gate,
                    row.gate_sequence,
                    row.generation,
                    row.loaded,
                    row.mirrored_since,
                    Jsonb(sorted(row.suspects)),
                ],
            )
