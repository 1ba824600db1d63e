"""The one place that opens a rollout engine."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from stages.rl.engines.beside import EngineBeside
from stages.rl.params import RlParams
from stages.rl.policy import Policy
from stages.shared.core.errors import StageError
from stages.shared.core.model_folder import refuse_own_code
from stages.shared.generation.transformers_engine import TransformersEngine

RolloutEngine = TransformersEngine | EngineBeside


@contextmanager
def open_rollout_engine(
    policy: Policy, params: RlParams, base: Path, tokenizer: PreTrainedTokenizerBase, longest: int
) -> Iterator[RolloutEngine]:
    """base: the folder that the policy began with; longest: tokens of the longest prompt."""
    if not params.rollout.beside:
        yield TransformersEngine(policy.module, tokenizer.pad_token_id, tokenizer.eos_token_id, params.batch_size)
        return
    engine = EngineBeside(policy, params, base, longest)
    try:
        yield engine
    finally:
        engine.close()
