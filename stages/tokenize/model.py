"""The autoencoder around the quantiser (RQ-VAE), and its training."""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm

from stages.shared.errors import StageError
from stages.tokenize.codebook import EmaCodebooks, kmeans_codebooks, quantise
from stages.tokenize.params import TokenizeParams


class Autoencoder(nn.Module):
    """Embedding [B, dim] -> latent [B, latent_dim] -> embedding, by two mirrored MLPs."""

    def __init__(self, dim: int, hidden_dims: list[int], latent_dim: int):
        super().__init__()
        widths = [dim, *hidden_dims, latent_dim]
        self.encoder = mlp(widths)
        self.decoder = mlp(widths[::-1])


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def rqvae_loss(
    model: Autoencoder, embeddings_BE: torch.Tensor, codebooks_LCD: torch.Tensor, beta: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reconstruction + beta * commitment, squared distances summed over dimensions and averaged over items; codes; residuals.

    Straight-through: the decoder sees the quantised latent, the encoder gets its gradient as if it were its own. The third
    term of the paper, which pulls codes to residuals, is the codebooks' EMA.
    """
    latents_BD = model.encoder(embeddings_BE)
    codes_BL, residuals_BLD = quantise(latents_BD.detach(), codebooks_LCD)
    chosen_BLD = torch.stack([codebook[codes] for codebook, codes in zip(codebooks_LCD, codes_BL.T, strict=True)], dim=1)
    # What level k quantises is the latent minus the codes of the levels before it; only the latent carries a gradient.
    targets_BLD = chosen_BLD.cumsum(dim=1)
    commitment = sum((_squared(latents_BD - targets_BLD[:, level]) for level in range(len(codebooks_LCD))), torch.zeros(()))
    straight_BD = latents_BD + (targets_BLD[:, -1] - latents_BD).detach()
    return _squared(model.decoder(straight_BD) - embeddings_BE) + beta * commitment, codes_BL, residuals_BLD


def train(embeddings_NE: torch.Tensor, params: TokenizeParams) -> tuple[Autoencoder, torch.Tensor]:
    """The trained autoencoder and codebooks [L, C, D]. The caller has seeded torch."""
    model = Autoencoder(embeddings_NE.shape[1], params.hidden_dims, params.latent_dim)
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr)
    shuffle = torch.Generator().manual_seed(params.seed)
    books: EmaCodebooks | None = None
    for epoch in tqdm(range(params.warmup_epochs + params.epochs), desc="tokenize", unit="epoch", mininterval=1.0):
        if epoch == params.warmup_epochs:
            books = _first_codebooks(model, embeddings_NE, params)
        for rows in torch.split(torch.randperm(len(embeddings_NE), generator=shuffle), params.batch_size):
            if books is None:
                loss = _squared(model.decoder(model.encoder(embeddings_NE[rows])) - embeddings_NE[rows])
            else:
                loss, codes_BL, residuals_BLD = rqvae_loss(model, embeddings_NE[rows], books.vectors, params.beta)
                books.update(codes_BL, residuals_BLD)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            optimizer.step()
        if not torch.isfinite(loss):
            raise StageError(f"the loss is {loss.item()} in epoch {epoch}; lower tokenize.lr (now {params.lr})")
    assert books is not None  # at least one epoch follows the warm-up
    return model, books.vectors


@torch.no_grad()
def _first_codebooks(model: Autoencoder, embeddings_NE: torch.Tensor, params: TokenizeParams) -> EmaCodebooks:
    vectors_LCD = kmeans_codebooks(model.encoder(embeddings_NE), params.levels, params.codebook_size, params.seed)
    return EmaCodebooks(vectors_LCD, params.ema_decay, params.revive_after)


def _squared(difference: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(difference, torch.zeros_like(difference), reduction="sum") / len(difference)
