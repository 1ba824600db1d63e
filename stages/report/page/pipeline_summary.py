"""The pipeline's own figures for the report, out of the stages' metrics.json."""

from typing import Any

from stages.shared.core.outputs import DATA, read_json

Figures = dict[str, dict[str, float | str]]


def pipeline_figures() -> Figures:
    ingest, tokenize, retrieve, midtrain, traces, sft, distil, rl, quantize = (
        read_json(DATA / stage / "metrics.json")
        for stage in ("ingest", "tokenize", "retrieve", "midtrain", "traces", "sft", "distil", "rl", "quantize")
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
            # The worst level, not the mean: one collapsed codebook halves the room of all SIDs.
            "least used level": percent(min(tokenize["usage"])),
            "reconstruction error": tokenize["reconstruction_error"],
        },
        "Slates": {f"{split}: hold the target": f"{counts['with_target']:,} of {counts['slates']:,}" for split, counts in slates.items()},
        "Language model": {
            "parameters": midtrain["parameters"],
            "vocabulary": midtrain["vocabulary"],
            "mid-training loss, last": midtrain["loss"]["last"],
            "next item among ten of the catalogue": _next_item(midtrain["probes"]),
            "made-up slates: features restated right": percent(midtrain["probes"]["quoting"]),
            "made-up lists: answer tokens right": percent(midtrain["probes"]["sorting"]),
        },
        "Teacher traces": {
            "slates labelled": sampling["labelled"],
            "accepted": percent(sampling["accepted_share"]),
            "a random guess would pass": percent(sampling["chance"]["blind_guess_verified_with_rule"]),
            "copying would pass": percent(sampling["chance"]["copying_incoming"]),
        },
        "Fine-tuning": {
            "steps": sft["steps"],
            **{f"tokens of {kind}": tokens for kind, tokens in sft["tokens"].items()},
            "loss, last": sft["loss"]["last"],
            **_validation(sft.get("validation")),
        },
        **({"Distillation": _distillation(distil)} if distil["mode"] != "none" else {}),
        "RL, first to last fifth": {
            name: f"{rl['first_fifth'][name]:.4f} to {rl['last_fifth'][name]:.4f}"
            for name in ("reward", "rank_reward", "valid", "identical")
        }
        | _rl_validation(rl.get("validation")),
        # Only plain figures: a scheme may add tables to its metrics, which have no place here.
        "Quantization": {name: value for name, value in quantize.items() if isinstance(value, int | float | str)},
    }


def _validation(span: dict[str, Any] | None) -> dict[str, float | str]:
    if not span:
        return {}
    shown: dict[str, float | str] = {"validation loss": span["best"], "best step": span["best_step"]}
    if ranking := span.get("ranking"):
        shown[f"validation NDCG@5 of {ranking['slates']} slates"] = f"{ranking['best']['ndcg@5']:.4f}"
        shown["valid answers there"] = percent(ranking["best"]["valid"])
    return shown


def _rl_validation(span: dict[str, Any] | None) -> dict[str, float | str]:
    if not span:
        return {}
    shown = f"{span['start']:.4f} to {span['best']:.4f} (step {span['best_step']})"
    return {f"validation reward of {span['slates']} slates, before to best": shown}


def _distillation(distil: dict[str, Any]) -> dict[str, float | str]:
    figures: dict[str, float | str] = {"mode": distil["mode"], "steps": distil["steps"], "loss, last": distil["loss"]["last"]}
    spans = {
        "divergence from the teacher": ("teacher_gap", "divergence"),
        "at once: rank correlation with the reasoning model": ("at_once", "kendall_tau"),
        "with thoughts: the same": ("with_thoughts", "kendall_tau"),
    }
    for name, (key, figure) in spans.items():
        if span := distil.get(key):
            figures[name] = f"{span['before'][figure]:.4f} to {span['after'][figure]:.4f}"
    return figures


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _next_item(probes: dict[str, Any]) -> str:
    probe = probes.get("next_item")
    return f"{percent(probe['recall@10'])} (chance {percent(probe['chance@10'])})" if probe else "not measured"
