"""GR2's table of codebook techniques (arXiv 2602.07774) on Amazon Beauty, our figures and the paper's.

    python bench/tokenizer_ablation.py --data FOLDER        (about twenty minutes on two cores)

Every arm is trained with three seeds; 4 levels of 256 codes, MiniLM embeddings of title, brand and categories. Writes
bench/results/tokenizer_ablation.md.
"""

import argparse
import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.beauty import ROOT, load, name_of, prepare
from stages.shared.core.run import set_seed, set_threads
from stages.tokenize import measure
from stages.tokenize.params import TokenizeParams
from stages.tokenize.quantizers.cooccurrence import Cooccurrence
from stages.tokenize.quantizers.quantizer import Quantizer
from stages.tokenize.tokenize import assign

SETTING = {
    "codebook_size": 256,
    "latent_dim": 16,
    "hidden_dims": [256],
    "warmup_epochs": 20,
    "epochs": 100,
    "batch_size": 512,
    "threads": 2,
}
PLAIN = {"ema": False, "codebook_start": "normal", "warmup_epochs": 0, "epochs": 120}
UNIFORM = {**PLAIN, "codebook_start": "uniform"}
KMEANS_START = {"codebook_start": "kmeans", "warmup_epochs": 20, "epochs": 100}
KMEANS = {"method": "rqkmeans"}
ARMS: dict[str, tuple[dict[str, Any], str]] = {  # name -> (parameters, the paper's uniqueness)
    "plain RQ-VAE: gradient codebooks, N(0, 1) start": (PLAIN, "31.3 %"),
    "plain, uniform start in [-1/C, 1/C]": (UNIFORM, ""),
    "plain, k-means++ start": ({**PLAIN, **KMEANS_START}, ""),
    "plain + EMA": ({**PLAIN, "ema": True}, "97.5 %"),
    "plain, uniform start + EMA": ({**UNIFORM, "ema": True}, ""),
    "EMA + k-means++ start (our default)": ({}, ""),
    "default + diversity loss (0.01)": ({"diversity_weight": 0.01}, "+0.6 points"),
    "default + dead-code reset (20 batches)": ({"revive_after": 20}, "-4.0 points"),
    "default + contrastive loss (0.02)": ({"contrastive_weight": 0.02}, "-13.2 points"),
    "default + stronger contrastive loss (0.2)": ({"contrastive_weight": 0.2}, ""),
    "plain + EMA + dead-code reset (20 batches)": ({**PLAIN, "ema": True, "revive_after": 20}, ""),
    "default, 32 latent dimensions": ({"latent_dim": 32}, ""),
    "default, 64 latent dimensions": ({"latent_dim": 64}, ""),
    "RQ-k-means": (KMEANS, ""),
    "RQ-k-means, 2 rounds of refinement, beam 4": ({**KMEANS, "refine_rounds": 2, "beam": 4}, ""),
}
MODES = ("nearest", "random_last", "optimal_last")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path(".bench"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--arms", default="", help="only arms whose name holds one of these, cut at |")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/tokenizer_ablation.md")
    options = parser.parse_args()
    set_threads(2)
    embeddings_NE, items, interactions = load(prepare(options.data, options.scratch))
    cooccurrence = Cooccurrence.count(interactions, items.height)
    labels_N = measure.category_labels(items["categories"])
    rows: dict[str, list[dict[str, Any]]] = {}
    for name, (change, _) in ARMS.items():
        if any(part in name for part in options.arms.split("|")):
            rows[name] = [one_run(embeddings_NE, cooccurrence, labels_N, {**SETTING, **change}, seed) for seed in options.seeds]
            print(name, json.dumps(rows[name][-1]), flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(report(name_of(options.data), rows, embeddings_NE, options.seeds), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def one_run(
    embeddings_NE: np.ndarray, cooccurrence: Cooccurrence, labels_N: np.ndarray, values: dict[str, Any], seed: int
) -> dict[str, Any]:
    params = TokenizeParams(**values, seed=seed)
    set_seed(seed)
    quantizer = Quantizer.learn(embeddings_NE, params, cooccurrence if params.contrastive_weight else None)
    with torch.no_grad():
        latents_ND = quantizer.latents(embeddings_NE)
    nearest_NL = quantizer.codes(latents_ND, params.beam)
    variance = measure.variance(embeddings_NE)
    use = measure.codebook_use(nearest_NL, params.codebook_size)
    purity = measure.prefix_purity(nearest_NL, labels_N, seed)
    result: dict[str, Any] = {
        "usage": min(use["usage"]),
        "perplexity": mean(use["perplexity"]),
        "purity1": purity["purity"][0],
        "shuffled1": purity["shuffled"][0],
        "purity2": purity["purity"][1],
        "shuffled2": purity["shuffled"][1],
    }
    for mode in MODES:
        codes_NL, moved = assign(latents_ND, nearest_NL, quantizer, params.model_copy(update={"assignment": mode}), None)
        result[mode] = measure.uniqueness(codes_NL)
        result[f"{mode}_error"] = float(quantizer.errors(embeddings_NE, codes_NL).mean()) / variance
        result[f"{mode}_moved"] = moved
    return result


def report(data_set: str, rows: dict[str, list[dict[str, Any]]], embeddings_NE: np.ndarray, seeds: list[int]) -> str:
    different = len(np.unique(embeddings_NE, axis=0))
    alone = np.unique(embeddings_NE, axis=0, return_counts=True)[1]
    most = (alone == 1).sum() / len(embeddings_NE)
    lines = [
        f"# Codebook techniques on {data_set}",
        "",
        f"`python bench/tokenizer_ablation.py --data FOLDER`: {len(embeddings_NE)} items, 4 x 256 codes, seeds {seeds}; mean ±",
        "standard deviation over seeds.",
        f"{different} embeddings are different; items with a unique embedding: {most:.2%}, the most that nearest codes can reach.",
        "Error: mean squared reconstruction error / variance of the embeddings. Purity: share of items of the commonest category",
        "path under their",
        "prefix of 1 and of 2 codes (in brackets: the same with categories shuffled). Moved: items that had to leave a full prefix.",
        "",
        "| technique | paper | unique, nearest | unique, random last | unique, optimal last | error nearest | error random last "
        "| error optimal last "
        "| least used level | mean perplexity | purity 1 | purity 2 | moved |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        cells = [f"{both(runs, mode, 100)} %" for mode in MODES] + [both(runs, f"{mode}_error", 1, 3) for mode in MODES]
        cells += [f"{both(runs, 'usage', 100)} %", both(runs, "perplexity", 1, 0)]
        cells += [f"{both(runs, f'purity{depth}', 1, 3)} ({mean(run[f'shuffled{depth}'] for run in runs):.3f})" for depth in (1, 2)]
        cells += [f"{mean(run['optimal_last_moved'] for run in runs):.0f}"]
        lines.append(f"| {name} | {ARMS[name][1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def both(runs: list[dict[str, Any]], key: str, scale: float, digits: int = 2) -> str:
    values = [scale * run[key] for run in runs]
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}" if len(values) > 1 else f"{values[0]:.{digits}f}"


if __name__ == "__main__":
    main()
