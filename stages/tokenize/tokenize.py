"""Item embeddings -> semantic IDs."""

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file

from stages.shared.errors import StageError
from stages.shared.outputs import DATA, Outputs, write_json
from stages.shared.sids import sid_text
from stages.shared.tables import SIDS, write_table
from stages.tokenize.assign import collisions, perplexity, random_last, uniqueness, usage_counts
from stages.tokenize.codebook import decode_codes, quantise
from stages.tokenize.model import Autoencoder, train
from stages.tokenize.params import TokenizeParams


def tokenize(params: TokenizeParams, outputs: Outputs) -> None:
    embeddings_NE = read_embeddings()
    model, codebooks_LCD = train(embeddings_NE, params)
    model.eval()
    with torch.no_grad():
        nearest_NL = quantise(model.encoder(embeddings_NE), codebooks_LCD)[0].numpy()
    if params.assignment == "random_last":
        codes_NL = random_last(nearest_NL, params.codebook_size, params.seed)
    else:
        codes_NL = nearest_NL
    check_uniqueness(codes_NL, params.uniqueness_gate)

    counts_LC = usage_counts(codes_NL, params.codebook_size)
    write_table(sid_table(codes_NL), outputs.path("sids.parquet"), SIDS)
    save_file({"codebooks": codebooks_LCD.contiguous(), **model.state_dict()}, outputs.path("codebooks.safetensors"))
    write_json(outputs.path("usage.json"), counts_LC.tolist())
    outputs.metrics(
        {
            "items": len(codes_NL),
            "uniqueness": {"before": uniqueness(nearest_NL), "after": uniqueness(codes_NL)},
            "usage": [round(float((counts > 0).mean()), 6) for counts in counts_LC],
            "perplexity": [round(perplexity(counts), 4) for counts in counts_LC],
            "usage_nearest": [round(float((counts > 0).mean()), 6) for counts in usage_counts(nearest_NL, params.codebook_size)],
            "prefix_group_max": int(np.unique(codes_NL[:, :-1], axis=0, return_counts=True)[1].max()),
            "reconstruction_error": reconstruction_error(model, embeddings_NE, codes_NL, codebooks_LCD),
            "reconstruction_error_nearest": reconstruction_error(model, embeddings_NE, nearest_NL, codebooks_LCD),
            "embedding_variance": round(float((embeddings_NE - embeddings_NE.mean(dim=0)).square().mean()), 9),
        }
    )


def read_embeddings() -> torch.Tensor:
    """float32 [items, dim]; StageError for a missing or damaged file and for a vector that is not finite."""
    path = DATA / "embed" / "embeddings.npy"
    try:
        embeddings_NE = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise StageError(f"{path}: no such file; run the stage that makes it: gr2 run embed") from None
    except (ValueError, EOFError) as error:
        raise StageError(f"{path}: not a readable array ({error}); rerun: gr2 run embed") from None
    if embeddings_NE.ndim != 2 or embeddings_NE.dtype != np.float32 or not len(embeddings_NE):
        raise StageError(f"{path}: {embeddings_NE.dtype} {embeddings_NE.shape}, expected float32 [items, dim]; rerun: gr2 run embed")
    bad = np.flatnonzero(~np.isfinite(embeddings_NE).all(axis=1))
    if bad.size:
        raise StageError(f"{path}: the embedding of item {bad[0]} is not finite ({bad.size} items in all); rerun: gr2 run embed")
    return torch.from_numpy(embeddings_NE)


def check_uniqueness(codes_NL: np.ndarray, gate: float) -> None:
    """The gate: an SID that stands for two items cannot be ranked."""
    share = uniqueness(codes_NL)
    if share < gate:
        shared = collisions(codes_NL)
        raise StageError(
            f"uniqueness {share:.4f} is below tokenize.uniqueness_gate {gate}: {sum(map(len, shared))} of {len(codes_NL)} items share "
            f"{len(shared)} SIDs (first: items {shared[0][:5]}); use assignment: random_last, or raise codebook_size or levels"
        )


def sid_table(codes_NL: np.ndarray) -> pl.DataFrame:
    """One row per item, in item order."""
    codes = codes_NL.tolist()
    return pl.DataFrame({"item": range(len(codes)), "codes": codes, "sid": [sid_text(row) for row in codes]}, schema=SIDS)


@torch.no_grad()
def reconstruction_error(model: Autoencoder, embeddings_NE: torch.Tensor, codes_NL: np.ndarray, codebooks_LCD: torch.Tensor) -> float:
    """Mean over items and dimensions of the squared difference between embedding and decoded SID."""
    decoded_NE = model.decoder(decode_codes(torch.from_numpy(codes_NL), codebooks_LCD))
    return round(float((decoded_NE - embeddings_NE).square().mean()), 9)
