"""A guide inside vLLM. Only vLLM imports this module, by the name that vllm_engine gives it."""

from collections.abc import Callable
from typing import Any

import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from stages.shared.slates.constraint import Guide, GuideState, Words


class GuideProcessor(AdapterLogitsProcessor):
    """Closes, for each request that carries a guide, the tokens its rule forbids."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Callable[[list[int], torch.Tensor], torch.Tensor] | None:
        told = (params.extra_args or {}).get("guide")
        if told is None:
            return None
        return Follower(Guide(Words(**told["words"]), told["candidates"], told["reasoning"]).start())


class Follower:
    """One completion: reads the tokens that are new since the last call."""

    def __init__(self, state: GuideState):
        self.state, self.read = state, 0

    def __call__(self, output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        for token in output_ids[self.read :]:
            self.state.advance(token)
        self.read = len(output_ids)
        rule = self.state.rule()
        if rule.only:
            closed = torch.ones(logits.shape, dtype=torch.bool)
            closed[rule.ids] = False
            return logits.masked_fill_(closed.to(logits.device), -torch.inf)
        logits[rule.ids] = -torch.inf
        return logits
