"""What forked_processes.py has in memory before it forks."""

from stages.shared.core.run import importing

with importing():
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401 (which DeepSpeed imports at its first optimizer, with torch's compiler)
    import peft  # noqa: F401
    import transformers.models.llama.modeling_llama
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401

    import stages.rl.policy
    import stages.shared.generation.transformers_engine
    import stages.shared.training.trainer  # noqa: F401
