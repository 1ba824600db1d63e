"""Parameters of the teacher and of what it keeps."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.shared.core.model_folder import NAMED_MODELS, ModelFolder
from stages.shared.core.params import ComputeSection, Section, check_shards
from stages.shared.generation.params import TeacherEngineParams
from stages.shared.recsys.lambdamart_params import LambdaMartParams

SLATES = "data/retrieve/slates.parquet"
SHARDS = "data/traces_shard"  # a folder a shard, by its number
NO_MODEL = f"{NAMED_MODELS}/none"


class ScorerParams(LambdaMartParams):
    """Smaller trees than LambdaMART's own defaults, and several of them: chosen on training slates later than those fitted on."""

    rounds: int = Field(300, ge=1)
    leaves: int = Field(4, ge=2)
    members: int = Field(5, ge=1, description="fits with other seeds whose scores are averaged")
    features: list[str] = Field(
        [], description="what the statistical teacher knows of a candidate, of what its traces quote (e.g. co, tr); [] = all of it"
    )


class LanguageModelTeacherParams(Section):
    """A language model as the teacher; read only where teacher is language_model."""

    model: ModelFolder = Field(NO_MODEL, description=f"Hugging Face folder of the teacher; {NO_MODEL} = none")
    max_tokens: int = Field(768, ge=1)
    temperature: float = Field(0.7, gt=0.0)
    top_p: float = Field(0.95, gt=0.0, le=1.0)
    save_prompts: int = Field(512, ge=1, description="answers are kept after so many, for a run after a kill; an endpoint keeps each")
    keep_invocations: bool = Field(False, description="write prompts and completions into invocations.parquet (gr2 show)")
    engine: TeacherEngineParams = TeacherEngineParams.model_validate({})


class StudentFitParams(Section):
    """What the student, as it is before training, makes of the traces."""

    model: ModelFolder = Field(NO_MODEL, description=f"Hugging Face folder of the student, whose tokens are counted; {NO_MODEL} = words")
    drop_below: float = Field(
        0.0, ge=0.0, lt=1.0, description="share of accepted traces that are dropped, those the student finds least probable; 0 = none"
    )
    weight: bool = Field(False, description="instead, they weigh less in sft (column weight of traces.parquet)")
    device: Literal["auto", "cpu", "cuda"] = "auto"

    @model_validator(mode="after")
    def has_a_student(self) -> Self:
        if self.drop_below and self.model == NO_MODEL:
            raise ValueError("drop_below asks what the student makes of a trace, and model names none; give its folder")
        if self.weight and not self.drop_below:
            raise ValueError("weight is of the share drop_below of the traces, which is 0; raise it")
        return self


class TracesParams(ComputeSection):
    mode: Literal["rejection", "targeted", "soft", "repair"] = Field(
        "rejection",
        description="targeted shows the teacher the answer; soft accepts by reward, so also traces that put the target lower; repair: a "
        "language model goes on from the last right step of a refused trace",
    )
    teacher: Literal["statistical", "ranker_explained", "language_model", "random"] = Field(
        "statistical",
        description="ranker_explained: LambdaMART says what speaks for and against its first candidates (prompt.layout: chat); random: a "
        "control, whose accepted traces are those that chance gets accepted",
    )
    time_folds: int = Field(8, ge=2, description="pieces of time; each is scored from the ones before it, the first is not labelled")
    labels: Literal["latest", "out_of_time"] = Field(
        "latest", description="whose scores the statistical teacher writes: one scorer of all training slates, or that of the time fold"
    )
    temperature: float = Field(0.02, ge=0.0, description="noise of the statistical teacher, in standard deviations of its score")
    attempts: int = Field(8, ge=1, description="tries a slate")
    beta: float = Field(0.2, gt=0.0, description="soft: a trace is accepted with probability exp((reward - highest) / beta); reward: NDCG")
    keep: int = Field(4, ge=1, description="accepted traces kept a slate")
    shuffle: bool = Field(True, description="show the candidates of every kept trace in a random order of its own")
    max_noise_rank: int = Field(3, ge=1, description="a target that the out-of-time scorer ranks below this is refused as luck")
    verify_shuffles: int = Field(
        0, ge=0, description="other orders of the candidates in which the teacher must put the target first again; 0 = none"
    )
    verify_share: float = Field(1.0, gt=0.0, le=1.0, description="of them, those in which it must")
    max_trace_tokens: int = Field(
        0, ge=0, description="a trace of more is refused: tokens of student_fit.model, or words where that names no model; 0 = no limit"
    )
    student_fit: StudentFitParams = StudentFitParams.model_validate({})
    scorer: ScorerParams = ScorerParams.model_validate({})
    language_model: LanguageModelTeacherParams = LanguageModelTeacherParams.model_validate({})
    shards: list[int] = Field(
        [],
        description="[0, 1, 2, 3] = a language model is asked in four stages traces_shard@0 to @3, each cached and placed by itself; with "
        f"reads: {SHARDS}; [] = in the stage itself",
    )
    reads: str = Field(SLATES, description=f"{SHARDS} where there are shards. dvc.yaml takes this value as a dependency")

    @model_validator(mode="after")
    def shards_are_read(self) -> Self:
        check_shards("traces", self.shards, self.reads, SHARDS, SLATES)
        if self.shards and self.teacher != "language_model":
            raise ValueError(f"shards are for a language model; the teacher {self.teacher} takes seconds; set shards to []")
        if self.shards and self.language_model.engine.kind == "endpoint":
            raise ValueError(
                "shards are for an engine of the stage; an endpoint answers all at once, see endpoint.concurrency; set shards to []"
            )
        return self

    @model_validator(mode="after")
    def keys_go_together(self) -> Self:
        if self.verify_shuffles and self.mode in ("targeted", "soft"):
            raise ValueError(f"verify_shuffles confirms nothing of a trace in mode {self.mode}; set it to 0, or mode: rejection")
        if self.mode == "repair" and self.teacher != "language_model":
            raise ValueError(f"mode repair has a language model go on from a step of its trace, and teacher is {self.teacher}")
        engine = self.language_model.engine
        if self.mode == "repair" and engine.kind == "endpoint" and engine.endpoint.api == "chat":
            raise ValueError(
                "mode repair has the teacher go on from a step of its trace, which a chat endpoint cannot; set "
                "language_model.engine.endpoint.api to completions (vllm serve), or language_model.engine.kind to an engine of this process"
            )
        return self
