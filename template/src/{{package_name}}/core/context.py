"""What features may use besides the rows of their partition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Context:
    """What is known of the time before a partition; never anything after it.

    Attributes:
        before: The valid rows of the LOOKBACK partitions before, oldest first; no rows without it.
        reference: Reference tables, by name.
    """

    before: pl.DataFrame
    reference: Mapping[str, pl.DataFrame]

    @classmethod
    def of(
        cls,
        rows: pl.DataFrame,
        before: Sequence[pl.DataFrame] = (),
        reference: Mapping[str, pl.DataFrame] | None = None,
    ) -> Context:
        """Return the context of rows, from those of the partitions before them, oldest first."""
        import polars as pl

        return cls(before=pl.concat([rows.clear(), *before]), reference=reference or {})
