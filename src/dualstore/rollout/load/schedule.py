"""When operations are due, whatever became of those before: open-loop arrivals, with a ramp."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from random import Random
from typing import Literal, TypeAlias

Arrivals: TypeAlias = Literal["poisson", "even"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Arrivals at a rate that grows evenly from nothing, and then stays.

    Attributes:
        per_second: the full rate.
        seconds: how long it is kept, after the ramp.
        ramp_seconds: how long it takes to get there.
        arrivals: `poisson`, as from many independent callers, or `even`, at equal distances.
    """

    per_second: float
    seconds: float
    ramp_seconds: float = 0.0
    arrivals: Arrivals = "poisson"

    @property
    def ends_seconds(self) -> float:
        """When the last operation may be due."""
        return self.ramp_seconds + self.seconds

    @property
    def operations(self) -> float:
        """How many are due on average, after the ramp."""
        return self.per_second * self.seconds

    def due(self, random: Random) -> Iterator[float]:
        """When each operation is due, in seconds since the beginning, in order.

        Arrivals at a rate of one are stretched by the rate's integral, so that a ramp needs no thinning out.
        """
        expected = 0.0
        while True:
            expected += random.expovariate(1.0) if self.arrivals == "poisson" else 1.0
            at = self._when(expected)
            if at >= self.ends_seconds:
                return
            yield at

    def _when(self, expected: float) -> float:
        """When so many operations are expected to have come: the inverse of the rate's integral."""
        of_ramp = self.per_second * self.ramp_seconds / 2
        if expected < of_ramp:
            return sqrt(2 * self.ramp_seconds * expected / self.per_second)
        return self.ramp_seconds + (expected - of_ramp) / self.per_second
