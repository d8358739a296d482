"""A server process that cannot outlive this one."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from dualstore.errors import Unavailable

_LOG_TAIL_BYTES = 2_000
_GUARD = Path(__file__).with_name("guard.py")


class GuardedProcess:
    """A server that ends when this process does, however that happens (see `guard.py`).

    Args:
        command: the program and its arguments.
        log: file that takes the server's output, appended.
        environment: the whole environment of the server.
        identity: `user`, `group` and `extra_groups` for `subprocess.Popen`; empty: our own.
        ending: the signal that ends the server at once if this process dies.
        scratch: directory to remove if this process dies.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str],
        identity: Mapping[str, Any] | None = None,
        ending: signal.Signals = signal.SIGKILL,
        scratch: Path | None = None,
    ) -> None:
        self._command = [str(word) for word in command]
        self._order = {
            "command": self._command,
            "log": str(log),
            "identity": dict(identity or {}),
            "ending": int(ending),
            "scratch": None if scratch is None else str(scratch),
        }
        self._environment = dict(environment)
        self._guard: subprocess.Popen[bytes] | None = None
        self.log = log
        self.pid: int | None = None

    def start(self) -> None:
        """Starts the server. It may not answer yet, or end at once: ask `running`.

        Raises:
            Unavailable: the program cannot be executed.
        """
        order = {**self._order, "asker": os.getpid()}
        guard = self._guard = subprocess.Popen(  # noqa: S603 - our own interpreter and script
            [sys.executable, "-I", "-S", str(_GUARD), json.dumps(order)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self._environment,
            bufsize=0,
            start_new_session=True,  # Ctrl-C reaches us first; the server is ended in order
        )
        answer, complaint = _open_pipes(guard)
        with answer, complaint:
            first = answer.readline()
            if not first:
                lines = complaint.read().decode(errors="replace").splitlines()
                self._reap()
                raise Unavailable(f"{self._command[0]} cannot be run: {' '.join(lines[-1:])}")
        self.pid = int(first)

    @property
    def running(self) -> bool:
        """Whether the server has been started and has not ended."""
        return self._guard is not None and self._guard.poll() is None

    def stop(self, with_signal: signal.Signals, *, patience: timedelta) -> None:
        """Ends the server with this signal, and waits for it; with SIGKILL when patience ends."""
        if self._guard is None:
            return
        self._send(with_signal)
        try:
            self._guard.wait(patience.total_seconds())
        except subprocess.TimeoutExpired:
            self._send(signal.SIGKILL)
            self._guard.wait()
        self._reap()

    def keep(self) -> None:
        """Lets the server run on after this process; from now on only its pid can end it."""
        if self._guard is None or self._guard.stdin is None:
            return
        self._send(0)
        self._guard.stdin.close()
        self._guard.returncode = 0  # no longer ours to wait for
        self._guard = None

    def log_tail(self) -> str:
        """The end of what the server has written, for error messages."""
        if not self.log.exists():
            return "(no log)"
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _LOG_TAIL_BYTES))
            return log.read().decode(errors="replace").strip() or "(empty log)"

    def _send(self, number: int) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            with contextlib.suppress(BrokenPipeError, ValueError):  # it has ended already
                self._guard.stdin.write(bytes([number]))

    def _reap(self) -> None:
        if self._guard is not None:
            if self._guard.stdin is not None:
                self._guard.stdin.close()
            self._guard.wait()
        self._guard = None
        self.pid = None


def _open_pipes(guard: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    if guard.stdout is None or guard.stderr is None:
        raise TypeError(guard)  # not when both were asked for
    return guard.stdout, guard.stderr


def wait_until_answering(
    process: GuardedProcess,
    answers: Callable[[], object],
    *,
    name: str,
    patience: timedelta,
) -> None:
    """Returns once the server answers.

    Args:
        process: the server.
        answers: called with no arguments until it no longer raises `Unavailable`.
        name: what the server is called in the error.
        patience: how long to wait.

    Raises:
        Unavailable: the server ended or was silent for too long; the message holds its log's end.
    """
    deadline = time.monotonic() + patience.total_seconds()
    pause = 0.005
    while process.running and time.monotonic() < deadline:
        try:
            answers()
        except Unavailable:
            time.sleep(pause)
            pause = min(pause * 1.5, 0.1)
        else:
            return
    reason = "did not answer in time" if process.running else "ended while starting"
    raise Unavailable(f"{name} {reason}; the end of its log ({process.log}):\n{process.log_tail()}")
