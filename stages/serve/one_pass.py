"""Ranking without generation: the logits of the first token of the answer, over the candidates' letters (FIRST, arXiv 2406.15657)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from stages.shared.core.device import arithmetic, device_of
from stages.shared.core.errors import StageError
from stages.shared.generation.params import EngineParams
from stages.shared.lm.models import load_model, load_tokenizer, spell_out
from stages.shared.slates.layouts.choose import without_reasoning
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.layouts.layout import Layout
from stages.shared.slates.layouts.marks import LETTERS
from stages.shared.slates.reranking.rankings import Rankings
from stages.shared.slates.slate import Slate


@dataclass(frozen=True)
class OnePass:
    """encoded: of the layout without reasoning, whose prompts end where the first letter comes next. letters: their first tokens."""

    model: PreTrainedModel
    encoded: EncodedLayout
    letters: list[int]
    batch_size: int

    def rank(self, slates: Sequence[Slate]) -> tuple[Rankings, NDArray[np.float64]]:
        """The orders, and [n, K] the probability of each candidate to be named first, among the candidates. Equals keep the order shown.

        The slates have equally many candidates.
        """
        parts = [self._probabilities(slates[start : start + self.batch_size]) for start in range(0, len(slates), self.batch_size)]
        scores_NK = np.concatenate(parts)
        orders_NK = np.argsort(-scores_NK, axis=1, kind="stable")
        none = [0] * len(slates)  # tokens: nothing is written
        return Rankings(orders_NK, [""] * len(slates), [""] * len(slates), none, none), scores_NK

    @torch.no_grad()
    def _probabilities(self, slates: Sequence[Slate]) -> NDArray[np.float64]:
        prompts = self.encoded.prompts(slates)
        letters_K = torch.tensor(self.letters[: len(slates[0].candidates)], device=self.model.device)
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        longest, room = int(lengths.max()), getattr(self.model.config, "max_position_embeddings", None)
        if room is not None and longest > room:
            raise StageError(f"a prompt of {longest} tokens exceeds the {room} positions of the model; show less history (prompt.history)")
        # Padded at the end: what comes later is hidden from what came before anyway.
        tokens = torch.zeros(len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens[row, : len(prompt)] = torch.tensor(prompt)
        mask = torch.arange(longest) < lengths[:, None]
        hidden = self.model.base_model(tokens.to(self.model.device), attention_mask=mask.long().to(self.model.device)).last_hidden_state
        logits_NV = self.model.get_output_embeddings()(hidden[torch.arange(len(prompts)), lengths - 1])
        return logits_NV[:, letters_K].double().softmax(dim=1).cpu().numpy()


def open_one_pass(folder: Path, layout: Layout, engine: EngineParams, model: PreTrainedModel | None = None) -> OnePass:
    """StageError where one token does not tell the candidates apart. model: the one at `folder`, where it is loaded already."""
    encoded = EncodedLayout(without_reasoning(layout), load_tokenizer(folder))
    if layout.dialogue or not layout.answers_by_letter:
        raise StageError("one pass needs prompt.layout compact and prompt.answer letters, where the first token of an answer is a letter")
    firsts = [ids[0] for ids in encoded.tokenizer(LETTERS, add_special_tokens=False)["input_ids"]]
    if len(set(firsts)) < len(LETTERS):
        raise StageError(f"{folder}: its tokenizer begins two letters with the same token, so one pass cannot tell candidates apart")
    if model is None:
        device = device_of(engine.device, "engine.device")
        model = load_model(folder, arithmetic(engine.dtype, device), device)
    spell_out(model)
    return OnePass(model, encoded, firsts, engine.batch_size)
