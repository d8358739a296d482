"""Comparing both sides of a table in bounded memory, correct while both take writes; repair by settling."""

from dualstore.verify.findings import Difference, Finding, Verification, compare_sides
from dualstore.verify.run import Ledger, SeenKeys, Verify
from dualstore.verify.tally import VerifyProgress

__all__ = [
    "Difference",
    "Finding",
    "Ledger",
    "SeenKeys",
    "Verification",
    "Verify",
    "VerifyProgress",
    "compare_sides",
]
