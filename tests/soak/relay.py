"""`dualstore relay`, in a process whose requests to DynamoDB suffer.

`python -m soak.relay NAME SEED RATES LEDGERS …`, then the arguments of `dualstore relay`.
"""

import sys
import threading
import time
from pathlib import Path

from dualstore.cli import main as dualstore
from dualstore.cli.running import UNAVAILABLE
from soak.faults import Faults
from soak.recording import Pen

_REPORT_SECONDS = 2


def main() -> None:
    """Infect this process, then be the command line with the rest of the arguments."""
    name, seed, rates, ledgers, *rest = sys.argv[1:]
    faults = Faults(int(seed), Path(rates))
    faults.infect()
    with Pen(Path(ledgers), name) as pen:
        pen.event("serving")

        def report() -> None:
            while True:
                time.sleep(_REPORT_SECONDS)
                pen.event("injected", counts=dict(faults.injected))

        threading.Thread(target=report, daemon=True).start()
        sys.argv = ["dualstore", "relay", *rest]
        while _unavailable():  # as whoever supervises a relay would start it again
            pen.event("could not start")
            time.sleep(1)


def _unavailable() -> bool:
    """Run the command line; whether it ended because a database was away."""
    try:
        dualstore()
    except SystemExit as end:
        if end.code != UNAVAILABLE:
            raise
    return True


if __name__ == "__main__":
    main()
