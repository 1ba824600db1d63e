"""All checks of one candidate against one champion, and the decision: promote only where every check ran and passed."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from stages.promote.answers import Paired, pair, read_answers_of
from stages.promote.checks import GateResult, difference, harm, regressions, run_check, slice_losses
from stages.promote.params import PromoteParams
from stages.promote.weights import check_vocabulary, check_weights
from stages.shared.core.errors import StageError
from stages.shared.core.outputs import first_non_finite, read_json
from stages.shared.evaluation.content_hash import content_md5
from stages.shared.evaluation.rankers import MODELS

METRICS, SIDS = Path("data/evaluate/metrics.json"), Path("data/tokenize/sids.parquet")
GATED = (Path("data/quantize/metrics.json"), METRICS, Path("data/report/metrics.json"))
MODEL_OF = {folder.as_posix(): name for name, folder in MODELS.items()} | {"data/distil/model": "distil"}
PASS_WORDS, FAIL_WORDS = ("passed", "pass", "ok"), ("failed", "fail")


def decide(candidate: Path, champion: Path | None, artifact: str, params: PromoteParams) -> list[GateResult]:
    """Checks of the model at `artifact` (data/rl/model) of the project at `candidate` against that at `champion`.

    Both hold, at the paths they have in a project: outputs.parquet and slates.parquet; the candidate also the model, sids.parquet, and
    every metrics.json. champion: None, where there is none yet: then the initial ranking.
    """
    if artifact not in MODEL_OF:
        raise StageError(f"{artifact}: no model that the evaluation measures ({', '.join(MODEL_OF)}); name one as path in dvc.yaml")
    model = MODEL_OF[artifact]
    checks = [
        run_check("metrics", partial(_metrics, candidate)),
        run_check("evaluated", partial(_evaluated, candidate, artifact)),
        run_check("weights", partial(_weights, candidate / artifact)),
        run_check("vocabulary", partial(_vocabulary, candidate / artifact, candidate / SIDS)),
        run_check("quantized model", partial(_quantized, candidate, model)),
    ]
    pairs: list[Paired] = []

    def same_slates() -> tuple[bool, str, Mapping[str, Any]]:
        pairs.append(pair(read_answers_of(champion, model) if champion else None, read_answers_of(candidate, model)))
        kept = "kept from every report" if pairs[0].reserved else "the test split's, which the report shows, too (evaluate.promotion_users)"
        against = "the champion's" if champion else "compared with the initial ranking, as there is no champion yet"
        return True, f"{len(pairs[0].users):,} slates, {against}; {kept}", {"slates": len(pairs[0].users), "reserved": pairs[0].reserved}

    checks.append(run_check("same slates", same_slates))
    return checks + (_measured(pairs[0], params) if pairs else [])


def _measured(paired: Paired, params: PromoteParams) -> list[GateResult]:
    share = params.delta / 3  # Bonferroni: the bounds hold together
    rates = [
        ("copies of the initial ranking", paired.copied, paired.users, params.max_copies),
        ("invalid answers", paired.invalid, paired.invalid_users, params.max_invalid),
        ("demotions of the target", paired.after > paired.target, paired.users, params.max_demotions),
    ]
    return [
        run_check("difference", partial(difference, paired, params)),
        run_check("right to wrong", partial(regressions, paired, params)),
        run_check("slices", partial(slice_losses, paired, params)),
        *(run_check(name, partial(harm, events, users, limit, share)) for name, events, users, limit in rates),
    ]


def _metrics(folder: Path) -> tuple[bool, str, Mapping[str, Any]]:
    """Every stage's metrics are there and finite: a loss of NaN may leave weights that answer all the same."""
    if not (folder / METRICS).exists():
        raise StageError(f"{METRICS}: missing; run the stage that makes it: gr2 run evaluate")
    files = sorted(folder.glob("data/*/metrics.json"))
    for path in files:
        if bad := first_non_finite(read_json(path)):
            raise StageError(f"{path.relative_to(folder)}: {bad} is not a finite number; the stage's inputs or learning rate need a look")
    return True, f"{len(files)} files, every number finite", {"files": [path.relative_to(folder).as_posix() for path in files]}


def _evaluated(folder: Path, artifact: str) -> tuple[bool, str, Mapping[str, Any]]:
    """The evaluation measured this model on these slates, not one that another run has since replaced."""
    inputs = read_json(folder / METRICS).get("inputs") or {}
    if artifact not in inputs:
        raise StageError(f"{METRICS}: it does not say which {artifact} was measured; rerun: gr2 run evaluate")
    hashes = {path: content_md5(folder / path) for path in inputs if (folder / path).exists()}
    if artifact not in hashes:
        raise StageError(f"{artifact}: missing; run the stage that makes it: gr2 run {Path(artifact).parent.name}")
    if stale := [path for path, md5 in hashes.items() if md5 != inputs[path]]:
        raise StageError(f"stale: the evaluation read another {', '.join(stale)} than there is now; rerun: gr2 run evaluate")
    return True, f"the evaluation measured this very model ({inputs[artifact]})", {"inputs": hashes}


def _weights(folder: Path) -> tuple[bool, str, Mapping[str, Any]]:
    counts = check_weights(folder)
    return True, f"{counts['values']:,} weights, all finite", counts


def _vocabulary(folder: Path, sids: Path) -> tuple[bool, str, Mapping[str, Any]]:
    if not sids.exists():
        raise StageError(f"{SIDS}: missing; run the stage that makes it: gr2 run tokenize")
    counts = check_vocabulary(folder, sids)
    return True, f"{counts['ids']:,} ids in {counts['rows']:,} rows; every token of the SIDs is among them", counts


def _quantized(folder: Path, model: str) -> tuple[bool, str, Mapping[str, Any]]:
    """The gate that the quantized model was put to, where a stage recorded one: a fail stops promotion, of whichever model."""
    recorded = {path.as_posix(): read_json(folder / path).get("gate") for path in GATED if (folder / path).exists()}
    gates = {path: gate for path, gate in recorded.items() if gate is not None}
    if not gates:
        if model == "quantized" and not (folder / GATED[0]).exists():
            raise StageError(f"{GATED[0]}: missing; run the stage that makes it: gr2 run quantize")
        return True, "no gate of its own is recorded", {}
    failed = [path for path, gate in gates.items() if not _gate_passed(gate, path)]
    word = f"failed its gate in {', '.join(failed)}" if failed else "passed its gate"
    return not failed, f"the quantized model {word}", gates


def _gate_passed(gate: Any, path: str) -> bool:
    verdict = gate.get("verdict", gate.get("passed")) if isinstance(gate, dict) else gate
    if isinstance(verdict, bool):
        return verdict
    word = str(verdict).split()[0].lower() if isinstance(verdict, str) and verdict.split() else ""
    if word in PASS_WORDS + FAIL_WORDS:
        return word in PASS_WORDS
    raise StageError(f"{path}: gate: neither passed nor failed ({verdict!r}); rerun: gr2 run quantize evaluate")
