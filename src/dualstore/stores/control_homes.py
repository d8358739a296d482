"""What a control home is: where a database keeps what is decided for tables, and what it fences off."""

from collections.abc import Mapping
from typing import Protocol

from dualstore.control import ControlRecord, PostgresRole, ProcessEntry, Stop
from dualstore.stages import Side


class ControlHome(Protocol):
    """The control records and the register of processes in one of the two databases."""

    @property
    def side(self) -> Side:
        """Which database this is."""
        ...

    def read_all(self) -> Mapping[str, ControlRecord]:
        """All records, by physical table name, read consistently."""
        ...

    def create(self, table: str) -> None:
        """Make the first record of a table, at stage `off`; harmless where there is one."""
        ...

    def change(self, seen: ControlRecord, **changes: object) -> ControlRecord | None:
        """Change a record, if it is still as it was seen.

        `generation` and, where the gate moves, `gate_sequence` are counted here.

        Returns:
            The record as it is now, or None where somebody else changed it first, or it decides nothing.
        """
        ...

    def shut_gate(self, table: str) -> None:
        """Shut the gate whatever else is being decided; harmless where it is shut."""
        ...

    def install(self, record: ControlRecord) -> bool:
        """Write a record that comes from the other database: a copy (phase `moved`), or the one to decide.

        Returns:
            False where nothing was done: the record here decides itself, or is not older than this one.
        """
        ...

    def processes(self) -> list[ProcessEntry]:
        """The register, read consistently."""
        ...

    def write_process(self, entry: ProcessEntry, *, is_new: bool) -> bool:
        """Write a process's entry; False where it is not new and its entry is gone."""
        ...

    def remove_process(self, entry: ProcessEntry, *, if_beat: bool) -> None:
        """Take an entry out; with `if_beat`, only where it has not beaten since."""
        ...


class Fence(Protocol):
    """What keeps late writes out of PostgreSQL: each names the epoch that it was decided under."""

    def raise_fence(self, table: str, *, epoch: int, role: PostgresRole) -> None:
        """From now on only writes of this epoch and role pass; harmless where a later epoch stands."""
        ...

    def overrule(self, record: ControlRecord) -> bool:
        """Make whatever record stands here a copy of DynamoDB's, though it claims to decide (a failover).

        Returns:
            False where nothing was done: the record here is of the same epoch, or a later one.
        """
        ...


class Prepared(Protocol):
    """PostgreSQL's control home, which may not be there yet."""

    def is_prepared(self) -> bool:
        """Whether it has what control records are kept in: where not, it has never kept one.

        Raises:
            Unavailable: PostgreSQL does not answer.
        """
        ...


class KnowsPostgres(Protocol):
    """DynamoDB's control home: whether it has a copy of every record that decides in PostgreSQL.

    True for as long as the bookkeeping table stays what it is, once it was so: PostgreSQL comes to decide
    through a record there, and that is never deleted.
    """

    def postgres_is_known(self) -> bool:
        """Whether that has been noted."""
        ...

    def note_postgres_known(self) -> None:
        """Note that it is so."""
        ...


class StopMarks(Protocol):
    """Tables whose mirror is not to be read, noted in PostgreSQL itself: every read of a mirror looks there.

    They hold where DynamoDB, which decides, is out of reach of the person who stops the reads.
    """

    def mark_stopped(self, table: str, stop: Stop) -> None:
        """From now on no read of this table as a mirror is answered; harmless where that is so already."""
        ...

    def unmark_stopped(self, table: str) -> None:
        """Take the mark back; harmless where there is none."""
        ...

    def stop_marks(self) -> Mapping[str, Stop]:
        """All marks, by physical table name."""
        ...
