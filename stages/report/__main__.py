from stages.report.params import ReportParams
from stages.shared.core.run import Compute, run_process


def load() -> Compute[ReportParams]:
    from stages.report.report import report

    return report


if __name__ == "__main__":
    run_process("report", ReportParams, load)
