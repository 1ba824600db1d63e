"""What LambdaMART gains from the features that `prompt.more_features` adds to the six: on any data, without a language model.

    gr2 run retrieve --set 'prompt.more_features=[fo, br]'      # once; or --profile world, which has them
    python bench/more_features.py [--split valid] [--seeds 7 8 9]

Run in that project. LambdaMART learns from the training slates, once a seed; the figures are means over the seeds of NDCG@5 on the slates
of the split that hold their target. Choose on valid; test is for saying it once.
"""

import argparse

import numpy as np

from stages.evaluate.baselines import from_lambdamart
from stages.evaluate.features import read_features
from stages.shared.evaluation.test_set import read_slate_tables
from stages.shared.slates.candidate_features import FEATURES, features_of
from stages.shared.slates.slate import load_slates
from stages.shared.stats.bootstrap import Bootstrap, paired_intervals
from stages.shared.stats.metrics import ranks_of_targets, slate_metrics

METRIC = "ndcg@5"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=["valid", "test"], default="valid")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    options = parser.parse_args()
    tables = read_slate_tables()
    names = features_of(tables.candidate_features)
    more = names[len(FEATURES) :]
    if not more:
        raise SystemExit("data/retrieve has the six features only; run: gr2 run retrieve --set 'prompt.more_features=[fo, br]'")
    train, measured = (load_slates(tables.slates, tables.candidate_features, split) for split in ("train", options.split))
    train_features, features = (read_features(tables.candidate_features, slates) for slates in (train, measured))
    train_ranks, targets = (np.array([slate.target_rank for slate in slates]) for slates in (train, measured))
    six = list(range(len(FEATURES)))
    sets = {"six": six, **{f"six and {name}": [*six, names.index(name)] for name in more}, "all": list(range(len(names)))}
    incoming = slate_metrics(targets)[METRIC]
    values = {}
    for name, chosen in sets.items():
        own, shown = train_features[..., chosen], features[..., chosen]
        ranked = [from_lambdamart(own, train_ranks, shown, seed, 1) for seed in options.seeds]
        values[name] = np.mean([slate_metrics(ranks_of_targets(one.orders, targets))[METRIC] for one in ranked], axis=0)
    bootstrap = Bootstrap(np.array([slate.user for slate in measured]), 2000, 7)
    print(f"{METRIC}, {len(measured):,} slates of the split {options.split}; initial ranking {incoming.mean():.4f}")
    for name, value in values.items():
        intervals = paired_intervals(np.stack([value - incoming, value - values["six"]], axis=1), bootstrap)
        gain, beyond = ((value - base).mean() for base in (incoming, values["six"]))
        (low, high), (least, most) = intervals
        print(f"{name:12} {value.mean():.4f}  gain {gain:+.4f} [{low:+.4f}, {high:+.4f}]", end="")
        print(f"  beyond six {beyond:+.4f} [{least:+.4f}, {most:+.4f}]")


if __name__ == "__main__":
    main()
