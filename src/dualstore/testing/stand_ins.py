"""Where a DynamoDB stand-in is known to answer otherwise than AWS: such steps are not asked of it.

`docs/reference/stand-ins.md` has the list, with the test of each line. What is asked of the others only is
given to the stand-in as it came out there, so that the rest of the history is compared.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from dualstore.testing.answers import Refusal
from dualstore.testing.steps import ChangeOf, QueryOf, Step, TransactWrite

_INDEX = re.compile(r"\[\d+\]")
_NESTED = re.compile(r"#\w+\.#")


def unlike_aws(engine: str, step: Step) -> str | None:
    """Why this engine would not answer a step as AWS does, or None: it is to be believed.

    Args:
        engine: of the DynamoDB server; `endpoint` is believed in everything.
        step: the step.
    """
    doubts = _DOUBTS.get(engine, {})
    return next((reason for reason, doubted in doubts.items() if doubted(step)), None)


def refuses_alike(engine: str, step: Step, refusals: Sequence[Refusal]) -> bool:
    """Whether refusals that differ do so only as this engine is known to refuse otherwise than AWS.

    Args:
        engine: of the DynamoDB server.
        step: the step, which every store refused.
        refusals: from `answers.comparable`.
    """
    codes = {refusal.code for refusal in refusals}
    # A change that a transaction cannot carry out cancels it at AWS; dynoxide refuses the request.
    return (
        engine == "dynoxide"
        and isinstance(step, TransactWrite)
        and codes <= {"ValidationException", "TransactionCanceledException"}
    )


def _updates(step: Step) -> Iterator[Any]:
    for each in step.parts if isinstance(step, TransactWrite) else [step]:
        if isinstance(each, ChangeOf):
            yield each


def _update_texts(step: Step) -> Iterator[str]:
    return (str(each.part("t")["UpdateExpression"]) for each in _updates(step))


def _only_takes_away(step: Step) -> bool:
    return any(not re.search(r"\b(SET|ADD)\b", text) for text in _update_texts(step))


_DOUBTS: Mapping[str, Mapping[str, Callable[[Step], bool]]] = {
    "dynoxide": {
        "SET past a list's end, and several indexes in REMOVE": lambda step: any(
            _INDEX.search(text) for text in _update_texts(step)
        ),
        "SET through a NULL makes a map of it": lambda step: any(
            _NESTED.search(text) for text in _update_texts(step)
        ),
        "an update that only takes away creates the item": _only_takes_away,
        "ALL_OLD and UPDATED_NEW of an item that was not there": lambda step: any(
            each.returns not in {"ALL_NEW", "NONE"} for each in _updates(step)
        ),
        "begins_with does not tell upper from lower case": lambda step: (
            isinstance(step, QueryOf) and step.sort is not None and step.sort.operator == "begins_with"
        ),
    }
}
