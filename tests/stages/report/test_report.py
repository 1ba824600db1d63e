import subprocess
import sys


def test_the_report_loads_no_model_code():
    """It must not be able to ask a model: neither torch nor an engine is imported."""
    code = "import sys, stages.report.report; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = [name for name in loaded if name.split(".")[0] in ("torch", "transformers", "vllm", "lightgbm")]
    assert not heavy and not [name for name in loaded if name.startswith(("stages.shared.lm", "stages.shared.generation"))]
