"""How fast a Scan may read: a limit in read capacity units, and what throttling and alarms make of it."""

import threading
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from dualstore.errors import Unavailable, UnusableSource

_LEAST_UNITS_PER_SECOND = 1.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 20.0
_BACK_OFF = 0.5
_RECOVERY_SECONDS = 20.0  # from half the rate back to all of it
_LOOK_EVERY_SECONDS = 30.0


class ReadPace:
    """Keeps readers under a rate, and below it while DynamoDB throttles. Safe to share by threads.

    Additive increase, multiplicative decrease: a throttled request halves the rate, and each second without
    one gives a fortieth of the rate before it back, so that readers which share a table come to share its
    capacity. What was not used is not saved up: a pause is not followed by a rush.

    Args:
        units_per_second: the most read capacity units per second, or None for no limit but throttling.
        clock: monotonic seconds.
        chance: spreads the readers' pauses.
    """

    def __init__(
        self,
        units_per_second: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Random | None = None,
    ) -> None:
        self._most = units_per_second
        self._rate = units_per_second
        self._step = 0.0  # how much comes back in a second
        self._clock = clock
        self._chance = chance or Random()  # noqa: S311 - spreads pauses
        self._lock = threading.Lock()
        self._free_at = self._risen_at = self._measured_from = clock()
        self._measured_units = 0.0
        self._refusals = 0
        self._units_per_item: float | None = None

    @property
    def units_per_second(self) -> float | None:
        """The present rate; None where there is no limit."""
        with self._lock:
            self._rise()
            return self._rate

    def delay(self) -> float:
        """How many seconds to wait before the next request."""
        with self._lock:
            return max(0.0, self._free_at - self._clock())

    def page_items(self) -> int | None:
        """How many items to ask for, so that a page takes about a second; None where there is no limit."""
        with self._lock:
            self._rise()
            if self._rate is None:
                return None
            return max(1, int(self._rate / (self._units_per_item or 1.0)))

    def spent(self, units: float, *, items: int) -> None:
        """Account for a page that was read."""
        with self._lock:
            self._rise()
            self._refusals = 0
            self._measured_units += units
            if items and units:
                self._units_per_item = units / items
            if self._rate is not None:
                self._free_at = max(self._free_at, self._clock()) + units / self._rate

    def throttled(self) -> None:
        """A request was refused because more was asked for than is allowed."""
        with self._lock:
            now = self._clock()
            self._rise()
            if self._rate is not None or self._measured_units:  # else nobody knows yet what it can bear
                measured = self._measured_units / max(1.0, now - self._measured_from)
                before = max(self._rate if self._rate is not None else measured, _LEAST_UNITS_PER_SECOND)
                self._rate = max(_LEAST_UNITS_PER_SECOND, before * _BACK_OFF)
                self._step = before * (1 - _BACK_OFF) / _RECOVERY_SECONDS
            self._measured_units, self._measured_from = 0.0, now
            pause = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0**self._refusals)
            self._refusals += 1
            self._free_at = max(self._free_at, now + pause * self._chance.uniform(0.5, 1))

    def _rise(self) -> None:
        now = self._clock()
        if self._rate is not None:
            self._rate += self._step * (now - self._risen_at)
            if self._most is not None:
                self._rate = min(self._rate, self._most)
        self._risen_at = now


class AlarmWatch:
    """Looks at CloudWatch alarms now and then. Safe to share by threads.

    Args:
        client: makes a boto3 client of CloudWatch; asked where there are alarms to look at.
        names: of the alarms, metric or composite.
        every_seconds: how often to look.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: Callable[[], Any],
        names: Sequence[str],
        *,
        every_seconds: float = _LOOK_EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._names = tuple(names)
        self._every_seconds = every_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._looked_at: float | None = None
        self._ringing: tuple[str, ...] = ()

    def check(self) -> None:
        """See that the alarms exist and may be looked at.

        Raises:
            UnusableSource: there is no alarm of this name, or the role may not look.
            Unavailable: CloudWatch does not answer.
        """
        if not self._names:
            return
        try:
            found = self._states()
        except ClientError as error:
            code = error.response["Error"]["Code"]
            raise UnusableSource(
                f"the alarms cannot be looked at ({code}): the role needs cloudwatch:DescribeAlarms"
            ) from error
        except BotoCoreError as error:
            raise Unavailable(f"CloudWatch does not answer ({type(error).__name__}); try again") from error
        if missing := sorted(set(self._names) - found.keys()):
            raise UnusableSource(f"there is no alarm named {missing[0]} in this account and region")

    def ringing(self) -> Sequence[str]:
        """The alarms that are in the state ALARM, as of the last look; where a look fails, as before."""
        if not self._names:
            return ()
        with self._lock:
            now = self._clock()
            if self._looked_at is None or now - self._looked_at >= self._every_seconds:
                self._looked_at = now
                try:
                    states = self._states()
                except (ClientError, BotoCoreError):  # it was there at the start: it will be again
                    return self._ringing
                self._ringing = tuple(name for name, state in states.items() if state == "ALARM")
            return self._ringing

    def _states(self) -> dict[str, str]:
        answer = self._client().describe_alarms(
            AlarmNames=list(self._names), AlarmTypes=["MetricAlarm", "CompositeAlarm"]
        )
        alarms = [*answer.get("MetricAlarms", ()), *answer.get("CompositeAlarms", ())]
        return {each["AlarmName"]: each["StateValue"] for each in alarms}
