"""The demonstration: the tables and their data, the service, and the walk through the migration."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dualstore import DualStore
from dualstore.cli.demo.casting import cast_beats, cast_team, kinds_of, rushed_keys
from dualstore.cli.demo.crossing import Crossing
from dualstore.cli.demo.databases import Databases
from dualstore.cli.demo.evidence import Evidence
from dualstore.cli.demo.example import TABLE, Example, example_folder, source_of
from dualstore.cli.demo.fleet import Fleet
from dualstore.cli.demo.hands import Hands
from dualstore.cli.demo.planned import PLAN, copy_plan
from dualstore.cli.demo.relaying import RelayProcess
from dualstore.cli.demo.steps import NOT_COMPARABLE, VICTIM, Pace
from dualstore.cli.demo.team import AIRPORTS, write_as_the_team
from dualstore.cli.demo.timeline import Timeline, Tone
from dualstore.cli.demo.walk import Walk
from dualstore.cli.demo.watching import sampling
from dualstore.config import load
from dualstore.flags import setter_of
from dualstore.stages import Stage

REPLACEMENT = "replacement"
_WITHOUT_STREAM = "left out, from live on: this DynamoDB serves no stream, so PostgreSQL cannot decide writes"
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
        team = cast_team(self.records, beats, count=AIRPORTS, seed=self.seed)
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
                hands = Hands(store, fleet, self.databases, pace=self.pace, timeline=self.timeline)
                walk, crossing = Walk(hands), self._crossing(hands, team)
                fleet.serve()
                with hands.plan, hands.watch, crossing:
                    walk.on_dynamodb_alone()
                    rushed = rushed_keys(beats)
                    walk.migrate(lambda: fleet.launch(REPLACEMENT, beats[REPLACEMENT], bound=True))
                    relay = crossing.start_relay() if crossing.is_possible else None
                    walk.rush(rushed)
                    if relay is not None:
                        crossing.cross(relay, rushed)
                    else:
                        hands.note(_WITHOUT_STREAM, Tone.FAULT)
                    hands.drain()
        return Evidence(
            airports=fleet.airports,
            kinds=kinds_of(beats, team=team if crossing.left_ns is not None else ()),
            total=self.timeline.total,
            calm=self.timeline.sum_of_steps(without=NOT_COMPARABLE),
            on_the_way=tuple(hands.checks),
            moves=tuple(hands.moves),
            away=tuple(hands.away),
            left_ns=crossing.left_ns,
        )

    def _crossing(self, hands: Hands, team: tuple[str, ...]) -> Crossing:
        return Crossing(
            hands,
            relay=lambda name: RelayProcess(
                name, configuration=self.databases.configuration, folder=self.folder
            ),
            write_as_the_team=lambda: write_as_the_team(
                self.databases.postgres_url,
                self.example,
                source_of(self.records),
                team,
                ledgers=hands.fleet.ledgers,
            ),
            team_keys=team,
        )

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
        configuration = self.databases.configuration
        setter_of(load(configuration)).set(TABLE, stage=Stage.OFF, postgres_read_percent=0)
        copy_plan(
            example_folder() / "airports" / PLAN, configuration.parent / PLAN, soak=self.pace.soak_of_the_plan
        )
        with self._store() as store:
            store.prepare()
            self.example.rows.Base.metadata.create_all(store.engine)
        timeline.note("schema dualstore created by Alembic, table airports by the team's own metadata")

    def _store(self) -> DualStore:
        return DualStore.from_config(self.databases.configuration)
