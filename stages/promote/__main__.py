"""`python -m stages.promote --candidate FOLDER [--champion FOLDER] --artifact PATH`: the checks as JSON. gr2 promote runs it."""

import argparse
import json
import sys
from pathlib import Path

from stages.promote.decide import decide
from stages.promote.params import PromoteParams
from stages.shared.core.errors import StageError
from stages.shared.core.params import load_params


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.promote", description="The checks of a candidate against a champion, as JSON.")
    parser.add_argument("--candidate", type=Path, required=True, help="a project's folder, or one with the parts that are read")
    parser.add_argument("--champion", type=Path, help="likewise; default: none yet, so the initial ranking")
    parser.add_argument("--artifact", default="data/rl/model", help="the model's folder in both")
    options = parser.parse_args()
    try:
        params = load_params("promote", PromoteParams)
        checks = decide(options.candidate, options.champion, options.artifact, params)
    except StageError as error:
        sys.exit(f"promote: {error}")
    print(json.dumps({"checks": [check.to_dict() for check in checks], "params": params.model_dump()}, indent=2))


if __name__ == "__main__":
    main()
