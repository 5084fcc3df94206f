"""The contract: the first line of a function's documentation."""

from __future__ import annotations

import pandera.polars as pa

KEY, LABEL = ("function",), "package"


class Documented(pa.DataFrameModel):
    """Which package the function is from is the label."""

    function: str
    text: str
    length: int = pa.Field(gt=0)
    package: str = pa.Field(nullable=True)


CONTRACT = Documented
