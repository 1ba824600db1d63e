import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import kmeans_plusplus

from stages.shared.errors import StageError
from stages.tokenize.codebook import EmaCodebooks, decode_codes, kmeans_codebooks, quantise


def brute_force(latents: np.ndarray, codebooks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every distance to every code, one at a time, in double precision."""
    codes, residuals = [], []
    for latent in latents.astype(np.float64):
        residual, row, seen = latent, [], []
        for codebook in codebooks.astype(np.float64):
            distances = [float(((residual - code) ** 2).sum()) for code in codebook]
            row.append(int(np.argmin(distances)))
            seen.append(residual)
            residual = residual - codebook[row[-1]]
        codes.append(row)
        residuals.append(seen)
    return np.array(codes), np.array(residuals)


@settings(max_examples=40, deadline=None)
@given(items=st.integers(1, 20), levels=st.integers(1, 4), size=st.integers(1, 9), dim=st.integers(1, 6), seed=st.integers(0, 999))
def test_quantise_equals_brute_force(items, levels, size, dim, seed):
    generator = np.random.default_rng(seed)
    latents = generator.normal(size=(items, dim)).astype(np.float32)
    codebooks = generator.normal(size=(levels, size, dim)).astype(np.float32)
    codes, residuals = quantise(torch.from_numpy(latents), torch.from_numpy(codebooks))
    expected_codes, expected_residuals = brute_force(latents, codebooks)
    np.testing.assert_array_equal(codes.numpy(), expected_codes)
    np.testing.assert_allclose(residuals.numpy(), expected_residuals, atol=1e-4)

    by_hand = sum(codebooks[level, codes[:, level].numpy()] for level in range(levels))
    np.testing.assert_allclose(decode_codes(codes, torch.from_numpy(codebooks)).numpy(), by_hand, atol=1e-5)


def test_ties_go_to_the_lowest_code():
    codebook = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    assert quantise(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), codebook)[0].tolist() == [[0], [0]]


def test_ema_equals_a_loop_in_numpy():
    generator = np.random.default_rng(3)
    start = generator.normal(size=(2, 4, 3)).astype(np.float32)
    books = EmaCodebooks(torch.from_numpy(start), decay=0.9)
    count, total = np.ones((2, 4)), start.astype(np.float64)
    for _ in range(50):
        codes = generator.integers(0, 3, size=(7, 2))  # code 3 is never used
        residuals = generator.normal(size=(7, 2, 3)).astype(np.float32)
        books.update(torch.from_numpy(codes), torch.from_numpy(residuals))
        for level in range(2):
            for code in range(4):
                won = residuals[codes[:, level] == code, level]
                count[level, code] = 0.9 * count[level, code] + 0.1 * len(won)
                total[level, code] = 0.9 * total[level, code] + 0.1 * won.sum(axis=0)
    np.testing.assert_allclose(books.vectors.numpy(), total / count[..., None], atol=1e-4)
    np.testing.assert_allclose(books.vectors[:, 3].numpy(), start[:, 3], atol=1e-5)


def test_an_unused_code_stays_where_it_is_for_ever():
    start = torch.tensor([[[5.0, 5.0], [-1.0, 2.0]]])
    books = EmaCodebooks(start, decay=0.5)
    for _ in range(200):  # 0.5 ** 200 is far below the smallest float32
        books.update(torch.zeros((4, 1), dtype=torch.long), torch.ones((4, 1, 2)))
    assert books.vectors[0, 0].tolist() == [1.0, 1.0]
    assert torch.allclose(books.vectors[0, 1], start[0, 1])


def test_a_dead_code_is_revived_on_the_worst_item():
    books = EmaCodebooks(torch.tensor([[[0.0], [100.0]]]), decay=0.9, revive_after=3)
    residuals = torch.tensor([[0.1], [-3.0], [0.2]]).unsqueeze(1)
    for batch in range(3):
        assert books.vectors[0, 1].item() == pytest.approx(100.0), batch
        books.update(torch.zeros((3, 1), dtype=torch.long), residuals)
    assert books.vectors[0, 1].item() == pytest.approx(-3.0)


def test_kmeans_finds_a_hierarchy():
    """Nine clusters made of three far apart, each of three close by: three codes a level name them exactly."""
    generator = np.random.default_rng(0)
    far, near = np.array([[-10, 0], [0, 10], [10, 0]]), np.array([[-1, 0], [0, 1], [1, 0]])
    label = generator.integers(0, 3, size=(300, 2))
    points = far[label[:, 0]] + near[label[:, 1]] + generator.normal(scale=0.01, size=(300, 2))
    latents = torch.from_numpy(points.astype(np.float32))
    codes, _ = quantise(latents, kmeans_codebooks(latents, levels=2, size=3, seed=1))
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
