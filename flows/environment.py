"""Prefect's settings for runs without a server of their own: quiet, no analytics, and everything it keeps in .gr2/prefect."""

import os
from pathlib import Path


def prepare(root: Path) -> dict[str, str]:
    """Sets what is not set yet; to be called before prefect is imported. Returns the environment as it was, which is that of the stages."""
    before = dict(os.environ)
    (root / ".gr2").mkdir(exist_ok=True)  # Prefect makes its home, but not the folder above it
    settings = {
        "PREFECT_HOME": str(root / ".gr2" / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "CRITICAL",  # the console says what happens; Prefect would say it again, with tracebacks
        "PREFECT_LOGGING_SERVER_LEVEL": "CRITICAL",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
        "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",  # the first start migrates a database, on two slow cores perhaps
    }
    if "PREFECT_API_URL" not in os.environ:
        settings["PREFECT_SERVER_ALLOW_EPHEMERAL_MODE"] = "true"
        unused = ("SCHEDULER", "LATE_RUNS", "PAUSE_EXPIRATIONS", "CANCELLATION_CLEANUP", "FOREMAN", "TRIGGERS", "EVENT_PERSISTER")
        settings |= {f"PREFECT_SERVER_SERVICES_{service}_ENABLED": "false" for service in unused}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    return before
