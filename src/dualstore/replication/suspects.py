"""What makes a table suspect, by name, and who may clear it.

A name stands for one occurrence: it ends with the generation of the control record in which that was noted.
So whoever has looked at both sides since then, and clears the name, does not clear what came later. Of one
kind the latest stands for all: what looks at everything after it has seen what the others left behind.

A process that fell silent is named by its id and its last beat: one that is seen to live after all, before
anybody has taken its entry out, keeps its id and may fall silent again (`Registry`).
"""

import re
from collections.abc import Set as AbstractSet

GAP = "stream gap"
"""How the kinds begin that are places of the stream at which changes may be missing."""

STREAM_OFF = f"{GAP} off"
"""The stream, the table's journal, was switched off."""

UNMIRRORED = "unmirrored since complete"
"""The table has left `complete`: DynamoDB was not written meanwhile."""

FAILED_OVER = "failed over without PostgreSQL"
"""DynamoDB has taken the table over: writes may be missing there."""

_NUMBERED = re.compile(r" \(generation \d+\)\Z")


def renewed(suspects: AbstractSet[str], kind: str, generation: int) -> frozenset[str]:
    """A table's suspects with one more occurrence of a kind.

    Args:
        suspects: those of the record.
        kind: what has happened.
        generation: of the record that is to say so.
    """
    others = {name for name in suspects if _kind_of(name) != kind}
    return frozenset({*others, f"{kind} (generation {generation})"})


def is_noted(suspects: AbstractSet[str], kind: str) -> bool:
    """Whether an occurrence of a kind is among the suspects."""
    return kind in map(_kind_of, suspects)


def silent(process: str, beat: int) -> str:
    """The name of a process that has not beaten since."""
    return f"{process} (beat {beat})"


def is_gap(suspect: str) -> bool:
    """Whether it is a gap in the stream."""
    return suspect.startswith(GAP)


def is_unmirrored(suspect: str) -> bool:
    """Whether it is a stay at `complete`."""
    return suspect.startswith(UNMIRRORED)


def is_for_verification(suspect: str) -> bool:
    """Whether only a verification can clear it. All others are processes; a relay can clear these."""
    return is_gap(suspect) or is_unmirrored(suspect) or suspect.startswith(FAILED_OVER)


def is_numbered(suspect: str) -> bool:
    """Whether the name stands for one occurrence. Those of the version before stood for any of their kind."""
    return _NUMBERED.search(suspect) is not None


def _kind_of(suspect: str) -> str:
    return _NUMBERED.sub("", suspect)
