"""The policy that learns: plain torch in one process, or a DeepSpeed engine in several."""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from stages.rl.distribution import PLAIN, Drawn
from stages.rl.logprobs import Ids, Scores, plain_rows, refuse_changed_logits, response_logprobs, row_scores, tree_rows
from stages.rl.params import RlParams
from stages.rl.prefix_tree import use_tree_attention
from stages.shared.core.errors import StageError
from stages.shared.core.launch import is_main_process, without_compiled_collectives, world_size
from stages.shared.training.lora import add_lora, merge_lora
from stages.shared.training.zero import gathered, is_shared_out, make_whole, zero_options

MAX_GRAD_NORM = 1.0
# Largest mean difference between the log-probabilities of two forms, of which rounding explains a tenth at most; a wrong mask makes more.
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}
NOT_FINITE = (
    "lower rl.lr, set rl.importance_cap to 2.0, or train in float32. Earlier outputs and the last checkpoint (rl.save_steps) are intact"
)
NOBODY = ([[0]], [[[0]]])  # a prompt and a response, for a process that has none


class Policy:
    """AdamW without weight decay; `set_rate` says at which learning rate.

    `forward` takes part in learning; `module` is the model that samples and is saved.
    """

    def __init__(self, module: PreTrainedModel, params: RlParams, lora: Any = None):
        self.module: PreTrainedModel = module
        self.forward: Any = module
        self.params, self.lora = params, lora
        self.form: str = params.shared_prefix
        self.tree_difference: float | None = None  # from the plain form, mean of the first group's tokens; None: not compared yet
        self.optimizer: torch.optim.Optimizer
        if params.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(learning(module), lr=params.lr, momentum=0.9)
        else:
            self.optimizer = torch.optim.AdamW(learning(module), lr=params.lr, weight_decay=0.0)
        self.microbatches = 0

    def autocast(self) -> AbstractContextManager[Any]:
        device = next(self.module.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.params.autocasts)

    def score(self, prompts: Ids, responses: Sequence[Ids], pad_id: int, drawn: Drawn = PLAIN) -> Scores:
        """Of P prompts with G responses each, with gradient. All processes call it together, but for the form `cache`."""
        with self.autocast():
            if self.form == "cache":
                with_entropy = self.params.allocation.d3s_tokens < 1
                return response_logprobs(self.forward, prompts, responses, pad_id, drawn, with_entropy)
            if self.form == "tree" and self.tree_difference is None:
                self._compare(prompts[:1], responses[:1], pad_id)
            return self._scores_of_rows(self.form, prompts, responses, pad_id, drawn)

    def _scores_of_rows(self, form: str, prompts: Ids, responses: Sequence[Ids], pad_id: int, drawn: Drawn = PLAIN) -> Scores:
        device, chunk = next(self.module.parameters()).device, self.params.logprob_chunk
        rows = tree_rows(prompts, responses, device) if form == "tree" else plain_rows(prompts, responses, pad_id, device)
        calls = round(all_max(-(-len(rows.target_N) // chunk))) if chunk else 0
        return row_scores(self.forward, self.module, rows, responses, chunk, calls, drawn)

    def _compare(self, prompts: Ids, responses: Sequence[Ids], pad_id: int) -> None:
        """The tree against the plain form; every process goes back to the plain one where they differ in any."""
        with torch.no_grad():
            tree, plain = (self._scores_of_rows(form, prompts, responses, pad_id) for form in ("tree", "none"))
        difference = float((tree.logp - plain.logp).abs().sum() / plain.mask.sum())
        # NaN is no difference that may pass.
        self.tree_difference = all_max(difference if difference == difference else torch.inf)
        tolerance = TOLERANCE[self.params.computes_in]
        if self.tree_difference > tolerance:
            self.form = "none"
            if is_main_process():
                print(
                    f"WARNING: rl.shared_prefix: tree: log-probabilities differ by {self.tree_difference:.2g} on average from those of the "
                    f"plain form, more than {tolerance:g}: this model's attention does not go through transformers' "
                    "attention interface. Training goes on with rl.shared_prefix: none, which reads each prompt once a response",
                    file=sys.stderr,
                    flush=True,
                )

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]
        self.microbatches += 1

    def set_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def step(self) -> float:
        """One step on the mean of the losses since the last; the gradient's norm before it is cut to MAX_GRAD_NORM.

        StageError where the gradient is not finite: it would spoil every weight.
        """
        for parameter in self.module.parameters():
            # A frozen parameter has none.
            if parameter.grad is not None:
                parameter.grad /= self.microbatches
        norm = torch.nn.utils.clip_grad_norm_(self.module.parameters(), MAX_GRAD_NORM)
        if not torch.isfinite(norm):
            raise StageError(f"rl: the gradient's norm is {float(norm)}; {NOT_FINITE}")
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.microbatches = 0
        return float(norm)

    def zero_loss(self) -> Tensor:
        """A loss of zero that touches every parameter, so that all ranks reduce the same gradients."""
        if self.form == "cache":
            return torch.stack([parameter.sum() * 0.0 for parameter in learning(self.module)]).sum()
        # Weights that are shared out are gathered layer by layer, in all processes at once: one without a group runs the layers, too.
        return self.score(*NOBODY, pad_id=0).logp.sum() * 0.0

    def sampling(self) -> AbstractContextManager[None]:
        """While open, each process may run `module` by itself, as often as it likes."""
        return nullcontext()

    def finish(self, best: Path | None = None) -> None:
        """`module` is an ordinary model afterwards: adapters merged, and whole (under ZeRO-3 in the main process alone).

        best: weights of an earlier step (watch/validation.py), which the main process takes in place of the last.
        """
        if self.form != "cache":
            self.module.set_attn_implementation("sdpa")
        if best and is_main_process():
            self.module.load_state_dict(torch.load(best, map_location="cpu", weights_only=True))
        if self.lora:
            merge_lora(self.lora)


class DeepSpeedPolicy(Policy):
    """ZeRO stages 1 and 2: every rank holds all weights. Stage 3: they are gathered for sampling, and layer by layer for learning."""

    def __init__(self, module: PreTrainedModel, params: RlParams, lora: Any = None):
        import deepspeed

        config = json.loads(Path(params.deepspeed).read_text(encoding="utf-8"))
        if zero_options(params.deepspeed).get("stage", 0) > 2 and params.shared_prefix == "cache":
            raise StageError(
                f"{params.deepspeed}: rl.shared_prefix: cache takes ZeRO stage 2 at most; set it to tree, or use infra/deepspeed/zero2.json"
            )
        microbatches = max(1, -(-params.prompts // params.micro_prompts))
        config |= {
            "train_micro_batch_size_per_gpu": params.micro_prompts * params.group,
            "gradient_accumulation_steps": microbatches,
            "gradient_clipping": MAX_GRAD_NORM,
            "optimizer": {"type": "AdamW", "params": {"lr": params.lr, "weight_decay": 0.0, "torch_adam": True}},
            "bf16": {"enabled": False},  # it would drop the float32 weights; the engine also switches off an autocast it does not know of
            "torch_autocast": {"enabled": params.autocasts, "dtype": "bfloat16"},
        }
        # DeepSpeed refuses a total that does not fit the two sizes above, and a schedule would change the rate that set_rate gives.
        config.pop("train_batch_size", None)
        config.pop("scheduler", None)
        without_compiled_collectives()
        engine, *_ = deepspeed.initialize(model=module, model_parameters=learning(module), config=config)
        self.module, self.forward, self.params, self.lora = engine.module, engine, params, lora
        self.form, self.tree_difference = params.shared_prefix, None
        self.shared_out = is_shared_out(self.module.parameters())

    def backward(self, loss: Tensor) -> None:
        self.forward.backward(loss)
        self.forward.step()  # steps at the accumulation boundary only

    def set_rate(self, rate: float) -> None:
        for group in self.forward.optimizer.param_groups:
            group["lr"] = rate

    def step(self) -> float:
        """Taken by the engine in `backward`; a norm of 0 where it has not reckoned one."""
        norm = float(self.forward.get_global_grad_norm() or 0.0)
        if not math.isfinite(norm):
            raise StageError(f"rl: the gradient's norm is {norm}; {NOT_FINITE}")
        return norm

    @contextmanager
    def sampling(self) -> Iterator[None]:
        if not self.shared_out:
            yield
            return
        offload = self.forward.optimizer.parameter_offload
        with gathered(self.module.parameters()):
            # Processes sample different numbers of tokens: the hooks, which gather a layer in all of them at once, would wait forever.
            offload._remove_module_hooks()
            offload.forward_hooks, offload.backward_hooks = [], []
            try:
                yield
            finally:
                offload.setup_zero_stage3_hooks()

    def finish(self, best: Path | None = None) -> None:
        if self.shared_out:
            make_whole(self.module, self.forward)
            if not is_main_process():
                return
        super().finish(best)


def learning(module: nn.Module) -> list[nn.Parameter]:
    """All parameters but frozen ones."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def open_policy(model: PreTrainedModel, params: RlParams, token_ids: Sequence[int] = ()) -> Policy:
    """token_ids: whose embedding rows learn beside adapters (rl.lora); without adapters everything learns."""
    # Of torchrun by hand: the parameters that ask for several processes have been refused already.
    if world_size() > 1 and not params.deepspeed:
        raise StageError("params.yaml: rl.processes > 1 needs rl.deepspeed, e.g. infra/deepspeed/zero2.json")
    if params.shared_prefix != "cache":
        refuse_changed_logits(model, f"rl.shared_prefix: {params.shared_prefix}")
    if params.shared_prefix == "tree":
        use_tree_attention(model)
    lora = add_lora(model, params.lora, token_ids, params.seed) if params.lora.rank else None
    if params.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers recomputes in training mode alone; the engine leaves that mode to sample, and comes back to it.
        model.train()
    if params.deepspeed:
        return DeepSpeedPolicy(model, params, lora)
    return Policy(model.to("cuda") if torch.cuda.is_available() else model, params, lora)  # type: ignore[arg-type]


def all_max(value: float) -> float:
    """Largest of all ranks."""
    return _reduced(value, dist.ReduceOp.MAX)


def all_sum(value: float) -> float:
    """Sum over ranks."""
    return _reduced(value, dist.ReduceOp.SUM)


def all_sums(values: Sequence[float]) -> list[float]:
    """Each summed over ranks, in one go."""
    if world_size() == 1:
        return list(values)
    sums = torch.tensor(values, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(sums)
    return sums.tolist()  # type: ignore[no-any-return]


def _reduced(value: float, operation: Any) -> float:
    if world_size() == 1:
        return value
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"  # nccl reduces nothing that lies on the CPU
    total = torch.tensor([value], dtype=torch.float64, device=device)
    dist.all_reduce(total, op=operation)
    return float(total)


def all_mean(value: float) -> float:
    return all_sum(value) / world_size()
