"""The contract: a tumour a row, measured on a digitised image of its cells."""

from __future__ import annotations

import pandera.polars as pa

LABEL = "benign"


class Tumour(pa.DataFrameModel):
    """Names as scikit-learn has them, but for spaces."""

    mean_radius: float = pa.Field(gt=0)
    mean_texture: float = pa.Field(gt=0)
    mean_smoothness: float = pa.Field(in_range={"min_value": 0, "max_value": 1})
    worst_area: float = pa.Field(gt=0)
    benign: bool = pa.Field(nullable=True)

    class Config:
        """Columns beyond the contract are dropped."""

        strict = "filter"


CONTRACT = Tumour
