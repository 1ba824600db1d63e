"""Section `tokenize` of params.yaml."""

from typing import Literal

from pydantic import Field

from stages.shared.params import ComputeSection


class TokenizeParams(ComputeSection):
    threads: int = Field(1, ge=1, description="threads of torch, BLAS and OpenMP")
    levels: int = Field(4, ge=2, le=26, description="codes per item; levels are lettered a to z")
    codebook_size: int = Field(32, ge=2, description="codes per level")
    latent_dim: int = Field(32, ge=1)
    hidden_dims: list[int] = Field([256, 128], description="widths of the encoder's hidden layers; the decoder mirrors them")
    # Without it the latents move away from the first codes: of 256 codes of level a, 26 % stayed in use, with it all.
    warmup_epochs: int = Field(30, ge=0, description="epochs of the plain autoencoder before k-means makes the first codebooks")
    epochs: int = Field(300, ge=1, description="epochs with quantisation, after the warm-up")
    batch_size: int = Field(256, ge=1)
    lr: float = Field(3e-3, gt=0)
    # Measured on MovieLens-100K, share of the embeddings' variance explained: beta 0.25 .39, 0.1 .41, 0.05 .43; all codes in use.
    beta: float = Field(0.05, ge=0, description="weight of the commitment loss")
    ema_decay: float = Field(0.97, gt=0, lt=1, description="of the codebooks; GR2 finds 0.95 to 0.99 good")
    revive_after: int = Field(0, ge=0, description="batches unused before a code is re-seeded on a badly quantised item; 0 = never")
    assignment: Literal["random_last", "nearest"] = "random_last"
    uniqueness_gate: float = Field(0.99, ge=0, le=1, description="least share of items whose SID no other item has")
