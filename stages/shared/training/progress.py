"""The progress of Hugging Face's Trainer as that of the stage, in place of its bar and of the dictionaries that it prints."""

from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from stages.shared.core.progress import Progress


class ReportProgress(TrainerCallback):
    """Counts steps; prints a line of numbers each time the Trainer logs, which goes into the stage's log."""

    def __init__(self, part: str):
        self.part = part
        self.progress: Progress | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.progress = Progress(self.part, state.max_steps, done=state.global_step, unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.progress:
            self.progress.add(state.global_step - self.progress.done)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        if logs and "loss" in logs and state.is_world_process_zero:
            print(f"step {state.global_step}: loss {float(logs['loss']):.4g}, lr {float(logs['learning_rate']):.3g}", flush=True)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.progress:
            self.progress.close()


def report_progress(trainer: Trainer, part: str = "training steps") -> None:
    """To be called before `trainer.train()`."""
    for theirs in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(theirs)
    trainer.add_callback(ReportProgress(part))
