"""`python -m stages.embed.shard NUMBER`: the stage embed_shard@NUMBER of dvc.yaml."""

import sys
from functools import partial
from pathlib import Path

from stages.embed.params import SHARDS, EmbedParams
from stages.shared.core.run import Compute, run_process


def load() -> Compute[EmbedParams]:
    from stages.embed.shards import embed_shard

    return partial(embed_shard, int(sys.argv[1]))


if __name__ == "__main__":
    run_process(f"embed_shard@{sys.argv[1]}", EmbedParams, load, section="embed", final=Path(SHARDS) / sys.argv[1])
