"""SASRec (Kang and McAuley 2018, arXiv 1808.09781) with full cross-entropy over the catalogue instead of sampled BCE."""

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from stages.shared.errors import StageError

PAD = 0  # items are shifted by one inside the model


class Block(nn.Module):
    """Pre-norm causal self-attention and a feed-forward layer. Shapes: x [B, L, D] -> [B, L, D]."""

    def __init__(self, hidden: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.qkv, self.out = nn.Linear(hidden, 3 * hidden), nn.Linear(hidden, hidden)
        self.feed = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, hidden = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, hidden // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0)
        x = x + F.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, hidden)), self.dropout, self.training)
        return x + self.feed(self.norm2(x))


class SASRec(nn.Module):
    """Sequences are right-padded: a pad never precedes an item, so the causal mask alone hides it."""

    def __init__(self, items: int, hidden: int, layers: int, heads: int, max_length: int, dropout: float):
        super().__init__()
        self.max_length, self.dropout = max_length, dropout
        self.item = nn.Embedding(items + 1, hidden, padding_idx=PAD)
        self.position = nn.Embedding(max_length, hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        for embedding in (self.item, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, L] (item + 1, 0 = pad) -> states [B, L, D]."""
        x = self.item(tokens) * self.item.embedding_dim**0.5 + self.position(torch.arange(tokens.shape[1]))
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def logits(self, states: Tensor) -> Tensor:
        """states [..., D] -> [..., items]."""
        return states @ self.item.weight[1:].T


def pad(sequences: Sequence[Sequence[int]], length: int) -> Tensor:
    """The last `length` items of each sequence, right-padded, shifted by one: int64 [B, length]."""
    tokens = np.zeros((len(sequences), length), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        tail = np.asarray(sequence[-length:], dtype=np.int64) + 1
        tokens[row, : len(tail)] = tail
    return torch.from_numpy(tokens)


def windows(sequences: Sequence[Sequence[int]], length: int) -> list[list[int]]:
    """Each sequence cut from its end into pieces of at most length + 1 items that overlap by one, so every step is a target once."""
    pieces = []
    for sequence in sequences:
        end = len(sequence)
        while end >= 2:
            start = max(0, end - length - 1)
            pieces.append(list(sequence[start:end]))
            end = start + 1
    return pieces


def sequences_of(interactions: pl.DataFrame) -> list[list[int]]:
    """Items of each user in the order of time. `interactions`: INTERACTIONS, sorted as it stands on disk."""
    return interactions.group_by("user", maintain_order=True).agg("item")["item"].to_list()


def train(model: SASRec, sequences: Sequence[Sequence[int]], epochs: int, batch_size: int, lr: float, seed: int) -> list[float]:
    """Next-item cross-entropy over the whole catalogue. Returns the mean loss of each epoch."""
    pieces = windows(sequences, model.max_length)
    if not pieces:
        raise StageError("data/ingest/interactions.parquet: no user has two base interactions; raise ingest.base_share or ingest.min_base")
    inputs = pad([piece[:-1] for piece in pieces], model.max_length)
    targets = pad([piece[1:] for piece in pieces], model.max_length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    losses = []
    model.train()
    for _ in tqdm(range(epochs), desc="sasrec", unit="epoch", mininterval=2.0):
        total, count = 0.0, 0
        for rows in torch.randperm(len(pieces), generator=generator).split(batch_size):
            wanted = targets[rows]
            mask = wanted != PAD
            loss = F.cross_entropy(model.logits(model(inputs[rows])[mask]), wanted[mask] - 1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, count = total + loss.item() * int(mask.sum()), count + int(mask.sum())
        losses.append(total / count)
    model.eval()
    return losses


@torch.no_grad()
def top_k(
    model: SASRec, histories: Sequence[Sequence[int]], seen: Sequence[Sequence[int]], k: int, batch: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items not in `seen`, best first: (items int32 [N, k], scores float32 [N, k])."""
    items, scores = [], []
    for start in tqdm(range(0, len(histories), batch), desc="slates", mininterval=2.0):
        part = histories[start : start + batch]
        tokens = pad(part, model.max_length)
        last = torch.tensor([min(len(h), model.max_length) - 1 for h in part])
        logits = model.logits(model(tokens)[torch.arange(len(part)), last])
        for row, exclude in enumerate(seen[start : start + batch]):
            logits[row, torch.as_tensor(exclude, dtype=torch.long)] = -torch.inf
        best = logits.topk(k, dim=1)
        items.append(best.indices.numpy().astype(np.int32))
        scores.append(best.values.numpy())
    return np.concatenate(items), np.concatenate(scores)
