"""Patience of bulk jobs: with what may pass, and not with what it would make worse."""

from datetime import timedelta

import pytest

from dualstore.errors import MirrorFenced, StorageFull, Unavailable
from dualstore.stores.bulk import patiently


class Failing:
    """Fails with these errors, one after the other, and then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.attempts: list[int] = []

    def __call__(self, attempt: int) -> str:
        self.attempts.append(attempt)
        if self._errors:
            raise self._errors.pop(0)
        return "done"


def test_a_database_that_is_away_is_waited_for():
    call = Failing(Unavailable("away"), Unavailable("away"))

    assert patiently(call, timedelta(seconds=30)) == "done"
    assert call.attempts == [1, 2, 3]


@pytest.mark.parametrize("kind", [MirrorFenced, StorageFull, ValueError])
def test_what_another_try_cannot_mend_is_not_tried_again(kind):
    call = Failing(kind("no"))

    with pytest.raises(kind):
        patiently(call, timedelta(seconds=30))
    assert call.attempts == [1]
