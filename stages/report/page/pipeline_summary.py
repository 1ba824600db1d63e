"""The pipeline's own figures for the report, out of the stages' metrics.json."""

from stages.shared.core.outputs import DATA, read_json

Figures = dict[str, dict[str, float | str]]


def pipeline_figures() -> Figures:
    ingest, tokenize, retrieve, midtrain, traces, sft, rl, quantize = (
        read_json(DATA / stage / "metrics.json")
        for stage in ("ingest", "tokenize", "retrieve", "midtrain", "traces", "sft", "rl", "quantize")
    )
    slates = retrieve["slates"]
    sampling = traces["sampling"]
    return {
        "Data": {
            "source": ingest["raw"]["name"],
            "users": ingest["users"],
            "items": ingest["items"],
            "interactions": ingest["interactions"],
        },
        "Semantic IDs": {
            "unique before assignment": percent(tokenize["uniqueness"]["before"]),
            "unique after": percent(tokenize["uniqueness"]["after"]),
            "least used level": percent(min(tokenize["usage"])),
            "reconstruction error": tokenize["reconstruction_error"],
        },
        "Slates": {f"{split}: hold the target": f"{counts['with_target']:,} of {counts['slates']:,}" for split, counts in slates.items()},
        "Language model": {
            "parameters": midtrain["parameters"],
            "vocabulary": midtrain["vocabulary"],
            "mid-training loss, last": midtrain["loss"]["last"],
            "made-up slates: answer tokens right": percent(midtrain["skill_token_accuracy"]),
        },
        "Teacher traces": {
            "slates labelled": sampling["labelled"],
            "accepted": percent(sampling["accepted_share"]),
            "a random guess would pass": percent(sampling["chance"]["blind_guess_at_cap_with_rule"]),
            "copying would pass": percent(sampling["chance"]["copying_incoming"]),
        },
        "Fine-tuning": {
            name: f"{sft[name]['steps']:,} steps, {sft[name]['tokens']:,} tokens" for name in ("model", "no_reasoning") if name in sft
        },
        "RL, first to last fifth": {
            name: f"{rl['first_fifth'][name]:.4f} to {rl['last_fifth'][name]:.4f}"
            for name in ("reward", "rank_reward", "valid", "identical")
        },
        "Quantization": {name: value for name, value in quantize.items() if isinstance(value, int | float | str)},
    }


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"
