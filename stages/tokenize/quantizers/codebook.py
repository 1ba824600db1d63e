"""Residual quantisation (GR2, arXiv 2602.07774): from latents to codes and back."""

import torch

CHUNK = 65_536  # rows encoded or decoded at once: bounds the memory of a large catalogue
BEAM_CHUNK = 2_048  # the beam keeps rows x beam x codes scores


def quantize(latents_BD: torch.Tensor, codebooks_LCD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes [B, L] and the residuals each level saw [B, L, D]: z_k = argmin_j ||r_k - e_j||, r_{k+1} = r_k - e_{z_k}.

    Ties go to the lowest code. The quantized vector is latents - (last residual - its code) = the sum of the codes.
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
    """Sum over the levels of `codes_BL` (all, or the first few) of the codes' vectors, [B, D]."""
    levels = torch.arange(codes_BL.shape[1])
    return codebooks_LCD[levels, codes_BL].sum(dim=1)


@torch.no_grad()
def find_codes(latents_ND: torch.Tensor, codebooks_LCD: torch.Tensor, beam: int = 1) -> torch.Tensor:
    """Codes of all items, [N, L]: level by level, or by a beam over the levels, which never ends further from the latent than its
    best start."""
    if beam == 1:
        return torch.cat([_level_by_level(part, codebooks_LCD) for part in torch.split(latents_ND, CHUNK)])
    return torch.cat([beam_search(part, codebooks_LCD, beam)[0][:, 0] for part in torch.split(latents_ND, BEAM_CHUNK)])


def _level_by_level(latents_BD: torch.Tensor, codebooks_LCD: torch.Tensor) -> torch.Tensor:
    """As quantize, without keeping the residuals."""
    codes = []
    for codebook_CD in codebooks_LCD:
        codes.append(nearest(latents_BD, codebook_CD))
        latents_BD = latents_BD - codebook_CD[codes[-1]]
    return torch.stack(codes, dim=1)


def beam_search(latents_BD: torch.Tensor, codebooks_LCD: torch.Tensor, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The best codes that a beam of `width` finds, [B, W, L], and their ||x - sum of codes||^2, [B, W], ascending.

    The distance needs only x.e and e.e', both computed once; a level then adds gathers (Babenko & Lempitsky, CVPR 2014, section 3.2).
    """
    levels, size, dim = codebooks_LCD.shape
    flat_KD = codebooks_LCD.reshape(-1, dim)
    gram_KK = flat_KD @ flat_KD.T
    # ||x - sum_l e_l||^2 = ||x||^2 + sum_l (e_l.e_l - 2 x.e_l) + 2 sum_{m<l} e_m.e_l; ||x||^2 is added at the end.
    scores_BK = gram_KK.diagonal() - 2 * latents_BD @ flat_KD.T
    codes_BWl = torch.zeros(len(latents_BD), 1, 0, dtype=torch.long)
    costs_BW = torch.zeros(len(latents_BD), 1, dtype=latents_BD.dtype)
    for level in range(levels):
        level_rows = slice(level * size, (level + 1) * size)
        costs_BWC = costs_BW[:, :, None] + scores_BK[:, None, level_rows]
        for earlier in range(level):
            costs_BWC = costs_BWC + 2 * gram_KK[:, level_rows][earlier * size + codes_BWl[:, :, earlier]]
        costs_BW, best_BW = costs_BWC.flatten(1).topk(min(width, costs_BWC[0].numel()), largest=False)
        parents_BW = best_BW // size
        codes_BWl = torch.cat([codes_BWl.gather(1, parents_BW[:, :, None].expand(-1, -1, level)), (best_BW % size)[:, :, None]], dim=2)
    return codes_BWl, costs_BW + latents_BD.square().sum(dim=1, keepdim=True)
