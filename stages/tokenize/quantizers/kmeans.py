"""Residual k-means: the first codebooks of the RQ-VAE, and a tokenizer by itself (RQ-k-means)."""

import numpy as np
import scipy.linalg
import scipy.sparse
import torch
from sklearn.cluster import KMeans

from stages.shared.core.errors import StageError
from stages.shared.core.progress import tracked
from stages.tokenize.quantizers.codebook import find_codes, nearest

POINTS_PER_CODE = 256  # more say little about a centre (the bound that faiss sets by default)
STIFFNESS = 1.0  # a code keeps its place as firmly as by so many items: a code with one item is not thrown about


def kmeans_codebooks(latents_ND: torch.Tensor, levels: int, size: int, seed: int) -> torch.Tensor:
    """Codebooks [L, C, D]: k-means++ and Lloyd's iterations (scikit-learn) on what each level leaves over."""
    if len(latents_ND) > size * POINTS_PER_CODE:
        rows = np.random.default_rng(seed).choice(len(latents_ND), size * POINTS_PER_CODE, replace=False)
        latents_ND = latents_ND[torch.from_numpy(np.sort(rows))]
    residual_ND = latents_ND
    different = len(np.unique(latents_ND.numpy(), axis=0))
    if different < size:
        raise StageError(f"{different} items with different embeddings cannot fill {size} codes; lower tokenize.codebook_size")
    codebooks = []
    for level in range(levels):
        # One start: k-means++ spreads its first centres, and the codebooks are trained or refined further.
        kmeans = KMeans(size, init="k-means++", n_init=1, random_state=seed + level).fit(residual_ND.numpy())
        codebook_CD = torch.from_numpy(kmeans.cluster_centers_).to(latents_ND.dtype)
        residual_ND = residual_ND - codebook_CD[nearest(residual_ND, codebook_CD)]
        codebooks.append(codebook_CD)
    return torch.stack(codebooks)


def refine(embeddings_ND: torch.Tensor, codebooks_LCD: torch.Tensor, rounds: int, beam: int) -> torch.Tensor:
    """Codebooks after `rounds` of encoding all items and solving for all codes of all levels at once.

    Given the codes, the sum of squared errors ||X - B E||^2 (B [N, L * C] one-hot by level) is least squares in the codebooks E
    together (Babenko & Lempitsky, Additive Quantization, CVPR 2014, section 3.1), where k-means settles a level before it knows
    the next. A ridge towards the codes of the round before keeps the system regular: one level's shift is another's.
    """
    levels, size, dim = codebooks_LCD.shape
    embeddings = embeddings_ND.numpy()
    rows = np.repeat(np.arange(len(embeddings)), levels)
    for _ in tracked(range(rounds), "rounds of refinement", unit="round"):
        columns = (find_codes(embeddings_ND, codebooks_LCD, beam).numpy() + size * np.arange(levels)).ravel()
        chosen = scipy.sparse.csr_matrix((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=(len(embeddings), levels * size))
        # In double precision: normal equations square the condition number of the system.
        left = (chosen.T @ chosen).toarray().astype(np.float64) + STIFFNESS * np.eye(levels * size)
        right = chosen.T @ embeddings + STIFFNESS * codebooks_LCD.reshape(-1, dim).numpy()
        solved = scipy.linalg.solve(left, right.astype(np.float64), assume_a="pos")
        codebooks_LCD = torch.from_numpy(solved.astype(np.float32)).reshape(levels, size, dim)
    return codebooks_LCD
