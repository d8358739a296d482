"""`python -m soak --minutes 10`: dualstore under traffic and faults on real databases, then a verdict."""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from soak.run import Plan, soak


def main() -> int:
    """Carry out what the command line asks for; 0 if nothing speaks against dualstore."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="of traffic under faults")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="of all choices")
    parser.add_argument("--keys", type=int, default=8, help="in each partition")
    parser.add_argument("--processes", type=int, default=3, help="that write")
    parser.add_argument("--threads", type=int, default=3, help="of each")
    parser.add_argument("--relays", type=int, default=2, help="processes that relay")
    parser.add_argument("--calls-per-second", type=float, default=10.0, help="of each thread")
    parser.add_argument("--folder", type=Path, help="for logs and ledgers; kept")
    parser.add_argument("--no-faults", action="store_true", help="traffic and moves alone")
    options = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": "dualstore", "AWS_SECRET_ACCESS_KEY": "dualstore"}
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends everything as Ctrl-C does
    kept = options.folder is not None
    folder = options.folder or Path(tempfile.mkdtemp(prefix="dualstore-soak-"))
    plan = Plan(
        seconds=options.minutes * 60,
        seed=options.seed,
        keys=options.keys,
        processes=options.processes,
        threads=options.threads,
        relays=options.relays,
        calls_per_second=options.calls_per_second,
        faults=not options.no_faults,
    )
    _say(f"seed {plan.seed}, {plan.seconds:.0f} s; logs and ledgers in {folder}")
    figures = soak(plan, folder)
    text = json.dumps(figures, indent=2)
    (folder / "figures.json").write_text(text)
    _say(text)
    clean = bool(figures["clean"])
    if clean and not kept:
        shutil.rmtree(folder)
    elif not clean:
        _say(f"seed {plan.seed} broke something; logs and ledgers are in {folder}")
    return int(not clean)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
