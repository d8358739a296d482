"""What a process may act on for one table, and for how long."""

from dataclasses import dataclass, field
from datetime import timedelta

from dualstore.control import ControlRecord
from dualstore.stages import Side


@dataclass(frozen=True, slots=True)
class View:
    """What this process may act on for one table.

    Attributes:
        record: the control record that decides, as last read.
        read_until: the mirror may be read, and its answer be given out, until then.
        write_until: the authority may be read and written until then; a reply after it is a reply too late.
            PostgreSQL's statements look for their epoch themselves; but when it is lost nobody can tell it.
        mirror_readable, authority, compared_percent: the record's, worked out once: operations ask for them.
    """

    record: ControlRecord
    read_until: float
    write_until: float
    mirror_readable: bool = field(init=False, repr=False, compare=False)
    authority: Side = field(init=False, repr=False, compare=False)
    compared_percent: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("mirror_readable", "authority", "compared_percent"):
            object.__setattr__(self, name, getattr(self.record, name))


@dataclass(frozen=True, slots=True)
class GrantTimes:
    """How long a process may act on what it read, and wait for what is being decided.

    Attributes:
        poll: the pause between two reads of the control records.
        read: δ, the life of a grant to read the mirror.
        write: the life of a grant to write.
        move: how long writes may be paused for a move of the authority, before it is given up.
        patience: how long an operation waits while writes pause, before its caller is asked to try again.

    Raises:
        ValueError: a grant would end before it is renewed. All processes must use the same times.
    """

    poll: timedelta = timedelta(seconds=0.4)
    read: timedelta = timedelta(seconds=1)
    write: timedelta = timedelta(seconds=10)
    move: timedelta = timedelta(seconds=5)
    patience: timedelta = timedelta(seconds=8)

    def __post_init__(self) -> None:
        if not timedelta(0) < self.poll < self.read <= self.write:
            raise ValueError("a process must poll more often than its grants end: poll < read <= write")
