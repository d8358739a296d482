"""Routing: which side is asked for a read, and what happens when it does not answer."""

from dualstore.routing.authorities import ReadObserver
from dualstore.routing.breaker import BreakerLimits
from dualstore.routing.rules import CohortOf, ReadRules
from dualstore.routing.units import cohort

__all__ = ["BreakerLimits", "CohortOf", "ReadObserver", "ReadRules", "cohort"]
