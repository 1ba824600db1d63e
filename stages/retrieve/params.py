"""Parameters of the retriever and its slates."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.shared.core.params import ComputeSection, Section

LANGUAGE_MODEL = "data/midtrain/model"  # what the retriever `language_model` reads
CATALOGUE = "data/ingest/items.parquet"  # what the others read


class ItemKnnParams(Section):
    neighbours: int = Field(100, ge=1, description="nearest items kept for each item")
    last: int = Field(10, ge=1, description="items of history that vote")
    decay: float = Field(0.8, gt=0.0, le=1.0, description="weight of a vote for each step further back")
    shrinkage: float = Field(10.0, ge=0.0, description="a pair's users in common, n, count n / (n + shrinkage): few prove little")


class LanguageModelRetrieverParams(Section):
    beam: int = Field(20, ge=1, description="prefixes of SIDs followed at once; at least retrieve.candidates, better twice as many")
    history: int = Field(
        20, ge=1, description="items of history in the prompt, most recent last; no more than midtrain.row_length has room for"
    )
    batch_size: int = Field(64, ge=1, description="histories decoded at once, each with its beam")


class GivenParams(Section):
    """Columns of a file that holds a slate a row, or with `slate` a shown item; of an object within a row, a path as user.id; "" = none."""

    format: Literal["table", "mind"] = Field("table", description="table: Parquet, JSON lines, CSV or TSV; mind: MIND's behaviors.tsv")
    user: str = Field("user", description="column: the user's id in the source")
    time: str = Field("time", description="column: when the slate was shown; ISO 8601, or a number of time_unit since 1970")
    time_unit: Literal["s", "ms", "us", "ns"] = Field("s", description="of times that are numbers")
    time_format: str = Field("", description="of times that are text: as strptime writes them (%d.%m.%Y %H:%M); none: ISO 8601, numbers")
    slate: str = Field("", description="column: the id of the list, where a row is one shown item; none: a row is a whole list")
    place: str = Field("", description="column, with slate: the item's place in the list; none: rows stand as the items were shown")
    candidates: str = Field(
        "candidates", description="column: the items' ids in the order shown, a list or text cut at separator; with slate: the item's id"
    )
    taken: str = Field(
        "taken",
        description="column: those of them that were taken, one or several, in the same form; with slate: 1 or true, or a grade; none: "
        "behind each candidate stands -1 or -0, as in N1-0 N2-1",
    )
    grades: str = Field("", description="column: what each of the taken was worth, whole numbers to 10, 0 = not taken; none: 1 each")
    scores: str = Field("", description="column: the score of each candidate; none: minus its place")
    propensities: str = Field("", description="column: the chance that each candidate was looked at, where propensity is logged")
    separator: str = Field(" ", min_length=1, description="between the elements of a list that is text")
    column_separator: str = Field("", max_length=1, description="between the columns of text files; none: a comma, in .tsv a tab")
    order: Literal["shown", "shuffled"] = Field("shown", description="shuffled: the log lists candidates in another order than users saw")
    max_bad_share: float = Field(0.01, ge=0.0, le=1.0, description="of the rows of a file that may be refused before the stage fails")
    propensity: Literal["none", "logged", "power", "randomised"] = Field(
        "none", description="where inverse-propensity weights of the evaluation come from; docs/logged-slates.md"
    )
    power: float = Field(1.0, gt=0.0, description="propensity power: (1 / place) ** power")
    least_propensity: float = Field(0.01, gt=0.0, le=1.0, description="smaller ones count as this, so that no weight outgrows the others")

    @model_validator(mode="after")
    def columns_go_together(self) -> Self:
        if self.place and not self.slate:
            raise ValueError("retrieve.given.place is an item's, and a row is a whole list; name retrieve.given.slate, or no place")
        if not self.taken and (self.slate or self.grades):
            raise ValueError(
                'retrieve.given.taken "" takes what was taken from the marks of the candidates, and goes with neither slate nor grades; '
                "name its column"
            )
        if self.format == "mind" and self.order == "shown":
            raise ValueError(
                "retrieve.given.format mind: MIND shuffles the candidates of its impressions; set retrieve.given.order: shuffled"
            )
        if self.order == "shuffled" and self.propensity in ("power", "randomised"):
            raise ValueError(
                f"retrieve.given.propensity {self.propensity} follows the place of a candidate, and retrieve.given.order is shuffled: "
                "places are not known; set propensity: none, or logged"
            )
        if (self.propensity == "logged") != bool(self.propensities):
            raise ValueError("retrieve.given.propensity logged and the column retrieve.given.propensities go together; set both or neither")
        return self


class RetrieveParams(ComputeSection):
    candidates: int = Field(10, ge=2, description="K, candidates a slate; given: at most so many, longer ones are left out")
    history: int = Field(20, ge=1, description="items of history kept in a slate")
    max_length: int = Field(50, ge=2, description="items the SASRec attends to")
    hidden: int = Field(64, ge=8)
    layers: int = Field(2, ge=1)
    heads: int = Field(2, ge=1)
    dropout: float = Field(0.3, ge=0.0, lt=1.0)
    epochs: int = Field(60, ge=1)
    batch_size: int = Field(64, ge=1)
    lr: float = Field(0.001, gt=0.0)
    feature_history: int = Field(10, ge=1, description="items of history that the features look at")
    feature_bins: int = Field(10, ge=2, le=10, description="bins a feature is cut into")
    model: Literal["sasrec", "item_knn", "popularity", "language_model", "given"] = Field(
        "sasrec", description="the retriever; docs/retrieve.md. given: slates that were logged"
    )
    reads: str = Field(
        CATALOGUE,
        description="what the retriever reads besides the interactions; data/midtrain/model for language_model, the logged slates (a file "
        "or a folder) for given. dvc.yaml takes this value as a dependency",
    )
    loss: Literal["full", "sampled"] = Field(
        "full", description="sasrec: cross-entropy over the catalogue, or sampled softmax (large ones)"
    )
    negatives: int = Field(1000, ge=1, description="sasrec, loss sampled: items drawn for each batch")
    weight_decay: float = Field(0.01, ge=0.0, description="sasrec: AdamW")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="sasrec and language_model; auto takes the GPU if there is one")
    cross_fit: Literal["cut", "folds"] = Field(
        "cut", description="cut: learns from base alone; folds: training slates by a model of other users' base and train"
    )
    folds: int = Field(5, ge=2, description="cross_fit folds: folds the users are assigned to, each with its own fit")
    positions: int = Field(0, ge=0, description="slates at the last so many positions of each split of a user; 0 = at all")
    hard_negatives: int = Field(0, ge=0, description="ranks of a training slate given to look-alikes of its target")
    hard_pool: int = Field(100, ge=1, description="candidates beyond the top K that hard negatives and injected targets' scores come from")
    inject_targets: bool = Field(False, description="training slates that miss their target get it at the last rank")
    order: Literal["scores", "shuffled"] = Field("scores", description="incoming order of all slates; shuffled: by chance, seeded")
    labels: Literal["observed", "permuted"] = Field("observed", description="permuted, a control: training targets' ranks permuted")
    item_knn: ItemKnnParams = ItemKnnParams()
    language_model: LanguageModelRetrieverParams = LanguageModelRetrieverParams()
    given: GivenParams = GivenParams()

    @model_validator(mode="after")
    def heads_divide_hidden(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        return self

    @model_validator(mode="after")
    def hard_negatives_leave_the_target(self) -> Self:
        if self.hard_negatives >= self.candidates:
            raise ValueError(
                f"hard_negatives ({self.hard_negatives}) must be less than candidates ({self.candidates}): the target keeps its place"
            )
        return self

    @model_validator(mode="after")
    def reads_what_its_model_needs(self) -> Self:
        if (self.model == "language_model") != (self.reads == LANGUAGE_MODEL) or (self.model == "given" and self.reads == CATALOGUE):
            fitting = f"{LANGUAGE_MODEL} goes with language_model, the logged slates with given, {CATALOGUE} with the others"
            raise ValueError(f"retrieve.model is {self.model} and retrieve.reads is {self.reads}, which do not go together: {fitting}")
        return self

    @model_validator(mode="after")
    def the_language_model_learnt_from_base(self) -> Self:
        if self.model == "language_model" and self.cross_fit == "folds":
            raise ValueError("retrieve.model language_model goes with retrieve.cross_fit cut: it was mid-trained once, on base")
        return self

    @model_validator(mode="after")
    def given_slates_stay_as_they_are(self) -> Self:
        if self.model != "given":
            return self
        changed = {
            "cross_fit": "cut",
            "positions": 0,
            "hard_negatives": 0,
            "inject_targets": False,
            "order": "scores",
            "labels": "observed",
        }
        for key, value in changed.items():
            if getattr(self, key) != value:
                raise ValueError(
                    f"retrieve.{key} changes slates that a model makes, and retrieve.model given takes them as they were logged; set "
                    f"{key}: {str(value).lower()}"
                )
        return self
