"""The beam over the SID trie against every item scored by itself."""

import numpy as np
import polars as pl
import pytest
import torch

from stages.retrieve.params import LanguageModelRetrieverParams, RetrieveParams
from stages.retrieve.retrievers.retriever import fit
from stages.shared.core.errors import StageError
from stages.shared.core.schemas import INTERACTIONS, SIDS, write_table
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.lm.sid_search import SidSearch
from stages.shared.slates.sids import SID_BEGIN, sid_text
from stages.shared.slates.trie import SidTrie
from tests.support.tiny_models import CODEBOOK, LEVELS, tiny_folder

ITEMS = 60
HISTORIES = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7], [], list(range(ITEMS - 4))]
TRAINING = pl.DataFrame(schema=INTERACTIONS)  # the language model reads none


def codes() -> np.ndarray:
    """Distinct SIDs that crowd in few prefixes, so that levels branch unlike."""
    rng = np.random.default_rng(0)
    rows = np.unique(np.minimum(rng.integers(0, CODEBOOK, (400, LEVELS)), rng.integers(0, CODEBOOK, (400, LEVELS))), axis=0)
    return rng.permutation(rows)[:ITEMS]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    folder = tiny_folder(tmp_path_factory.mktemp("model") / "data/midtrain/model")
    return folder, load_model(folder), load_tokenizer(folder)


def ranker(parts, beam: int, history: int = 6, batch_size: int = 3) -> SidSearch:
    _, model, tokenizer = parts
    return SidSearch(model, tokenizer, codes(), SidTrie.from_codes(codes(), CODEBOOK), beam, history, batch_size)


def prompt_text(history: list[int], told: int = 6) -> str:
    return "<|user|>history:" + "".join(sid_text(codes()[item].tolist()) for item in history[-told:]) + SID_BEGIN


@torch.no_grad()
def constrained_log_probability(parts, history: list[int], item: int) -> float:
    """One forward over the whole text; at each level p is made to sum to 1 over the codes with which some item goes on."""
    _, model, tokenizer = parts
    own, all_codes, total = codes()[item].tolist(), codes(), 0.0
    prompt = tokenizer(prompt_text(history), add_special_tokens=False)["input_ids"]
    tokens = [tokenizer.convert_tokens_to_ids(f"<s_{'abcd'[level]}_{code}>") for level, code in enumerate(own)]
    logits = model(torch.tensor([prompt + tokens])).logits[0].double()
    for level, code in enumerate(own):
        siblings = {int(row[level]) for row in all_codes if row[:level].tolist() == own[:level]}
        ids = {c: tokenizer.convert_tokens_to_ids(f"<s_{'abcd'[level]}_{c}>") for c in siblings}
        line = logits[len(prompt) + level - 1]
        total += float(line[ids[code]] - torch.logsumexp(line[list(ids.values())], 0))
    return total


def test_the_prompt_is_the_layout_of_a_sequence_document_and_the_beginning_of_one_more(parts):
    made = ranker(parts, 5)
    for history in HISTORIES:
        assert made.prompt(history) == parts[2](prompt_text(history), add_special_tokens=False)["input_ids"]


def test_a_beam_as_wide_as_the_catalogue_equals_brute_force(parts):
    found, scores = ranker(parts, ITEMS).top_k(HISTORIES, HISTORIES, 8)
    assert (found.dtype, scores.dtype, found.shape) == (np.int32, np.float32, (len(HISTORIES), 8))
    for row, history in enumerate(HISTORIES):
        wanted = {item: constrained_log_probability(parts, history, item) for item in range(ITEMS) if item not in history}
        order = sorted(wanted, key=lambda item: -wanted[item])[:8]
        assert found[row, : len(order)].tolist() == order
        assert scores[row, : len(order)].tolist() == pytest.approx([wanted[item] for item in order], abs=1e-3)
        assert np.isneginf(scores[row, len(order) :]).all(), "four items are left of the last history, not eight"


def test_probabilities_of_all_items_sum_to_one(parts):
    _, scores = ranker(parts, ITEMS).top_k([[3, 1], [7]], [[], []], ITEMS)
    assert np.exp(scores.astype(np.float64)).sum(axis=1) == pytest.approx([1, 1], abs=1e-4)


def test_a_narrow_beam_follows_the_likeliest_prefixes_of_each_level(parts):
    """Beam search by hand over Python tuples, prefix probabilities from the sums of whole SIDs."""
    history, beam = [3, 1, 4], 3
    log_p = {tuple(codes()[item].tolist()): constrained_log_probability(parts, history, item) for item in range(ITEMS)}
    alive = {()}
    for level in range(1, LEVELS):
        mass: dict[tuple, float] = {}
        for sid, value in log_p.items():
            if sid[: level - 1] in alive:
                mass[sid[:level]] = mass.get(sid[:level], 0.0) + np.exp(value)
        alive = set(sorted(mass, key=lambda prefix: -mass[prefix])[:beam])
    reached = sorted((value, sid) for sid, value in log_p.items() if sid[:-1] in alive)[::-1]
    found, scores = ranker(parts, beam).top_k([history], [[]], 6)
    filled = min(6, len(reached))
    assert [tuple(codes()[item].tolist()) for item in found[0, :filled]] == [sid for _, sid in reached[:filled]]
    assert np.isfinite(scores[0]).sum() == filled


def test_a_beam_whose_every_item_was_seen_leaves_places_empty(parts):
    """Beam 1 ends in one prefix; its items all seen, nothing is left, and the next best prefix was not followed."""
    made = ranker(parts, 1)
    first, _ = made.top_k([[3]], [[]], 1)
    prefix = codes()[first[0, 0], :-1]
    below = [item for item in range(ITEMS) if (codes()[item, :-1] == prefix).all()]
    _, scores = made.top_k([[3]], [below], 2)
    assert np.isneginf(scores).all()
    _, scores = ranker(parts, ITEMS).top_k([[3]], [below], 2)
    assert np.isfinite(scores).all()


def test_neighbours_in_the_batch_change_nothing(parts):
    together = ranker(parts, 10, batch_size=5).top_k(HISTORIES, HISTORIES, 3)
    alone = ranker(parts, 10, batch_size=1).top_k(HISTORIES, HISTORIES, 3)
    assert np.array_equal(together[0], alone[0]) and np.allclose(together[1], alone[1], atol=1e-4)


@pytest.fixture
def project(tmp_path, monkeypatch, parts):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/tokenize").mkdir(parents=True)
    (tmp_path / "data/midtrain").mkdir()
    (tmp_path / "data/midtrain/model").symlink_to(parts[0])
    rows = [(item, own, sid_text(own)) for item, own in enumerate(codes().tolist())]
    write_table(pl.DataFrame(rows, schema=SIDS, orient="row"), tmp_path / "data/tokenize/sids.parquet", SIDS)
    SidTrie.from_codes(codes(), CODEBOOK).save(tmp_path / "data/tokenize/trie.safetensors")
    return tmp_path


def params(**own) -> RetrieveParams:
    section = LanguageModelRetrieverParams(beam=ITEMS, history=6, batch_size=2).model_copy(update=own)
    return RetrieveParams(model="language_model", reads="data/midtrain/model", language_model=section, device="cpu")


def test_fit_loads_the_folder_and_saves_nothing(project, parts):
    made, _ = fit(params(), TRAINING, ITEMS, 0)
    items, scores = made.top_k(HISTORIES[:3], HISTORIES[:3], 5)
    wanted, wanted_scores = ranker(parts, ITEMS).top_k(HISTORIES[:3], HISTORIES[:3], 5)
    assert np.array_equal(items, wanted) and np.allclose(scores, wanted_scores, atol=1e-4)
    made.save(project / "weights")
    assert not (project / "weights").exists()


@pytest.mark.parametrize("change", [{"beam": 1}, {"history": 2}], ids=str)
def test_every_parameter_changes_the_scores(project, change):
    before, after = (fit(params(**own), TRAINING, ITEMS, 0)[0].top_k(HISTORIES[:3], [[]] * 3, 5)[1] for own in ({}, change))
    assert not np.allclose(before, after, atol=1e-3)


def test_what_is_missing_or_does_not_fit_is_named(project):
    with pytest.raises(StageError, match=r"data/tokenize: 60 SIDs and a trie of 60 for 61 items in .*; rerun: gr2 run tokenize"):
        fit(params(), TRAINING, ITEMS + 1, 0)
    with pytest.raises(
        StageError, match=r"a history of 100 items needs \d+ tokens and the model has 512 positions; .* retrieve\.language_model\.history"
    ):
        fit(params(history=100), TRAINING, ITEMS, 0)
    SidTrie.from_codes(codes(), 9).save(project / "data/tokenize/trie.safetensors")
    with pytest.raises(StageError, match=r"data/midtrain/model: its vocabulary lacks <s_a_8>.*; rerun: gr2 run midtrain"):
        fit(params(), TRAINING, ITEMS, 0)
    SidTrie.from_codes((codes() + 1) % CODEBOOK, CODEBOOK).save(project / "data/tokenize/trie.safetensors")
    with pytest.raises(StageError, match=r"sids\.parquet: the SID of item \d+ is not in trie\.safetensors"):
        fit(params(), TRAINING, ITEMS, 0)
    (project / "data/midtrain/model").unlink()
    with pytest.raises(StageError, match=r"data/midtrain/model: no such folder; run the stage that makes it: gr2 run midtrain"):
        fit(params(), TRAINING, ITEMS, 0)


@torch.no_grad()
def test_what_is_written_without_the_trie_is_the_likeliest_token_at_each_place(parts):
    _, model, tokenizer = parts
    expected = []
    for history in HISTORIES:
        ids = tokenizer(prompt_text(history).removesuffix(SID_BEGIN), add_special_tokens=False)["input_ids"]
        length = len(ids)
        for _ in range(LEVELS + 2):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        expected.append(ids[length:])
    search = ranker(parts, 5)
    prompts = [search.prompt(history)[:-1] for history in HISTORIES]
    assert search._greedy(prompts, LEVELS + 2).tolist() == expected


def test_a_free_sid_is_of_an_item_or_only_formed_or_none(parts, monkeypatch):
    tokenizer, search = parts[2], ranker(parts, 5)
    taken = {tuple(row) for row in codes().tolist()}
    free = next(row for row in ([a, b, 0, 0] for a in range(CODEBOOK) for b in range(CODEBOOK)) if tuple(row) not in taken)
    texts = [
        sid_text(codes()[7].tolist()),
        sid_text(free),
        sid_text([1, 2, 3]) + "<|sid_end|>",
        "<s_b_0>" * (LEVELS + 2),
        sid_text(codes()[0].tolist()),
    ]
    rows = np.array([tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts])
    # Two batches: the rows of the second one follow those of the first.
    batches = iter([rows[:3], rows[3:]])
    monkeypatch.setattr(search, "_greedy", lambda prompts, length: next(batches))
    assert search.free([[1]] * 5).tolist() == [7, -1, -2, -2, 0]
