"""data/tokenize/metrics.json. A list has an entry a level, coarsest first; docs/items.md says how to read the figures."""

from pydantic import Field

from stages.shared.core.stage_metrics import StageMetrics


class UniquenessMetrics(StageMetrics):
    before: float = Field(description="share of items that share their SID with no other, by their nearest codes")
    after: float = Field(description="the same after the last level is assigned")


class CodebookUse(StageMetrics):
    usage: list[float] = Field(description="share of codes in use, by level")
    perplexity: list[float] = Field(description="2^entropy of the use of codes, by level")
    entropy_bits: list[float] = Field(description="entropy of the use of codes in bits, by level")


class PrefixPurity(StageMetrics):
    purity: list[float] = Field(description="share of items of the commonest category list under their prefix of 1, 2, ... codes")
    shuffled: list[float] = Field(description="the same with the categories shuffled: what chance gives")


class NeighbourOverlap(StageMetrics):
    items: int = Field(description="items drawn, at most 1,000")
    neighbours: int = Field(description="nearest items by cosine looked at for each")
    near: list[float] = Field(description="share of these pairs with the same prefix of 1, 2, ... codes")
    random: list[float] = Field(description="the same for pairs drawn at random")


class CollisionPopularity(StageMetrics):
    colliding_items: int = Field(description="items that share their SID with another before the assignment")
    auc: float | None = Field(description="chance that one of them is more popular than another item; null if none or all collide")
    p_value: float | None = Field(description="Mann-Whitney test of that; null likewise")
    mean_taken_colliding: float | None = Field(description="mean interactions in base of the colliding items; null likewise")
    mean_taken_others: float | None = Field(description="mean interactions in base of the others; null likewise")


class NearestErrors(StageMetrics):
    old: float = Field(description="mean reconstruction error of items of the earlier catalogue")
    new: float = Field(description="mean reconstruction error of new items")
    ratio: float = Field(description="new / old")


class AppendMetrics(StageMetrics):
    """The last three are absent if all items are new, or none."""

    old_items: int = Field(description="items that keep the SID of the earlier catalogue")
    new_items: int = Field(description="items that got one in this run")
    retired_sids: int = Field(description="SIDs of earlier items that are gone; nobody gets them again")
    error_nearest: NearestErrors | None = Field(None, description="how well the earlier codebooks fit")
    divergence_bits: list[float] | None = Field(
        None, description="Jensen-Shannon divergence between the codes of old and new items, by level; 0 alike, 1 disjoint"
    )
    moved: float | None = Field(None, description="share of old items whose nearest prefix is not the one they keep")


class TokenizeMetrics(CodebookUse):
    items: int = Field(description="items with a SID")
    uniqueness: UniquenessMetrics = Field(description="share of items that share their SID with no other")
    sids_shared: int = Field(description="SIDs that stand for more than one item")
    nearest: CodebookUse = Field(description="the use of codes by the nearest codes, before the assignment")
    prefix_group_max: int = Field(description="most items under one prefix (all codes but the last)")
    overflowed: int = Field(description="items moved to their next-best prefix because theirs had no free last code")
    reconstruction_error: float = Field(description="mean squared error of the vectors decoded from the SIDs")
    reconstruction_error_by_level: list[float] = Field(description="the same with the first 1, 2, ... codes")
    reconstruction_error_nearest: float = Field(description="the same with the nearest codes, before the assignment")
    embedding_variance: float = Field(description="mean variance of a dimension of the vectors: what an error compares with")
    category_purity: PrefixPurity = Field(description="do items under one prefix have the same categories")
    neighbour_overlap: NeighbourOverlap = Field(description="do items that are near in embedding share prefixes")
    collision_popularity: CollisionPopularity = Field(description="are colliding items more or less popular than the others")
    append: AppendMetrics | None = Field(description="append mode (tokenize.append_to): drift from the earlier catalogue; else null")
