from stages.shared.core.run import run_stage
from stages.traces.params import TracesParams
from stages.traces.traces import traces

if __name__ == "__main__":
    run_stage("traces", TracesParams, traces)
