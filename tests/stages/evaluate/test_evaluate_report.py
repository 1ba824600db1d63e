import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from report_data import made_up

from stages.evaluate.plots import fixed, signed
from stages.evaluate.report import Row, render, share, value, verdict
from stages.shared.errors import StageError


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
    for name, label in (("incoming", "Incoming order"), ("sft_no_reasoning", "SFT without reasoning"), ("quantized", "Quantized")):
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
    assert sum(tag == "svg" for tag, _ in elements.tags) == 7
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
    page = render(replace(data, curves={}, codebook_usage=[], examples=[], figures={}, lineage=[], audits={}, notes=[]))
    assert page.count("<svg") == 3
    assert "No dvc.lock" in page
    assert Elements(page).open == []


def test_a_curve_without_its_column_is_an_error(data):
    with pytest.raises(StageError, match=r"the rl curve has no column 'reward' \(found: step, mean\)"):
        render(replace(data, curves={"rl": [{"step": 1, "mean": 2}]}))


def test_a_curve_of_one_step_and_a_slate_of_two(data):
    assert "<svg" in render(replace(data, curves={"rl": [{"step": 1, "reward": 0.0}]}, rank_flow=[[1, 0], [0, 0]], codebook_usage=[[1, 0]]))


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.01, 0.03, "beats the incoming order at 95 %"),
        (-0.01, 0.03, "does not beat the incoming order"),
        (-0.03, -0.01, "is worse than the incoming order"),
        (0.0, 0.0, "does not beat the incoming order"),
    ],
)
def test_the_verdict_follows_the_interval(low, high, words):
    summary = {"users": 321, "models": {"incoming": entry(0.34, 0, 0), "rl": entry(0.36, low, high)}, "contrasts": {}}
    lines = verdict(summary)
    assert words in lines[0]
    assert "1,234 held-out slates of 321 users" in lines[0]
    assert f"[{signed(low)}, {signed(high)}]" in lines[0]
    assert any("LambdaMART was not measured" in line for line in lines)
    assert any("without reasoning was not measured" in line for line in lines)


def test_the_verdict_names_the_opponents_and_the_cheats():
    models = {name: entry(0.3, 0.01, 0.02) for name in ("incoming", "rl", "lambdamart", "sft", "sft_no_reasoning", "quantized")}
    models["rl"] |= {"identity_share": 0.97, "valid_share": 0.8}
    contrasts = {"rl-lambdamart": entry(0.3, -0.05, -0.01), "sft-sft_no_reasoning": entry(0.3, -0.01, 0.01)}
    text = "\n".join(verdict({"users": 9, "models": models, "contrasts": contrasts}))
    assert "RL is worse than LambdaMART: −0.030 [−0.050, −0.010]." in text
    assert "SFT cannot be told apart from SFT without reasoning: 0.000" in text
    assert "(Quantized) is above the incoming order" in text
    assert "repeats the incoming order on 97.0 %" in text
    assert "Only 80.0 % of its outputs are valid" in text
    assert "not measured" not in text


def test_numbers_are_written_without_false_exactness():
    assert [share(x) for x in (1.0, 0.9999, 0.5, 0.0001, 0.0)] == ["100 %", "> 99.9 %", "50.0 %", "< 0.1 %", "0 %"]
    assert [signed(x) for x in (0.0123, -0.0123, -0.0001, 0.0)] == ["+0.012", "−0.012", "0.000", "0.000"]
    assert [value(x) for x in (1682, 0.00317249, "int8", True)] == ["1,682", "0.003172", "int8", "True"]
