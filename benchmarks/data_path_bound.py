"""The bound of the data path: ingest, validate and featurize written by hand in polars.

    python data_path_bound.py SOURCE TARGET

The same checks, features and files as the generated project's three stages, and none of its code.
"""

import json
import shutil
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl

WINDOW_DAYS = 21
HOLDOUT_DAYS = 7
MIN_ROWS = 100
MAX_INVALID_SHARE = 0.05
MAX_SHIFT_PSI = 1.0
SHIFT_ROWS = 200_000
REFERENCE_ROWS = 20_000
LATE_AFTER_MINUTES = 15

KEY = ["date", "carrier", "flight", "origin", "sched_dep_time"]
STABLE_COLUMNS = ["carrier", "origin", "distance", "sched_dep_time"]
NUMERIC = [
    *("departure_hour", "scheduled_minutes", "distance"),
    *("temp", "wind_speed", "visib", "precip", "pressure"),
]
CATEGORICAL = ["carrier", "origin", "dest", "weekday"]
FEATURES = [*NUMERIC, *CATEGORICAL]

TYPES = {
    **dict.fromkeys(["carrier", "origin", "dest"], pl.String),
    **dict.fromkeys(["flight", "sched_dep_time", "sched_arr_time", "distance"], pl.Int16),
    **dict.fromkeys(["temp", "wind_speed", "visib", "precip", "pressure"], pl.Float32),
    "arr_delay": pl.Int16,
    "date": pl.Date,
}
CATEGORIES = {
    "carrier": [
        *("9E", "AA", "AS", "B6", "DL", "EV", "F9", "FL"),
        *("HA", "MQ", "OO", "UA", "US", "VX", "WN", "YV"),
    ],
    "origin": ["EWR", "JFK", "LGA"],
}
RANGES = {
    "sched_dep_time": (0, 2359),
    "sched_arr_time": (0, 2400),
    "distance": (10, 6000),
    "temp": (-40, 130),
    "wind_speed": (0, 150),
    "visib": (0, 100),
    "precip": (0, 20),
    "pressure": (850, 1100),
    "arr_delay": (-300, 3000),
}
MAX_NULL_SHARE = {
    **dict.fromkeys(["temp", "wind_speed", "visib", "precip"], 0.3),
    "pressure": 0.75,
    "arr_delay": 0.4,
}
REQUIRED = sorted(set(TYPES) - set(MAX_NULL_SHARE))
CHECKS = {
    **{f"{name}: isin": pl.col(name).is_in(known) for name, known in CATEGORIES.items()},
    **{f"{name}: in_range": pl.col(name).is_between(*ends) for name, ends in RANGES.items()},
    **{
        f"{name}: not_null": pl.col(name).is_not_null() for name in set(TYPES) - set(MAX_NULL_SHARE)
    },
    "flight: gt": pl.col("flight") > 0,
    "dest: str_matches": pl.col("dest").str.contains("^[A-Z]{3}$"),
    "duplicate_row": pl.struct(KEY).is_unique(),
}


def run(source: Path, target: Path) -> list[Path]:
    """Take the newest days of the source to features; returns the feature files, oldest first."""
    return featurize(validate(ingest(source, target), target), target)


def ingest(source: Path, target: Path) -> list[Path]:
    """Copy the day files and count their rows."""
    folder = make_folder(target / "raw")
    copies = []
    for path in sorted(source.glob("*.parquet"))[-WINDOW_DAYS:]:
        pl.scan_parquet(path).select(pl.len()).collect()
        copies.append(Path(shutil.copyfile(path, folder / path.name)))
    return copies


def validate(raw: list[Path], target: Path) -> list[Path]:
    """Split each day into rows that keep the contract and rows that break it."""
    folder, quarantine = make_folder(target / "validated"), make_folder(target / "quarantine")
    failures, files = {}, []
    for path in raw:
        rows = pl.read_parquet(path)
        if dict(rows.schema) != {name: TYPES[name] for name in rows.columns}:
            raise SystemExit(f"{path.name}: wrong columns or types")
        passed = rows.select(check.fill_null(True).alias(name) for name, check in CHECKS.items())
        keep = passed.select(pl.all_horizontal(pl.all()))[:, 0]
        valid, invalid = rows.filter(keep), rows.filter(~keep)
        if invalid.height:
            names = [pl.when(~pl.col(name)).then(pl.lit(name)) for name in CHECKS]
            failed = passed.filter(~keep).select(pl.concat_list(names).list.drop_nulls())[:, 0]
            failures[path.stem] = dict(failed.explode().value_counts().iter_rows())
            invalid = invalid.with_columns(failed.alias("failed_checks"))
            invalid.write_parquet(quarantine / path.name)
        if rows.height < MIN_ROWS or invalid.height > MAX_INVALID_SHARE * rows.height:
            raise SystemExit(f"{path.name}: too few rows, or too many invalid ones")
        if (valid["date"] != date.fromisoformat(path.stem)).any():
            raise SystemExit(f"{path.name}: rows of another day")
        for name, share in MAX_NULL_SHARE.items():
            if valid[name].null_count() > share * valid.height:
                raise SystemExit(f"{path.name}: too many nulls in {name}")
        valid.write_parquet(folder / path.name)
        files.append(folder / path.name)
    refuse_shift(files)
    (target / "validation.json").write_text(json.dumps(failures))
    return files


def refuse_shift(files: list[Path]) -> None:
    """Compare the newest day with a sample of the days before it."""
    reference = sample(files[:-1], STABLE_COLUMNS, SHIFT_ROWS)
    newest = pl.read_parquet(files[-1], columns=STABLE_COLUMNS)
    for name in STABLE_COLUMNS:
        moved = psi(*counts(reference[name], newest[name]))
        if moved > MAX_SHIFT_PSI:
            raise SystemExit(f"{name} is far from the days before: {moved:.2f}")


def featurize(valid: list[Path], target: Path) -> list[Path]:
    """Add features and target to each day, and keep a sample of the days to learn from."""
    folder = make_folder(target / "features")
    departure, arrival = (
        pl.col(name).cast(pl.Int32) // 100 * 60 + pl.col(name).cast(pl.Int32) % 100
        for name in ("sched_dep_time", "sched_arr_time")
    )
    files = []
    for path in valid:
        rows = pl.read_parquet(path).filter(pl.col("arr_delay").is_not_null())
        rows.with_columns(
            (departure / 60).cast(pl.Float32).alias("departure_hour"),
            ((arrival - departure) % 1440).cast(pl.Float32).alias("scheduled_minutes"),
            pl.col("distance").cast(pl.Float32),
            pl.col("date").dt.to_string("%a").alias("weekday"),
            (pl.col("arr_delay") > LATE_AFTER_MINUTES).cast(pl.Int8).alias("target"),
        ).write_parquet(folder / path.name)
        files.append(folder / path.name)
    learned, _ = split(files)
    sample(learned, FEATURES, REFERENCE_ROWS).write_parquet(target / "reference.parquet")
    return files


def split(files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files of the days to learn from and of the holdout."""
    newest = date.fromisoformat(files[-1].stem)
    first = newest - timedelta(days=HOLDOUT_DAYS - 1)
    days = [date.fromisoformat(path.stem) for path in files]
    cut = sum(day < first for day in days)
    return files[:cut], files[cut:]


def sample(files: list[Path], columns: list[str], rows: int) -> pl.DataFrame:
    """Read an even sample of several days."""
    total = sum(pl.scan_parquet(path).select(pl.len()).collect().item() for path in files)
    step = total // rows + 1
    return pl.concat(pl.read_parquet(path, columns=columns).gather_every(step) for path in files)


def counts(reference: pl.Series, current: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Count both series in the same bins: categories, or ten quantiles of the reference."""
    if reference.dtype == pl.String:
        sides = [series.alias("value").value_counts(name="n") for series in (reference, current)]
        both = sides[0].join(sides[1], on="value", how="full", coalesce=True).fill_null(0)
        return both["n"].to_numpy().astype(float), both["n_right"].to_numpy().astype(float)
    values = reference.drop_nulls().to_numpy()
    inner = np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf")
    least = values.min()
    below = np.nextafter(least, -np.inf, dtype=float)
    # Right-closed bins: below the range, on its least value, between, above, and nulls.
    edges = np.unique([below, least, *inner, values.max()])
    binned = []
    for series in (reference, current):
        index = np.searchsorted(edges, series.drop_nulls().to_numpy(), side="left")
        inside = np.bincount(index, minlength=edges.size + 1)
        binned.append(np.append(inside, series.null_count()).astype(float))
    return binned[0], binned[1]


def psi(p: np.ndarray, q: np.ndarray) -> float:
    """Return the population stability index, with half a row added to each bin."""
    p, q = ((side + 0.5) / (side.sum() + 0.5 * side.size) for side in (p, q))
    return float(np.sum((p - q) * np.log(p / q)))


def make_folder(path: Path) -> Path:
    """Create a folder, unless it is there already."""
    path.mkdir(parents=True, exist_ok=True)
    return path


if __name__ == "__main__":
    run(Path(sys.argv[1]), Path(sys.argv[2]))
