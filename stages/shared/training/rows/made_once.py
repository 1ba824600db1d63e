"""What the processes of a stage on one node make once, and read together: files under .gr2/rows."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.shared.core.launch import launch_name, local_rank, node_rank

FOLDER = Path(".gr2/rows")
MADE = "made.json"  # the last file: what the maker says of the others
WAIT_S = 0.05


@contextmanager
def made_once(stage: str, make: Callable[[Path], Mapping[str, Any]]) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """The folder that `make` has filled, and what it returned, as JSON gives it back; while the block runs.

    The first process of each node calls `make`, the others wait. They need no deadline: when it fails, torchrun ends them all. What a
    killed run left is removed by the next one.
    """
    own = FOLDER / stage / f"node{node_rank()}"
    folder = own / launch_name()
    is_maker = local_rank() == 0
    if is_maker:
        shutil.rmtree(own, ignore_errors=True)
        folder.mkdir(parents=True)
    try:
        if is_maker:
            partial = folder / f"{MADE}.partial"
            partial.write_text(json.dumps(make(folder)), encoding="utf-8")
            os.replace(partial, folder / MADE)
        while not (folder / MADE).exists():
            time.sleep(WAIT_S)
        yield folder, json.loads((folder / MADE).read_text(encoding="utf-8"))
    finally:
        if is_maker:
            shutil.rmtree(own, ignore_errors=True)
