"""Parameters of allocation. 1.0, 0 or false: off."""

from pydantic import Field

from stages.shared.core.params import Section


class AllocationSection(Section):
    """Which slates are answered, how often, and which answers the update learns from (stages/rl/allocation, a file each)."""

    d3s_share: float = Field(
        1.0, gt=0, le=1, description="D3S: share of a group's answers that are learnt from, those whose advantages vary most; 1 = all"
    )
    d3s_tokens: float = Field(
        1.0,
        gt=0,
        le=1,
        description="D3S: share of the tokens of a pass (rl.micro_prompts) that are learnt from, those of the greatest |advantage| times "
        "entropy; 1 = all",
    )
    d3s_across: bool = Field(False, description="D3S: chosen among all answers of a step, not in each group")
    d3s_relax: int = Field(0, ge=0, description="D3S: steps over which its shares rise to 1; 0 = they stay")
    prof_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="PROF: share of a group's answers that stay; the worst grounded right ones go, the best grounded wrong ones; 1 = all",
    )
    knapsack_most: int = Field(
        0,
        ge=0,
        description="Knapsack: most answers to a slate, by how often it is answered right, at the same number in all; 0 = group for each",
    )
    knapsack_least: int = Field(2, ge=2, description="Knapsack: least answers to a slate")
    dump: bool = Field(False, description="DUMP: slates are drawn by UCB over their target's places in the initial ranking; else all alike")
    dump_temperature: float = Field(0.1, gt=0, description="DUMP: of the softmax over the places' scores")
    dump_window: int = Field(100, ge=1, description="DUMP: last slates of a place whose mean absolute advantage counts")
    relift_batch: int = Field(0, ge=0, description="ReLIFT: traces of slates without a right answer in an SFT step; 0 = no such step")

    @property
    def changes_groups(self) -> bool:
        """Whether groups may have another number of answers than rl.group when they are learnt from."""
        return self.d3s_share < 1 or self.prof_share < 1 or self.knapsack_most > 0

    def contradictions(self, group: int) -> list[tuple[str, bool]]:
        """(problem, whether there is one), for groups of so many answers."""
        least = self.knapsack_least if self.knapsack_most else group
        stays = round(self.prof_share * least)
        learnt = stays if self.d3s_across else round(self.d3s_share * stays)
        return [
            (
                f"allocation: knapsack_most {self.knapsack_most} and knapsack_least {self.knapsack_least} must stand on both sides of "
                f"group {group}, which is the mean",
                self.knapsack_most > 0 and not self.knapsack_least <= group < self.knapsack_most,
            ),
            (
                f"allocation: prof_share {self.prof_share} and d3s_share {self.d3s_share} leave {learnt} of {least} answers to a slate, "
                "and one by itself has nothing to be compared with; raise a share, or rl.group",
                learnt < 2,
            ),
            (
                "allocation: d3s_across says how D3S chooses answers, and d3s_share: 1.0 keeps all; lower d3s_share",
                self.d3s_share == 1 and self.d3s_across,
            ),
            (
                "allocation: d3s_relax raises the shares of D3S, and d3s_share and d3s_tokens are 1.0; lower one",
                self.d3s_share == 1 and self.d3s_tokens == 1 and self.d3s_relax > 0,
            ),
        ]
