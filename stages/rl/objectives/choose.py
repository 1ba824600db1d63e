"""The objective that rl.objective names."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from stages.rl.objectives.advantages import batch_normalised, centred, group_normalised
from stages.rl.objectives.covariance import Select, clip_cov, kl_cov, select_for_clip, select_for_kl
from stages.rl.objectives.dapo import dapo
from stages.rl.objectives.disco import disco
from stages.rl.objectives.dr_grpo import dr_grpo
from stages.rl.objectives.grpo import grpo
from stages.rl.objectives.gspo import gspo
from stages.rl.objectives.lipo import lipo
from stages.rl.objectives.lite_ppo import lite_ppo
from stages.rl.objectives.parts import Loss, Part, Whole
from stages.rl.params import RlParams


class Objective(NamedTuple):
    """advantages: of rewards [P, G] and the standard deviation of all of the step. select: which tokens the loss treats apart."""

    loss: Callable[[Part, Whole, RlParams], Loss]
    advantages: Callable[[Tensor, float], Tensor] = group_normalised
    select: Select | None = None


OBJECTIVES = {
    "dapo": Objective(dapo),
    "grpo": Objective(grpo),
    "dr_grpo": Objective(dr_grpo, centred),
    "lite_ppo": Objective(lite_ppo, batch_normalised),
    "gspo": Objective(gspo),
    "clip_cov": Objective(clip_cov, select=select_for_clip),
    "kl_cov": Objective(kl_cov, select=select_for_kl),
    "disco": Objective(disco),
    "lipo": Objective(lipo),
}
