"""A whole run through the command line, and what a second one does after each kind of change."""

import json
import re

import polars as pl
import pytest

from tests.support import project_clone
from tests.support.project_clone import STAGES, SmokeRun, contents, gr2, metrics, planned, restored, set_params, states

pytestmark = pytest.mark.slow

MODELS = {"incoming", "popularity", "last_item", "lambdamart", "fusion", "oracle", "sft", "rl", "quantized"}
RANKING = {"recall@1", "recall@3", "recall@5", "ndcg@5", "mrr"}
MADE_OF_INTERVALS = {  # of the outputs of report
    f"report/{name}" for name in ("metrics.json", "headline.json", "report.html", "plots/metrics.csv", "plots/gain_by_incoming_rank.csv")
}


def all_in(state: str) -> dict[str, str]:
    return dict.fromkeys(STAGES, state)


def test_every_stage_completes(smoke: SmokeRun) -> None:
    assert smoke.states == all_in("Completed")
    assert {path.parent.name for path in (smoke.root / "data").glob("*/metrics.json")} == set(STAGES) - {"fetch"}
    assert not list((smoke.root / "data").glob(".*")), "something half written is left"


def test_fixed_metrics_of_tokenize(smoke: SmokeRun) -> None:
    found = metrics(smoke.root, "tokenize")
    assert 0 <= found["uniqueness"]["before"] <= found["uniqueness"]["after"] <= 1
    assert found["uniqueness"]["after"] >= 0.99
    assert len(found["usage"]) == 4 and all(0 < share <= 1 for share in found["usage"])
    assert found["reconstruction_error"] > 0


def test_fixed_metrics_of_the_report(smoke: SmokeRun) -> None:
    found = metrics(smoke.root, "report")
    assert set(found["models"]) >= MODELS
    for own in [*found["models"].values(), *found["contrasts"].values()]:
        for name in RANKING:
            low, high = own[name]["diff_ci"]
            assert low <= own[name]["diff"] <= high
    for name, own in found["models"].items():
        assert own["n"] == 40
        assert 0 <= own["identity_share"] <= own["valid_share"] <= 1
        for metric in RANKING:
            difference = own[metric]["mean"] - found["models"]["incoming"][metric]["mean"]
            assert own[metric]["diff"] == pytest.approx(difference, abs=1e-9), (name, metric)
    assert found["models"]["incoming"]["identity_share"] == found["models"]["incoming"]["valid_share"] == 1


def test_metrics_follow_from_the_recorded_outputs(smoke: SmokeRun) -> None:
    """Counted anew from outputs.parquet: every model answered the same slates, and the means are theirs."""
    table = pl.read_parquet(smoke.root / "data/evaluate/outputs.parquet").filter(pl.col("kind") == "greedy")
    found = metrics(smoke.root, "report")["models"]
    slates = table.filter(pl.col("model") == "incoming")["slate"].to_list()
    for name in MODELS:
        own = table.filter(pl.col("model") == name)
        assert own["slate"].to_list() == slates
        assert found[name]["recall@3"]["mean"] == pytest.approx((own["new_rank"] < 3).mean())
        assert found[name]["mrr"]["mean"] == pytest.approx((1 / (own["new_rank"] + 1)).mean())
        assert found[name]["valid_share"] == pytest.approx((own["fault"] == "").mean())


@pytest.mark.parametrize("name", ["retrieve", "midtrain", "traces", "sft", "rl"])
def test_nothing_held_out_was_learnt_from(smoke: SmokeRun, name: str) -> None:
    check = metrics(smoke.root, name)["leak_check"]
    assert check["overlap"] == 0
    assert check["pairs_seen"] > 0 and check["pairs_held_out"] > 0, "a check of nothing"


def test_nothing_tested_before_training_ends(smoke: SmokeRun) -> None:
    check = metrics(smoke.root, "evaluate")["leak_check"]["test_is_later"]
    assert (check["before_training_end"], check["target_in_history"]) == (0, 0) and check["test_slates"] > 0


def test_training_changed_the_models(smoke: SmokeRun) -> None:
    """A smoke run learns little, but every stage that trains must leave other weights than it found."""
    weights = {
        name: (smoke.root / "data" / name / "model.safetensors").read_bytes() for name in ("midtrain/model", "sft/model", "rl/model")
    }
    assert len(set(weights.values())) == 3
    assert metrics(smoke.root, "rl")["first_fifth"]["kept"] > 0


def test_report_stands_alone_and_names_the_models(smoke: SmokeRun) -> None:
    page = (smoke.root / "data/report/report.html").read_text(encoding="utf-8")
    assert not re.findall(r"<script|<link|<iframe|@import|https?://(?!www\.w3\.org/)", page)
    elsewhere = [target for target in re.findall(r"""(?:src|href)=["']([^"']*)""", page) if not target.startswith(("#", "data:"))]
    assert not elsewhere
    for name in ("Initial ranking", "LambdaMART", "SFT", "RL", "Quantized"):
        assert name in page
    assert page.count("<svg") >= 5
    assert "recbole-1.2.1" in page


def test_second_run_does_nothing(smoke: SmokeRun) -> None:
    before = contents(smoke.root / "data"), (smoke.root / "dvc.lock").read_bytes()
    assert states(gr2(smoke.root, "run")) == all_in("Cached")
    assert (contents(smoke.root / "data"), (smoke.root / "dvc.lock").read_bytes()) == before


def test_plan_names_what_changed(smoke: SmokeRun) -> None:
    root, params = smoke.root, smoke.root / "params.yaml"
    assert planned(root) == {}
    with restored(params):
        set_params(root, report={"resamples": 300})
        plan = planned(root)
        assert list(plan) == ["report"]
        assert [(cause["key"], cause["detail"]) for cause in plan["report"]] == [("report.resamples", "200 -> 300")]
    with restored(params):
        set_params(root, resources={"rl": {"cpus": 1}})
        assert planned(root) == {}
    template = root / "stages/report/page/template.html.j2"
    with restored(template):
        template.write_text(template.read_text(encoding="utf-8") + "<!-- a remark -->\n", encoding="utf-8")
        assert list(planned(root)) == ["report"]
    with restored(params):
        set_params(root, rl={"alpha": 0.4})
        plan = planned(root)
        assert set(plan) == {"rl", "quantize", "evaluate", "report"}
        assert [(cause["kind"], cause["key"]) for cause in plan["rl"]] == [("param", "rl.alpha")]
        assert [(cause["kind"], cause["key"]) for cause in plan["quantize"]] == [("upstream", "rl")]
        assert {(cause["kind"], cause["key"]) for cause in plan["evaluate"]} == {("upstream", "rl"), ("upstream", "quantize")}
    code = root / "stages/tokenize/quantizers/codebook.py"
    with restored(code):
        code.write_text(code.read_text(encoding="utf-8") + "# a remark\n", encoding="utf-8")
        plan = planned(root)
        assert [(cause["kind"], cause["path"]) for cause in plan["tokenize"]] == [("code", "stages/tokenize/quantizers/codebook.py")]
        assert not {"ingest", "embed", "retrieve"} & set(plan)
    assert planned(root) == {}


def test_a_parameter_of_the_report_reruns_only_it(smoke: SmokeRun) -> None:
    root = smoke.root
    before = contents(root / "data")
    with restored(root / "params.yaml"):
        set_params(root, report={"resamples": 300})
        assert states(gr2(root, "run")) == all_in("Cached") | {"report": "Completed"}
        after = contents(root / "data")
        assert {name for name in before if before[name] != after.get(name)} <= MADE_OF_INTERVALS
        assert metrics(root, "report")["bootstrap"]["resamples"] == 300
    assert states(gr2(root, "run")) == all_in("Cached"), "the earlier version should come back from the cache"
    assert contents(root / "data") == before


def test_a_failing_stage(smoke: SmokeRun) -> None:
    root = smoke.root
    before = contents(root / "data"), (root / "dvc.lock").read_bytes()
    with restored(root / "params.yaml"):
        set_params(root, rl={"max_tokens": 1000})
        result = gr2(root, "run", ok=False)
        assert result.returncode == 1
        assert states(result) == all_in("Cached") | {"rl": "Failed", "quantize": "Skipped", "evaluate": "Skipped", "report": "Skipped"}
        assert "max_tokens 1000 exceed the 1024 positions of the model" in result.stderr + result.stdout
        assert "Traceback" not in result.stdout + result.stderr
        assert (contents(root / "data"), (root / "dvc.lock").read_bytes()) == before
    assert planned(root) == {}, "the failure has left nothing to do again"


def test_a_misspelt_key_of_a_later_stage_is_told_before_anything_runs(smoke: SmokeRun) -> None:
    root = smoke.root
    before = contents(root / "data"), (root / "dvc.lock").read_bytes()
    with restored(root / "params.yaml"):
        set_params(root, rl={"alhpa": 0.3}, ingest={"min_rating": 1.0})
        result = gr2(root, "run", ok=False)
        assert result.returncode == 2
        assert "rl.alhpa: unknown key; did you mean 'alpha'?" in result.stderr
        assert (contents(root / "data"), (root / "dvc.lock").read_bytes()) == before


def test_lineage_reaches_the_raw_file(smoke: SmokeRun) -> None:
    chain = json.loads(gr2(smoke.root, "lineage", "data/quantize/model", "--json").stdout)
    assert chain["matches_lock"] and chain["hash"] == project_clone.output_hashes(smoke.root)["data/quantize/model"]
    assert chain["raw"]["name"] == "recbole-1.2.1-py3-none-any.whl" and re.fullmatch("[0-9a-f]{64}", chain["raw"]["sha256"])
    links = {link["name"]: link for link in chain["stages"]}
    # What lies behind the model: nothing was distilled, and nothing after it counts.
    assert set(links) == set(STAGES) - {"distil", "evaluate", "report"}
    made = {path: entry["hash"] for link in links.values() for path, entry in link["outputs"].items()}
    for link in links.values():
        assert link["code"] and link["params"] and link["run"]["revision"], link["name"]
        for path, entry in link["inputs"].items():
            assert made.get(path, entry["hash"]) == entry["hash"], f"{link['name']} read another {path} than was made"


def test_status(smoke: SmokeRun) -> None:
    rows = json.loads(gr2(smoke.root, "status", "--json").stdout)
    assert {row["name"]: row["status"] for row in rows} == all_in("current")
    ran = [row["last_run"] for row in rows if not row["last_run"]["state"].startswith("Restored")]
    assert ran and all(own["seconds"] > 0 for own in ran)
