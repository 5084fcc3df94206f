"""validate: hold every row against the data contract before anything is learned from it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pandera.polars as pa
import polars as pl
from upath import UPath

from ..core import storage
from ..core.errors import DataRejected
from ..core.logs import get_logger
from ..core.outcomes import CheckedPartition, Violation
from ..core.records import ValidationReport, validation_report_path
from ..core.refs import DatasetRef, PartitionFile, Run
from ..core.settings import Validation
from ..core.stage import stage
from ..domain.schema import LABEL, PARTITION_COLUMN, STABLE_COLUMNS, Flights
from ..ml.drift import psi

log = get_logger(__name__)

ROW = "__row__"
CONTRACT = Flights.to_schema()
# What polars raises on a file that it cannot make sense of, and Python on dates beyond its own. A
# panic is no `Exception`.
BROKEN_FILE = (
    pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
    OverflowError,
    ValueError,
)


@dataclass
class Findings:
    """What validation found in the rows of one day.

    Attributes:
        violations: Broken limits; any of them rejects.
        failed_checks: How many rows failed each `column: check`.
        invalid: Rows that failed a check, with the checks in `failed_checks`.
    """

    violations: list[Violation] = field(default_factory=list)
    failed_checks: dict[str, int] = field(default_factory=dict)
    invalid: pl.DataFrame = field(default_factory=pl.DataFrame)


@stage
def validate(run: Run, raw: DatasetRef) -> DatasetRef:
    """Check every partition against the contract and pass on the rows that keep it.

    Rows that fail go to `quarantine/` with the names of the checks. For inference the label may
    be missing, and an earlier day that is bad is left out: only the day to score must be good.

    Raises:
        DataRejected: A limit of `[validation]` or of the contract is broken; nothing is passed on.
            The report names rows and columns.
    """
    days: list[CheckedPartition] = []
    files: list[PartitionFile] = []
    for raw_file in storage.read_manifest(raw.uri):
        rows, day = _check_file(run, raw_file)
        days.append(day)
        if not day.violations:
            path = _path("validated", raw_file)
            files.append(storage.write_partition(path, raw_file.partition, rows))
    # Also where an earlier day is left out: the newest one is compared with those that are good.
    if not days[-1].violations:
        moved = tuple(check_shift(files, run.settings.validation.max_shift_psi))
        days[-1] = days[-1].model_copy(update={"violations": moved})
    path = validation_report_path(run, raw.fingerprint)
    report_uri = storage.write_model(path, ValidationReport(partitions=tuple(days)))
    _reject_violations(run, days, report_uri)
    uri, fingerprint, rows_valid = storage.write_dataset(run, "validated", files)
    quarantined = sum(day.quarantined for day in days)
    log.info("%d rows valid, %d quarantined", rows_valid, quarantined)
    return DatasetRef(
        uri=uri,
        rows=rows_valid,
        fingerprint=fingerprint,
        validated=True,
        window=raw.window,
        metrics={"rows_read": raw.rows, "rows_quarantined": quarantined},
    )


def _check_file(run: Run, file: PartitionFile) -> tuple[pl.DataFrame, CheckedPartition]:
    """Return the valid rows of a day and what was seen; invalid rows go to quarantine."""
    try:
        valid, findings = check_rows(
            read_rows(file.uri),
            run.settings.validation,
            partition=file.partition,
            needs_label=run.pipeline == "training",
        )
        first = [_shown(row) for row in findings.invalid.head(20).iter_rows(named=True)]
    except BROKEN_FILE as error:
        return pl.DataFrame(), CheckedPartition(
            partition=file.partition,
            rows=file.rows,
            quarantined=0,
            violations=(broken_file(error),),
        )
    invalid = findings.invalid.height
    if invalid:
        uri = storage.write_parquet(_path("quarantine", file), findings.invalid)
        share = f"{invalid} of {file.rows} rows ({_counts(findings.failed_checks)})"
        log.warning("%s: quarantined %s: %s", file.partition, share, uri)
    return valid, CheckedPartition(
        partition=file.partition,
        rows=file.rows,
        quarantined=invalid,
        violations=tuple(findings.violations),
        failed_checks=findings.failed_checks,
        first_invalid_rows=tuple(first),
    )


def _path(kind: str, file: PartitionFile) -> UPath:
    return storage.artifact_path(kind, f"{file.partition}", f"{file.fingerprint}.parquet")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON can hold it."""
    plain = (str, int, float, list, type(None))
    return {name: value if isinstance(value, plain) else str(value) for name, value in row.items()}


def _reject_violations(run: Run, days: list[CheckedPartition], report_uri: str) -> None:
    """Stop at broken limits; for inference only at those of the partition to score."""
    rejected = []
    for day in days:
        if run.pipeline == "inference" and day.violations and day.partition != run.partition:
            why = "; ".join(map(str, day.violations))
            log.warning("%s is left out: %s", day.partition, why)
        elif day.violations:
            rejected.append(day)
    if rejected:
        violations = [
            one.model_copy(update={"partition": day.partition})
            for day in rejected
            for one in day.violations
        ]
        partitions = ", ".join(f"{day.partition}" for day in rejected)
        raise DataRejected(partitions, violations, report_uri)


def check_rows(
    frame: pl.DataFrame, limits: Validation, *, partition: date | None, needs_label: bool
) -> tuple[pl.DataFrame, Findings]:
    """Check the rows of one day: returns the valid ones and the findings.

    Args:
        frame: Raw rows.
        limits: Shares and counts beyond which the rows are rejected as a whole.
        partition: The day all rows must be of; None for rows of any day.
        needs_label: False lets the label be null in every row, or missing.
    """
    findings = Findings()
    if frame.height < limits.min_rows:
        detail = f"{frame.height} rows, at least {limits.min_rows} needed"
        findings.violations.append(
            Violation(check="too_few_rows", detail=detail, rows=frame.height)
        )
    typed = frame
    if not needs_label and LABEL not in frame.columns:
        typed = frame.with_columns(pl.lit(None).alias(LABEL))
    if missing := [name for name in CONTRACT.columns if name not in typed.columns]:
        findings.violations += [
            Violation(check="missing_column", detail=name, column=name) for name in missing
        ]
        return pl.DataFrame(), findings
    typed, failures = _conform(typed)
    try:
        valid = CONTRACT.validate(typed, lazy=True).select(list(CONTRACT.columns))
    except pa.errors.SchemaErrors as error:
        failures.append(error.failure_cases.select("column", "check", "index"))
        # Fails for a column as a whole rather than for some of its rows.
        broken = error.failure_cases.filter(pl.col("check").str.starts_with("dtype("))
        if broken.height:
            findings.violations += [_wrong_type(row) for row in broken.iter_rows(named=True)]
            return pl.DataFrame(), findings
    if failures:
        valid, findings.invalid, findings.failed_checks = _quarantine(frame, typed, failures)
    findings.violations += _broken_limits(valid, findings, limits, partition)
    findings.violations += _too_many_nulls(valid, limits, needs_label=needs_label)
    return valid, findings


def check_shift(files: list[PartitionFile], max_psi: float) -> list[Violation]:
    """Compare the newest day's stable columns with the days before; returns what moved too far."""
    if len(files) < 2:
        return []
    columns = list(STABLE_COLUMNS)
    *before, newest = files
    reference = storage.read_partitions(before, columns, about=200_000)
    current = storage.read_parquet(newest.uri, columns)
    values = {column: psi(reference[column], current[column]) for column in columns}
    return [
        Violation(
            check="distribution_shift",
            detail=f"{column} is far from the {len(before)} days before "
            f"(population stability index {value:.2f}, limit {max_psi:.2f})",
            column=column,
        )
        for column, value in values.items()
        if value > max_psi
    ]


def read_rows(uri: str) -> pl.DataFrame:
    """Read raw rows from Parquet or CSV; a CSV is read with the contract's types.

    Integers keep 64 bits, so that one too large for its column is found in its row.

    Raises:
        polars.exceptions.PolarsError: The file is broken, or a CSV value is not of its type; see
            `BROKEN_FILE`.
    """
    if not uri.endswith(".csv"):
        return storage.read_parquet(uri)
    types = {
        name: pl.Int64 if column.dtype.type.is_integer() else column.dtype.type
        for name, column in CONTRACT.columns.items()
    }
    return pl.read_csv(io.BytesIO(UPath(uri).read_bytes()), schema_overrides=types)


def broken_file(error: BaseException) -> Violation:
    """Return what `read_rows` raised as a violation of the contract."""
    # The words polars has for a value in a CSV; everything else is a broken file.
    check = "wrong_type" if "could not parse" in str(error) else "unreadable_file"
    return Violation(check=check, detail=str(error).splitlines()[0])


def _conform(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Cast numbers to the contract's width; any other difference of type is left to the contract.

    Writers differ in the width they choose (pandas: 64 bits), which is no fault of the data. A
    number that does not fit is a failure of its row, returned in the form that pandera uses.
    """
    failures = []
    for name, column in CONTRACT.columns.items():
        wanted, values = column.dtype.type, frame[name]
        if values.dtype.is_float() and wanted.is_integer():
            # pandas has no integer column with gaps: it writes whole floats and NaN.
            values = values.fill_nan(None)
            same_kind = bool((values.drop_nulls() % 1 == 0).all())
        elif values.dtype.is_numeric():
            same_kind = wanted.is_float() or (values.dtype.is_integer() and wanted.is_integer())
        else:
            same_kind = values.dtype == pl.Null
        if not same_kind:
            continue
        fitted = values.cast(wanted, strict=False)
        frame = frame.with_columns(fitted)
        index = (values.is_not_null() & fitted.is_null()).arg_true().cast(pl.Int32)
        if len(index):
            check = f"fits {fitted.dtype}"
            failures.append(pl.DataFrame({"column": name, "check": check, "index": index}))
    return frame, failures


def _quarantine(
    frame: pl.DataFrame, typed: pl.DataFrame, failures: list[pl.DataFrame]
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Split rows by whether a check failed for them: valid rows, invalid rows, counts a check.

    Valid rows have the contract's types, invalid ones are as they came.
    """
    named = pl.concat(failures, how="vertical_relaxed").select(
        pl.col("index").cast(pl.UInt32).alias(ROW),
        pl.when(pl.col("check") == "multiple_fields_uniqueness")
        .then(pl.lit("duplicate_row"))
        .otherwise(pl.col("column") + ": " + pl.col("check"))
        .alias("check"),
    )
    counts = named.group_by("check", maintain_order=True).agg(pl.col(ROW).n_unique())
    reasons = named.group_by(ROW).agg(pl.col("check").unique().sort().alias("failed_checks"))
    invalid = frame.with_row_index(ROW).join(reasons, on=ROW, how="inner", maintain_order="left")
    valid = typed.with_row_index(ROW).join(reasons, on=ROW, how="anti", maintain_order="left")
    return valid.select(list(CONTRACT.columns)), invalid.drop(ROW), dict(counts.iter_rows())


def _broken_limits(
    valid: pl.DataFrame, findings: Findings, limits: Validation, partition: date | None
) -> Iterator[Violation]:
    """Yield what the rows of a day break together: its date, and how many may be invalid."""
    days = valid[PARTITION_COLUMN]
    foreign = days.filter(days != partition) if partition else days.clear()
    if len(foreign):
        some = ", ".join(foreign.unique().sort().head(3).cast(pl.String))
        yield Violation(
            check="wrong_partition",
            detail=f"{len(foreign)} rows are of another day ({some}), not of {partition}",
            column=PARTITION_COLUMN,
            rows=len(foreign),
        )
    invalid = findings.invalid.height
    rows = valid.height + invalid
    if invalid > limits.max_invalid_share * rows:
        yield Violation(
            check="invalid_rows",
            detail=f"{invalid} of {rows} rows break the contract, at most "
            f"{limits.max_invalid_share:.0%} may ({_counts(findings.failed_checks)})",
            rows=invalid,
        )


def _too_many_nulls(
    valid: pl.DataFrame, limits: Validation, *, needs_label: bool
) -> Iterator[Violation]:
    for name, column in CONTRACT.columns.items():
        if not column.nullable or valid.is_empty() or (name == LABEL and not needs_label):
            continue
        limit = (column.metadata or {}).get("max_null_share", limits.max_null_share)
        nulls = valid[name].null_count()
        if nulls > limit * valid.height:
            check = "null_target" if name == LABEL else "too_many_nulls"
            detail = f"{name} is null in {nulls} of {valid.height} rows, at most {limit:.0%} may be"
            yield Violation(check=check, detail=detail, column=name, rows=nulls)


def _wrong_type(failure: dict[str, Any]) -> Violation:
    wanted = failure["check"].removeprefix("dtype('").removesuffix("')")
    column, actual = failure["column"], failure["failure_case"]
    detail = f"{column} is {actual}, not {wanted}"
    return Violation(check="wrong_type", detail=detail, column=column)


def _counts(checks: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in checks.items())
