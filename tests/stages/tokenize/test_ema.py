import numpy as np
import pytest
import torch

from stages.tokenize.quantizers.ema import EmaCodebooks


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
