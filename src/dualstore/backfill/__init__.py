"""Copying what a table held before it was dual-written: parallel, resumable, exactly once, harmless."""

from dualstore.backfill.progress import BackfillProgress, Phase
from dualstore.backfill.run import Backfill, BackfillResult

__all__ = ["Backfill", "BackfillProgress", "BackfillResult", "Phase"]
