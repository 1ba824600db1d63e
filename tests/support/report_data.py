"""A made-up evaluation for the report's tests; `python tests/stages/evaluate/report_data.py PAGE.html` writes its page, to look at."""

import sys
from pathlib import Path

import numpy as np

from stages.report.diagnostics.audit import audit, identical_to_incoming
from stages.report.diagnostics.gain_by_rank import gains_by_incoming_rank
from stages.report.page.page import Example, ReportData, Row, render
from stages.report.page.provenance import Link
from stages.shared.stats.bootstrap import Bootstrap, summarise
from stages.shared.stats.metrics import ranks_of_targets

STRENGTH = {"incoming": 0.0, "lambdamart": 0.9, "sft": 0.55, "rl": 0.75, "quantized": 0.74, "random": 0.0}
TITLES = [
    "Toy Story",
    "GoldenEye",
    "Get Shorty",
    "Twelve Monkeys",
    "Babe",
    "Seven",
    "The Usual Suspects",
    "Braveheart",
    "Taxi Driver",
    "Star Wars: Episode V",
]


def behaviour_at(step: int) -> dict[str, float]:
    """Of a policy that takes to copying; a probe every 20 steps, a validation every 30."""
    copies = 0.05 + 0.6 * step / 120
    row = {"identical": copies, "as_shown": 0.02, "adjacent_swap": 0.2 * copies, "valid": 1 - 0.1 * np.exp(-step / 30)}
    row |= {"promotion": 0.6 - 0.5 * copies, "grounded": 1 - copies, "entropy": 0.1 + 0.5 * np.exp(-step / 40), "length": 140.0 - step / 10}
    probe = {"probe_first_shown": 0.1 + copies / 3} if step % 20 == 1 else {}
    return row | probe | ({"validation_reward": 0.25 - 0.2 * copies} if step % 30 == 0 else {})


def made_up(slates: int = 400, seed: int = 0, **changes: object) -> ReportData:
    """Models that lift the target by chance, more often the higher their STRENGTH."""
    rng = np.random.default_rng(seed)
    target_rank = np.minimum(rng.geometric(0.18, slates) - 1, 9)
    users = np.repeat(np.arange(slates // 4), 4)
    models, audits, flow = {}, {}, []
    for name, strength in STRENGTH.items():
        scores = -np.arange(10.0) + strength * rng.normal(0, 3, (slates, 10))
        scores[np.arange(slates), target_rank] += strength * 5
        if name == "random":
            scores = rng.random((slates, 10))
        orders = np.argsort(-scores, axis=1)
        rank = ranks_of_targets(orders, target_rank)
        kinds = ["" if name != "sft" or draw > 0.02 else "a candidate twice" for draw in rng.random(slates)]
        models[name] = {"rank": rank, "valid": np.array([not kind for kind in kinds]), "identical": identical_to_incoming(orders)}
        audits[name] = audit(orders, target_rank, rank, kinds)
        flow = audits["rl"]["rank_flow"] if "rl" in audits else flow
    contrasts = [("rl", "lambdamart"), ("rl", "sft"), ("quantized", "rl")]
    bootstrap = Bootstrap(users, 300, seed)
    shown = {name: models[name]["rank"] for name in ("lambdamart", "sft", "rl")}
    steps = np.arange(1, 121)
    fields = {
        "summary": summarise(models, bootstrap, contrasts),
        "curves": {
            "midtrain": [{"step": str(s), "loss": str(6 * np.exp(-s / 40) + 2 + rng.normal(0, 0.08))} for s in steps],
            "sft": [{"step": s, "loss": 3 * np.exp(-s / 30) + 0.9 + rng.normal(0, 0.05)} for s in steps],
            "rl": [{"step": s, "reward": 0.3 - 0.25 * np.exp(-s / 50) + rng.normal(0, 0.04)} | behaviour_at(int(s)) for s in steps],
        },
        "codebook_usage": [rng.poisson(26 * np.exp(-np.arange(64) / (12 + 20 * level))).tolist() for level in range(4)],
        "examples": [example(rng, group) for group in ("got worse", "improved", "improved")],
        "figures": {
            "Tokenizer": {"unique before assignment": 0.8133, "unique after": 1.0, "reconstruction error": 0.003172, "items": 1682},
            "Retriever": {"hit rate at 10, test": 0.2136, "random": 0.0059, "test slates": 11316},
            "Teacher traces": {"accepted": 0.412, "accepted by chance": 0.1, "accepted by copying": 0.139, "model": "lambdamart"},
            "Quantization": {"largest weight error": 0.00211, "size, MB": 4.2, "scheme": "int8, per channel"},
        },
        "lineage": [
            Link("ingest", [("data/ingest/items.parquet", "1f3a9c02"), ("data/ingest/interactions.parquet", "77aa01be")], {}),
            Link("retrieve", [("data/retrieve/slates.parquet", "c0ffee12")], {"retrieve": {"candidates": 10, "dim": 64}}),
            Link("rl", [("data/rl/model", "ab12cd34")], {}, broken=["data/retrieve/slates.parquet"]),
            Link("quantize", [("data/quantize/model", "00d1e2f3")], {}),
        ],
        "params": {"evaluate": {"resamples": 10_000, "seed": 7}, "rl": {"lr": 2e-5, "group": 8}},
        "rank_flow": flow,
        "seed": 7,
        "audits": audits,
        "gain_by_rank": gains_by_incoming_rank(shown, target_rank, 10, bootstrap),
        "entropy_fit": {"a": 0.35, "b": 0.69, "ceiling": 0.34, "explained": 0.9},
        "notes": ["An output that is not a permutation counts as the initial ranking."],
    }
    return ReportData(**(fields | changes))


def example(rng: np.random.Generator, group: str) -> Example:
    new = rng.permutation(10)
    rows = [
        Row(
            title,
            "Crime, Drama",
            rank,
            int(new[rank]),
            f"co-occurrence {rng.integers(9)}, genres {rng.integers(4)}, popularity {rng.integers(9)}",
            rank == 4,
        )
        for rank, title in enumerate(TITLES)
    ]
    reasoning = "<|sid_begin|><s_a_3><s_b_41><s_c_7><s_d_0><|sid_end|> co 6 genre 2: strong\n" * 4 + "order: 5 2 1 3 4 6 7 8 9 10"
    return Example([*TITLES[5:], "Fargo", "Contact"], rows, reasoning, valid=True, note="User 12, position 87.", group=group)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(made_up(2000)), encoding="utf-8")
