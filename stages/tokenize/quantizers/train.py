"""The training of the RQ-VAE."""

import torch

from stages.shared.core.errors import StageError
from stages.shared.core.progress import tracked
from stages.tokenize.params import TokenizeParams
from stages.tokenize.quantizers.cooccurrence import Cooccurrence
from stages.tokenize.quantizers.ema import EmaCodebooks
from stages.tokenize.quantizers.kmeans import kmeans_codebooks
from stages.tokenize.quantizers.losses import codebook_loss, contrastive_loss, diversity_loss, rqvae_loss, squared
from stages.tokenize.quantizers.model import Autoencoder


def train(
    embeddings_NE: torch.Tensor, params: TokenizeParams, cooccurrence: Cooccurrence | None = None
) -> tuple[Autoencoder, torch.Tensor]:
    """The trained autoencoder and codebooks [L, C, D]. The caller has seeded torch. `cooccurrence` is needed by the contrastive loss
    alone."""
    model = Autoencoder(embeddings_NE.shape[1], params.hidden_dims, params.latent_dim)
    optimizer = torch.optim.AdamW(model.parameters(), lr=params.lr)
    shuffle = torch.Generator().manual_seed(params.seed)
    codebooks: EmaCodebooks | GradientCodebooks | None = None
    for epoch in tracked(range(params.warmup_epochs + params.epochs), "epochs of the tokenizer", unit="epoch"):
        if epoch == params.warmup_epochs:
            codebooks = first_codebooks(model, embeddings_NE, params)
            if isinstance(codebooks, GradientCodebooks):
                # No decay: it would draw unused codes to the origin.
                optimizer.add_param_group({"params": [codebooks.vectors], "weight_decay": 0.0})
        for rows in torch.split(torch.randperm(len(embeddings_NE), generator=shuffle), params.batch_size):
            if codebooks is None:
                loss = squared(model.decoder(model.encoder(embeddings_NE[rows])) - embeddings_NE[rows])
            else:
                loss, codes_BL, residuals_BLD, latents_BD = rqvae_loss(model, embeddings_NE[rows], codebooks.vectors, params.beta)
                if params.diversity_weight:
                    loss = loss + params.diversity_weight * diversity_loss(latents_BD, codes_BL, codebooks.vectors)
                if params.contrastive_weight and cooccurrence is not None:
                    loss = loss + params.contrastive_weight * _contrast(
                        model, embeddings_NE, rows, latents_BD, cooccurrence, shuffle, params
                    )
                loss = loss + codebooks.update(codes_BL, residuals_BLD)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            optimizer.step()
        if not torch.isfinite(loss):
            raise StageError(f"the loss is {loss.item()} in epoch {epoch}; lower tokenize.lr (now {params.lr})")
    assert codebooks is not None  # at least one epoch follows the warm-up
    return model, codebooks.vectors.detach()


class GradientCodebooks:
    """Codebooks as parameters of the optimiser, pulled by the codebook loss: what EMA is compared with."""

    def __init__(self, codebooks_LCD: torch.Tensor):
        self.vectors = codebooks_LCD.clone().requires_grad_()

    def update(self, codes_BL: torch.Tensor, residuals_BLD: torch.Tensor) -> torch.Tensor:
        return codebook_loss(codes_BL, residuals_BLD, self.vectors)


@torch.no_grad()
def first_codebooks(model: Autoencoder, embeddings_NE: torch.Tensor, params: TokenizeParams) -> EmaCodebooks | GradientCodebooks:
    shape, generator = (params.levels, params.codebook_size, params.latent_dim), torch.Generator().manual_seed(params.seed)
    if params.codebook_start == "kmeans":
        vectors_LCD = kmeans_codebooks(model.encoder(embeddings_NE), params.levels, params.codebook_size, params.seed)
    elif params.codebook_start == "uniform":
        vectors_LCD = (2 * torch.rand(shape, generator=generator) - 1) / params.codebook_size
    else:
        vectors_LCD = torch.randn(shape, generator=generator)
    return EmaCodebooks(vectors_LCD, params.ema_decay, params.revive_after) if params.ema else GradientCodebooks(vectors_LCD)


def _contrast(
    model: Autoencoder,
    embeddings_NE: torch.Tensor,
    rows: torch.Tensor,
    latents_BD: torch.Tensor,
    cooccurrence: Cooccurrence,
    generator: torch.Generator,
    params: TokenizeParams,
) -> torch.Tensor:
    anchors, partners = cooccurrence.draw(rows, generator)
    # A single pair has no negatives.
    if len(anchors) < 2:
        return torch.zeros(())
    diagonal = torch.arange(len(partners))
    same_BB = (partners[None, :] == partners[:, None]) | (partners[None, :] == rows[anchors][:, None])
    # The diagonal holds the positives, which the rule above would mask.
    same_BB[diagonal, diagonal] = False
    return contrastive_loss(latents_BD[anchors], model.encoder(embeddings_NE[partners]), same_BB, params.contrastive_temperature)
