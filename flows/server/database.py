"""Which database a Prefect server keeps its data in, and what is said about SQLite when workers or schedules meet it."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flows.server.postgres import HOW, programs

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

URL_NAMES = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
DRIVER = "PREFECT_SERVER_DATABASE_DRIVER"
POSTGRES, SQLITE = "postgresql", "sqlite"


def sqlite_note() -> str:
    """What is said about SQLite, in one line, with the way to Postgres on this machine."""
    remedy = "start the server with: gr2 server, which uses the PostgreSQL installed here" if programs() else HOW
    return (
        "Prefect's server keeps its data in SQLite, with which it may stop answering for a minute under workers, and for good when an "
        f"automation is changed (docs/schedules.md); {remedy}"
    )


def warn_of_sqlite(client: "SyncPrefectClient") -> None:
    """Prints the note when the server that `client` talks to is known to use SQLite."""
    if database_of(client) == SQLITE:
        print(f"gr2: {sqlite_note()}", flush=True)


def database_of(client: "SyncPrefectClient") -> str:
    """`postgresql` or `sqlite`; empty when it cannot be told: the server hides its address, and runs elsewhere or as another user."""
    from prefect.exceptions import PrefectHTTPStatusError

    try:
        database: dict[str, Any] = client._client.get("/admin/settings").json().get("server", {}).get("database", {})
    except PrefectHTTPStatusError:  # Prefect Cloud has no such page
        return ""
    if database.get("driver"):
        return str(database["driver"]).partition("+")[0]
    if database.get("host"):  # only Postgres is given by its parts
        return POSTGRES
    address = urlsplit(str(client.api_url))
    environment = _environment(address.port or 0) if address.hostname in ("127.0.0.1", "localhost", "::1") else None
    if environment is None:
        return ""
    url = next((environment[name] for name in URL_NAMES if environment.get(name)), SQLITE)
    return POSTGRES if url.startswith(POSTGRES) else SQLITE


def _environment(port: int) -> dict[str, str] | None:
    """That of the process that listens on `port` of this machine; None for another user's."""
    import psutil

    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return dict(psutil.Process(connection.pid).environ())
    except (psutil.Error, OSError):
        return None
    return None
