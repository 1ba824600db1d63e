"""Section `quantize` of params.yaml."""

from typing import Literal, Self

from pydantic import Field, model_validator

from stages.shared.core.model_folder import NAMED_MODELS, ModelFolder
from stages.shared.core.params import ComputeSection

NO_MODEL = f"{NAMED_MODELS}/none"
Scheme = Literal["int8", "w8a8", "int4", "int3"]
BITS: dict[Scheme, int] = {"int8": 8, "w8a8": 8, "int4": 4, "int3": 3}  # of a weight
CHUNK = 256  # tokens whose logits exist at once
Method = Literal["rtn", "gptq", "awq", "quantlrm"]


class QuantizeParams(ComputeSection):
    scheme: Scheme = Field(
        "int8",
        description="int8: weights, one scale an output channel; w8a8: the same and inputs at 8 bits, one scale a token; int4, int3: "
        "weights, one scale for group_size inputs of an output channel",
    )
    method: Method = Field("rtn", description="rtn: round to nearest; gptq; awq; quantlrm: awq with importance from fine-tuning (base)")
    group_size: int = Field(64, ge=8, description="int4, int3: weights of a row that share a scale; it divides the inputs of every layer")
    protect: list[Literal["embeddings", "head"]] = Field(
        ["embeddings", "head"],
        description="what keeps its precision: the table that holds the rows of the SIDs, and the output head; else 8 bits, a scale a row",
    )
    base: ModelFolder = Field(NO_MODEL, description="quantlrm: the model before fine-tuning, of the same shape: data/midtrain/model")
    damp: float = Field(0.01, gt=0, description="gptq: added to the diagonal of the Hessian, as a share of its mean")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of what stays unquantized, of the scales and of the arithmetic"
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="where layers are calibrated, one at a time; auto: a GPU if there is one"
    )
    calibration_prompts: int = Field(48, ge=1, description="training prompts that calibrate, and on which the error is measured")
    batch_size: int = Field(16, ge=1, description="calibration prompts a forward pass")

    @model_validator(mode="after")
    def has_a_base(self) -> Self:
        if self.method == "quantlrm" and self.base == NO_MODEL:
            raise ValueError(
                "method: quantlrm reads how fine-tuning moved the weights; name the model before it in base, such as data/midtrain/model"
            )
        return self

    @property
    def grouped(self) -> bool:
        return self.scheme in ("int4", "int3")
