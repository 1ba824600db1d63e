"""`python -m stages.traces.shard NUMBER`: the stage traces_shard@NUMBER of dvc.yaml."""

import sys
from functools import partial
from pathlib import Path

from stages.shared.core.run import EXTRAS, Compute, run_process
from stages.traces.params import SHARDS, TracesParams


def load() -> Compute[TracesParams]:
    from stages.traces.shards import ask_shard

    return partial(ask_shard, int(sys.argv[1]))


if __name__ == "__main__":
    run_process(f"traces_shard@{sys.argv[1]}", TracesParams, load, section="traces", final=Path(SHARDS) / sys.argv[1], hidden=EXTRAS)
