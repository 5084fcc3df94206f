"""validate: hold every row against the data contract before anything is learned from it."""

from __future__ import annotations

import io
from collections.abc import Sequence
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
    """What validation found in one partition.

    Attributes:
        violations: Broken limits; any of them rejects.
        failed_checks: How many rows failed each `column: check`.
        invalid: Rows that failed a check, with the checks in `failed_checks`.
        first_invalid: The first of them, to be shown.
    """

    partition: date | None
    rows: int
    violations: list[Violation] = field(default_factory=list)
    failed_checks: dict[str, int] = field(default_factory=dict)
    invalid: pl.DataFrame = field(default_factory=pl.DataFrame)
    first_invalid: list[dict[str, Any]] = field(default_factory=list)


@stage
def validate(run: Run, raw: DatasetRef) -> DatasetRef:
    """Check every partition against the contract and pass on the rows that keep it.

    Rows that fail go to `quarantine/` with the names of the checks. For inference the label may
    be missing, and an earlier day that is bad is left out: only the day to score must be good.

    Raises:
        DataRejected: A limit of `[validation]` or of the contract is broken; nothing is passed on.
            The report names rows and columns.
    """
    limits = run.settings.validation
    checked: list[Findings] = []
    files: list[PartitionFile] = []
    raw_files = storage.read_manifest(raw.uri)
    for raw_file in raw_files:
        rows, findings = _check_file(raw_file, limits, needs_label=run.pipeline == "training")
        checked.append(findings)
        _write_quarantine(raw_file, findings)
        if not findings.violations:
            files.append(_write_valid(raw_file, rows))
    # Also where an earlier day is left out: the newest one is compared with those that are good.
    if not checked[-1].violations:
        checked[-1].violations += check_shift(files, limits.max_shift_psi)
    _reject_violations(run, checked, _write_report(run, raw, raw_files, checked))
    uri, fingerprint, rows_valid = storage.write_dataset(run, "validated", files)
    quarantined = sum(findings.invalid.height for findings in checked)
    log.info("%d rows valid, %d quarantined", rows_valid, quarantined)
    return DatasetRef(
        uri=uri,
        rows=rows_valid,
        fingerprint=fingerprint,
        validated=True,
        window=raw.window,
        metrics={"rows_read": raw.rows, "rows_quarantined": quarantined},
    )


def _write_quarantine(file: PartitionFile, findings: Findings) -> None:
    if not findings.invalid.height:
        return
    name = f"{file.fingerprint}.parquet"
    path = storage.artifact_path("quarantine", f"{file.partition}", name)
    storage.write_parquet(path, findings.invalid)
    log.warning(
        "%s: quarantined %d of %d rows (%s): %s",
        file.partition,
        findings.invalid.height,
        findings.rows,
        _counts(findings.failed_checks),
        path,
    )


def _write_valid(file: PartitionFile, rows: pl.DataFrame) -> PartitionFile:
    name = f"{file.fingerprint}.parquet"
    path = storage.artifact_path("validated", f"{file.partition}", name)
    return storage.write_partition(path, file.partition, rows)


def _reject_violations(run: Run, checked: list[Findings], report_uri: str) -> None:
    """Stop at broken limits; for inference only at those of the partition to score."""
    rejected = [findings for findings in checked if findings.violations]
    if run.pipeline == "inference":
        for findings in rejected:
            if findings.partition != run.partition:
                why = "; ".join(map(str, findings.violations))
                log.warning("%s is left out: %s", findings.partition, why)
        rejected = [findings for findings in rejected if findings.partition == run.partition]
    if not rejected:
        return
    partitions = ", ".join(f"{findings.partition}" for findings in rejected)
    violations = [one for findings in rejected for one in findings.violations]
    if len(checked) > 1:
        violations = [
            one.model_copy(update={"partition": findings.partition})
            for findings in rejected
            for one in findings.violations
        ]
    raise DataRejected(partitions, violations, report_uri)


def _check_file(
    file: PartitionFile, limits: Validation, *, needs_label: bool
) -> tuple[pl.DataFrame, Findings]:
    try:
        frame = read_rows(file.uri)
        valid, findings = check_rows(
            frame, limits, partition=file.partition, needs_label=needs_label
        )
        findings.first_invalid = [
            _shown(row) for row in findings.invalid.head(20).iter_rows(named=True)
        ]
        return valid, findings
    except BROKEN_FILE as error:
        violation = broken_file(error)
        return pl.DataFrame(), Findings(file.partition, file.rows, violations=[violation])


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON can hold it."""
    plain = (str, int, float, list, type(None))
    return {name: value if isinstance(value, plain) else str(value) for name, value in row.items()}


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
    findings = Findings(partition=partition, rows=frame.height)
    if frame.height < limits.min_rows:
        detail = f"{frame.height} rows, at least {limits.min_rows} needed"
        findings.violations.append(
            Violation(check="too_few_rows", detail=detail, rows=frame.height)
        )
    typed, failures = _conform(frame, needs_label=needs_label)
    if missing := [name for name in CONTRACT.columns if name not in typed.columns]:
        findings.violations += [
            Violation(check="missing_column", detail=name, column=name) for name in missing
        ]
        return pl.DataFrame(), findings
    try:
        valid = CONTRACT.validate(typed, lazy=True).select(list(CONTRACT.columns))
    except pa.errors.SchemaErrors as error:
        failures.append(error.failure_cases.select("column", "check", "failure_case", "index"))
        # Fails for a column as a whole rather than for some of its rows.
        broken = failures[-1].filter(pl.col("check").str.starts_with("dtype("))
        if broken.height:
            findings.violations += [_wrong_type(row) for row in broken.iter_rows(named=True)]
            return pl.DataFrame(), findings
    if failures:
        valid, findings.invalid, findings.failed_checks = _quarantine(frame, typed, failures)
    findings.violations += _partition_violations(valid, partition)
    findings.violations += _invalid_row_violations(findings, limits)
    findings.violations += _null_violations(valid, limits, needs_label=needs_label)
    return valid, findings


def check_shift(files: list[PartitionFile], max_psi: float) -> list[Violation]:
    """Compare the newest day's stable columns with the days before; returns what moved too far."""
    if len(files) < 2:
        return []
    columns = list(STABLE_COLUMNS)
    *before, newest = files
    # An even sample of the earlier days bounds memory, whatever the size of the window.
    step = sum(file.rows for file in before) // 200_000 + 1
    reference = pl.concat(
        [storage.read_parquet(file.uri, columns).gather_every(step) for file in before]
    )
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


def _conform(frame: pl.DataFrame, *, needs_label: bool) -> tuple[pl.DataFrame, list[pl.DataFrame]]:
    """Cast numbers to the contract's width; any other difference of type is left to the contract.

    Writers differ in the width they choose (pandas: 64 bits), which is no fault of the data. A
    number that does not fit is a failure of its row, returned in the form that pandera uses.
    """
    if not needs_label and LABEL not in frame.columns:
        frame = frame.with_columns(pl.lit(None).alias(LABEL))
    typed, failures = frame, []
    for name, column in CONTRACT.columns.items():
        wanted = column.dtype.type
        if name not in frame.columns or frame.schema[name] == wanted:
            continue
        actual = frame.schema[name]
        if actual.is_float() and wanted.is_integer():
            # pandas has no integer column with gaps: it writes whole floats and NaN.
            values = frame[name].fill_nan(None)
            if bool((values.drop_nulls() % 1 == 0).all()):
                frame = frame.with_columns(values.cast(pl.Int64, strict=False))
                typed = typed.with_columns(frame[name])
                actual = frame.schema[name]
        same_kind = actual.is_integer() and wanted.is_integer()
        if same_kind or (wanted.is_float() and actual.is_numeric()) or actual == pl.Null:
            typed = typed.with_columns(pl.col(name).cast(wanted, strict=False))
            if typed[name].null_count() > frame[name].null_count():
                failures.append(_unfit_values(frame[name], typed[name]))
    return typed, failures


def _unfit_values(before: pl.Series, after: pl.Series) -> pl.DataFrame:
    rows = (before.is_not_null() & after.is_null()).arg_true()
    return pl.DataFrame(
        {
            "column": pl.repeat(before.name, len(rows), eager=True),
            "check": pl.repeat(f"fits {after.dtype}", len(rows), eager=True),
            "failure_case": before.gather(rows).cast(pl.String),
            "index": rows.cast(pl.Int32),
        }
    )


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


def _partition_violations(valid: pl.DataFrame, partition: date | None) -> list[Violation]:
    if partition is None:
        return []
    foreign = valid.filter(pl.col(PARTITION_COLUMN) != partition)
    if not foreign.height:
        return []
    days = foreign[PARTITION_COLUMN].unique().sort().head(3).cast(pl.String).to_list()
    detail = f"{foreign.height} rows are of another day ({', '.join(days)}), not of {partition}"
    return [
        Violation(
            check="wrong_partition", detail=detail, column=PARTITION_COLUMN, rows=foreign.height
        )
    ]


def _invalid_row_violations(findings: Findings, limits: Validation) -> list[Violation]:
    invalid = findings.invalid.height
    if invalid <= limits.max_invalid_share * findings.rows:
        return []
    detail = (
        f"{invalid} of {findings.rows} rows break the contract, at most "
        f"{limits.max_invalid_share:.0%} may ({_counts(findings.failed_checks)})"
    )
    return [Violation(check="invalid_rows", detail=detail, rows=invalid)]


def _null_violations(
    valid: pl.DataFrame, limits: Validation, *, needs_label: bool
) -> list[Violation]:
    violations = []
    for name, column in CONTRACT.columns.items():
        if not column.nullable or valid.is_empty() or (name == LABEL and not needs_label):
            continue
        limit = (column.metadata or {}).get("max_null_share", limits.max_null_share)
        nulls = valid[name].null_count()
        if nulls > limit * valid.height:
            check = "null_target" if name == LABEL else "too_many_nulls"
            detail = f"{name} is null in {nulls} of {valid.height} rows, at most {limit:.0%} may be"
            violations.append(Violation(check=check, detail=detail, column=name, rows=nulls))
    return violations


def _wrong_type(failure: dict[str, Any]) -> Violation:
    wanted = failure["check"].removeprefix("dtype('").removesuffix("')")
    column, actual = failure["column"], failure["failure_case"]
    detail = f"{column} is {actual}, not {wanted}"
    return Violation(check="wrong_type", detail=detail, column=column)


def _write_report(
    run: Run, raw: DatasetRef, files: Sequence[PartitionFile], checked: list[Findings]
) -> str:
    partitions = (
        CheckedPartition(
            partition=file.partition,
            rows=findings.rows,
            quarantined=findings.invalid.height,
            violations=tuple(findings.violations),
            failed_checks=findings.failed_checks,
            first_invalid_rows=tuple(findings.first_invalid),
        )
        for file, findings in zip(files, checked, strict=True)
    )
    path = validation_report_path(run, raw.fingerprint)
    return storage.write_model(path, ValidationReport(partitions=tuple(partitions)))


def _counts(checks: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in checks.items())
