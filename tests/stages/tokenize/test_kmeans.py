import numpy as np
import pytest
import torch
from sklearn.cluster import kmeans_plusplus

from stages.shared.core.errors import StageError
from stages.tokenize.quantizers import kmeans as module
from stages.tokenize.quantizers.codebook import decode_codes, find_codes, quantize
from stages.tokenize.quantizers.kmeans import kmeans_codebooks, refine


def test_kmeans_finds_a_hierarchy():
    """Nine clusters made of three far apart, each of three close by: three codes a level name them exactly."""
    generator = np.random.default_rng(0)
    far, near = np.array([[-10, 0], [0, 10], [10, 0]]), np.array([[-1, 0], [0, 1], [1, 0]])
    label = generator.integers(0, 3, size=(300, 2))
    points = far[label[:, 0]] + near[label[:, 1]] + generator.normal(scale=0.01, size=(300, 2))
    latents = torch.from_numpy(points.astype(np.float32))
    codes, _ = quantize(latents, kmeans_codebooks(latents, levels=2, size=3, seed=1))
    pairs = {(*row, *truth) for row, truth in zip(codes.tolist(), label.tolist(), strict=True)}
    assert len({pair[:2] for pair in pairs}) == len({pair[2:] for pair in pairs}) == len(pairs) == 9


def test_kmeans_is_no_worse_than_its_own_start():
    latents = torch.from_numpy(np.random.default_rng(5).normal(size=(200, 8)).astype(np.float32))
    codebook = kmeans_codebooks(latents, levels=1, size=16, seed=2)[0].numpy()
    start, _ = kmeans_plusplus(latents.numpy(), 16, random_state=2)

    def error(centres):
        return ((latents.numpy()[:, None] - centres[None]) ** 2).sum(axis=2).min(axis=1).mean()

    assert error(codebook) < error(start)


def test_fewer_different_items_than_codes_is_an_error():
    with pytest.raises(StageError, match=r"3 items with different embeddings cannot fill 4 codes; lower tokenize.codebook_size"):
        kmeans_codebooks(torch.eye(3).repeat(5, 1), levels=2, size=4, seed=0)


def mean_error(vectors: torch.Tensor, books: torch.Tensor, beam: int) -> float:
    return float((vectors - decode_codes(find_codes(vectors, books, beam), books)).square().mean())


def test_refinement_explains_more_than_level_by_level():
    vectors = torch.from_numpy(np.random.default_rng(6).normal(size=(600, 8)).astype(np.float32))
    books = kmeans_codebooks(vectors, levels=3, size=16, seed=0)
    assert mean_error(vectors, refine(vectors, books, 3, beam=4), 4) < 0.95 * mean_error(vectors, books, 4)
    assert torch.equal(refine(vectors, books, 0, beam=4), books)


def test_a_round_of_refinement_is_least_squares(monkeypatch):
    """Without its ridge (nearly), against numpy's lstsq on the one-hot matrix."""
    monkeypatch.setattr(module, "STIFFNESS", 1e-7)
    vectors = torch.from_numpy(np.random.default_rng(7).normal(size=(300, 5)).astype(np.float32))
    books = kmeans_codebooks(vectors, levels=2, size=6, seed=0)
    codes = find_codes(vectors, books).numpy()
    one_hot = np.concatenate([np.eye(6)[codes[:, level]] for level in range(2)], axis=1)
    best = one_hot @ np.linalg.lstsq(one_hot, vectors.numpy().astype(np.float64), rcond=None)[0]
    refined = refine(vectors, books, 1, beam=1)
    np.testing.assert_allclose(decode_codes(torch.from_numpy(codes), refined).numpy(), best, atol=1e-3)


def test_a_large_catalogue_is_sampled(monkeypatch):
    monkeypatch.setattr(module, "POINTS_PER_CODE", 10)
    vectors = torch.from_numpy(np.random.default_rng(8).normal(size=(500, 4)).astype(np.float32))
    few = kmeans_codebooks(vectors, levels=1, size=4, seed=3)
    assert torch.equal(few, kmeans_codebooks(vectors, levels=1, size=4, seed=3))
    monkeypatch.setattr(module, "POINTS_PER_CODE", 1000)
    assert not torch.equal(few, kmeans_codebooks(vectors, levels=1, size=4, seed=3))
