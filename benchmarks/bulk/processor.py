"""Processor time of the server and of everything that loads it: what two busy cores would carry."""

import os
import resource
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def seconds_of_tree(pid: int) -> float:
    """Processor seconds of a process, of its children, and of those that it has seen end (Linux: proc(5))."""
    # The name may hold anything; behind it the fields start with the third one.
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0  # it has ended since it was listed
    own = sum(map(int, fields[11:15])) / _TICKS
    return own + sum(seconds_of_tree(int(child)) for child in children)


def seconds_of_ended_children() -> float:
    """Processor seconds of this process's children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
