"""data/quantize/metrics.json."""

from pydantic import Field

from stages.shared.core.stage_metrics import StageMetrics


class WeightBytes(StageMetrics):
    before: int = Field(description="size of the RL model's weights")
    bfloat16: int = Field(description="what its parameters take in bfloat16")
    after: int = Field(description="size of the quantized model's weights")
    share_of_bfloat16: float = Field(description="after / bfloat16")


class WeightError(StageMetrics):
    mean: float = Field(description="mean relative error of a tensor (Frobenius norm); errors.csv has each")
    worst: float = Field(description="largest relative error of a tensor")
    worst_tensor: str = Field(description="the tensor that has it")


class CalibrationMetrics(StageMetrics):
    source: str = Field(description="what both models read: traces, or random tokens if there are none")
    tokens: int = Field(description="tokens predicted by both models")
    mean_abs_logit_error: float = Field(description="mean absolute difference of the logits")
    kl: float = Field(description="mean KL(full || quantized), nats a token")
    top1_agreement: float = Field(description="share of tokens whose most probable prediction is the same")


class QuantizeMetrics(StageMetrics):
    scheme: str = Field(description="quantize.scheme")
    method: str = Field(description="quantize.method")
    bits: int = Field(description="bits of a weight of a layer")
    tensors: int = Field(description="tensors quantized")
    quantized_parameter_share: float = Field(description="share of the model's parameters in these tensors")
    bytes: WeightBytes = Field(description="size of the weights in bytes")
    weight_error: WeightError = Field(description="error of the weights")
    calibration: CalibrationMetrics = Field(description="error of the predictions")
