"""Shadow reads: the same read on the other side, compared off the caller's path."""

from dualstore.shadow.answers import Answer, NoAnswer, Refusal
from dualstore.shadow.comparison import Comparison, Finding, compare, request_hash
from dualstore.shadow.rechecks import Read
from dualstore.shadow.shadow import Shadow

__all__ = [
    "Answer",
    "Comparison",
    "Finding",
    "NoAnswer",
    "Read",
    "Refusal",
    "Shadow",
    "compare",
    "request_hash",
]
