from stages.fetch.fetch import fetch
from stages.shared.core.outputs import DATA
from stages.shared.core.run import run_stage
from stages.shared.sources.params import FetchParams

if __name__ == "__main__":
    # Into data/ itself: the output is the whole folder data/raw, so that no file of an earlier source stays in it.
    run_stage("fetch", FetchParams, fetch, section="ingest", final=DATA)
