"""`dualstore plan` in a process of its own, which may be killed at any event of its record.

Run as `python -m integration.planning KILL ARGUMENTS…`; KILL is `never`, or `before` or `after`, a kind of
event and a step, as `after:started:flip_authority`.
"""

import os
import signal
import sys
from typing import Any

from dualstore.cli import main as dualstore
from dualstore.stores.postgres_plans import PostgresPlans


def killing(point: str) -> None:
    """Have the record's next event of a kind and step be this process's last act, or not even that."""
    moment, kind, step = point.split(":")
    append = PostgresPlans.append

    def last_act(self: PostgresPlans, plan: str, what: str, **event: Any) -> Any:
        hit = (what, event.get("step")) == (kind, step)
        if hit and moment == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        at = append(self, plan, what, **event)
        if hit:
            os.kill(os.getpid(), signal.SIGKILL)
        return at

    PostgresPlans.append = last_act  # type: ignore[method-assign]


def main() -> None:
    """Run the command line."""
    point, *arguments = sys.argv[1:]
    if point != "never":
        killing(point)
    dualstore(arguments)


if __name__ == "__main__":
    main()
