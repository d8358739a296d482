"""Indexes and foreign keys set aside while a table is copied, and put back exactly, after any crash."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

from dualstore.backfill.crew import Crew
from dualstore.backfill.equipment import Equipment
from dualstore.errors import ConfigurationError
from dualstore.mapping import Mapped
from dualstore.stores.ledger import Run, RunState, Wish
from dualstore.stores.postgres_indexes import PostgresIndexes, Removable
from dualstore.stores.postgres_runs import PostgresRuns

INDEXES = "indexes"
"""The kind of the run that says what is set aside: `running` as long as something is."""


@dataclass(frozen=True)
class IndexesAside:
    """The indexes and foreign keys of one table that a copy can do without.

    What is dropped is written down first, so that whoever finds it missing can put it back.

    Attributes:
        indexes: drops and creates them.
        runs: where it is written down.
        mapping: the table.
    """

    indexes: PostgresIndexes
    runs: PostgresRuns
    mapping: Mapped

    def removable(self) -> Sequence[Removable]:
        """Those that are there now and can be dropped."""
        return self.indexes.removable(
            [(part.table.schema or None, part.table.name) for part in self.mapping.parts]
        )

    def written_down(self) -> Run | None:
        """What says which are set aside; None where none are."""
        return self.runs.latest_unfinished(INDEXES, self._table)

    def drop(self, *, dropped: Callable[[Removable], None] = lambda _: None) -> None:
        """Set them aside, or go on with that where it was interrupted.

        Args:
            dropped: called with each.

        Raises:
            Unavailable: somebody else does it now, or PostgreSQL does not answer.
        """
        with self.runs.exclusive(INDEXES, self._table):
            run = self.written_down()
            if run is None:
                there = self.removable()
                if not there:
                    return
                listed = {INDEXES: [each.to_json() for each in there]}
                run = self.runs.start(INDEXES, self._table, listed)
            for each in _of(run):
                if self.indexes.drop(each):
                    dropped(each)

    def restore(self, *, restored: Callable[[Removable], None] = lambda _: None) -> Sequence[Removable]:
        """Put back what is set aside.

        Args:
            restored: called with each that was not there.

        Returns:
            All that were set aside, and are there now.

        Raises:
            ConfigurationError: another one has the name of one of them by now, or rows do not keep to it; the
                others are put back, and this one is by the next call that finds it mended.
            Unavailable: somebody else does it now, or PostgreSQL does not answer.
        """
        with self.runs.exclusive(INDEXES, self._table):
            run = self.written_down()
            if run is None:
                return ()
            aside = sorted(_of(run), key=lambda each: each.is_key)  # a check of keys may use the indexes
            troubles = []
            for each in aside:
                try:
                    if self.indexes.restore(each):
                        restored(each)
                except ConfigurationError as trouble:
                    troubles.append(str(trouble))
            if troubles:
                raise ConfigurationError("; ".join(troubles))
            self.runs.finish(run, RunState.FINISHED, {"restored": len(aside)})
            return aside

    @property
    def _table(self) -> str:
        return self.mapping.shape.name


@dataclass(frozen=True)
class WithoutIndexes:
    """A `Crew` that copies without them, and puts them back once everything is copied.

    Attributes:
        crew: who copies.
        aside: the indexes.
        drops: whether to set them aside; else only what is set aside already is put back.
        dropped: called with each that is dropped.
        restored: called with each that is put back.
    """

    crew: Crew
    aside: IndexesAside
    drops: bool
    dropped: Callable[[Removable], None] = lambda _: None
    restored: Callable[[Removable], None] = lambda _: None

    def work(self, equipment: Equipment, run_id: UUID, report: Callable[[], None]) -> None:
        """See `Crew.work`."""
        if self.drops:
            self.aside.drop(dropped=self.dropped)
        self.crew.work(equipment, run_id, report)
        pulse = equipment.runs.pulse(run_id)
        # Of a run that only stops the rest comes later.
        if not pulse.unfinished and pulse.run.wish is not Wish.HALT:
            self.aside.restore(restored=self.restored)


def _of(run: Run) -> Sequence[Removable]:
    return [Removable.of_json(each) for each in run.parameters[INDEXES]]
