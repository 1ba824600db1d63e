"""The autoencoder around the quantizer (RQ-VAE)."""

from itertools import pairwise

import torch
from torch import nn


class Autoencoder(nn.Module):
    """Embedding [B, dim] -> latent [B, latent_dim] -> embedding, by two mirrored MLPs."""

    def __init__(self, dim: int, hidden_dims: list[int], latent_dim: int):
        super().__init__()
        widths = [dim, *hidden_dims, latent_dim]
        self.encoder = mlp(widths)
        self.decoder = mlp(widths[::-1])

    @classmethod
    def from_state(cls, state: dict[str, torch.Tensor]) -> "Autoencoder":
        """The widths are read off the weights."""
        weights = sorted(
            (int(name.split(".")[1]), tensor) for name, tensor in state.items() if name.startswith("encoder") and tensor.ndim == 2
        )
        widths = [weights[0][1].shape[1], *(tensor.shape[0] for _, tensor in weights)]
        model = cls(widths[0], widths[1:-1], widths[-1])
        model.load_state_dict(state)
        return model


def mlp(widths: list[int]) -> nn.Sequential:
    """Linear layers with SiLU between them."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.SiLU()]
    return nn.Sequential(*layers[:-1])
