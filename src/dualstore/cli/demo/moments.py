"""Moments and stretches of time, on the clock that all processes of the machine share."""

import time
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of time, on the clock that all processes of the machine share.

    Attributes:
        name: what happened in it.
        began_ns: its begin.
        ended_ns: its end.
    """

    name: str
    began_ns: int
    ended_ns: int

    def touches(self, began_ns: int, ended_ns: int) -> bool:
        """Whether something that took from one moment to another happened in it, if only in part."""
        return began_ns <= self.ended_ns and ended_ns >= self.began_ns


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that ended with an error of a database.

    Attributes:
        kind: the exception, and in brackets what it says of the cause.
        code: DynamoDB's code of the cause, or an empty text.
        began_ns: when the call began, on the clock that all processes of the machine share.
        ended_ns: when it failed.
    """

    kind: str
    code: str
    began_ns: int
    ended_ns: int

    @classmethod
    def of(cls, error: Exception, *, began_ns: int) -> Self:
        """The failure that this error is, now."""
        code = getattr(error, "cause_response_code", None) or ""
        name = type(error).__name__
        return cls(f"{name} ({code})" if code else name, code, began_ns, time.monotonic_ns())
