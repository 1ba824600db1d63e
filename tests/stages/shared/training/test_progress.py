"""A Trainer that reports progress: counted steps, losses in a line, neither bar nor dictionaries."""

from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments
from transformers.utils import logging

from stages.shared.core.run import without_library_bars
from stages.shared.training.progress import report_progress
from tasks.system.progress import VARIABLE, StageProgress, read_progress


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": ((self.slope * x - y) ** 2).mean()}


@pytest.mark.parametrize("no_bar", [False, True])  # with disable_tqdm the Trainer prints its dictionaries instead of drawing a bar
def test_report_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_bar: bool) -> None:
    monkeypatch.setenv(VARIABLE, "lines")
    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=6, per_device_train_batch_size=2, logging_steps=3, report_to=[], save_strategy="no",
        use_cpu=True, disable_tqdm=no_bar, remove_unused_columns=False,
    )  # fmt: skip
    rows = [{"x": torch.tensor(float(row)), "y": torch.tensor(2.0 * row)} for row in range(12)]
    trainer = Trainer(model=Line(), args=arguments, train_dataset=rows)
    report_progress(trainer)
    capsys.readouterr()
    trainer.train()
    said = capsys.readouterr()
    progress = list(filter(None, map(read_progress, said.err.splitlines())))
    assert (progress[0], progress[-1]) == (StageProgress(0, 6, "training steps"), StageProgress(6, 6, "training steps"))
    assert "%|" not in said.err
    assert [line.split(":")[0] for line in said.out.splitlines()] == ["step 3", "step 6"] and "{" not in said.out


def test_libraries_draw_no_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "0")  # so that it is put back
    logging.enable_progress_bar()
    try:
        without_library_bars()
        assert not logging.is_progress_bar_enabled()
    finally:
        logging.enable_progress_bar()
