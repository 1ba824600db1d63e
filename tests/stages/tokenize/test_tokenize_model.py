import numpy as np
import pytest
import torch
from torch import nn

from stages.shared.errors import StageError
from stages.shared.run import set_seed
from stages.tokenize.codebook import decode_codes, kmeans_codebooks, quantise
from stages.tokenize.model import Autoencoder, rqvae_loss, train
from stages.tokenize.params import TokenizeParams

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
    loss, won, _ = rqvae_loss(model, torch.from_numpy(x), torch.from_numpy(books), beta=0.25)
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
        codes, _ = quantise(model.encoder(x), books)
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
