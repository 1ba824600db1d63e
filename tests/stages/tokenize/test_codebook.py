from itertools import product

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.tokenize.quantizers.codebook import decode_codes, find_codes, quantize


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
def test_quantize_equals_brute_force(items, levels, size, dim, seed):
    generator = np.random.default_rng(seed)
    latents = generator.normal(size=(items, dim)).astype(np.float32)
    codebooks = generator.normal(size=(levels, size, dim)).astype(np.float32)
    codes, residuals = quantize(torch.from_numpy(latents), torch.from_numpy(codebooks))
    expected_codes, expected_residuals = brute_force(latents, codebooks)
    np.testing.assert_array_equal(codes.numpy(), expected_codes)
    np.testing.assert_allclose(residuals.numpy(), expected_residuals, atol=1e-4)

    by_hand = sum(codebooks[level, codes[:, level].numpy()] for level in range(levels))
    np.testing.assert_allclose(decode_codes(codes, torch.from_numpy(codebooks)).numpy(), by_hand, atol=1e-5)


def test_ties_go_to_the_lowest_code():
    codebook = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    assert quantize(torch.tensor([[1.0, 0.0], [0.5, 0.5]]), codebook)[0].tolist() == [[0], [0]]


def errors(latents: torch.Tensor, codes: torch.Tensor, books: torch.Tensor) -> torch.Tensor:
    return (latents - decode_codes(codes, books)).square().sum(dim=1)


def test_a_beam_as_wide_as_the_tree_finds_the_best_codes_there_are():
    generator = torch.Generator().manual_seed(2)
    latents, books = torch.randn(20, 4, generator=generator), torch.randn(3, 5, 4, generator=generator)
    every = torch.tensor(list(product(range(5), repeat=3)))
    best = torch.cdist(latents, decode_codes(every, books)).square().amin(dim=1)
    torch.testing.assert_close(errors(latents, find_codes(latents, books, beam=25), books), best, atol=1e-4, rtol=1e-4)


def test_a_beam_is_on_average_nearer_than_level_by_level_and_a_beam_of_one_is_that():
    generator = torch.Generator().manual_seed(3)
    latents, books = torch.randn(500, 8, generator=generator), torch.randn(4, 16, 8, generator=generator) * 0.7
    greedy, beam = find_codes(latents, books), find_codes(latents, books, beam=8)
    assert torch.equal(greedy, quantize(latents, books)[0])
    assert errors(latents, beam, books).mean() < 0.95 * errors(latents, greedy, books).mean()
