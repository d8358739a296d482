"""The demonstration: the tables and their data, the service, and the walk through the migration."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualstore import DualStore
from dualstore.cli.demo.casting import cast_beats, kinds_of, rushed_keys
from dualstore.cli.demo.databases import Databases
from dualstore.cli.demo.evidence import Evidence
from dualstore.cli.demo.example import TABLE, Example
from dualstore.cli.demo.fleet import Fleet
from dualstore.cli.demo.timeline import Timeline
from dualstore.cli.demo.walk import FAULTS, VICTIM, Pace, Walk, flag_file
from dualstore.cli.demo.watching import sampling
from dualstore.stages import Stage

REPLACEMENT = "replacement"
_THREADS = {"worker-1": 3, "worker-2": 3, VICTIM: 2, REPLACEMENT: 2}
"""How many threads each process of the service has."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One run of the demo.

    Attributes:
        databases: both databases.
        example: the service's code.
        records: the source data that was chosen.
        folder: takes ledgers and logs.
        pace: how long things take.
        seed: of every random choice.
        timeline: takes what happens.
    """

    databases: Databases
    example: Example
    records: list[dict[str, Any]]
    folder: Path
    pace: Pace
    seed: int
    timeline: Timeline

    def run(self) -> Evidence:
        """Walks the whole migration and returns what to judge it by.

        Raises:
            DualStoreError: a step could not be made.
        """
        beats = cast_beats(
            self.records, processes=_THREADS, calls_per_second=self.pace.calls_per_second, seed=self.seed
        )
        fleet = Fleet(
            folder=self.folder,
            configuration=self.databases.configuration,
            airports=[record["icao"] for record in self.records],
            on_tally=self.timeline.add,
        )
        with fleet:
            for name in beats.keys() - {REPLACEMENT}:
                fleet.launch(name, beats[name], bound=False)
            self._prepare()
            with self._store() as store, sampling(self.timeline):
                walk = Walk(store, fleet, self.databases, pace=self.pace, timeline=self.timeline)
                fleet.serve()
                walk.on_dynamodb_alone()
                walk.migrate(
                    lambda: fleet.launch(REPLACEMENT, beats[REPLACEMENT], bound=True), rushed_keys(beats)
                )
        calm = self.timeline.sum_of_steps(without=FAULTS)
        return Evidence(fleet.airports, kinds_of(beats), self.timeline.total, calm, tuple(walk.checks))

    def _prepare(self) -> None:
        """Creates all tables and loads the source data through the service's own DAO."""
        airport, dao, timeline = self.example.models.Airport, self.example.dao.AirportDao(), self.timeline
        airport.create_table(wait=True)
        began = time.monotonic()
        dao.save_many(airport(**record) for record in self.records)
        seconds = time.monotonic() - began
        timeline.note(
            f"{len(self.records):,} airports loaded into DynamoDB by the service's DAO in {seconds:.1f} s"
        )
        with self._store() as store:
            flag_file(store).set(TABLE, stage=Stage.OFF, postgres_read_percent=0)
            store.prepare()
            self.example.rows.Base.metadata.create_all(store.engine)
        timeline.note("schema dualstore created by Alembic, table airports by the team's own metadata")

    def _store(self) -> DualStore:
        return DualStore.from_config(self.databases.configuration)
