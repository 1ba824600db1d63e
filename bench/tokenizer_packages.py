"""Semantic IDs of Amazon Beauty by this project and by two public packages, side by side in one run.

    .venv/bin/python -m pip install --no-deps --target .bench/peers -r bench/tokenizer_packages.requirements.txt
    .venv/bin/python bench/tokenizer_packages.py --data FOLDER        (about twenty-five minutes on two cores)

Every arm is its own process with two threads, the same embeddings and the same code budget, 4 levels of 256 codes; three
seeds. Time is training, encoding and making the codes unique, without imports and loading; memory is the process's peak. Writes
bench/results/tokenizers.md.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.beauty import ROOT, load, name_of, prepare

LEVELS, SIZE = 4, 256
# Codes as the method gives them, codes made unique within the same four levels (None: the package only appends a fifth), decoder of codes.
Result = tuple[np.ndarray, np.ndarray | None, Callable[[np.ndarray], np.ndarray]]


def ours(embeddings_NE: np.ndarray, seed: int, **values: Any) -> Result:
    from stages.shared.core.run import set_seed
    from stages.tokenize.params import TokenizeParams
    from stages.tokenize.quantizers.quantizer import Quantizer
    from stages.tokenize.tokenize import assign

    set_seed(seed)
    params = TokenizeParams(levels=LEVELS, codebook_size=SIZE, seed=seed, threads=2, assignment="optimal_last", **values)
    quantizer = Quantizer.learn(embeddings_NE, params)
    latents_ND = quantizer.latents(embeddings_NE)
    nearest_NL = quantizer.codes(latents_ND, params.beam)
    return nearest_NL, assign(latents_ND, nearest_NL, quantizer, params, None)[0], quantizer.decode


def our_rqkmeans(embeddings_NE: np.ndarray, seed: int) -> Result:
    return ours(embeddings_NE, seed, method="rqkmeans", refine_rounds=10, beam=8)


def our_rqvae(embeddings_NE: np.ndarray, seed: int) -> Result:
    return ours(embeddings_NE, seed, latent_dim=16, hidden_dims=[256], warmup_epochs=20, epochs=100, batch_size=512)


def our_rqvae_64(embeddings_NE: np.ndarray, seed: int) -> Result:
    return ours(embeddings_NE, seed, latent_dim=64, hidden_dims=[256], warmup_epochs=20, epochs=100, batch_size=512)


def semantic_id_rqkmeans(embeddings_NE: np.ndarray, seed: int) -> Result:
    from semantic_id.algorithms.rq_kmeans import RQKMeans

    model = RQKMeans(n_levels=LEVELS, n_clusters=SIZE, random_state=seed).fit(embeddings_NE)
    return model.encode(embeddings_NE).astype(np.int64), None, model.decode


def semantic_id_rqvae(embeddings_NE: np.ndarray, seed: int, scale: float = 1.0, **more: Any) -> Result:
    import torch
    from semantic_id.algorithms.rq_vae import RQVAE
    from semantic_id.uniqueness.resolver import SinkhornResolver

    torch.manual_seed(seed)
    model = RQVAE(in_dim=embeddings_NE.shape[1], num_emb_list=[SIZE] * LEVELS, **more)
    scaled_NE = (scale * embeddings_NE).astype(np.float32)
    model.fit(scaled_NE)
    codes_NL = model.encode(scaled_NE).astype(np.int64)
    resolver = SinkhornResolver(fallback_suffix=False)
    texts = ["-".join(map(str, row)) for row in codes_NL.tolist()]
    unique = resolver.assign(texts, embeddings=torch.from_numpy(scaled_NE), model=model.module, device="cpu")
    return codes_NL, np.array([[int(code) for code in text.split("-")] for text in unique]), lambda codes: model.decode(codes) / scale


def semantic_id_rqvae_tuned(embeddings_NE: np.ndarray, seed: int) -> Result:
    """The best error of six settings tried: its loss averages over dimensions, so unit vectors are scaled to variance near one;
    shape, learning rate, commitment weight, start and passes as ours."""
    shape = {"e_dim": 16, "layers": [256], "kmeans_init": True, "beta": 0.05}
    return semantic_id_rqvae(embeddings_NE, seed, scale=19.6, lr=3e-3, batch_size=512, epochs=120, **shape)


def vector_quantize(embeddings_NE: np.ndarray, seed: int) -> Result:
    """ResidualVQ (EMA, k-means start, dead codes replaced) on the embeddings themselves: 40 passes in batches of 512."""
    import torch
    from vector_quantize_pytorch import ResidualVQ

    torch.manual_seed(seed)
    model = ResidualVQ(dim=embeddings_NE.shape[1], num_quantizers=LEVELS, codebook_size=SIZE, kmeans_init=True, kmeans_iters=25, decay=0.97)
    vectors = torch.from_numpy(embeddings_NE)
    model.train()
    with torch.no_grad():
        # Its k-means start takes the first batch alone; all items, so that it starts from as much as the others.
        model(vectors[None])
        for _ in range(40):
            for rows in torch.split(torch.randperm(len(vectors)), 512):
                model(vectors[rows][None])
        model.eval()
        codes_NL = model(vectors[None])[1][0].numpy()
    return codes_NL, None, lambda codes: model.get_output_from_indices(torch.from_numpy(codes)[None])[0].detach().numpy()


ARMS: dict[str, tuple[Callable[[np.ndarray, int], Result], str]] = {
    "our_rqkmeans": (our_rqkmeans, "**this project, RQ-k-means** (10 rounds of refinement, beam 8, optimal last level)"),
    "semantic_id_rqkmeans": (semantic_id_rqkmeans, "semantic-id 0.2.5, RQKMeans, as it comes"),
    "vector_quantize": (vector_quantize, "vector-quantize-pytorch 1.32, ResidualVQ with EMA"),
    "our_rqvae": (our_rqvae, "**this project, RQ-VAE**, 16 latent dimensions (EMA, k-means++ start, optimal last level)"),
    "semantic_id_rqvae_tuned": (
        semantic_id_rqvae_tuned,
        "semantic-id 0.2.5, RQVAE, tuned: scaled input, 16 latent dimensions, k-means start, 120 epochs",
    ),
    "our_rqvae_64": (our_rqvae_64, "**this project, RQ-VAE**, 64 latent dimensions"),
    "semantic_id_rqvae": (semantic_id_rqvae, "semantic-id 0.2.5, RQVAE, as it comes (64 latent dimensions)"),
}


def measure_arm(name: str, project: Path, seed: int) -> dict[str, Any]:
    """One arm in this process."""
    from stages.shared.core.run import set_threads
    from stages.tokenize import measure

    import torch  # isort: skip

    set_threads(2)
    torch.set_num_threads(2)
    embeddings_NE, items, _ = load(project)
    start = time.perf_counter()
    nearest_NL, unique_NL, decode = ARMS[name][0](embeddings_NE, seed)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    purity = measure.prefix_purity(nearest_NL, measure.category_labels(items["categories"]), seed)
    near = measure.neighbour_overlap(embeddings_NE, nearest_NL, seed)
    variance = measure.variance(embeddings_NE)

    def error(codes_NL: np.ndarray | None) -> float | None:
        return None if codes_NL is None else float(np.square(decode(codes_NL) - embeddings_NE).mean(dtype=np.float64)) / variance

    return {
        "seconds": seconds,
        "peak_mib": peak,
        "unique_nearest": measure.uniqueness(nearest_NL),
        "unique_after": None if unique_NL is None else measure.uniqueness(unique_NL),
        "error_nearest": error(nearest_NL),
        "error_after": error(unique_NL),
        "usage": min(measure.codebook_use(nearest_NL, SIZE)["usage"]),
        "purity1": purity["purity"][0],
        "purity2": purity["purity"][1],
        "purity2_chance": purity["shuffled"][1],
        "near1": near["near"][0],
        "near2": near["near"][1],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, default=Path(".bench"))
    parser.add_argument("--peers", type=Path, default=Path(".bench/peers"), help="where the two packages were installed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    parser.add_argument("--arm", choices=list(ARMS), help="measure one arm in this process and print its numbers")
    parser.add_argument("--out", type=Path, default=ROOT / "bench/results/tokenizers.md")
    options = parser.parse_args()
    project = prepare(options.data, options.scratch)
    sys.path.append(str(options.peers.resolve()))  # after the environment's own packages
    if options.arm:
        print(json.dumps(measure_arm(options.arm, project, options.seeds[0])))
        return
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ARMS}
    for seed in options.seeds:  # seeds outside, so that a slow minute of the machine does not fall on one arm
        for name in ARMS:
            command = [sys.executable, __file__, "--data", str(options.data), "--scratch", str(options.scratch)]
            command += ["--peers", str(options.peers), "--arm", name, "--seeds", str(seed)]
            environment = {**os.environ, "OMP_NUM_THREADS": "2"}
            done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            rows[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(seed, name, rows[name][-1], flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(report(name_of(options.data), len(load(project)[0]), rows, options.seeds), encoding="utf-8")
    print(options.out.read_text(encoding="utf-8"))


def report(data_set: str, items: int, rows: dict[str, list[dict[str, Any]]], seeds: list[int]) -> str:
    lines = [
        f"# Tokenizers side by side on {data_set}",
        "",
        f"`python bench/tokenizer_packages.py --data FOLDER`: {items:,} items, 4 x 256 codes, seeds {seeds}, two threads, one process",
        "an arm;",
        "mean ± standard deviation over seeds, seconds: median (least to most). Unique within four codes: before and after the",
        "method's own way of",
        "making codes unique (-: it has none but a fifth code). Error: mean squared reconstruction error / variance of the",
        "embeddings. Purity: share",
        "of items of the commonest category path under their prefix (in brackets: categories shuffled; adjusted: (purity -",
        "chance) / (1 - chance), since small",
        "groups are pure by chance). Neighbours: share of the ten nearest items that share the first code, the first two codes.",
        "",
        "| tokenizer | unique, nearest | unique, after | error, nearest | error, after | least used level | purity 1 | purity 2 "
        "(chance) | adjusted "
        "| neighbours 1 | neighbours 2 | s | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, runs in rows.items():
        cells = [
            spread(runs, "unique_nearest", 100, 2, " %"),
            spread(runs, "unique_after", 100, 2, " %"),
            spread(runs, "error_nearest", 1, 3),
            spread(runs, "error_after", 1, 3),
            spread(runs, "usage", 100, 1, " %"),
            spread(runs, "purity1", 1, 3),
            f"{spread(runs, 'purity2', 1, 3)} ({mean(run['purity2_chance'] for run in runs):.3f})",
            spread([{"adjusted": adjusted(run)} for run in runs], "adjusted", 1, 3),
            spread(runs, "near1", 1, 3),
            spread(runs, "near2", 1, 3),
            middle([run["seconds"] for run in runs]),
            f"{max(run['peak_mib'] for run in runs):.0f}",
        ]
        lines.append(f"| {ARMS[name][1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def adjusted(run: dict[str, Any]) -> float:
    return (run["purity2"] - run["purity2_chance"]) / (1 - run["purity2_chance"])


def middle(seconds: list[float]) -> str:
    return f"{median(seconds):.0f} ({min(seconds):.0f} to {max(seconds):.0f})"


def spread(runs: list[dict[str, Any]], key: str, scale: float, digits: int, unit: str = "") -> str:
    values = [run[key] for run in runs]
    if None in values:
        return "-"
    values = [scale * value for value in values]
    deviation = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{deviation}{unit}"


if __name__ == "__main__":
    main()
