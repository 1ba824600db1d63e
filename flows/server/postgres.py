"""A PostgreSQL server for Prefect's server, from the machine's installation: Prefect with SQLite has two faults (docs/schedules.md)."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tasks.system.errors import ProjectError
from tasks.system.lifeline import Lifeline

INSTALLED = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin")  # Debian, Red Hat, Homebrew
HOW = "Debian: apt-get install postgresql; then: gr2 server"
USERS = ("postgres", "nobody")  # whose rights its programs take when root starts them, as they refuse to run as root


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; None where it, or the driver that Prefect needs for it, is not installed."""
    folders = [str(path) for pattern in INSTALLED for path in sorted(Path("/").glob(pattern[1:]), reverse=True)]
    initdb = shutil.which("initdb", path=os.pathsep.join([*folders, os.environ.get("PATH", os.defpath)]))
    return Path(initdb).resolve().parent if initdb and find_spec("asyncpg") else None


def default_folder() -> Path:
    """Where the database lies: in the user's home, or where another user may read when root starts it."""
    return Path("/var/lib/gr2-postgres") if os.geteuid() == 0 else Path.home() / ".prefect" / "gr2-postgres"


@contextmanager
def postgres(bin_folder: Path, folder: Path) -> Iterator[str]:
    """Runs PostgreSQL on the database in `folder`, made when missing, for the block; yields its address as Prefect wants it.

    It listens on a socket in a folder of its own that no other user can enter, and on no port. It ends with this process, also after
    a kill -9. ProjectError when it does not start.
    """
    user = _user()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gr2-postgres-") as sockets:  # a socket's path may have no more than 107 characters
        for path in (folder, Path(sockets)):
            if user:
                shutil.chown(path, user)
            path.chmod(0o700)
        data = folder / "data"
        owner = user or pwd.getpwuid(os.getuid()).pw_name
        if not (data / "PG_VERSION").exists():
            _call([str(bin_folder / "initdb"), "-D", str(data), "--auth=trust", "--encoding=UTF8", f"--username={owner}"], folder, user)
        options = f"-c listen_addresses= -c unix_socket_directories={sockets}"
        control = [str(bin_folder / "pg_ctl"), "-D", str(data)]
        _call([*control, "-w", "-l", str(folder / "log"), "-o", options, "start"], folder, user)
        # The first line of the file is the pid. SIGINT: it ends its connections and stops in good order.
        pid = (data / "postmaster.pid").read_text(encoding="utf-8").split()[0]
        lifeline = Lifeline(f"kill -2 {pid}; sleep 5; rm -rf {sockets}")
        try:
            yield f"postgresql+asyncpg://{owner}@/postgres?host={sockets}"
        finally:
            _call([*control, "-m", "fast", "stop"], folder, user)
            lifeline.cancel()


def _user() -> str | None:
    """The user whose rights PostgreSQL takes; None: this process's own."""
    if os.geteuid():
        return None
    return next(user for user in USERS if user in {entry.pw_name for entry in pwd.getpwall()})


def _call(command: list[str], folder: Path, user: str | None) -> None:
    log = folder / "log"
    done = subprocess.run(command, cwd=folder, user=user, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise ProjectError(
            f"PostgreSQL: {Path(command[0]).name} failed: {lines[-1]} (see {log}); gr2 server --sqlite does without, or name a database "
            "of yours in PREFECT_SERVER_DATABASE_CONNECTION_URL"
        )
