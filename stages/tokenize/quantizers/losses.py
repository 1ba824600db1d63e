"""What the RQ-VAE is trained on: reconstruction and commitment, and the terms that GR2 (arXiv 2602.07774) adds by switch."""

import torch
from torch.nn import functional as F

from stages.tokenize.quantizers.codebook import quantize
from stages.tokenize.quantizers.model import Autoencoder


def squared(difference_BE: torch.Tensor) -> torch.Tensor:
    """Squares summed over dimensions, averaged over items."""
    return F.mse_loss(difference_BE, torch.zeros_like(difference_BE), reduction="sum") / len(difference_BE)


def rqvae_loss(
    model: Autoencoder, embeddings_BE: torch.Tensor, codebooks_LCD: torch.Tensor, beta: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Reconstruction + beta * commitment; codes [B, L]; residuals [B, L, D]; latents [B, D], the last alone with its gradient.

    Straight-through: the decoder sees the quantized latent, the encoder gets its gradient as if it were its own.
    """
    latents_BD = model.encoder(embeddings_BE)
    # The choice of a code has no gradient; without the graph it takes less memory.
    codes_BL, residuals_BLD = quantize(latents_BD.detach(), codebooks_LCD.detach())
    chosen_BLD = torch.stack([codebook[codes] for codebook, codes in zip(codebooks_LCD.detach(), codes_BL.T, strict=True)], dim=1)
    # What level k quantizes is the latent minus the codes of the levels before it; only the latent carries a gradient.
    targets_BLD = chosen_BLD.cumsum(dim=1)
    commitment = sum((squared(latents_BD - targets_BLD[:, level]) for level in range(len(codebooks_LCD))), torch.zeros(()))
    straight_BD = latents_BD + (targets_BLD[:, -1] - latents_BD).detach()
    loss = squared(model.decoder(straight_BD) - embeddings_BE) + beta * commitment
    return loss, codes_BL, residuals_BLD, latents_BD


def codebook_loss(codes_BL: torch.Tensor, residuals_BLD: torch.Tensor, codebooks_LCD: torch.Tensor) -> torch.Tensor:
    """The paper's third term, which pulls codes to residuals by gradient: what EMA replaces."""
    chosen = [codebook[codes] for codebook, codes in zip(codebooks_LCD, codes_BL.T, strict=True)]
    return sum((squared(residuals_BLD[:, level] - chosen_BD) for level, chosen_BD in enumerate(chosen)), torch.zeros(()))


def diversity_loss(latents_BD: torch.Tensor, codes_BL: torch.Tensor, codebooks_LCD: torch.Tensor) -> torch.Tensor:
    """C * sum_j p_j^2, averaged over levels: 1 when all codes are used alike, C when one code has everything.

    p_j is the batch's mean of softmax_j(-||r - e_j||^2 / t), since counts of nearest codes have no gradient. The paper does not
    say how it is made soft; t is the batch's mean squared distance to the nearest code, so it needs no tuning.
    """
    total = torch.zeros(())
    residual_BD = latents_BD
    for codebook_CD, codes_B in zip(codebooks_LCD.detach(), codes_BL.T, strict=True):
        distances_BC = torch.cdist(residual_BD, codebook_CD).square()
        # Detached: otherwise latents could lower the loss by moving away from all codes, which flattens the softmax.
        temperature = distances_BC.detach().amin(dim=1).mean().clamp(min=1e-8)
        used_C = (-distances_BC / temperature).softmax(dim=1).mean(dim=0)
        total = total + len(codebook_CD) * used_C.square().sum()
        residual_BD = residual_BD - codebook_CD[codes_B]
    return total / len(codebooks_LCD)


def contrastive_loss(latents_BD: torch.Tensor, partners_BD: torch.Tensor, same_BB: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE (van den Oord et al., arXiv 1807.03748): each latent finds its partner among the batch's.

    `same_BB`: pairs (anchor, other's partner) that are no negatives, because the other's partner is the anchor's own or the anchor
    itself.
    """
    similarity_BB = F.normalize(latents_BD, dim=1) @ F.normalize(partners_BD, dim=1).T / temperature
    similarity_BB = similarity_BB.masked_fill(same_BB, float("-inf"))
    return F.cross_entropy(similarity_BB, torch.arange(len(latents_BD)))
