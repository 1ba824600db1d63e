"""Two tables of unit vectors, text [N, D] and collaborative [N, H], into one of unit vectors."""

import numpy as np

from stages.embed.vectors import normalise
from stages.shared.core.errors import StageError


def concat(text: np.ndarray, collaborative: np.ndarray, weight: float) -> np.ndarray:
    """[N, D + H]. Cosines of the result are (1 - weight) * cosine of the text + weight * cosine of the collaborative part."""
    # Square roots, because a cosine multiplies two vectors: the weights of the parts appear squared in it.
    return normalise(np.hstack([np.sqrt(1 - weight) * text, np.sqrt(weight) * collaborative]))


def align(text: np.ndarray, collaborative: np.ndarray, weight: float, known: np.ndarray) -> np.ndarray:
    """[N, D]: the collaborative part rotated into the text's space and added. The rotation is fitted on the `known` items (bool [N])."""
    rotation_HD = procrustes(collaborative[known], text[known])
    return normalise((1 - weight) * text + weight * (collaborative @ rotation_HD))


def procrustes(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """R [H, D], R R' = 1, with the least |source R - target| (orthogonal Procrustes, Schönemann 1966, for H <= D).

    R R' = 1 keeps lengths and angles, and makes the problem that of the largest trace of R' source' target: U V' of its SVD.
    """
    if source.shape[1] > target.shape[1]:
        raise StageError(
            f"embed.collaborative: {source.shape[1]} dimensions cannot be rotated into the text's {target.shape[1]}; "
            "lower embed.collaborative.hidden or set mode: concat"
        )
    u, _, v = np.linalg.svd(source.T.astype(np.float64) @ target.astype(np.float64), full_matrices=False)
    rotation: np.ndarray = (u @ v).astype(np.float32)
    return rotation
