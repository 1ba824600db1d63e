"""data/embed/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, LossSpan, StageMetrics


class EmbeddingModelMetrics(StageMetrics):
    name: str = Field(description="last part of embed.model")
    sha256: str = Field(description="of the model's weights")
    dtype: str = Field(description="number format the model ran in")


class TextPrediction(StageMetrics):
    items: int = Field(description="items without a trained collaborative vector, predicted from their text")
    r2_held_out: float = Field(description="R2 of that prediction on a tenth of the items that have one")


class NeighbourShares(StageMetrics):
    """Only `items` is given where fewer than two items have an adjacent one."""

    items: int = Field(description="items looked at, at most 1,000: those adjacent to another item in some sequence")
    chance: float | None = Field(None, description="share of adjacent items among ten neighbours drawn at random")
    popular: float | None = Field(None, description="the same if the ten items with most adjacent ones were everyone's neighbours")
    text: float | None = Field(None, description="the same for the ten nearest by text vector")
    result: float | None = Field(None, description="the same for the ten nearest by the joined vector")
    diff: float | None = Field(None, description="result minus text")
    diff_ci: tuple[float, float] | None = Field(None, description="its 95 % interval, normal approximation over items")


class NeighbourMetrics(StageMetrics):
    base: NeighbourShares = Field(description="adjacent in the sequences of base, which the collaborative vectors were trained on")
    train: NeighbourShares = Field(description="adjacent in the sequences of train, which they have not seen")


class CollaborativeMetrics(StageMetrics):
    mode: str = Field(description="embed.collaborative.mode: concat or align")
    loss: LossSpan = Field(description="of the SASRec whose item table is used")
    predicted_from_text: TextPrediction = Field(description="items that stand in no base sequence of two or more")
    neighbours: NeighbourMetrics = Field(description="do neighbours by cosine stand next to each other in people's sequences")
    leak_check: HeldOutCheck = Field(description="counts of the leak check")


class EmbedMetrics(StageMetrics):
    items: int = Field(description="rows of embeddings.npy")
    dim: int = Field(description="its columns")
    mean_cosine: float = Field(description="mean cosine between two items; near 1 means that all vectors look alike")
    model: EmbeddingModelMetrics = Field(description="the embedding model")
    collaborative: CollaborativeMetrics | None = Field(None, description="only where embed.collaborative.mode is not none")
