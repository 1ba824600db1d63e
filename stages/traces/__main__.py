from stages.shared.core.run import EXTRAS, Compute, run_process
from stages.traces.params import TracesParams


def load() -> Compute[TracesParams]:
    from stages.traces.traces import traces

    return traces


if __name__ == "__main__":
    run_process("traces", TracesParams, load, hidden=EXTRAS)
