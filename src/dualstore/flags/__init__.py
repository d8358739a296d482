"""Flags: where the stage and dials of a table are asked for, and which keys a percentage covers."""

from dualstore.flags.configured import flags_of
from dualstore.flags.conventions import FLAGS, Flag, Wishes
from dualstore.flags.dialling import FlagSetter, setter_of
from dualstore.flags.evaluation import Identity
from dualstore.flags.file import FileFlags
from dualstore.flags.launchdarkly import Connection, LaunchDarklyFlags
from dualstore.flags.source import FlagProblem, FlagSource, ProblemKind, Problems, Requested
from dualstore.flags.static import StaticFlags
from dualstore.flags.sticky import included, index_share, share

__all__ = [
    "FLAGS",
    "Connection",
    "FileFlags",
    "Flag",
    "FlagProblem",
    "FlagSetter",
    "FlagSource",
    "Identity",
    "LaunchDarklyFlags",
    "ProblemKind",
    "Problems",
    "Requested",
    "StaticFlags",
    "Wishes",
    "flags_of",
    "included",
    "index_share",
    "setter_of",
    "share",
]
