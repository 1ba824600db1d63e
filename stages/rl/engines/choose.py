"""The one place that opens a rollout engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from stages.rl.engines.beside import EngineBeside
from stages.rl.params import RlParams
from stages.rl.policy import Policy
from stages.shared.generation.transformers_engine import TransformersEngine


class EngineInPlace(TransformersEngine):
    """transformers on the policy's own weights."""

    def __init__(self, policy: Policy, params: RlParams, tokenizer: PreTrainedTokenizerBase):
        super().__init__(policy.module, tokenizer.pad_token_id, tokenizer.eos_token_id, params.batch_size)
        self.policy = policy

    @contextmanager
    def ready(self) -> Iterator[None]:
        """While open, it draws from the policy as it is."""
        with self.policy.sampling():
            yield


RolloutEngine = EngineInPlace | EngineBeside


@contextmanager
def open_rollout_engine(
    policy: Policy, params: RlParams, base: Path, tokenizer: PreTrainedTokenizerBase, longest: int
) -> Iterator[RolloutEngine]:
    """base: the folder that the policy began with; longest: tokens of the longest prompt."""
    if not params.rollout.beside:
        yield EngineInPlace(policy, params, tokenizer)
        return
    engine = EngineBeside(policy, params, base, longest)
    try:
        yield engine
    finally:
        engine.close()
