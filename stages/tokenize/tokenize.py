"""Item embeddings -> semantic IDs."""

from typing import Any

import numpy as np
import polars as pl
import torch

from stages.shared.core.errors import StageError
from stages.shared.core.leakage import training_counts
from stages.shared.core.outputs import DATA, Outputs, write_json
from stages.shared.core.progress import note
from stages.shared.core.schemas import INTERACTIONS, ITEMS, SID_MAP, SIDS, read_table, write_table
from stages.shared.recsys.embeddings import read_embeddings
from stages.shared.slates.trie import SidTrie
from stages.tokenize import measure, quality_gates
from stages.tokenize.assignment.append import Catalogue, drift
from stages.tokenize.assignment.assign import Taken, optimal_last, random_last
from stages.tokenize.assignment.overflow import resolve_overflow
from stages.tokenize.assignment.prefix_groups import prefix_numbers
from stages.tokenize.metrics import TokenizeMetrics
from stages.tokenize.params import TokenizeParams
from stages.tokenize.quantizers.cooccurrence import Cooccurrence
from stages.tokenize.quantizers.quantizer import Quantizer
from stages.tokenize.tables import sid_map, sid_table


def tokenize(params: TokenizeParams, outputs: Outputs) -> None:
    items = read_table(DATA / "ingest/items.parquet", ITEMS).sort("item")
    interactions = read_table(DATA / "ingest/interactions.parquet", INTERACTIONS)
    embeddings_NE = read_embeddings(items.height)
    earlier = Catalogue.load(params) if params.append_to else None
    if earlier:
        quantizer = fitting(earlier.quantizer, embeddings_NE)
    else:
        cooccurrence = Cooccurrence.count(interactions, items.height) if params.contrastive_weight else None
        quantizer = Quantizer.learn(embeddings_NE, params, cooccurrence)
    latents_ND = quantizer.latents(embeddings_NE)
    nearest_NL = quantizer.codes(latents_ND, params.beam)

    # Without an earlier catalogue every item counts as new, so both cases take the same path below.
    known_N = earlier.known(items["source_id"].to_list()) if earlier else np.full(items.height, -1)
    new_N = known_N < 0
    assigned_NL = nearest_NL.copy()
    taken: Taken | None = None
    retired_RL, retired_ids = np.zeros((0, params.levels), dtype=np.int64), []
    if earlier:
        taken = earlier.taken()
        assigned_NL[~new_N] = earlier.codes[known_N[~new_N]]
        # Items that left the catalogue keep their SIDs in sid_map.parquet: a later append must not give these to other items.
        gone = np.setdiff1d(np.arange(len(earlier.codes)), known_N)
        retired_RL, retired_ids = earlier.codes[gone], [earlier.source_ids[row] for row in gone]
    assigned_NL[new_N], overflowed = assign(latents_ND[new_N] if earlier else latents_ND, nearest_NL[new_N], quantizer, params, taken)
    # The use of codes is judged by the nearest ones: a random last level uses its codebook evenly, however poor the codes are.
    quality_gates.check(nearest_NL, assigned_NL, params)

    counts_LC = measure.usage_counts(assigned_NL, params.codebook_size)
    write_table(sid_table(assigned_NL), outputs.path("sids.parquet"), SIDS)
    write_table(sid_map(assigned_NL, items["source_id"].to_list(), retired_RL, retired_ids), outputs.path("sid_map.parquet"), SID_MAP)
    quantizer.save(outputs.path("codebooks.safetensors"))
    write_json(outputs.path("usage.json"), counts_LC.tolist())
    write_trie(assigned_NL, params, outputs)
    outputs.metrics(
        {
            **metrics(quantizer, embeddings_NE, nearest_NL, assigned_NL, items, interactions, params),
            "overflowed": overflowed,
            "append": drift(quantizer, embeddings_NE, nearest_NL, assigned_NL, new_N, params.codebook_size)
            | {"retired_sids": len(retired_ids)}
            if earlier
            else None,
        },
        TokenizeMetrics,
    )


def assign(
    latents_ND: torch.Tensor, nearest_NL: np.ndarray, quantizer: Quantizer, params: TokenizeParams, taken: Taken | None
) -> tuple[np.ndarray, int]:
    """The codes by the mode of `params.assignment`, and how many items had to move to another prefix."""
    if params.assignment == "nearest" or not len(nearest_NL):
        return nearest_NL, 0
    codebooks_LCD = quantizer.codebooks_LCD
    # Overflow first: with at most codebook_size items under a prefix, distinct last codes always exist.
    codes_NL, moved = resolve_overflow(latents_ND.numpy(), nearest_NL, codebooks_LCD.numpy(), taken)
    if len(moved):
        note(f"{len(moved)} items moved to their next-best prefix, because theirs had no free last code")
    if params.assignment == "random_last":
        return random_last(codes_NL, params.codebook_size, params.seed, taken), len(moved)
    return optimal_last(codes_NL, latents_ND.numpy(), codebooks_LCD.numpy(), taken), len(moved)


def fitting(quantizer: Quantizer, embeddings_NE: np.ndarray) -> Quantizer:
    """The earlier quantizer, if it takes vectors of this size."""
    # Decoding one made-up SID gives the dimension for both methods, with and without an autoencoder.
    decoded = quantizer.decode(np.zeros((1, len(quantizer.codebooks_LCD)), dtype=np.int64)).shape[1]
    if decoded != embeddings_NE.shape[1]:
        raise StageError(
            f"data/embed/embeddings.npy: vectors of {embeddings_NE.shape[1]} dimensions, the catalogue of append_to has {decoded}; "
            f"embed with the model it was made with"
        )
    return quantizer


def write_trie(codes_NL: np.ndarray, params: TokenizeParams, outputs: Outputs) -> None:
    """Of every SID one item: with assignment nearest and a gate below 1 some items may share their SID."""
    _, first = np.unique(prefix_numbers(codes_NL), return_index=True)
    SidTrie.from_codes(codes_NL, params.codebook_size, rows=np.sort(first)).save(outputs.path("trie.safetensors"))


def metrics(
    quantizer: Quantizer,
    embeddings_NE: np.ndarray,
    nearest_NL: np.ndarray,
    assigned_NL: np.ndarray,
    items: pl.DataFrame,
    interactions: pl.DataFrame,
    params: TokenizeParams,
) -> dict[str, Any]:
    labels_N = measure.category_labels(items["categories"])
    sizes = np.bincount(prefix_numbers(assigned_NL[:, :-1]))
    use, use_nearest = (measure.codebook_use(codes, params.codebook_size) for codes in (assigned_NL, nearest_NL))
    by_level = measure.error_by_level(quantizer, embeddings_NE, assigned_NL)
    return {
        "items": len(assigned_NL),
        "uniqueness": {"before": round(measure.uniqueness(nearest_NL), 6), "after": round(measure.uniqueness(assigned_NL), 6)},
        "sids_shared": len(measure.collisions(assigned_NL)),
        **use,
        "nearest": use_nearest,
        "prefix_group_max": int(sizes.max()),
        "reconstruction_error": by_level[-1],
        "reconstruction_error_by_level": by_level,
        "reconstruction_error_nearest": round(float(quantizer.errors(embeddings_NE, nearest_NL).mean()), 9),
        "embedding_variance": round(measure.variance(embeddings_NE), 9),
        "category_purity": measure.prefix_purity(assigned_NL, labels_N, params.seed),
        "neighbour_overlap": measure.neighbour_overlap(embeddings_NE, assigned_NL, params.seed),
        "collision_popularity": measure.collision_popularity(nearest_NL, training_counts(interactions, items.height)),
    }
