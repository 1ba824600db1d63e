"""A port for a server that a test starts in another process."""

import random
import socket
from pathlib import Path

LOWEST = 10_000
OWN_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
DICE = random.SystemRandom()  # tests seed the common generator: two of them at once would ask for the same port


def free_port() -> int:
    """A TCP port at 127.0.0.1 that nothing uses, below those that the system gives out by itself.

    A port that the system chose (port 0) and that was closed again can be given to any connection before the server listens on it.
    """
    while True:
        port = DICE.randrange(LOWEST, lowest_of_the_system())
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port


def lowest_of_the_system() -> int:
    return int(OWN_RANGE.read_text().split()[0]) if OWN_RANGE.exists() else 32_768
