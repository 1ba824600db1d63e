from stages.report.params import ReportParams
from stages.report.report import report
from stages.shared.core.run import run_stage

if __name__ == "__main__":
    run_stage("report", ReportParams, report)
