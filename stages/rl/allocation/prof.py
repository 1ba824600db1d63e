"""PROF (Ye et al. 2025, Beyond Correctness: Harmonizing Process and Outcome Rewards through RL Training, arXiv 2509.03403).

Answers whose process contradicts their outcome teach the wrong thing: right ones by a bad trace, wrong ones by a good trace. They leave
the group; the process is no part of the reward, where it could be hacked. Here the process is the trace's grounding (rewards/tokens.py).
"""

from collections.abc import Sequence


def consistent(is_right: Sequence[bool], process: Sequence[float], keep: int) -> list[int]:
    """The places of the `keep` answers that stay, ascending: as nearly as many right as wrong ones as there are (of an odd number, one
    wrong one more); the right ones of the highest process, the wrong ones of the lowest; of equals the first.
    """
    right = sorted((place for place, value in enumerate(is_right) if value), key=lambda place: (-process[place], place))
    wrong = sorted((place for place, value in enumerate(is_right) if not value), key=lambda place: (process[place], place))
    rights = min(len(right), max(keep - len(wrong), keep // 2))
    return sorted(right[:rights] + wrong[: keep - rights])
