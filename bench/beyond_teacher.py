"""Other ways to read an order out of a trained reranker than its greedy answer, on the test slates of finished runs.

    python bench/beyond_teacher.py FOLDER FOLDER ... [--model sft] [--shuffles 4]

FOLDER: projects whose evaluation is done, of several training seeds on the same slates (bench/default_seeds.py makes them).

- answer: what the model answers, decoded greedily;
- relevances: the candidates by the relevances it wrote;
- expected: by the mean of its distribution over relevance words at the place where it wrote one;
- relevances, expected over N orders: the mean of these over the order shown and N - 1 shuffled ones (permutation self-consistency,
  Tang et al. 2024, with scores instead of ranks).

Ties keep the initial ranking. An answer without a relevance for each candidate counts as the initial ranking. Prints NDCG@5 minus that of
the answer and of LambdaMART, with intervals over runs and users, and writes bench/results/beyond_teacher.md.
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from stages.evaluate.shuffled_slates import shuffles
from stages.shared.core.params import load_params
from stages.shared.evaluation.outputs_table import answers_of, read_greedy
from stages.shared.evaluation.test_set import load_test_set, read_slate_tables
from stages.shared.generation.base import Sampling
from stages.shared.generation.transformers_engine import TransformersEngine
from stages.shared.lm.models import load_model, load_tokenizer
from stages.shared.slates.layouts.choose import layout_of
from stages.shared.slates.layouts.encoded import EncodedLayout
from stages.shared.slates.prompt_params import PromptParams
from stages.shared.slates.slate import Slate, permuted
from stages.shared.stats.bootstrap import Resampling
from stages.shared.stats.multi_seed import over_seeds

Floats = NDArray[np.float64]
BATCH, MAX_TOKENS, SEED = 64, 160, 7
RESULT = Path(__file__).resolve().parent / "results/beyond_teacher.md"


def ndcg(ranks: NDArray[np.int_]) -> Floats:
    return np.where(ranks < 5, 1.0 / np.log2(ranks + 2.0), 0.0)


def ranks_of(scores_NK: Floats, targets: NDArray[np.int_]) -> NDArray[np.int_]:
    """Place of the target by falling score; equals, and rows of NaN, keep the initial ranking."""
    orders = np.argsort(-np.nan_to_num(scores_NK), axis=1, kind="stable")
    return (orders == targets[:, None]).argmax(axis=1)


class Reader:
    """Asks one model for slates, and reads orders and scores by initial rank."""

    def __init__(self, model: PreTrainedModel, encoded: EncodedLayout):
        self.model, self.encoded = model, encoded
        pad, end = encoded.tokenizer.pad_token_id, encoded.token_ids.end
        self.engine = TransformersEngine(model, end if pad is None else pad, end, BATCH)

    def scores(self, slates: Sequence[Slate], orders: NDArray[np.int_]) -> tuple[Floats, Floats, Floats]:
        """Minus the place in the answer, relevances written, expected relevances, each [n, K] by initial rank; slates shown in `orders`."""
        shown = [permuted(slate, order) for slate, order in zip(slates, orders.tolist(), strict=True)]
        prompts, constraints = self.encoded.prompts(shown), self.encoded.constraints(shown, enforced=False)
        completions = [one.token_ids for [one] in self.engine.generate(prompts, Sampling(MAX_TOKENS), constraints)]
        places, written, expected = (np.full(orders.shape, np.nan) for _ in range(3))
        levels = np.arange(len(self.encoded.token_ids.relevances))
        level_of = {token: level for level, token in enumerate(self.encoded.token_ids.relevances)}
        distributions = self.distributions(prompts, completions, level_of)
        reader = self.encoded.reader
        for row, (ids, constraint) in enumerate(zip(completions, constraints, strict=True)):
            answer = reader.read(ids, constraint.names, True).order
            if answer:
                places[row, orders[row][list(answer)]] = -np.arange(len(answer))
            relevances = [level_of[token] for token in ids if token in level_of]
            if len(relevances) == orders.shape[1]:
                written[row, orders[row]] = relevances
                expected[row, orders[row]] = distributions[row] @ levels
        return places, written, expected

    @torch.no_grad()
    def distributions(self, prompts: list[list[int]], completions: list[list[int]], level_of: dict[int, int]) -> list[Floats]:
        """Of each completion, for each relevance word in it: the model's distribution over relevance words at that place."""
        results: list[Floats] = []
        words = torch.tensor(list(level_of))
        for start in range(0, len(prompts), BATCH):
            rows = [p + c for p, c in zip(prompts[start : start + BATCH], completions[start : start + BATCH], strict=True)]
            width = max(map(len, rows))
            ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])  # on the right, where no earlier token looks
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
            for line, row in enumerate(rows):
                first = len(prompts[start + line])
                before = [place - 1 for place in range(first, len(row)) if row[place] in level_of]
                logits = self.model.lm_head(hidden[line, before])[:, words]
                results.append(torch.softmax(logits.double(), dim=-1).numpy())
        return results


def measure(folder: Path, model: str, count: int) -> tuple[dict[str, Floats], NDArray[np.int_]]:
    """NDCG@5 of each way on the test slates of one run, and the slates' users."""
    with contextlib.chdir(folder):
        tests = load_test_set(read_slate_tables(), 0)
        encoded = EncodedLayout(layout_of(tests.catalog, load_params("prompt", PromptParams)), load_tokenizer(Path(f"data/{model}/model")))
        reader = Reader(load_model(Path(f"data/{model}/model")).eval(), encoded)
        lambdamart = answers_of(read_greedy(Path("data/evaluate/outputs.parquet"), ("slate", "model", "new_rank")), folder, "lambdamart")
    identity = np.tile(np.arange(tests.candidates_NK.shape[1]), (len(tests.slates), 1))
    orders = [identity, *(shuffles(tests.slates, SEED, repeat) for repeat in range(count - 1))]
    read = [reader.scores(tests.slates, order) for order in orders]
    ways = {"answer": read[0][0], "relevances": read[0][1], "expected": read[0][2]}
    for number in sorted({min(4, count), count} - {1}):
        for place, name in enumerate(("relevances", "expected"), start=1):
            ways[f"{name} over {number} orders"] = np.nanmean([one[place] for one in read[:number]], axis=0)
    by_slate = dict(lambdamart.select("slate", "new_rank").iter_rows())
    figures = {name: ndcg(ranks_of(scores, tests.targets)) for name, scores in ways.items()}
    figures["incoming"] = ndcg(tests.targets)
    figures["lambdamart"] = ndcg(np.array([by_slate[slate.slate] for slate in tests.slates]))
    return figures, tests.users


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--model", default="sft")
    parser.add_argument("--shuffles", type=int, default=4, help="orders that are averaged, the one shown among them")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs = [measure(folder.resolve(), options.model, options.shuffles) for folder in options.folders]
    bootstrap = Resampling(2000, SEED).of(runs[0][1])
    command = f"python bench/beyond_teacher.py {' '.join(['RUN'] * len(runs))} --model {options.model} --shuffles {options.shuffles}"
    lines = [f"# Ways to read the {options.model} model\n", f"`{command}`: {len(runs)} runs, {len(runs[0][1]):,} test slates."]
    lines += ["NDCG@5; 95 % interval over runs and users.\n"]
    lines += ["| way | NDCG@5 | minus the answer | minus LambdaMART |", "|---|---|---|---|"]
    for name in runs[0][0]:
        cells = [f"{np.mean([figures[name].mean() for figures, _ in runs]):.4f}"]
        for other in ("answer", "lambdamart"):
            result = over_seeds(np.stack([figures[name] - figures[other] for figures, _ in runs]), bootstrap)
            low, high = result["ci"]
            cells.append("" if name == other else f"{result['mean']:+.4f} [{low:+.4f}, {high:+.4f}]")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    print("\n".join(lines))
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
