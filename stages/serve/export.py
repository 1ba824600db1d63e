"""`python -m stages.serve.export KIND PATH`, which is `gr2 export`: one-pass mode for programs that know nothing of this project.

cross-encoder FOLDER: the model as a CrossEncoder of sentence-transformers. prompts FILE: what it reads of each request of a file.
"""

import argparse
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from stages.evaluate.params import EvaluateParams
from stages.serve.catalogue import IdCatalogue
from stages.serve.cross_encoder import check_cross_encoder, write_cross_encoder
from stages.serve.files import NUMBER, SOURCE, beside, check_paths, check_rows, file_row, read_rows
from stages.serve.modes import check_folder
from stages.serve.one_pass import OnePass
from stages.serve.requests import places_of
from stages.serve.reranker import MODEL, Reranker, open_reranker
from stages.shared.core.errors import StageError
from stages.shared.core.params import load_params
from stages.shared.core.progress import note
from stages.shared.core.run import set_threads, without_library_bars
from stages.shared.evaluation.test_set import load_test_set, read_slate_tables, reported
from stages.shared.lm.models import is_quantized, save_unquantized
from stages.shared.slates.layouts.marks import LETTERS

CROSS_ENCODER, PROMPTS = "cross-encoder", "prompts"
CHECKED = 8  # test slates on which the exported model must say what one pass says


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="gr2 export", description=__doc__)
    parser.add_argument("kind", choices=(CROSS_ENCODER, PROMPTS))
    parser.add_argument("path", type=Path)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--ids", choices=(SOURCE, NUMBER), default=SOURCE)
    parser.add_argument("--topics", type=Path)
    options = parser.parse_args(arguments)
    try:
        set_threads(load_params("evaluate", EvaluateParams).threads)
        without_library_bars()
        if options.kind == CROSS_ENCODER:
            difference = export_cross_encoder(options.model, options.path)
            note(f"{options.path}: a CrossEncoder; on {CHECKED} test slates its probabilities are those of one pass to {difference:.1g}")
        else:
            output = options.output or beside(options.path, ".prompts.jsonl")
            note(f"{output}: {export_prompts(options.path, output, options.model, options.ids, options.topics)} prompts")
    except (StageError, OSError) as error:  # a full disk, or a folder that nobody may write to
        sys.exit(f"gr2 export: {error}")


def export_cross_encoder(model: Path, folder: Path) -> float:
    """Makes `folder`, whole or not at all, and returns the largest difference of a probability from one pass on test slates."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StageError(f"{folder}: there is something already; name a new folder")
    check_folder(model)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    plain = partial / "plain"
    partial.mkdir(parents=True)
    try:
        if is_quantized(model):
            save_unquantized(model, plain)
        with open_reranker(plain if plain.exists() else model, "one-pass") as reranker:
            one_pass, size = asked_in_one_pass(reranker), min(reranker.windows.size, len(LETTERS))
            write_cross_encoder(one_pass, size, partial / "model")
            slates = load_test_set(reported(read_slate_tables(), reranker.params.promotion_users), CHECKED).slates
            shown = [slate.at(range(min(size, len(slate.candidates)))) for slate in slates]
            difference = check_cross_encoder(one_pass, shown, partial / "model")
        (partial / "model").replace(folder)  # an empty folder there gives way
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return difference


def export_prompts(path: Path, output: Path, model: Path, ids: str, topics: Path | None = None) -> int:
    """Writes `output`, whole or not at all; returns how many prompts there are. path: a file as `gr2 rerank` reads it.

    A line a row: {id, prompt, places, fallback}. places: of each letter, the places in the row's own candidates that it stands for; none
    for what filled a short slate. Where there is nothing to ask, prompt is null and fallback says why, as in the answers of `gr2 rerank`.
    """
    check_paths(path, output, topics)
    check_folder(model)
    check_rows(IdCatalogue.read(), path, ids, topics)
    partial, count = output.with_name(f".{output.name}.partial"), 0
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open_reranker(model, "one-pass") as reranker, partial.open("w", encoding="utf-8") as file:
            for line in _prompts(reranker, path, ids, topics):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                count += line["prompt"] is not None
            file.flush()
            os.fsync(file.fileno())
        partial.replace(output)
    finally:
        partial.unlink(missing_ok=True)
    return count


def asked_in_one_pass(reranker: Reranker) -> OnePass:
    assert isinstance(reranker.model, OnePass)  # as it was opened
    return reranker.model


def _prompts(reranker: Reranker, path: Path, ids: str, topics: Path | None) -> Iterator[dict[str, Any]]:
    layout = asked_in_one_pass(reranker).encoded.layout
    for number, where, row in read_rows(path, 0, topics):
        asked = file_row(reranker.catalogue, row, number, ids, where)
        places = places_of(asked.request.items)
        if (result := reranker.unasked(asked.request)) is not None and result.fallback:
            yield {"id": asked.id, "prompt": None, "places": [], "fallback": result.fallback}
            continue
        if len(places) > reranker.windows.size:
            raise StageError(f"{where}: {len(places)} candidates, and a prompt shows {reranker.windows.size}; give it in parts")
        [slate] = reranker.maker.slates([asked.request])
        of_letters = [places.get(item, []) for item in slate.candidates]
        yield {"id": asked.id, "prompt": layout.prompt(slate), "places": of_letters, "fallback": ""}


if __name__ == "__main__":
    main()
