"""Residual quantisation (GR2, arXiv 2602.07774) and codebooks that follow their codes' means by EMA."""

import numpy as np
import torch
from sklearn.cluster import KMeans

from stages.shared.errors import StageError

EPSILON = 1e-5


def quantise(latents_BD: torch.Tensor, codebooks_LCD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [B, L] and the residuals each level saw [B, L, D]: z_k = argmin_j ||r_k - e_j||, r_{k+1} = r_k - e_{z_k}.

    Ties go to the lowest code. The quantised vector is latents - (last residual - its code) = the sum of the codes.
    """
    residual_BD, codes, residuals = latents_BD, [], []
    for codebook_CD in codebooks_LCD:
        codes_B = nearest(residual_BD, codebook_CD)
        codes.append(codes_B)
        residuals.append(residual_BD)
        residual_BD = residual_BD - codebook_CD[codes_B]
    return torch.stack(codes, dim=1), torch.stack(residuals, dim=1)


def nearest(vectors_BD: torch.Tensor, codebook_CD: torch.Tensor) -> torch.Tensor:
    """Index of the nearest row of the codebook, [B]. The vector's own norm is the same for every code, so it is left out."""
    return (codebook_CD.square().sum(dim=1) - 2 * vectors_BD @ codebook_CD.T).argmin(dim=1)


def decode_codes(codes_BL: torch.Tensor, codebooks_LCD: torch.Tensor) -> torch.Tensor:
    """Sum over levels of the codes' vectors, [B, D]."""
    levels = torch.arange(codebooks_LCD.shape[0])
    return codebooks_LCD[levels, codes_BL].sum(dim=1)


def kmeans_codebooks(latents_ND: torch.Tensor, levels: int, size: int, seed: int) -> torch.Tensor:
    """Codebooks [L, C, D]: k-means++ and Lloyd's iterations on what each level leaves over."""
    residual_ND = latents_ND
    different = len(np.unique(latents_ND.numpy(), axis=0))
    if different < size:
        raise StageError(f"{different} items with different embeddings cannot fill {size} codes; lower tokenize.codebook_size")
    codebooks = []
    for level in range(levels):
        kmeans = KMeans(size, init="k-means++", n_init=1, random_state=seed + level).fit(residual_ND.numpy())
        codebook_CD = torch.from_numpy(kmeans.cluster_centers_).to(latents_ND.dtype)
        residual_ND = residual_ND - codebook_CD[nearest(residual_ND, codebook_CD)]
        codebooks.append(codebook_CD)
    return torch.stack(codebooks)


class EmaCodebooks:
    """Codebooks as running means (van den Oord et al., arXiv 1711.00937, appendix A.1), no gradient.

    count <- decay * count + (1 - decay) * n;  total <- decay * total + (1 - decay) * sum;  code = total / count.
    A code nobody uses loses count and total alike, so it stays where it is.
    """

    def __init__(self, codebooks_LCD: torch.Tensor, decay: float, revive_after: int = 0):
        self.vectors = codebooks_LCD.clone()
        self.count_LC = torch.ones(codebooks_LCD.shape[:2])
        self.total_LCD = codebooks_LCD.clone()
        self.unused_LC = torch.zeros(codebooks_LCD.shape[:2], dtype=torch.long)
        self.decay, self.revive_after = decay, revive_after

    def update(self, codes_BL: torch.Tensor, residuals_BLD: torch.Tensor) -> None:
        """One step towards the residuals that each code won in this batch."""
        one_hot_BLC = torch.nn.functional.one_hot(codes_BL, self.vectors.shape[1]).to(residuals_BLD.dtype)
        won_LC = one_hot_BLC.sum(dim=0)
        self.count_LC = self.decay * self.count_LC + (1 - self.decay) * won_LC
        self.total_LCD = self.decay * self.total_LCD + (1 - self.decay) * torch.einsum("blc,bld->lcd", one_hot_BLC, residuals_BLD)
        alive_LC1 = (self.count_LC > EPSILON).unsqueeze(-1)
        self.vectors = torch.where(alive_LC1, self.total_LCD / self.count_LC.clamp(min=EPSILON).unsqueeze(-1), self.vectors)
        self.unused_LC = torch.where(won_LC > 0, 0, self.unused_LC + 1)
        if self.revive_after:
            self._revive(codes_BL, residuals_BLD)

    def _revive(self, codes_BL: torch.Tensor, residuals_BLD: torch.Tensor) -> None:
        """Codes unused for `revive_after` batches move, level by level, onto the items that level quantises worst."""
        for level in range(self.vectors.shape[0]):
            dead = torch.nonzero(self.unused_LC[level] >= self.revive_after).flatten()[: len(codes_BL)]
            error_B = (residuals_BLD[:, level] - self.vectors[level, codes_BL[:, level]]).square().sum(dim=1)
            worst = error_B.argsort(descending=True, stable=True)[: len(dead)]
            self.vectors[level, dead] = self.total_LCD[level, dead] = residuals_BLD[worst, level]
            self.count_LC[level, dead] = 1.0
            self.unused_LC[level, dead] = 0
