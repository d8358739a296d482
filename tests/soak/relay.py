"""`dualstore relay`, in a process whose requests to DynamoDB suffer.

`python -m soak.relay NAME SEED RATES LEDGERS …`, then the arguments of `dualstore relay`.
"""

import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

from dualstore.cli import main as dualstore
from dualstore.cli.running import UNAVAILABLE
from dualstore.replication.lane_round import SendingLimits
from soak.faults import Faults
from soak.recording import Pen

_REPORT_SECONDS = 2
_SECOND_LOOK_AFTER = timedelta(seconds=45)
"""AWS may carry a request out minutes after its sender gave up, and the way back to DynamoDB waits for that.

Here nobody stands still for so long: a relay for 15 s, the stand-in for 8 s; a request waits for 5 s.
"""


def main() -> None:
    """Infect this process, then be the command line with the rest of the arguments."""
    name, seed, rates, ledgers, *rest = sys.argv[1:]
    faults = Faults(int(seed), Path(rates))
    faults.infect()
    SendingLimits.__init__.__kwdefaults__["second_look_after"] = _SECOND_LOOK_AFTER  # type: ignore[misc,index]
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
