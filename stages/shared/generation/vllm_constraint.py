"""A constraint inside vLLM. Only vLLM imports this module, by the name that vllm_engine gives it."""

from collections.abc import Callable
from typing import Any

import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from stages.shared.slates.constraint import ConstraintState, LayoutTokenIds, PermutationConstraint
from stages.shared.slates.json_constraint import JsonConstraint


class ConstraintProcessor(AdapterLogitsProcessor):
    """Closes, for each request that carries a constraint, the tokens its mask forbids."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Callable[[list[int], torch.Tensor], torch.Tensor] | None:
        constraint = (params.extra_args or {}).get("constraint")
        if constraint is None:
            return None
        kind = JsonConstraint if "grammar" in constraint else PermutationConstraint
        return Follower(kind(**{**constraint, "layout": LayoutTokenIds(**constraint["layout"])}).start())


class Follower:
    """One completion: reads the tokens that are new since the last call."""

    def __init__(self, state: ConstraintState):
        self.state, self.read = state, 0

    def __call__(self, output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
        for token in output_ids[self.read :]:
            self.state.advance(token)
        self.read = len(output_ids)
        mask = self.state.mask()
        if mask.allow:
            closed = torch.ones(logits.shape, dtype=torch.bool)
            closed[mask.ids] = False
            return logits.masked_fill_(closed.to(logits.device), -torch.inf)
        logits[mask.ids] = -torch.inf
        return logits
