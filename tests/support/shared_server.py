"""One Prefect server for all test processes (pytest -n): the first that wants it starts it, and it ends when nobody uses it any more.

`python -m tests.support.shared_server FOLDER` is the process that keeps it.
"""

import fcntl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import dvc_toy, postgres, prefect_server


@contextmanager
def use(folder: Path) -> Iterator[str]:
    """Yields the address of the API. `folder`: the same for all test processes of one pytest."""
    folder.mkdir(parents=True, exist_ok=True)
    address = folder / "address"
    with (folder / "users").open("w") as users:
        with (folder / "start").open("w") as start:
            fcntl.flock(start, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)  # waits while a keeper takes leave; a process that is killed gives it back too
            if not address.exists():
                with (folder / "keeper.log").open("wb") as log:
                    command = [sys.executable, "-m", "tests.support.shared_server", str(folder)]
                    # In a session of its own: what ends the tests' process group must not end it before it has ended the server.
                    keeper = subprocess.Popen(
                        command, cwd=dvc_toy.ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                    )
                prefect_server.wait_for(lambda: address.exists() or keeper.poll() is not None)
                assert keeper.poll() is None, (folder / "keeper.log").read_text()
        yield address.read_text()


def keep(folder: Path) -> None:
    """The server until nobody holds the lock of its users. On Postgres, if that is installed: some tests have workers and automations."""
    home = Path(tempfile.mkdtemp(dir=folder))
    with postgres.if_installed() as database, prefect_server.serve(home, **database) as url, (folder / "users").open("w") as users:
        address = folder / "address"
        address.with_suffix(".new").write_text(url)
        address.with_suffix(".new").rename(address)
        fcntl.flock(users, fcntl.LOCK_EX)
        address.unlink()


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
