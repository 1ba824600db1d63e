"""A trained tokenizer: codebooks, and the autoencoder around them where there is one. Learn, save, load, encode, decode."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from stages.shared.core.errors import StageError
from stages.tokenize.params import TokenizeParams
from stages.tokenize.quantizers.codebook import CHUNK, decode_codes, find_codes
from stages.tokenize.quantizers.cooccurrence import Cooccurrence
from stages.tokenize.quantizers.kmeans import kmeans_codebooks, refine
from stages.tokenize.quantizers.model import Autoencoder
from stages.tokenize.quantizers.train import train


@dataclass(frozen=True)
class Quantizer:
    """`codebooks_LCD` live in the space of the latents; without an autoencoder (RQ-k-means) the latents are the embeddings."""

    codebooks_LCD: torch.Tensor
    autoencoder: Autoencoder | None

    @classmethod
    def learn(cls, embeddings_NE: np.ndarray, params: TokenizeParams, cooccurrence: Cooccurrence | None = None) -> Self:
        """Learnt on all items, or on `train_items` of them. The caller has seeded torch. `cooccurrence` is about all items, so
        none may be left out."""
        if len(embeddings_NE) > params.train_items:
            if cooccurrence is not None:
                raise StageError(
                    f"contrastive_weight needs all {len(embeddings_NE)} items in training; "
                    f"raise tokenize.train_items (now {params.train_items})"
                )
            # Sorted, so that a catalogue on disk is read from front to back; training shuffles its rows anyway.
            rows = np.random.default_rng(params.seed).choice(len(embeddings_NE), params.train_items, replace=False)
            embeddings_NE = embeddings_NE[np.sort(rows)]
        sample_NE = torch.from_numpy(np.array(embeddings_NE))
        if params.method == "rqkmeans":
            codebooks_LCD = kmeans_codebooks(sample_NE, params.levels, params.codebook_size, params.seed)
            return cls(refine(sample_NE, codebooks_LCD, params.refine_rounds, params.beam), None)
        model, codebooks_LCD = train(sample_NE, params, cooccurrence)
        return cls(codebooks_LCD, model.eval())

    @torch.no_grad()
    def latents(self, embeddings_NE: np.ndarray) -> torch.Tensor:
        """[N, D]; a large catalogue is read from disk in chunks. For RQ-k-means the embeddings, not copied."""
        if self.autoencoder is None:
            return torch.from_numpy(embeddings_NE)
        return torch.cat([self.autoencoder.encoder(torch.from_numpy(np.array(part))) for part in _chunks(embeddings_NE)])

    def codes(self, latents_ND: torch.Tensor, beam: int) -> np.ndarray:
        """int64 [N, L], nearest codes."""
        return find_codes(latents_ND, self.codebooks_LCD, beam).numpy()

    @torch.no_grad()
    def decode(self, codes_NL: np.ndarray) -> np.ndarray:
        """Embeddings [N, dim] of codes at all levels, or the first few."""
        summed_ND = decode_codes(torch.from_numpy(codes_NL), self.codebooks_LCD)
        decoded_NE: np.ndarray = (summed_ND if self.autoencoder is None else self.autoencoder.decoder(summed_ND)).numpy()
        return decoded_NE

    def errors(self, embeddings_NE: np.ndarray, codes_NL: np.ndarray) -> np.ndarray:
        """Of every item the mean over dimensions of the squared difference between embedding and decoded codes, [N]."""
        errors = []
        for start in range(0, len(codes_NL), CHUNK):
            rows = slice(start, start + CHUNK)
            errors.append(np.square(self.decode(codes_NL[rows]) - embeddings_NE[rows]).mean(axis=1, dtype=np.float64))
        return np.concatenate(errors)

    def save(self, path: Path) -> None:
        state = self.autoencoder.state_dict() if self.autoencoder else {}
        # RQ-k-means saves no other tensors, and `load` knows the method by that.
        save_file({"codebooks": self.codebooks_LCD.contiguous(), **state}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """StageError where the file is missing or damaged."""
        try:
            state = load_file(path)
            codebooks_LCD = state.pop("codebooks")
            return cls(codebooks_LCD, Autoencoder.from_state(state).eval() if state else None)
        except FileNotFoundError:
            raise StageError(f"{path}: no such file; append_to must name a folder with sid_map.parquet and codebooks.safetensors") from None
        except (SafetensorError, KeyError, RuntimeError, ValueError, IndexError) as error:
            raise StageError(f"{path}: not codebooks of this stage ({error}); copy the folder again from where it was made") from None


def _chunks(embeddings_NE: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(embeddings_NE), CHUNK):
        yield embeddings_NE[start : start + CHUNK]
