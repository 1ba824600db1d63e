"""What changed its name in data/ from 0.1.0 (commit 6472c40) to 0.2.0, for bench/compare_data.py."""

from compare_data import Renames

RENAMES = Renames(
    moved=(
        ("prerank/evidence.parquet", "retrieve/candidate_features.parquet"),
        ("prerank/", "retrieve/"),
        ("evaluate/metrics.json", "report/metrics.json"),
        ("evaluate/headline.json", "report/headline.json"),
        ("evaluate/report.html", "report/report.html"),
        ("evaluate/plots/", "report/plots/"),
    ),
    columns={
        "retrieve/candidate_features.parquet": {f"{name}_level": f"{name}_bin" for name in ("co", "tr", "ca", "po", "re", "sc")},
        "retrieve/slates.parquet": {"mark": "provenance"},
        "traces/traces.parquet": {"strengths": "relevances"},
        "report/plots/gain_by_incoming_rank.csv": {
            f"{name}_{old}": f"{name}_{new}"
            for name in ("gain", "ndcg")
            for old, new in {"least": "lower", "most": "upper", "blind": "random"}.items()
        },
    },
    values={
        ("ingest/interactions.parquet", "split"): {"slates": "train"},
    },
    keys={
        "ingest/metrics.json": {"slates": "train"},
        "embed/metrics.json": {"slates": "train"},
        "tokenize/metrics.json": {"spilled": "overflowed"},
        "traces/metrics.json": {"by_block": "by_fold", "block": "fold"},
        "report/metrics.json": {"unguided": "unconstrained", "evidence": "candidate_features"},
    },
    words={
        "ingest/card.md": {"slates": "train"},
    },
    rows={
        "evaluate/outputs.parquet": {"kind": "greedy"},  # 0.1.0 kept no others
    },
    added_columns={
        "evaluate/outputs.parquet": ("kind", "sample", "shown", "reasoning_tokens", "answer_tokens"),
    },
    exceptions={
        "raw/*": "new: the stage fetch writes the raw files here; 0.1.0 read them outside data/",
        "evaluate/metrics.json": "new and small; the full metrics.json is in data/report",
        "report/report.html": "the page names stages, files, parameters and hashes, and these have new names",
    },
)
