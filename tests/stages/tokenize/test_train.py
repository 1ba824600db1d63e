import numpy as np
import pytest
import torch
from torch import nn

from stages.shared.core.errors import StageError
from stages.shared.core.run import set_seed
from stages.tokenize.measure import perplexity, usage_counts
from stages.tokenize.params import TokenizeParams
from stages.tokenize.quantizers.codebook import decode_codes, quantize
from stages.tokenize.quantizers.cooccurrence import Cooccurrence
from stages.tokenize.quantizers.kmeans import kmeans_codebooks
from stages.tokenize.quantizers.losses import codebook_loss, contrastive_loss, diversity_loss, rqvae_loss
from stages.tokenize.quantizers.model import Autoencoder
from stages.tokenize.quantizers.train import train

SMALL = {"levels": 3, "codebook_size": 8, "latent_dim": 4, "hidden_dims": [16], "warmup_epochs": 10, "epochs": 40, "batch_size": 32}


def embeddings(items: int = 96, dim: int = 12) -> torch.Tensor:
    vectors = np.random.default_rng(0).normal(size=(items, dim)).astype(np.float32)
    return torch.from_numpy(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_loss_and_straight_through_gradient_by_hand():
    """Identity encoder, linear decoder: value and gradient have closed forms."""
    generator = np.random.default_rng(1)
    x, weight = generator.normal(size=(5, 3)), generator.normal(size=(3, 3))
    books = generator.normal(size=(2, 4, 3))
    model = Autoencoder(3, [], 3).double()
    model.encoder, model.decoder = nn.Sequential(nn.Linear(3, 3, bias=False)).double(), nn.Sequential(nn.Linear(3, 3, bias=False)).double()
    with torch.no_grad():
        model.encoder[0].weight.copy_(torch.eye(3))
        model.decoder[0].weight.copy_(torch.from_numpy(weight))
    loss, won, *_ = rqvae_loss(model, torch.from_numpy(x), torch.from_numpy(books), beta=0.25)
    loss.backward()

    value, gradient = 0.0, np.zeros((3, 3))
    for row, codes in zip(x, won.numpy(), strict=True):
        first = books[0, codes[0]]
        both = first + books[1, codes[1]]
        value += ((weight @ both - row) ** 2).sum() + 0.25 * (((row - first) ** 2).sum() + ((row - both) ** 2).sum())
        at_latent = 2 * weight.T @ (weight @ both - row) + 0.25 * 2 * ((row - first) + (row - both))
        gradient += np.outer(at_latent, row)
    assert loss.item() == pytest.approx(value / 5)
    np.testing.assert_allclose(model.encoder[0].weight.grad.numpy(), gradient / 5, rtol=1e-9)


def test_training_explains_the_embeddings_better_than_their_mean():
    params, x = TokenizeParams(**SMALL, lr=0.003), embeddings()
    set_seed(params.seed)
    model, books = train(x, params)
    with torch.no_grad():
        codes, _ = quantize(model.encoder(x), books)
        error = (model.decoder(decode_codes(codes, books)) - x).square().mean()
    assert books.shape == (3, 8, 4)
    assert error < 0.75 * (x - x.mean(dim=0)).square().mean()


def test_divergence_is_named():
    with pytest.raises(StageError, match=r"lower tokenize.lr"):
        train(embeddings() * 1e19, TokenizeParams(**SMALL))


def test_without_warmup_it_starts_from_kmeans_at_once():
    params = TokenizeParams(**{**SMALL, "warmup_epochs": 0, "epochs": 1, "lr": 1e-12, "ema_decay": 1 - 1e-9})
    set_seed(params.seed)
    model, books = train(embeddings(), params)
    with torch.no_grad():
        expected = kmeans_codebooks(model.encoder(embeddings()), 3, 8, params.seed)
    assert torch.allclose(books, expected, atol=1e-4)


def test_the_codebook_loss_pulls_codes_to_their_residuals_and_nothing_else():
    books = torch.tensor([[[0.0, 0.0], [4.0, 4.0]], [[1.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    residuals = torch.tensor([[[1.0, 2.0], [0.5, 0.5]]])
    loss = codebook_loss(torch.tensor([[0, 1]]), residuals, books)
    loss.backward()
    assert loss.item() == pytest.approx(5.0 + 0.5)
    assert books.grad.tolist() == [[[-2.0, -4.0], [0.0, 0.0]], [[0.0, 0.0], [-1.0, 1.0]]]


def test_diversity_loss_is_least_when_codes_are_used_alike():
    codebook = torch.tensor([[[0.0], [10.0], [20.0], [30.0]]])
    even, heaped = torch.tensor([[0.1], [10.1], [20.1], [30.1]]), torch.tensor([[0.1], [0.1], [0.1], [0.1]])
    values = [diversity_loss(latents, quantize(latents, codebook)[0], codebook).item() for latents in (even, heaped)]
    assert values == pytest.approx([1.0, 4.0], abs=1e-3)
    spread = heaped.clone().requires_grad_()
    with torch.no_grad():
        spread[0] += 4.0  # nearly half-way: where a little push changes its code
    diversity_loss(spread, quantize(spread.detach(), codebook)[0], codebook).backward()
    assert spread.grad[0] < 0  # descent moves it up, to the unused code


def test_contrastive_loss_by_hand():
    anchors, partners = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 1.0], [0.0, 1.0]])
    cosine = np.array([[np.sqrt(0.5), 0.0], [np.sqrt(0.5), 1.0]]) / 0.5
    expected = np.mean([np.log(np.exp(row).sum()) - row[place] for place, row in enumerate(cosine)])
    none = torch.zeros(2, 2, dtype=torch.bool)
    assert contrastive_loss(anchors, partners, none, 0.5).item() == pytest.approx(expected, rel=1e-5)
    masked = torch.tensor([[False, True], [True, False]])
    assert contrastive_loss(anchors, partners, masked, 0.5).item() == pytest.approx(0.0)


def log(sequences: list[list[int]], split: str = "base"):
    import polars as pl

    rows = [(user, item, place, place, split) for user, items in enumerate(sequences) for place, item in enumerate(items)]
    schema = {"user": pl.Int32, "item": pl.Int32, "position": pl.Int32, "timestamp": pl.Int64, "split": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_partners_are_neighbours_in_base_sequences_and_only_there():
    import polars as pl

    cooccurrence = Cooccurrence.count(pl.concat([log([[0, 1, 2], [2, 0]]), log([[3, 0]], "test")]), items=5)
    drawn = {item: set() for item in range(5)}
    for seed in range(40):
        having, partners = cooccurrence.draw(torch.arange(5), torch.Generator().manual_seed(seed))
        assert having.tolist() == [0, 1, 2]
        for item, partner in zip(having.tolist(), partners.tolist(), strict=True):
            drawn[item].add(partner)
    assert drawn == {0: {1, 2}, 1: {0, 2}, 2: {0, 1}, 3: set(), 4: set()}


def test_contrastive_training_brings_partners_together():
    x = embeddings()
    sequences = [[item, item + 1] for item in range(0, 96, 2)] * 5
    cooccurrence = Cooccurrence.count(log(sequences), 96)

    def closeness(weight: float) -> float:
        params = TokenizeParams(**SMALL, lr=0.003, contrastive_weight=weight)
        set_seed(params.seed)
        model, _ = train(x, params, cooccurrence)
        with torch.no_grad():
            latents = torch.nn.functional.normalize(model.encoder(x), dim=1)
        return float((latents[0::2] * latents[1::2]).sum(dim=1).mean())

    assert closeness(1.0) > closeness(0.0) + 0.2


def test_gradient_codebooks_from_a_random_start_learn_too():
    params = TokenizeParams(**{**SMALL, "ema": False, "codebook_start": "uniform", "warmup_epochs": 0, "lr": 0.003})
    set_seed(params.seed)
    model, books = train(embeddings(), params)
    start = torch.rand(books.shape, generator=torch.Generator().manual_seed(params.seed))
    assert not torch.allclose(books, (2 * start - 1) / 8) and not books.requires_grad
    with torch.no_grad():
        codes = quantize(model.encoder(embeddings()), books)[0].numpy()
    assert perplexity(usage_counts(codes, 8)[0]) >= 1.0
