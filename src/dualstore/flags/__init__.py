"""Flags: where the stage and dials of a table are asked for, and which keys a percentage covers."""

from dualstore.flags.configured import flags_of
from dualstore.flags.conventions import FLAGS, Flag, Wishes
from dualstore.flags.file import FileFlags
from dualstore.flags.source import FlagProblem, FlagSource, ProblemKind, Problems, Requested
from dualstore.flags.static import StaticFlags
from dualstore.flags.sticky import included, share

__all__ = [
    "FLAGS",
    "FileFlags",
    "Flag",
    "FlagProblem",
    "FlagSource",
    "ProblemKind",
    "Problems",
    "Requested",
    "StaticFlags",
    "Wishes",
    "flags_of",
    "included",
    "share",
]
