"""What torchrun would tell a process that is the only one, for a script that measures DeepSpeed without it."""

import socket


def alone() -> dict[str, str]:
    """Environment variables, with a port that is free now."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
    return {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
