"""Parameters of the report."""

from pydantic import Field

from stages.shared.core.params import ComputeSection


class ReportParams(ComputeSection):
    resamples: int = Field(2000, ge=100, description="bootstrap resamples of users")
    examples: int = Field(6, ge=0, description="slates shown on the page")
