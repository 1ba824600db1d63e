import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from markupsafe import escape

from stages.report.diagnostics.audit import lengths
from stages.report.page.audit_table import COLUMNS, audit_details, audit_rows
from stages.report.page.page import Row, render, value, verdict
from stages.report.page.plots import forest, recall_bars
from stages.report.page.sections import control_notices
from stages.report.page.svg import fixed, share, signed
from stages.shared.core.errors import StageError
from tests.support.report_data import made_up


@pytest.fixture(scope="module")
def data():
    return made_up()


@pytest.fixture(scope="module")
def page(data):
    return render(data)


class Elements(HTMLParser):
    """Tags with their attributes, the table cells by row, and whether every element closes."""

    VOID = ("meta", "br")

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def entry(mean, low, high, **more):
    metric = {"mean": mean, "diff": (low + high) / 2, "diff_ci": [low, high]}
    return {"n": 1234, "ndcg@5": metric, "valid_share": 1.0, "identity_share": 0.1} | more


def test_the_table_holds_every_number_of_every_model(data, page):
    rows = {row[0]: row[1:] for row in Elements(page).rows[:8]}
    for name, label in (("incoming", "Initial ranking"), ("sft", "SFT"), ("quantized", "Quantized")):
        model = data.summary["models"][name]
        for cell, metric in zip(rows[label], ("ndcg@5", "recall@1", "recall@3", "recall@5", "mrr"), strict=False):
            assert fixed(model[metric]["mean"]) in cell
            if name != "incoming":
                low, high = model[metric]["diff_ci"]
                assert f"{signed(model[metric]['diff'])}[{signed(low)}, {signed(high)}]" in cell
        assert [rows[label][5].strip(), rows[label][6].strip()] == [share(model["valid_share"]), share(model["identity_share"])]


def test_the_page_is_well_formed_and_loads_nothing(page):
    elements = Elements(page)
    assert elements.open == []
    assert not re.search(r"(https?:)?//[\w.]|url\((?!#)|@import", page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in elements.tags}
    for _, attributes in elements.tags:
        assert all(target.startswith("#") for name, target in attributes.items() if name in ("src", "href", "xlink:href"))
    assert sum(tag == "svg" for tag, _ in elements.tags) == 10
    assert not re.search(r"#0102\w\w|\bnan\b|None|Undefined", page)  # no colour left unnamed, no hole in the data


def test_references_inside_the_plots_find_their_target(page):
    ids = {attributes["id"] for _, attributes in Elements(page).tags if "id" in attributes}
    assert set(re.findall(r"url\(#([\w-]+)\)", page)) | set(re.findall(r'href="#([\w-]+)"', page)) <= ids


def test_text_from_outside_is_escaped(data):
    nasty = "<script>alert(1)</script>"
    row = Row(nasty, nasty, 0, 1, f'"{nasty}', True)
    example = replace(data.examples[0], history=[nasty], rows=[row], reasoning=f"</pre>{nasty}", note=nasty)
    page = render(replace(data, examples=[example], figures={nasty: {nasty: nasty}}, params={nasty: nasty}, notes=[nasty]))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 9
    assert Elements(page).open == []


def test_equal_data_gives_equal_bytes(page):
    assert render(made_up()) == page


def test_the_examples_show_what_the_model_wrote_and_where_the_target_went(page):
    assert "&lt;|sid_begin|&gt;&lt;s_a_3&gt;" in page
    assert '<tr class="target">' in page
    assert "invalid output" not in page


def test_parts_that_are_missing_are_left_out_or_said_to_be(data):
    page = render(replace(data, curves={}, codebook_usage=[], examples=[], figures={}, lineage=[], audits={}, notes=[], gain_by_rank={}))
    assert page.count("<svg") == 3
    assert "Nothing is recorded of the stages before" in page
    for heading in ("Who pays", "Asked more than once", "How the models behave", "Example slates", "control run"):
        assert heading not in page
    assert Elements(page).open == []


def test_a_curve_without_its_column_is_an_error(data):
    with pytest.raises(StageError, match=r"the rl curve has no column 'reward' \(found: step, mean\)"):
        render(replace(data, curves={"rl": [{"step": 1, "mean": 2}]}))


def test_a_curve_of_one_step_and_a_slate_of_two(data):
    assert "<svg" in render(replace(data, curves={"rl": [{"step": 1, "reward": 0.0}]}, rank_flow=[[1, 0], [0, 0]], codebook_usage=[[1, 0]]))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.03, "beats the initial ranking at 95 %"),
        (-0.01, 0.03, "does not beat the initial ranking"),
        (-0.03, -0.01, "is worse than the initial ranking"),
        (0.0, 0.0, "does not beat the initial ranking"),
    ],
)
def test_the_verdict_follows_the_interval(low, high, words):
    summary = {"users": 321, "models": {"incoming": entry(0.34, 0, 0), "rl": entry(0.36, low, high)}, "contrasts": {}}
    lines = verdict(summary)
    assert words in lines[0]
    assert "1,234 held-out slates of 321 users" in lines[0]
    assert f"[{signed(low)}, {signed(high)}]" in lines[0]
    assert any("LambdaMART was not measured" in line for line in lines)


def test_the_verdict_names_the_opponents_and_the_cheats():
    models = {name: entry(0.3, 0.01, 0.02) for name in ("incoming", "rl", "lambdamart", "sft", "quantized")}
    models["rl"] |= {"identity_share": 0.97, "valid_share": 0.8}
    contrasts = {"rl-lambdamart": entry(0.3, -0.05, -0.01), "sft-lambdamart": entry(0.3, -0.01, 0.01)}
    text = "\n".join(verdict({"users": 9, "models": models, "contrasts": contrasts}))
    assert "RL is worse than LambdaMART: −0.030 [−0.050, −0.010]." in text
    assert "SFT cannot be told apart from LambdaMART: 0.000" in text
    assert "(Quantized) is above the initial ranking" in text
    assert "repeats the initial ranking on 97.0 %" in text
    assert "Only 80.0 % of the outputs of RL are valid" in text
    assert "not measured" not in text


def test_numbers_are_written_without_false_exactness():
    assert [share(x) for x in (1.0, 0.9999, 0.5, 0.0001, 0.0)] == ["100 %", "> 99.9 %", "50.0 %", "< 0.1 %", "0 %"]
    assert [signed(x) for x in (0.0123, -0.0123, -0.0001, 0.0)] == ["+0.012", "−0.012", "0.000", "0.000"]
    assert [value(x) for x in (1682, 0.00317249, "int8", True)] == ["1,682", "0.003172", "int8", "True"]


def test_the_oracle_stands_in_the_table_and_in_no_bars(data):
    models = data.summary["models"] | {"oracle": data.summary["models"]["rl"]}
    assert any(row[0] == "Oracle" for row in Elements(render(replace(data, summary=data.summary | {"models": models}))).rows)
    assert "Oracle" not in forest(models) + recall_bars(models, 10)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"rl": {"reward": "random"}}, ["must show no gain of RL over SFT. It shows none."]),
        ({"retrieve": {"labels": "permuted"}}, ["must show no gain over the initial ranking. It shows one: find out why"]),
        ({"rl": {"reward": "random"}, "retrieve": {"labels": "permuted"}}, ["of RL over SFT", "over the initial ranking"]),
        ({"rl": {"reward": "conditional"}, "retrieve": {"labels": "true"}}, []),
        ({}, []),
    ],
)
def test_a_control_run_says_so_first_and_whether_it_shows_a_gain(data, params, said):
    summary = {"models": {"rl": entry(0.4, 0.01, 0.02)}, "contrasts": {"rl-sft": entry(0.4, -0.01, 0.01)}}
    notices = control_notices(params, summary, "rl", "ndcg@5")
    assert len(notices) == len(said)
    for notice, words in zip(notices, said, strict=True):
        assert notice.startswith("This is a control run: ") and words in notice
    page = render(replace(data, params=params))
    assert page.count("This is a control run") == len(said)
    assert not said or page.index("This is a control run") < page.index("at 95 % confidence")


def test_a_control_whose_contrast_was_not_measured_says_that():
    summary = {"models": {"rl": entry(0.4, 0, 0)}, "contrasts": {}}
    assert "not measured here" in control_notices({"rl": {"reward": "random"}}, summary, "rl", "ndcg@5")[0]


def audited(**more):
    quiet = {
        "valid_share": 1.0,
        "identity_share": 0.0,
        "adjacent_swap_share": 0.0,
        "reversed_share": 0.0,
        "commonest_order_share": 0.01,
        "invalid": {},
    }
    return quiet | more


@pytest.mark.parametrize(
    ("found", "column", "alarm"),
    [
        ({"identity_share": 0.6}, "Same as initial", "copies"),
        ({"identity_share": 0.3, "adjacent_swap_share": 0.3}, "One swap", "hardly moves"),
        ({"reversed_share": 0.5}, "Reversed", "reverses"),
        ({"commonest_order_share": 0.9}, "Commonest order", "one answer for all"),
        ({"first_from": {"commonest": 2, "commonest_share": 0.95}}, "Puts first", "always that one"),
        ({"position_bias": {"first_changed_share": 0.7}}, "First changed", "unstable"),
        ({"position_bias": {"slope": 0.9, "position_share": 0.8}}, "Position slope", "by position"),
        ({"valid_share": 0.9}, "Invalid", "often invalid"),
        (
            {"contradictions": {"any_share": 0.2, "kinds": {"misquotes": {"n": 5, "share": 0.2}}}},
            "Contradictory",
            "contradicts itself",
        ),
        ({"lengths": {"reasoning": lengths([30, 30], [10, 10])}}, "Reasoning tokens", "drifts"),
        ({"lengths": {"answer": lengths([10, 30])}}, "Answer tokens", ""),
        ({"kendall_tau": 0.123}, "Kendall's tau", ""),
    ],
)
def test_what_is_alarming_is_marked_in_its_column_and_there_alone(found, column, alarm):
    cells = dict(zip(COLUMNS, audit_rows({"rl": audited(**found)}, {})["rl"], strict=True))
    assert cells[column].text != "–"
    assert {head: cell.alarm for head, cell in cells.items() if cell.alarm} == ({column: alarm} if alarm else {})


def test_a_model_that_needs_constraints_is_marked(data):
    free = {"rl": {"n": 300, "valid_share": 0.03, "invalid": {"duplicate": 0.9, "missing": 0.07}}}
    cells = dict(zip(COLUMNS, audit_rows({"rl": audited()}, free)["rl"], strict=True))
    assert (cells["Invalid, free"].text, cells["Invalid, free"].alarm) == ("97.0 %", "needs constraints")
    assert audit_details(audited(), free["rl"]) == {"Invalid outputs without constraints": ["duplicate: 90.0 %", "missing: 7.0 %"]}
    page = render(replace(data, summary=data.summary | {"unconstrained": free, "suspicions": {"rl": ["does <this>"]}}))
    assert "needs constraints" in page and "does &lt;this&gt;." in page
    assert "RL: 1 thing to know" in page
    assert Elements(page).open == []


def test_every_column_of_the_audit_is_explained(page):
    table = page.split('<table id="audit">')[1]
    for head, meaning in COLUMNS.items():
        assert table.count(f'<th scope="col">{escape(head)}</th>') == 1
        assert escape(meaning) in table


def test_examples_stand_in_groups_the_improved_before_the_worse(page):
    places = [page.index(heading) for heading in ("Improved: the target went up", "Got worse: the target went down")]
    assert places == sorted(places)
    assert page.count('<article class="card example">') == 3
    assert page[places[0] : places[1]].count("<article") == 2
    assert "Invalid output</h3>" not in page


def test_repeats_show_the_worst_the_mean_and_the_best(data):
    def at(mean):
        return {"mean": mean, "diff": mean - 0.3, "diff_ci": [mean - 0.32, mean - 0.28]}

    envelope = {"repeats": 4, "pessimistic": at(0.21), "mean": at(0.34), "optimistic": at(0.47)}
    repeats = {"n": 100, "temperature": 0.7, "models": {"rl": {"ndcg@5": envelope}, "sft": {"ndcg@5": envelope | {"greedy": at(0.35)}}}}
    rows = {row[0]: row[1:] for row in Elements(render(replace(data, summary=data.summary | {"repeats": repeats}))).rows if len(row) == 5}
    greedy = data.summary["models"]["rl"]["ndcg@5"]["mean"]
    for name, wanted in (("RL", [fixed(greedy), "0.210", "0.340", "0.470"]), ("SFT", ["0.350", "0.210", "0.340", "0.470"])):
        cells = rows[f"{name}4 answers a slate"]
        assert [cell[:5] for cell in cells] == wanted
    assert "[+0.150, +0.190]" in rows["RL4 answers a slate"][3]


def test_slices_fold_by_kind_and_tell_closed_how_many_lie_clear(data):
    def part(name, low, high):
        return {"slice": name, "n": 70, "users": 9, "ndcg@5": {"mean": 0.3, "diff": 0.0, "diff_ci": [low, high]}}

    alone = {"slice": "other", "n": 70, "users": 1, "ndcg@5": {"mean": 0.3, "diff": 0.0, "diff_ci": None}}
    kinds = {"history_length": [part("5-9", 0.1, 0.2), part("10+", -0.2, -0.1), alone], "category": [part("<b>", -1, 1)]}
    page = render(replace(data, summary=data.summary | {"slices": kinds}))
    assert "<summary>History length: 3 parts, 1 clear above zero, 1 below</summary>" in page
    assert "<summary>Category: 1 part, 0 clear above zero, 0 below</summary>" in page
    assert "&lt;b&gt;" in page and "<b>" not in page.split("by parts of the slates")[1].split("</table>")[1]
    assert Elements(page).open == []


def test_the_page_stays_small(page):
    assert len(page.encode()) < 1_500_000
