"""Parameters of the report."""

from pydantic import Field

from stages.shared.core.params import ComputeSection


class ReportParams(ComputeSection):
    resamples: int = Field(2000, ge=100, description="bootstrap resamples of users")
    gate_margin: float = Field(
        0.01, gt=0, description="NDCG@5 that the quantized model may lose, at the lower end of the 95 % interval, and pass its gate"
    )
    examples: int = Field(6, ge=0, description="slates shown on the page")
