"""What a store answers to a step, in a form in which `==` holds exactly what DynamoDB promises."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from dualstore.items import normalized_item
from dualstore.operations import OPERATIONS, Response
from dualstore.testing.sides import Answers
from dualstore.testing.steps import BatchGet, Listing, QueryOf, ScanOf, Step

_MOST_PAGES = 500
_SETS = frozenset({"SS", "NS", "BS"})


@dataclass(frozen=True)
class Page:
    """One call that was made for a step, and what came back."""

    name: str
    request: Mapping[str, Any]
    response: Response | None
    error: ClientError | None = None


@dataclass(frozen=True)
class Refusal:
    """What a refusal says, its wording aside.

    Attributes:
        code: the error code.
        reasons: the codes of a cancelled transaction's reasons.
        item: the item that it hands out.
    """

    code: str
    reasons: tuple[str | None, ...]
    item: Any


def pages_of(store: Answers, step: Step, table: str) -> list[Page]:
    """Carry out a step on one store: one call, or a listing page by page to its end.

    Args:
        store: the store.
        step: the step.
        table: the table's physical name.

    Returns:
        The calls with their answers; a refusal is the last one. A failure that is no answer of DynamoDB's
        (a constraint of the team's own, a database that is away) is raised.
    """
    request = dict(step.request(table))
    if not isinstance(step, Listing):
        return [_call(store, step.name, request)]
    segments = step.segments if isinstance(step, ScanOf) and step.segments else 1
    found: list[Page] = []
    for segment in range(segments):
        asked = {**request, "Segment": segment} if "Segment" in request else request
        while len(found) < _MOST_PAGES:
            found.append(_call(store, step.name, asked))
            last = (found[-1].response or {}).get("LastEvaluatedKey")
            if last is None:
                break
            asked = {**asked, "ExclusiveStartKey": last}
    return found


def _call(store: Answers, name: str, request: Mapping[str, Any]) -> Page:
    try:
        response = store.execute(OPERATIONS[name](request))
    except ClientError as refused:
        return Page(name, request, None, refused)
    return Page(name, request, {part: each for part, each in response.items() if part != "ResponseMetadata"})


def comparable(step: Step, pages: list[Page]) -> Any:
    """What all stores must have in common.

    A refusal is its code, the codes of its reasons, and the item that it hands out. A Query of a table is its
    pages, cursors included. Scans have no order, nor have the ties of an index: there it is the items, the
    order of their sort keys, and how many were evaluated.
    """
    error = pages[-1].error
    if error is not None:
        return _refusal(error)
    answers = [_in_order(page.response) for page in pages]
    if isinstance(step, QueryOf) and step.ordered:
        return answers
    if isinstance(step, Listing):
        return _listed(step, answers)
    if isinstance(step, BatchGet):
        items = [item for found in answers[0]["Responses"].values() for item in found]
        return _counted(items), answers[0].get("UnprocessedKeys")
    return answers[0]


def _listed(step: Listing, answers: list[Any]) -> Any:
    items = [item for page in answers for item in page["Items"]]
    name = step.sort_name if isinstance(step, QueryOf) else None
    order = [item.get(name) for item in items] if name is not None else None
    return _counted(items), order, sum(page["Count"] for page in answers), _evaluated(answers)


def _evaluated(answers: list[Any]) -> int:
    return sum(page["ScannedCount"] for page in answers)


def _refusal(error: ClientError) -> Refusal:
    response: Any = error.response
    reasons = [reason.get("Code") for reason in response.get("CancellationReasons", ())]
    return Refusal(response["Error"]["Code"], tuple(reasons), _in_order(response.get("Item")))


def _counted(items: list[Any]) -> Counter[str]:
    return Counter(repr(_sorted(item)) for item in items)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _in_order(value: Any) -> Any:
    """A response or item with the members of every set in one order."""
    if isinstance(value, list):
        return [_in_order(each) for each in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and next(iter(value)) in _SETS and isinstance(next(iter(value.values())), list):
        return normalized_item({"set": value})["set"]
    return {name: _in_order(inner) for name, inner in value.items()}


def shown(pages: list[Page], *, width: int = 400) -> str:
    """What came back, for people, on one line."""
    parts = [
        page.error.response["Error"]["Code"] if page.error is not None else repr(page.response)
        for page in pages
    ]
    text = " | ".join(parts)
    return text if len(text) <= width else f"{text[:width]} ... ({len(text)} characters)"
