"""Section `tokenize` of params.yaml."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.shared.core.params import ComputeSection


class TokenizeParams(ComputeSection):
    threads: int = Field(1, ge=1, description="threads of torch, BLAS and OpenMP")
    levels: int = Field(4, ge=2, le=26, description="codes per item; levels are lettered a to z")
    codebook_size: int = Field(32, ge=2, description="codes per level")
    method: Literal["rqvae", "rqkmeans"] = Field(
        "rqvae", description="rqkmeans: residual k-means on the embeddings themselves, no autoencoder"
    )
    train_items: int = Field(200_000, ge=2, description="items the codebooks are learnt on, drawn at random from a larger catalogue")
    assignment: Literal["nearest", "random_last", "optimal_last"] = Field(
        "random_last", description="how the last level is given; docs/items.md"
    )
    beam: int = Field(1, ge=1, le=64, description="beam of the search for an item's codes; 1 = level by level, as GR2")

    # rqkmeans only
    refine_rounds: int = Field(0, ge=0, description="rqkmeans: rounds of encoding and joint least squares over all codebooks")

    # rqvae only
    latent_dim: int = Field(32, ge=1)
    hidden_dims: list[int] = Field([256, 128], description="widths of the encoder's hidden layers; the decoder mirrors them")
    # Without it the latents move away from the first codes: of 256 codes of level a, 26 % stayed in use, with it all.
    warmup_epochs: int = Field(30, ge=0, description="epochs of the plain autoencoder before the first codebooks are made")
    epochs: int = Field(300, ge=1, description="epochs with quantisation, after the warm-up")
    batch_size: int = Field(256, ge=1)
    lr: float = Field(3e-3, gt=0)
    # Measured on MovieLens-100K, share of the embeddings' variance explained: beta 0.25 .39, 0.1 .41, 0.05 .43; all codes in use.
    beta: float = Field(0.05, ge=0, description="weight of the commitment loss")
    codebook_start: Literal["kmeans", "uniform", "normal"] = Field(
        "kmeans", description="kmeans: k-means++ on residuals; uniform: in [-1/C, 1/C]; normal: N(0, 1), as torch.nn.Embedding starts"
    )
    ema: bool = Field(True, description="codebooks follow their items' means; off: codebook loss and gradient")
    ema_decay: float = Field(0.97, gt=0, lt=1, description="of the codebooks; GR2 finds 0.95 to 0.99 good")
    revive_after: int = Field(0, ge=0, description="batches unused before a code is re-seeded on a badly quantized item; 0 = never")
    diversity_weight: float = Field(0.0, ge=0, description="lambda of lambda * C * sum p_j^2 over the soft use of codes")
    contrastive_weight: float = Field(
        0.0, ge=0, description="weight of InfoNCE between latents of items taken one after the other (base split)"
    )
    contrastive_temperature: float = Field(0.1, gt=0)

    # gates: the stage fails below them
    uniqueness_gate: float = Field(0.99, ge=0, le=1, description="least share of items whose SID no other item has")
    usage_gate: float = Field(0.9, ge=0, le=1, description="least share of codes in use, every level, before the last level is given")
    perplexity_gate: float = Field(
        0.0, ge=0, le=1, description="least perplexity / codebook_size, every level, before the last level is given"
    )

    # append mode
    append_to: str = Field(
        "", description="folder with an earlier sid_map.parquet and codebooks.safetensors: its SIDs stay, new items join"
    )
    append_sha256: str = Field(
        "", description="of that folder, so that a changed one is a changed parameter; the error names the right value"
    )

    @model_validator(mode="after")
    def keys_go_together(self) -> Self:
        if self.append_sha256 and not self.append_to:
            raise ValueError("append_sha256 is set without append_to; set both or neither")
        if self.method == "rqkmeans" and (self.contrastive_weight or self.diversity_weight or self.revive_after):
            raise ValueError("diversity_weight, contrastive_weight and revive_after train an autoencoder; set them to 0 or method to rqvae")
        if self.method == "rqvae" and self.refine_rounds:
            raise ValueError("refine_rounds belongs to method rqkmeans; set it to 0")
        if self.revive_after and not self.ema:
            raise ValueError("revive_after re-seeds EMA codebooks; set ema: true or revive_after: 0")
        return self
