"""A pretrained model through mid-training, traces and sft, in the forms that one asks about, on the same test slates: one table.

    gr2 run --profile smollm2                        # once, in a clone: PROJECT (--until retrieve is enough)
    python bench/language_model_arms.py FOLDER --project PROJECT [--slates 300] [--arms zero_shot rejection ...] [--parallel 1]
        [--set sft.steps=50] [--set evaluate.engine.kind=transformers] [--until traces] [--name language_model_arms]

Arms (all after one mid-training, but for the first):
- zero_shot: the checkpoint as it comes, with rows for SIDs and not one step of training; it is shown titles, and asked freely;
- zero_shot_constrained: the same under the constraint, so that every answer is an order;
- rejection: the profile: traces of the statistical teacher by rejection sampling, candidates with their evidence;
- no_evidence: the same without the evidence block; titles and categories are shown in its place;
- targeted: the teacher is shown the target;
- ranker_explained: LambdaMART's order and contributions in words.

Every stage runs by its own command in FOLDER/ARM with the project's parameters, what --set says and what the arm says; what is finished
is kept, so a run that was stopped goes on, here or on another machine, and what the project has made with the arm's parameters is taken
from there, with the seconds of its lineage. --until traces does what needs no GPU. --parallel: arms side by
side. Answers are decoded greedily, free of constraints unless the arm says otherwise; one that is no
permutation counts as the initial ranking.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from midtrain_runs import ROOT, link_inputs, write_lines
from numpy.typing import NDArray

from stages.evaluate.baselines import ALL_FEATURES, baselines
from stages.evaluate.features import read_features
from stages.evaluate.params import EvaluateParams
from stages.shared.core.params import load_params
from stages.shared.evaluation.outputs_table import GREEDY, OUTPUTS, rankings_of, read_answers
from stages.shared.evaluation.test_set import TestSet, load_test_set, read_slate_tables
from stages.shared.generation.base import Sampling
from stages.shared.generation.reranking.language_model import open_language_model
from stages.shared.recsys.embeddings import read_embeddings
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.domain_rules import with_mined_rules
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.slate import load_slates
from stages.shared.stats.bootstrap import Bootstrap, paired_interval
from stages.shared.stats.metrics import ranks_of_targets, slate_metrics
from tasks.lineage.query import chain
from tasks.project.graph import read_graph

BASE = "midtrain"  # the folder whose model all trained arms start from
BOOTSTRAP = 2000, 7


@dataclass(frozen=True)
class Arm:
    """values: of params.yaml. trained: goes through the shared mid-training, its own traces and sft."""

    values: Mapping[str, Any]
    trained: bool = True


UNTRAINED = {"midtrain": {"steps": 1, "lr": 1e-12, "probe_users": 0}, "prompt": {"titles": True}}
ARMS: dict[str, Arm] = {
    "zero_shot": Arm(UNTRAINED, trained=False),
    "zero_shot_constrained": Arm({**UNTRAINED, "evaluate": {"constrained": True}}, trained=False),
    "rejection": Arm({}),
    "no_evidence": Arm({"prompt": {"evidence": False, "cited": [], "titles": True}}),
    "targeted": Arm({"traces": {"mode": "targeted"}}),
    "ranker_explained": Arm({"traces": {"teacher": "ranker_explained"}}),
}
# Baselines that learnt from the same slates, or from none; the last where prompt.more_features names any.
KNOWN = {"incoming": "incoming", "lambdamart": "LambdaMART on six", ALL_FEATURES: "LambdaMART on all"}
CONTRASTS = ("incoming", "lambdamart", "rejection")


class Runs:
    """Stages in folders under `folder`, on what `project` has made."""

    inputs: tuple[str, ...] = ("ingest", "embed", "tokenize", "retrieve")
    remedy = "gr2 run --until retrieve --profile smollm2"

    def __init__(self, folder: Path, project: Path, settings: Mapping[str, Any]):
        self.folder, self.project, self.settings = folder.resolve(), project.resolve(), settings

    def prepare(self, arm: str, values: Mapping[str, Any]) -> Path:
        """The arm's folder with its params.yaml and links to what it reads."""
        folder = self.folder / arm
        for name in self.inputs:
            if not (made := self.project / "data" / name).exists():
                sys.exit(f"{made}: not there; in that project run: {self.remedy}")
        link_inputs(folder, self.project, self.inputs)
        params = yaml.safe_load((self.project / "params.yaml").read_text(encoding="utf-8"))
        params = merged(merged(params, self.settings), values)
        (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        return folder

    def command(self, folder: Path, name: str, command: Sequence[str]) -> None:
        """Runs `command` in `folder` once; how long it took stands in NAME.seconds."""
        note = folder / f"{name}.seconds"
        if note.exists():
            return
        started = time.monotonic()
        with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            code = subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            end = (folder / f"{name}.log").read_text(encoding="utf-8")[-3000:]
            sys.exit(f"{folder.name}: {name} ended with code {code} ({folder}/{name}.log):\n{end}")
        note.write_text(f"{time.monotonic() - started:.1f}", encoding="utf-8")

    def stage(self, folder: Path, name: str) -> None:
        note = folder / f"{name}.seconds"
        if not note.exists() and self.made_in_project(folder, name):
            (folder / "data" / name).symlink_to(self.project / "data" / name)
            record = chain(self.project, read_graph(self.project), f"data/{name}/metrics.json").stages[0].run
            note.write_text(f"{record['seconds']:.1f}", encoding="utf-8")
        self.command(folder, name, [sys.executable, "-m", f"stages.{name}"])

    def made_in_project(self, folder: Path, name: str) -> bool:
        """Whether the project has this output, made with all the parameters that stand in `folder`."""
        made = (self.project / "data" / name / "metrics.json").exists()
        return made and _parameters(folder, name) == _parameters(self.project, name)

    def traces(self, arm: str) -> None:
        if ARMS[arm].trained:
            self.stage(self.prepare(arm, ARMS[arm].values), "traces")

    def midtrain(self, arms: Sequence[str]) -> None:
        if any(ARMS[arm].trained for arm in arms):
            self.stage(self.prepare(BASE, {}), "midtrain")

    def answers(self, arm: str) -> None:
        folder, trained = self.prepare(arm, ARMS[arm].values), ARMS[arm].trained
        if trained:
            if not (folder / "data/midtrain").exists():
                (folder / "data/midtrain").symlink_to(self.folder / BASE / "data/midtrain")
            self.stage(folder, "sft")
        else:
            self.stage(folder, "midtrain")
        if trained and not (folder / "answers.json").exists() and self.made_in_project(folder, "evaluate"):
            answers = read_answers(self.project / OUTPUTS).filter(kind=GREEDY, model="sft")
            _write_answers(folder / "answers.json", rankings_of(answers), None)
            return
        model = "sft" if trained else "midtrain"
        self.command(folder, "answers", [sys.executable, __file__, "--ask", model])


def _parameters(folder: Path, stage: str) -> dict[str, Any]:
    """All that the stage could read, and more, but the sections of later stages; of `evaluate` the answers of sft are meant, which owe rl
    nothing. Without the numbers of threads, which change the rounding and the seconds alone."""
    params: dict[str, Any] = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    later = {"resources", "rl", "quantize", "report", "evaluate"} - {stage}
    sections = {section: values for section, values in params.items() if section not in later}
    return {name: {key: value for key, value in values.items() if key != "threads"} for name, values in sections.items()}


def _write_answers(path: Path, rankings: Rankings, seconds: float | None) -> None:
    """seconds: None where the answers are of an evaluation, which asks several models."""
    tokens = sum(rankings.reasoning_tokens) + sum(rankings.answer_tokens)
    found = {"orders": rankings.orders.tolist(), "faults": rankings.faults, "texts": rankings.texts, "seconds": seconds, "tokens": tokens}
    path.write_text(json.dumps(found), encoding="utf-8")


def ask(model: str) -> None:
    """In the working directory: the model's answers to the test slates, into answers.json."""
    params = load_params("evaluate", EvaluateParams)
    torch.set_num_threads(params.threads)
    tests = load_test_set(read_slate_tables(), params.max_slates)
    layout = layout_of(tests.catalog, with_mined_rules(load_params("prompt", PromptParams)))
    with open_language_model(Path(f"data/{model}/model"), layout, params.engine, params.seed, params.threads) as opened:
        began = time.monotonic()
        [rankings] = opened.answers(tests.slates, Sampling(params.max_tokens, seed=params.seed), params.constrained)
        seconds = time.monotonic() - began
    _write_answers(Path("answers.json"), rankings, seconds)


def known_rankers(folder: Path) -> tuple[TestSet, dict[str, NDArray[np.int_]]]:
    """In a run's folder: the test set, and the orders of the baselines [slates, candidates]."""
    with contextlib.chdir(folder):
        params, tables = load_params("evaluate", EvaluateParams), read_slate_tables()
        tests = load_test_set(tables, params.max_slates)
        train = load_slates(tables.slates, tables.candidate_features, "train")
        features = [read_features(tables.candidate_features, slates) for slates in (tests.slates, train)]
        targets, vectors = np.array([slate.target_rank for slate in train]), read_embeddings(len(tests.counts))
        ranked = baselines(tests.slates, *features, targets, tests.counts, vectors, params.seed, params.threads)
    return tests, {name: ranked[name].orders for name in KNOWN if name in ranked}


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, section by section."""
    shared = [key for key in over if isinstance(over[key], Mapping) and isinstance(base.get(key), Mapping)]
    return {**base, **over, **{key: merged(base[key], over[key]) for key in shared}}


def seconds(folder: Path, name: str) -> float:
    return float((folder / f"{name}.seconds").read_text(encoding="utf-8"))


def trained_tokens(folder: Path, stage: str) -> int:
    tokens = json.loads((folder / f"data/{stage}/metrics.json").read_text(encoding="utf-8"))["tokens"]
    return int(sum(tokens.values()) if isinstance(tokens, dict) else tokens)


def table(runs: Runs, arms: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    tests, known = known_rankers(runs.folder / arms[0])
    found = {arm: json.loads((runs.folder / arm / "answers.json").read_text(encoding="utf-8")) for arm in arms}
    orders = known | {arm: np.array(one["orders"]) for arm, one in found.items()}
    ranks = {name: ranks_of_targets(of, tests.targets) for name, of in orders.items()}
    values = {name: slate_metrics(of)["ndcg@5"] for name, of in ranks.items()}
    draws = Bootstrap(tests.users, *BOOTSTRAP)
    lines = ["| arm | NDCG@5 | minus incoming | minus LambdaMART | minus rejection | valid | other faults |", "|" + "---|" * 7]
    figures: dict[str, Any] = {}
    for name, own in values.items():
        cells, entry = [], {"ndcg@5": float(own.mean())}
        for other in CONTRASTS:
            if other == name or other not in values:
                cells.append("")
                continue
            low, high = paired_interval(own - values[other], draws)
            entry |= {f"minus {other}": [float((own - values[other]).mean()), low, high]}
            cells.append(f"{(own - values[other]).mean():+.3f} [{low:+.3f}, {high:+.3f}]")
        faults = Counter(fault for fault in found[name]["faults"] if fault) if name in found else Counter()
        valid = f"{1 - sum(faults.values()) / len(own):.1%}" if name in found else ""
        kinds = ", ".join(f"{fault} {count}" for fault, count in faults.most_common())
        lines.append(f"| {name} | {own.mean():.3f} | " + " | ".join([*cells, valid, kinds]) + " |")
        figures[name] = entry | {"faults": dict(faults)}
    lines += ["", "| arm | traces s | sft s | tokens learnt from | answers s | tokens written | a second |", "|" + "---|" * 7]
    for arm in arms:
        folder, one = runs.folder / arm, found[arm]
        learnt = [f"{seconds(folder, 'traces'):.0f}", f"{seconds(folder, 'sft'):.0f}", f"{trained_tokens(folder, 'sft'):,}"]
        seconds_asked = one["seconds"]
        speed = [f"{seconds_asked:.0f}", f"{one['tokens'] / seconds_asked:,.0f}"] if seconds_asked else ["in evaluate", ""]
        written = [speed[0], f"{one['tokens']:,}", speed[1]]
        lines.append(f"| {arm} | " + " | ".join([*(learnt if ARMS[arm].trained else ["", "", ""]), *written]) + " |")
    if any(ARMS[arm].trained for arm in arms):
        base = runs.folder / BASE
        lines += ["", f"Mid-training: {seconds(base, 'midtrain'):.0f} s, {trained_tokens(base, 'midtrain'):,} tokens in rows."]
    lines += ["", f"{len(tests.slates):,} test slates of {len(np.unique(tests.users)):,} users; 95 % intervals over users."]
    return lines, figures


def settings(texts: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator or "." not in key:
            sys.exit(f"--set {text}: SECTION.KEY=VALUE is expected, such as --set sft.steps=50")
        nested: Any = yaml.safe_load(value)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        values = merged(values, nested)
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--project", type=Path, default=Path(), help="with data/ingest, embed, tokenize, retrieve; its params.yaml counts")
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--slates", type=int, default=300, help="of the test split, the first by user; 0 = all")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--parallel", type=int, default=1, help="arms side by side")
    parser.add_argument("--until", choices=["traces", "answers"], default="answers")
    parser.add_argument("--name", default="language_model_arms", help="of the two files in bench/results")
    parser.add_argument("--ask", choices=["sft", "midtrain"], help=argparse.SUPPRESS)  # what the script calls itself with
    options = parser.parse_args()
    if options.ask:
        return ask(options.ask)
    if not options.folder:
        parser.error("FOLDER is missing")
    values = merged(settings(options.set), {"evaluate": {"max_slates": options.slates}})
    runs = Runs(options.folder, options.project, values)
    with ThreadPoolExecutor(options.parallel) as pool:
        list(pool.map(runs.traces, options.arms))
        if options.until == "traces":
            return None
        # Mid-training takes no part of the models as they come: these are asked beside it.
        waiting = [arm for arm in options.arms if not ARMS[arm].trained]
        first = [pool.submit(runs.midtrain, options.arms), *(pool.submit(runs.answers, arm) for arm in waiting)]
        first[0].result()
        rest = [pool.submit(runs.answers, arm) for arm in options.arms if ARMS[arm].trained]
        for done in [*first, *rest]:
            done.result()
    lines, figures = table(runs, options.arms)
    write_lines(options.name, "A pretrained model as a reranker, and what its training is made of", lines, figures)
    return None


if __name__ == "__main__":
    main()
