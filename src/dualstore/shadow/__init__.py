"""Shadow reads: the same read on the other side, compared off the caller's path."""

from dualstore.shadow.answers import Answer, NoAnswer, Refusal
from dualstore.shadow.comparison import Comparison, Finding, compare, request_hash
from dualstore.shadow.judging import ItemsOf, Judge
from dualstore.shadow.rechecks import Read
from dualstore.shadow.rules import NO_RULES, Normaliser, Rules
from dualstore.shadow.shadow import Shadow, ShadowMismatch

__all__ = [
    "NO_RULES",
    "Answer",
    "Comparison",
    "Finding",
    "ItemsOf",
    "Judge",
    "NoAnswer",
    "Normaliser",
    "Read",
    "Refusal",
    "Rules",
    "Shadow",
    "ShadowMismatch",
    "compare",
    "request_hash",
]
