"""data/midtrain/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import HeldOutCheck, LossSpan, StageMetrics, ValidationSpan


class NextItemMetrics(StageMetrics):
    """The whole catalogue ranked by beam search over the SIDs that exist; and the next SID written freely."""

    users: int = Field(description="users asked: the item after their base history is the target, and nothing of it was trained on")
    recall_at_5: float = Field(alias="recall@5", description="share of targets among the first five")
    recall_at_10: float = Field(alias="recall@10", description="share of targets among the first ten")
    ndcg_at_5: float = Field(alias="ndcg@5", description="mean NDCG@5")
    ndcg_at_10: float = Field(alias="ndcg@10", description="mean NDCG@10")
    chance_at_10: float = Field(alias="chance@10", description="recall@10 of a random order of the catalogue")
    free_formed: float = Field(description="share of users for whom the model, without the trie and greedily, writes a SID by its form")
    free_valid: float = Field(description="share for whom it writes the SID of an item")


class ProbeMetrics(StageMetrics):
    """Shares of tokens predicted right, the text before them given; `_exact`: of documents with no wrong token, so that greedy decoding
    writes all of it."""

    next_item: NextItemMetrics | None = Field(None, description="sequence: the next item of users (absent where midtrain.probe_users is 0)")
    sid_to_title: float = Field(description="caption: tokens of the title after the SID")
    sid_to_title_exact: float = Field(description="caption: whole titles after the SID")
    sid_to_caption: float = Field(description="caption: tokens of title and categories after the SID")
    sid_to_caption_exact: float = Field(description="caption: whole title and categories after the SID")
    caption_to_sid: float = Field(description="caption: tokens of the SID after title and categories")
    caption_to_sid_exact: float = Field(description="caption: whole SIDs after title and categories")
    preference: float = Field(description="preference: tokens of the categories, on users' training positions after their base history")
    quoting: float = Field(description="judging: restated features, on made-up slates not trained on")
    judging: float = Field(description="judging: relevances, on the same slates")
    sorting: float = Field(description="sorting: tokens of the answer, on made-up lists not trained on")


class TextFit(StageMetrics):
    """How well ordinary text is predicted that was kept back from training (midtrain.text)."""

    perplexity: float = Field(description="exp of the mean -log p of a token")
    bits_per_byte: float = Field(description="-log2 p of the text over its bytes; comparable between tokenizers")


class TextMetrics(StageMetrics):
    before: TextFit | None = Field(None, description="of the checkpoint as it came; not measured where ZeRO-3 has shared it out")
    extended: TextFit | None = Field(None, description="of the checkpoint with its new rows, untrained; as above")
    after: TextFit = Field(description="of the model after training")


class MidtrainMetrics(StageMetrics):
    loss: LossSpan = Field(description="of the training; the curve is in loss.csv")
    validation: ValidationSpan | None = Field(None, description="loss on held-out rows (absent where validate_steps is 0)")
    parameters: int = Field(description="parameters of the model")
    vocabulary: int = Field(description="tokens of its vocabulary, those of the SIDs among them")
    rows: int = Field(description="training rows")
    tokens: dict[str, int] = Field(description="task -> training tokens of its rows")
    cut: dict[str, int] = Field(description="task -> documents in its rows that were longer than row_length, and lost their end")
    dropped: int = Field(description="judging slates drawn and not trained on, because they were longer than row_length (cut_slates)")
    text: TextMetrics | None = Field(None, description="of a pretrained model: ordinary text kept back; absent of a new decoder")
    probes: ProbeMetrics = Field(description="what the model can do after training")
    leak_check: HeldOutCheck = Field(description="counts of the leak check")
