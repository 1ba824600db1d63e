"""Codebooks that follow their codes' means by EMA, and the reset of dead codes."""

import torch

EPSILON = 1e-5


class EmaCodebooks:
    """Codebooks as running means (van den Oord et al., arXiv 1711.00937, appendix A.1), no gradient.

    count <- decay * count + (1 - decay) * n;  total <- decay * total + (1 - decay) * sum;  code = total / count.
    A code nobody uses loses count and total alike, so it stays where it is.
    """

    def __init__(self, codebooks_LCD: torch.Tensor, decay: float, revive_after: int = 0):
        self.vectors = codebooks_LCD.clone()
        # As if each code had won one item at its place: the first batches move a code, they do not replace it.
        self.count_LC = torch.ones(codebooks_LCD.shape[:2])
        self.total_LCD = codebooks_LCD.clone()
        self.unused_LC = torch.zeros(codebooks_LCD.shape[:2], dtype=torch.long)
        self.decay, self.revive_after = decay, revive_after

    def update(self, codes_BL: torch.Tensor, residuals_BLD: torch.Tensor) -> torch.Tensor:
        """One step towards the residuals that each code won in this batch; returns its share of the loss, which is none."""
        one_hot_BLC = torch.nn.functional.one_hot(codes_BL, self.vectors.shape[1]).to(residuals_BLD.dtype)
        won_LC = one_hot_BLC.sum(dim=0)
        self.count_LC = self.decay * self.count_LC + (1 - self.decay) * won_LC
        self.total_LCD = self.decay * self.total_LCD + (1 - self.decay) * torch.einsum("blc,bld->lcd", one_hot_BLC, residuals_BLD)
        # Below EPSILON the quotient of two tiny numbers is noise; the code stays where it was.
        alive_LC1 = (self.count_LC > EPSILON).unsqueeze(-1)
        self.vectors = torch.where(alive_LC1, self.total_LCD / self.count_LC.clamp(min=EPSILON).unsqueeze(-1), self.vectors)
        self.unused_LC = torch.where(won_LC > 0, 0, self.unused_LC + 1)
        if self.revive_after:
            self._revive(codes_BL, residuals_BLD)
        return torch.zeros(())

    def _revive(self, codes_BL: torch.Tensor, residuals_BLD: torch.Tensor) -> None:
        """Codes unused for `revive_after` batches move, level by level, onto the items that level quantizes worst."""
        for level in range(self.vectors.shape[0]):
            dead = torch.nonzero(self.unused_LC[level] >= self.revive_after).flatten()[: len(codes_BL)]
            error_B = (residuals_BLD[:, level] - self.vectors[level, codes_BL[:, level]]).square().sum(dim=1)
            worst = error_B.argsort(descending=True, stable=True)[: len(dead)]
            self.vectors[level, dead] = self.total_LCD[level, dead] = residuals_BLD[worst, level]
            # One item, as at the start: the next batches may move the code freely.
            self.count_LC[level, dead] = 1.0
            self.unused_LC[level, dead] = 0
