from stages.shared.core.outputs import DATA
from stages.shared.core.run import Compute, run_process
from stages.shared.sources.params import FetchParams


def load() -> Compute[FetchParams]:
    from stages.fetch.fetch import fetch

    return fetch


if __name__ == "__main__":
    # Into data/ itself: the output is the whole folder data/raw, so that no file of an earlier source stays in it.
    run_process("fetch", FetchParams, load, section="ingest", final=DATA)
