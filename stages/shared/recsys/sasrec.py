"""SASRec (Kang and McAuley 2018, arXiv 1808.09781) with cross-entropy over the catalogue, whole or sampled, instead of sampled BCE.

It computes where the model lies. On a CPU equal seeds give equal bits.
"""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.shared.core.errors import StageError
from stages.shared.core.progress import tracked
from stages.shared.recsys.ragged import flatten

PAD = 0  # items are shifted by one inside the model
POOL = 32  # batches whose rows are sorted by length together
CELLS = 2**26  # scores held at once by top_k, whatever the catalogue


class AttentionBlock(nn.Module):
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
        self.blocks = nn.ModuleList(AttentionBlock(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        for embedding in (self.item, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, L] (item + 1, 0 = pad) -> states [B, L, D]."""
        x = self.item(tokens) * self.item.embedding_dim**0.5 + self.position(torch.arange(tokens.shape[1], device=tokens.device))
        x = F.dropout(x, self.dropout, self.training)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def logits(self, states: Tensor) -> Tensor:
        """states [..., D] -> [..., items]."""
        return states @ self.item.weight[1:].T


def pad(sequences: Sequence[Sequence[int]], length: int) -> Tensor:
    """The last `length` items of each sequence, shifted by one, right-padded to the longest of them: int64 [B, L]."""
    tails = [sequence[-length:] for sequence in sequences]
    rows, positions, values = flatten(tails)
    tokens = np.full((len(tails), max(1, max(map(len, tails), default=0))), PAD, dtype=np.int64)
    tokens[rows, positions] = values + 1
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
    """Items of each user in the order of time. `interactions`: INTERACTIONS, sorted as on disk."""
    return interactions.group_by("user", maintain_order=True).agg("item")["item"].to_list()


def batches(lengths: Sequence[int], batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Every row once, in random batches of rows of like length: shuffled, sorted within pools of some batches, the batches shuffled."""
    sizes = torch.as_tensor(lengths)
    shuffled = torch.randperm(len(sizes), generator=generator)
    batch_list: list[Tensor] = []
    for pool in shuffled.split(POOL * batch_size):
        batch_list.extend(pool[torch.argsort(sizes[pool], stable=True)].split(batch_size))
    return [batch_list[number].tolist() for number in torch.randperm(len(batch_list), generator=generator).tolist()]


def full_loss(model: SASRec, states_TD: Tensor, targets_T: Tensor) -> Tensor:
    """Summed cross-entropy of the items `wanted_T` against the whole catalogue."""
    return F.cross_entropy(model.logits(states_TD), targets_T, reduction="sum")


def sampled_loss(model: SASRec, states_TD: Tensor, targets_T: Tensor, negatives_N: Tensor) -> Tensor:
    """Summed cross-entropy against `negatives_N`, distinct items drawn uniformly, and the target.

    A negative's logit is corrected by -log of its expected count (Bengio and Senecal 2008; Jean et al. 2015, arXiv 1412.2007, eq. 8),
    which makes the sum of exponentials an unbiased estimate of that over all items but the target. The target is added by itself:
    as a negative it is masked out.
    """
    table_ID = model.item.weight[1:]
    target_logits_T = (states_TD * table_ID[targets_T]).sum(dim=1)
    expected = len(negatives_N) / len(table_ID)
    negative_logits_TN = states_TD @ table_ID[negatives_N].T - math.log(expected)
    negative_logits_TN = negative_logits_TN.masked_fill(negatives_N == targets_T[:, None], -torch.inf)
    return F.cross_entropy(torch.cat([target_logits_T[:, None], negative_logits_TN], dim=1), torch.zeros_like(targets_T), reduction="sum")


def train(
    model: SASRec,
    sequences: Sequence[Sequence[int]],
    epochs: int,
    batch_size: int,
    lr: float,
    seed: int,
    weight_decay: float = 0.01,
    negatives: int | None = None,
) -> list[float]:
    """Next-item cross-entropy over the whole catalogue or, for a large one, `negatives` items drawn anew for each batch.

    Returns the mean loss of each epoch.
    """
    pieces = windows(sequences, model.max_length)
    if not pieces:
        raise StageError("data/ingest/interactions.parquet: no user has two base interactions; raise ingest.base_share or ingest.min_base")
    device, items = model.item.weight.device, model.item.num_embeddings - 1
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=weight_decay)
    generator = torch.Generator().manual_seed(seed)
    # The generator orders the batches and draws the negatives; dropout draws from torch's global state, which the caller seeds.
    lengths = [len(piece) for piece in pieces]
    targets = sum(lengths) - len(lengths)
    losses = []
    model.train()
    for _ in tracked(range(epochs), "epochs of the retriever", unit="epoch"):
        total = torch.zeros((), device=device)  # on the device: reading a loss every batch would wait for the GPU
        rounds = batches(lengths, batch_size, generator)
        for rows in rounds:
            tokens = pad([pieces[row] for row in rows], model.max_length + 1).to(device)
            next_items = tokens[:, 1:]
            mask = next_items != PAD
            states, next_items = model(tokens[:, :-1])[mask], next_items[mask] - 1
            if negatives is None:
                loss = full_loss(model, states, next_items)
            else:
                loss = sampled_loss(model, states, next_items, torch.randperm(items, generator=generator)[:negatives].to(device))
            optimizer.zero_grad()
            # By the targets of a mean batch, not of this one: else a target among short sequences would weigh more than one among long.
            (loss * (len(rounds) / targets)).backward()
            optimizer.step()
            total += loss.detach()
        losses.append(total.item() / targets)
    model.eval()
    return losses


@torch.no_grad()
def top_k(
    model: SASRec, histories: Sequence[Sequence[int]], seen: Sequence[Sequence[int]], k: int, batch: int = 512
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items not in `seen`, best first: (items int32 [N, k], scores float32 [N, k]), at -inf past the last one."""
    device = model.item.weight.device
    items = np.zeros((len(histories), k), dtype=np.int32)
    scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
    batch = max(1, min(batch, CELLS // model.item.num_embeddings))
    order = np.argsort([len(history) for history in histories], kind="stable")  # rows of like length need little padding
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        tokens = pad([histories[row] for row in rows], model.max_length).to(device)
        last = (tokens != PAD).sum(dim=1).clamp(min=1) - 1
        logits = model.logits(model(tokens)[torch.arange(len(rows), device=device), last])
        seen_rows, _, taken = flatten([seen[row] for row in rows])
        logits[torch.from_numpy(seen_rows).to(device), torch.from_numpy(taken).to(device)] = -torch.inf
        best = logits.topk(min(k, logits.shape[1]), dim=1)
        count_found = best.indices.shape[1]
        items[rows, :count_found] = best.indices.cpu().numpy()
        scores[rows, :count_found] = best.values.float().cpu().numpy()
    return items, scores
