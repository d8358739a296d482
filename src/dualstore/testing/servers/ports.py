"""Ports of 127.0.0.1 for servers, held from the moment they are chosen."""

import random
import socket
import sys
from dataclasses import dataclass, field

from dualstore.errors import Unavailable

HOST = "127.0.0.1"

# Below every system's range of ephemeral ports (32768 on Linux, 49152 elsewhere). In that range a
# client that retries a stopped server is sooner or later given the server's port as its own source
# port, connects to itself, and the server cannot come back.
PORTS = range(15_000, 32_000)
_ATTEMPTS = 100


@dataclass(frozen=True)
class HeldPort:
    """A port that nobody else takes, before its server listens on it and while that is stopped.

    Asking for a free port and starting a server on it are two steps; two programs that do both at
    once may meet, and then one waits for its server and is answered by the other's. So the port is
    held by a socket that is bound and never listens: whoever connects is refused, whoever looks for
    a free port passes on. On Linux a server that sets SO_REUSEADDR (all do) binds beside it.
    Elsewhere it could not, and the port is only chosen.
    """

    number: int
    holder: socket.socket = field(repr=False)

    def release(self) -> None:
        """Lets the port go."""
        self.holder.close()


def hold_port() -> HeldPort:
    """Chooses a free port and holds it.

    Raises:
        Unavailable: none of 100 ports is free.
    """
    for number in random.SystemRandom().sample(PORTS, k=_ATTEMPTS):
        holder = socket.socket()
        try:
            holder.bind((HOST, number))
        except OSError:
            holder.close()
            continue
        # Only now: before, `bind` would have succeeded beside other holders.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sys.platform != "linux":
            holder.close()
        return HeldPort(number, holder)
    raise Unavailable(f"none of {_ATTEMPTS} ports tried in {PORTS} is free on {HOST}")
