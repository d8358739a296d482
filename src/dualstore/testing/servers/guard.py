"""Runs one server and ends it when the process that asked for it is gone, even by SIGKILL.

A script of its own, on the standard library alone, started by `process.GuardedProcess`:
`python -I -S guard.py '<order as JSON>'`. It prints the server's pid, then obeys its standard input:

    a byte above 0     that signal goes to the server
    a byte 0           the server stays when the asker goes
    end of file        the asker is gone: end the server, remove the scratch directory

An end of file alone would not do: a process forked by the asker holds the pipe open, so the
parent's pid is watched too. PR_SET_PDEATHSIG straight from the asker would not do either: it
fires when the *thread* that started the server ends. Here it binds the server to the guard, which
starts it from its only thread, and so covers a SIGKILL of the guard itself (Linux only).
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

_PR_SET_PDEATHSIG = 1
_PARENT_CHECK_SECONDS = 1.0
_KEEP = 0


def _die_with_the_guard(ending: int) -> Callable[[], None] | None:
    """What the server does between fork and exec, so that it does not outlive the guard."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    guard = os.getpid()

    def bind() -> None:
        prctl(_PR_SET_PDEATHSIG, ending)
        if os.getppid() != guard:  # it died before the line above
            os._exit(1)

    return bind


def _obey(server: subprocess.Popen[bytes], asker: int, orphaned: threading.Event) -> None:
    """Passes signals on until the asker lets the server go; sets `orphaned` if the asker died."""
    while True:
        readable, _, _ = select.select([0], [], [], _PARENT_CHECK_SECONDS)
        order = os.read(0, 1) if readable else None
        if order == b"" or os.getppid() != asker:
            orphaned.set()
            return
        if order is None:
            continue
        if order[0] == _KEEP:
            return
        server.send_signal(order[0])


def main(order: dict[str, Any]) -> int:
    """Runs the server of this order to its end and returns its exit code."""
    asker = order["asker"]
    ending = signal.Signals(order["ending"])
    identity = order["identity"]
    with open(order["log"], "ab") as log:  # noqa: PTH123 - pathlib doubles this script's start-up
        server = subprocess.Popen(  # noqa: S603 - the command comes from our own process
            order["command"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Safe here: this process has one thread.
            preexec_fn=_die_with_the_guard(ending),  # noqa: PLW1509
            user=identity.get("user"),
            group=identity.get("group"),
            extra_groups=identity.get("extra_groups"),
        )
    print(server.pid, flush=True)  # noqa: T201 - read by the asker
    os.close(1)
    orphaned = threading.Event()

    def watch() -> None:
        _obey(server, asker, orphaned)
        if orphaned.is_set():
            server.send_signal(ending)

    threading.Thread(target=watch, daemon=True).start()
    code = server.wait()
    # The server's children end on their own a moment after it; what they still write is not missed.
    if (orphaned.is_set() or os.getppid() != asker) and order["scratch"] is not None:
        shutil.rmtree(order["scratch"], ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
