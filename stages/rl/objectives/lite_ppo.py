"""Lite PPO (Liu et al. 2025, Tricks or Traps?, arXiv 2508.08221): DAPO's loss on advantages of another scale.

    A_i = (R_i - mean of the group) / standard deviation of all rewards of the step

A slate whose answers differ little then teaches little, and is not blown up to the size of the others. The paper clips alike on both sides.
"""

from stages.rl.objectives.dapo import dapo

lite_ppo = dapo
