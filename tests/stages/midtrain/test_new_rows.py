"""New tokens get new rows, of the checkpoint's words, of codebook vectors or at random, tied or not, wherever their ids fall."""

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from stages.midtrain.documents import caption
from stages.midtrain.new_rows import RIDGE, ItemCodes, ridge, start_rows
from stages.shared.core.errors import StageError
from stages.shared.lm.models import extend_vocabulary, load_tokenizer, resize_embeddings
from stages.shared.lm.packaged import packaged_model
from stages.shared.slates.sids import code_token
from stages.shared.slates.slate import Catalog
from tests.support.small_project import CATALOG, CODES
from tests.support.tiny_models import tiny_model

LEVELS, CODEBOOK, PADDING, MARK = 4, 9, 20, 77.0  # code 8 is carried by no item
NEVER_USED = code_token(1, 8)


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerBase:
    return load_tokenizer(packaged_model("smollm2-135m"))


@pytest.fixture
def codes(tmp_path) -> ItemCodes:
    """Code vectors from which a linear map leads to no word embeddings, of four dimensions."""
    books = np.random.default_rng(0).normal(size=(LEVELS, CODEBOOK, 4)).astype(np.float32)
    save_file({"codebooks": books}, tmp_path / "codebooks.safetensors")
    return ItemCodes(CATALOG, np.array(CODES), tmp_path / "codebooks.safetensors")


class Extended:
    """A random model with PADDING rows beyond its tokenizer, all MARK, before and after it got the tokens of SIDs."""

    def __init__(self, tied: bool, how: str, codes: ItemCodes, seed: int = 7):
        self.tokenizer = load_tokenizer(packaged_model("smollm2-135m"))
        self.known = len(self.tokenizer)
        self.model: PreTrainedModel = tiny_model(self.known + PADDING, tied=tied)
        with torch.no_grad():
            for weight in self.weights():
                weight[self.known :] = MARK
        self.before = [weight.detach().clone() for weight in self.weights()]
        added = extend_vocabulary(self.tokenizer, LEVELS, CODEBOOK)
        resize_embeddings(self.model, self.tokenizer)
        self.ids = start_rows(self.model, self.tokenizer, added, how, codes, seed)

    def weights(self) -> list[torch.Tensor]:
        embeddings, head = self.model.get_input_embeddings().weight, self.model.get_output_embeddings().weight
        return [embeddings] if head is embeddings else [embeddings, head]

    def row(self, weight: torch.Tensor, token: str) -> torch.Tensor:
        return weight[self.tokenizer.convert_tokens_to_ids(token)].detach()


@pytest.mark.parametrize("how", ["words", "codebook", "random"])
@pytest.mark.parametrize("tied", [True, False])
def test_known_rows_keep_their_bytes_and_no_new_one_is_a_padding_row(codes, tied, how):
    made = Extended(tied, how, codes)
    assert len(made.weights()) == (1 if tied else 2)
    assert made.ids == list(range(made.known, len(made.tokenizer))) and made.ids[0] < made.known + PADDING < made.ids[-1]
    for weight, before in zip(made.weights(), made.before, strict=True):
        assert torch.equal(weight[: made.known], before[: made.known])
        assert torch.isfinite(weight).all() and (weight[made.ids].abs() < MARK / 2).all()
    again = Extended(tied, how, codes)
    assert all(torch.equal(*pair) for pair in zip(made.weights(), again.weights(), strict=True))


@pytest.mark.parametrize("tied", [True, False])
def test_words_are_the_mean_over_items_of_the_means_of_their_words(codes, words, tied):
    made = Extended(tied, "words", codes)
    for weight in made.weights():
        items = [weight[words(caption(item, CATALOG), add_special_tokens=False)["input_ids"]].mean(0) for item in range(len(CODES))]
        for level, code in ((0, 0), (1, 3), (3, 4)):
            carried = [vector for vector, own in zip(items, CODES, strict=True) if own[level] == code]
            torch.testing.assert_close(made.row(weight, code_token(level, code)), torch.stack(carried).mean(0))
        # What no item carries is an item like any other.
        torch.testing.assert_close(made.row(weight, NEVER_USED), torch.stack(items).mean(0))
        torch.testing.assert_close(made.row(weight, "<|user|>"), weight[words("user")["input_ids"]].mean(0).detach())


def test_the_projection_is_learnt_from_the_codes_that_items_carry(codes):
    """Against a closed form of its own; a code that nobody carries is placed by its vector, which words cannot do."""
    by_words, made = Extended(False, "words", codes), Extended(False, "codebook", codes)
    from safetensors.numpy import load_file

    books, table = load_file(codes.codebooks)["codebooks"].astype(np.float64), np.array(CODES)
    for before, after in zip(by_words.weights(), made.weights(), strict=True):
        x, y, w, all_x = [], [], [], {}
        for level in range(LEVELS):
            counts = np.bincount(table[:, level], minlength=CODEBOOK)
            centred = books[level] - (counts @ books[level]) / counts.sum()
            all_x |= {(level, code): centred[code] for code in range(CODEBOOK)}
            used = np.flatnonzero(counts)
            x += [centred[code] for code in used]
            y += [by_words.row(before, code_token(level, code)).double().numpy() for code in used]
            w += counts[used].tolist()
        x, y, w = np.array(x), np.array(y), np.sqrt(np.array(w) / sum(w))[:, None]
        centre = (w**2 * y).sum(0)
        penalty = np.sqrt(RIDGE * (w**2 * x**2).sum() / 4)
        projection = np.linalg.lstsq(np.r_[w * x, penalty * np.eye(4)], np.r_[w * (y - centre), np.zeros((4, y.shape[1]))], rcond=None)[0]
        for place in ((0, 0), (2, 5), (1, 8)):
            expected = torch.from_numpy(centre + all_x[place] @ projection).float()
            torch.testing.assert_close(made.row(after, code_token(*place)), expected, atol=1e-4, rtol=1e-3)
        assert torch.equal(made.row(after, "<|end|>"), by_words.row(before, "<|end|>"))


def test_ridge_finds_a_linear_map():
    rng = np.random.default_rng(0)
    inputs, projection = rng.normal(size=(400, 3)), rng.normal(size=(3, 5))
    found = ridge(inputs, inputs @ projection, np.ones(400))
    np.testing.assert_allclose(found, projection / (1 + RIDGE), rtol=0.1)


@pytest.mark.parametrize("tied", [True, False])
def test_random_rows_are_spread_as_trained_ones_are(codes, tied):
    made, other = Extended(tied, "random", codes), Extended(tied, "random", codes, seed=8)
    for weight, else_ in zip(made.weights(), other.weights(), strict=True):
        new, trained = weight[made.ids].detach(), weight[: made.known].detach()
        assert float(new.std()) == pytest.approx(float(trained.std()), rel=0.1)
        assert not torch.equal(new, else_[made.ids]) and torch.pdist(new).min() > 0


def test_titles_without_a_word_and_codebooks_that_are_not_there(codes, tmp_path):
    nameless = Catalog(CATALOG.sids, ["" for _ in CATALOG.titles], [[] for _ in CATALOG.categories])
    made = Extended(True, "words", ItemCodes(nameless, codes.codes_NL, codes.codebooks))
    assert torch.isfinite(made.weights()[0]).all()
    with pytest.raises(StageError, match=r"codebooks\.safetensors: no such file.*gr2 run"):
        Extended(True, "codebook", ItemCodes(CATALOG, codes.codes_NL, tmp_path / "none/codebooks.safetensors"))
    (tmp_path / "codebooks.safetensors").write_bytes(b"no tensors")
    with pytest.raises(StageError, match="not codebooks"):
        Extended(True, "codebook", codes)
    save_file({"codebooks": np.zeros((LEVELS, 2, 4), dtype=np.float32)}, codes.codebooks)
    with pytest.raises(StageError, match=r"and the SIDs have more; rerun: gr2 run tokenize"):
        Extended(True, "codebook", codes)
