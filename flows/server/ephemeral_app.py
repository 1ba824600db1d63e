"""The process of the ephemeral server: Prefect's API on the socket whose file descriptor is the argument."""

import gc
import os
import socket
import sys

# Prefect's own words for: no web interface, only the services of an ephemeral server, this application is the last one here.
SETTINGS = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


def main(descriptor: int) -> None:
    os.environ |= SETTINGS
    gc.disable()  # 2,200 modules at once: collections among them cost a fifth of the start, and there is nothing to collect
    import uvicorn
    from prefect.server.api.server import create_app

    app = create_app()
    gc.freeze()
    gc.enable()
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
    server.run(sockets=[socket.socket(fileno=descriptor)])


if __name__ == "__main__":
    main(int(sys.argv[1]))
