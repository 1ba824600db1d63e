"""Requests into slates: the same features, counted on the same rows and cut at the same edges as in the stage `retrieve`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from stages.retrieve.params import RetrieveParams
from stages.serve.initial_scores import CandidateScorer, open_scorer
from stages.serve.requests import RankRequest, places_of
from stages.shared.core.errors import StageError
from stages.shared.core.leakage import training_interactions
from stages.shared.core.outputs import DATA
from stages.shared.core.params import load_params
from stages.shared.core.schemas import ITEMS, SLATES, read_slate_table, read_table
from stages.shared.evaluation.test_set import fitted_on
from stages.shared.slates.candidate_features import features_of, read_candidate_features
from stages.shared.slates.features.statistics import Statistics, count
from stages.shared.slates.features.values import bin_edges, collect, to_bins
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Slate

SPARE = 50  # times the candidates of a slate: popular items among which those that fill a slate are looked for


@dataclass(frozen=True)
class SlateMaker:
    """edges: of the bins, [features, bins - 1]. popular: items by falling popularity, enough to fill a slate.
    less: features that no prompt shows."""

    params: RetrieveParams
    features: tuple[str, ...]
    statistics: Statistics
    edges: NDArray[np.floating]
    popular: list[int]
    scorer: CandidateScorer | None
    less: Sequence[str] = ()

    @classmethod
    def read(cls, params: RetrieveParams, log: pl.DataFrame) -> "SlateMaker":
        """From the tables of the run in the current directory; log: its INTERACTIONS."""
        items = read_table(DATA / "ingest/items.parquet", ITEMS)
        table = read_candidate_features(DATA / "retrieve/candidate_features.parquet")
        slates = read_slate_table(DATA / "retrieve/slates.parquet")
        features = features_of(table)
        # `retrieve` writes bins and values, not the edges between; of the same values they come out the same.
        train = slates.filter(pl.col("split") == "train").select("slate")
        values = table.join(train, on="slate", how="semi", maintain_order="left").select(features).to_numpy()
        edges = bin_edges(values[:, None, :].astype(np.float32), params.feature_bins)
        statistics = count(training_interactions(log, fitted_on()), items)
        popular = np.argsort(-statistics.popularity, kind="stable")[: SPARE * params.candidates].tolist()
        return cls(
            params,
            features,
            statistics,
            edges,
            popular,
            open_scorer(params, items.height),
            load_params("prompt", PromptParams).less_features,
        )

    def size(self, request: RankRequest) -> int:
        """Candidates of its slate: as many as the model learnt to rank at once, or all that are asked where those are more."""
        return max(len(places_of(request.items)), min(self.params.candidates, len(self.popular)))

    def slates(self, requests: Sequence[RankRequest]) -> list[Slate]:
        """One a request, all of which have some history and the same size. The items asked come first, in their order."""
        candidates_NK = np.array([self._filled(request) for request in requests], dtype=np.int64)
        histories = [list(request.history[-self.params.history :]) for request in requests]
        table = pl.DataFrame(
            {"history": histories, "candidates": candidates_NK.tolist(), "scores": self._scores(requests, candidates_NK).tolist()},
            schema={name: SLATES[name] for name in ("history", "candidates", "scores")},
        )
        values = collect(table, candidates_NK.shape[1], self.statistics, self.params.feature_history, features=self.features)
        shown = tuple(feature for feature in self.features if feature not in self.less)
        bins = to_bins(values, self.edges)[..., [self.features.index(feature) for feature in shown]].tolist()
        rows = zip(histories, candidates_NK.tolist(), bins, strict=True)
        return [Slate(row, -1, "", 0, *of_slate, target_rank=-1, features=shown) for row, of_slate in enumerate(rows)]

    def _filled(self, request: RankRequest) -> list[int]:
        """A small model that only ever saw slates of ten answers with ten, whatever it is shown: shorter slates are filled up with popular
        items, which the order of the answer loses again."""
        asked = places_of(request.items)
        if len(asked) >= self.size(request):
            return list(asked)
        taken = {*asked, *request.history}
        spare = [item for item in self.popular if item not in taken] + [item for item in self.popular if item not in asked]
        return [*asked, *dict.fromkeys(spare)][: self.size(request)]

    def _scores(self, requests: Sequence[RankRequest], candidates_NK: NDArray[np.int_]) -> NDArray[np.float32]:
        scores_NK = np.zeros(candidates_NK.shape, dtype=np.float32)
        bare = [row for row, request in enumerate(requests) if request.scores is None]
        if bare and self.scorer is None:
            raise StageError(f"retrieve.model {self.params.model} keeps nothing that scores single candidates: send their scores, too")
        if bare and self.scorer:
            scores_NK[bare] = self.scorer.scores([requests[row].history for row in bare], candidates_NK[bare])
        for row, request in enumerate(requests):
            if request.scores is not None:
                given = [request.scores[places[0]] for places in places_of(request.items).values()]
                scores_NK[row] = given + [min(given)] * (candidates_NK.shape[1] - len(given))
        return scores_NK
