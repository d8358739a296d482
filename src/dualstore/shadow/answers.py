"""What a side answered to a read: a response, a refusal, or nothing that could be compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import MirrorDirty, RequestRejected, Unavailable, UnsupportedOperation
from dualstore.expressions import LEGACY_PARAMETERS
from dualstore.operations import Operation, Response
from dualstore.telemetry import DIRTY


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal, by its code: AWS rewords the messages, region by region."""

    code: str


Answer: TypeAlias = Response | Refusal

T = TypeVar("T")


class NoAnswer(Exception):  # noqa: N818 - not an error of the comparison
    """A side gave nothing to compare with.

    Args:
        outcome: an error code, the name of an error's class or `dirty`, for metrics.
        comparable: whether another attempt may bring an answer.
    """

    def __init__(self, outcome: str, *, comparable: bool = True) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.comparable = comparable


# Codes that say how busy a side is, not what it holds (Amazon DynamoDB, "Error handling").
_TRANSIENT = frozenset(
    {
        "InternalServerError",
        "LimitExceededException",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ServiceUnavailable",
        "ThrottlingException",
        "TransactionCanceledException",
        "TransactionInProgressException",
    }
)


def refusal(error: ClientError) -> Refusal:
    """A refusal as an answer to compare.

    Raises:
        NoAnswer: it says only that the side is busy.
    """
    code = str(error.response.get("Error", {}).get("Code", type(error).__name__))
    if code in _TRANSIENT:
        raise NoAnswer(code)
    return Refusal(code)


def ask(read: Callable[[], T]) -> T | Refusal:
    """Run a read and make of its outcome an answer to compare.

    Raises:
        NoAnswer: the side is unreachable, busy or in doubt, or does not carry out the operation.
    """
    try:
        return read()
    except ClientError as error:
        return refusal(error)
    except RequestRejected as error:
        return Refusal(error.code)
    except UnsupportedOperation as error:
        raise NoAnswer(type(error).__name__, comparable=False) from error
    except MirrorDirty as error:
        raise NoAnswer(DIRTY) from error
    except (Unavailable, BotoCoreError) as error:
        raise NoAnswer(type(error).__name__) from error


def is_legacy(operation: Operation) -> bool:
    """Whether a read still has legacy parameters: `parse` could not say them anew, so they are refused."""
    requests = operation.request.get("RequestItems", {}).values()
    return not all(LEGACY_PARAMETERS.isdisjoint(request) for request in (operation.request, *requests))
