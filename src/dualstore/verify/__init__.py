"""Comparing both sides of a table in bounded memory, correct while both take writes; repair by settling."""

from dualstore.verify.bulk import BulkVerify
from dualstore.verify.findings import Difference, Finding, Verification, compare_sides
from dualstore.verify.judging import Judge
from dualstore.verify.keyed import KeyedVerify
from dualstore.verify.past import PastJudge
from dualstore.verify.run import Ledger, SeenKeys, Verify
from dualstore.verify.tally import VerifyProgress
from dualstore.verify.validating import Validation, avalidate, validate
from dualstore.verify.working import Crew, Threads, compare_pieces

__all__ = [
    "BulkVerify",
    "Crew",
    "Difference",
    "Finding",
    "Judge",
    "KeyedVerify",
    "Ledger",
    "PastJudge",
    "SeenKeys",
    "Threads",
    "Validation",
    "Verification",
    "Verify",
    "VerifyProgress",
    "avalidate",
    "compare_pieces",
    "compare_sides",
    "validate",
]
