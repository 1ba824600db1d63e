"""Section `quantize` of params.yaml."""

from typing import Literal

from pydantic import Field

from stages.shared.core.params import ComputeSection


class QuantizeParams(ComputeSection):
    method: Literal["int8-weight"] = Field("int8-weight", description="round to nearest, symmetric, one scale an output channel")
    bits: Literal[8] = 8
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="of what stays unquantized, of the scales and of the arithmetic"
    )
    calibration_prompts: int = Field(48, ge=1, description="training prompts on which the logits' error is measured")
    batch_size: int = Field(16, ge=1, description="calibration prompts a forward pass")
