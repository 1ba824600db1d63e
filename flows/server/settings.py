"""Prefect's settings for runs without a configured server: quiet, no analytics, and everything it keeps in .gr2/prefect."""

import os
from pathlib import Path

from flows.server.ephemeral import EphemeralServer, server_is_configured


def prepare(root: Path) -> dict[str, str]:
    """Sets what is not set yet; to be called before prefect is imported. Returns the environment as it was, which is that of the stages."""
    before = dict(os.environ)
    (root / ".gr2").mkdir(exist_ok=True)  # Prefect makes its home, but not the folder above it
    settings = {
        "PREFECT_HOME": str(root / ".gr2" / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",  # RunConsole reports what happens; Prefect would repeat it, with tracebacks
        "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "90",  # the first start migrates a database, on two slow cores perhaps
    }
    if "PREFECT_API_URL" not in os.environ:
        settings["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "true"
        unused = ("SCHEDULER", "LATE_RUNS", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP", "FOREMAN", "TRIGGERS", "EVENT_PERSISTER")
        settings["PREFECT_CLIENT_MAX_RETRIES"] = "3"  # an ephemeral server that died is started again; it is not for ever that one waits
        settings["PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED"] = "false"  # the server is this very installation
        settings["PREFECT_SERVER_REGISTER_BLOCKS_ON_START"] = "false"  # Prefect's blocks are not used here
        settings |= {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in unused}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    return before


def prepare_worker(root: Path) -> None:
    """As `prepare`, for a worker and the flow runs it starts: they have no terminal, so Prefect logs them, also to its server."""
    levels = ("PREFECT_LOGGING_LEVEL", "PREFECT_LOGGING_INTERNAL_LEVEL")
    for name, value in {**dict.fromkeys(levels, "INFO"), "PREFECT_LOGGING_TO_API_ENABLED": "true"}.items():
        os.environ.setdefault(name, value)
    prepare(root)


def without_prefect() -> dict[str, str]:
    """The environment for stages in a process that a worker started: without Prefect's settings and keys."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}


def start_server(root: Path) -> EphemeralServer | None:
    """Starts the ephemeral server unless a server is configured; call its `wait_until_ready` once Prefect is imported."""
    return None if server_is_configured(root) else EphemeralServer()
