"""Copying what a table held before it was dual-written: parallel, resumable, exactly once, harmless."""

from dualstore.backfill.crew import Crew, Processes, Threads
from dualstore.backfill.equipment import Admission, Equipment
from dualstore.backfill.progress import BackfillProgress, Phase
from dualstore.backfill.run import Backfill, BackfillResult

__all__ = [
    "Admission",
    "Backfill",
    "BackfillProgress",
    "BackfillResult",
    "Crew",
    "Equipment",
    "Phase",
    "Processes",
    "Threads",
]
