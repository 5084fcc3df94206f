"""validate: check every row against the data contract before anything is learned from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import pandera.polars as pa
import polars as pl
from upath import UPath

from ..core import storage
from ..core.cadence import Cadence, Partition
from ..core.errors import DataRejected, SettingsError
from ..core.logs import get_logger
from ..core.outcomes import CheckedPartition, Violation
from ..core.plain import plain
from ..core.records import ValidationReport, validation_report_path
from ..core.refs import DatasetRef, PartitionFile, Run
from ..core.settings import Validation, load_settings
from ..core.stage import stage
from ..interface import ROW, load_schema
from ..ml.drift import psi
from ..sources.conform import conform
from ..sources.read import broken_file, read_file, violation_of
from ..sources.reference import Content, load_labels
from .ingest import least_share

log = get_logger(__name__)

BROKEN_FILE = broken_file()
# A median of fewer partitions says little.
FEWEST_BEFORE = 3


@dataclass
class Findings:
    """What validation found in the rows of one partition.

    Attributes:
        violations: Broken limits; any of them rejects.
        casts: What was cast to the contract's types without a loss.
        failed_checks: How many rows failed each `column: check`.
        invalid: Rows that failed a check, with the checks in `failed_checks`.
    """

    violations: list[Violation] = field(default_factory=list)
    casts: tuple[str, ...] = ()
    failed_checks: dict[str, int] = field(default_factory=dict)
    invalid: pl.DataFrame = field(default_factory=pl.DataFrame)


@stage
def validate(run: Run, raw: DatasetRef) -> DatasetRef:
    """Check every partition against the contract and pass on the rows that meet it.

    Rows that fail go to `quarantine/` with the names of the checks. The label may be missing for
    inference, and where `[training] min_labelled_share` waits for it; if it comes in a separate
    table (`[data.labels]`), it is joined on KEY. An earlier bad partition is left out: only the
    run's own must be good, and enough of the window.

    Raises:
        DataRejected: A limit of `[validation]` or of the contract is broken by the run's own
            partition, or by too many of those to learn from; nothing is passed on. The report
            names rows and columns.
    """
    checked: list[CheckedPartition] = []
    files: list[PartitionFile] = []
    labels = _labels(run)
    good: dict[str, Partition] = {}
    for raw_file in storage.read_manifest(raw.uri):
        rows, one = _check_file(run, raw_file, labels, good.get(raw_file.fingerprint))
        checked.append(one)
        if not one.violations:
            good[raw_file.fingerprint] = raw_file.partition
            if time := load_schema().time:
                # A split by time cuts rows in their order.
                rows = rows.sort(time, maintain_order=True)
            path = _path("validated", raw_file, labels)
            files.append(storage.write_partition(path, raw_file.partition, rows))
    if not checked[-1].violations:
        checked[-1] = _compare_newest(run.settings.validation, checked, files)
    path = validation_report_path(run, raw.fingerprint)
    storage.write_model(path, ValidationReport(partitions=tuple(checked)))
    left_out = _reject_or_leave_out(run, raw, checked, f"{path}")
    uri, fingerprint, rows_valid = storage.write_dataset(run, "validated", files)
    quarantined = sum(one.quarantined for one in checked)
    if casts := sorted({cast for one in checked for cast in one.casts}):
        log.info("cast without a loss: %s", ", ".join(casts))
    log.info("%d rows valid, %d quarantined", rows_valid, quarantined)
    return DatasetRef(
        uri=uri,
        rows=rows_valid,
        fingerprint=fingerprint,
        validated=True,
        window=raw.window,
        metrics={"rows_read": raw.rows, "rows_quarantined": quarantined},
        left_out=(*raw.left_out, *left_out),
        warnings=checked[-1].warnings,
    )


def _labels(run: Run) -> Content | None:
    try:
        return load_labels(run.settings)
    except SettingsError as error:
        if run.pipeline == "training":
            raise
        log.warning("scored without labels: %s", error)
        return None


def _check_file(
    run: Run, file: PartitionFile, labels: Content | None, same_as: Partition | None
) -> tuple[pl.DataFrame, CheckedPartition]:
    """Return the valid rows of a partition and what was seen; invalid rows go to quarantine.

    `same_as` is a good partition whose file is the same: the same rows cannot be of two partitions.
    """
    settings = run.settings
    try:
        valid, findings = check_rows(
            read_rows(file.uri),
            settings.validation,
            partition=file.partition,
            needs_label=run.pipeline == "training" and not settings.training.min_labelled_share,
            labels=labels.rows if labels else None,
        )
        first = [_shown(row) for row in findings.invalid.head(20).iter_rows(named=True)]
    except BROKEN_FILE as error:
        return pl.DataFrame(), CheckedPartition(
            partition=file.partition,
            rows=file.rows,
            quarantined=0,
            violations=(violation_of(error),),
        )
    if same_as:
        detail = f"the file equals that of {same_as}"
        findings.violations.insert(0, Violation(check="duplicate_partition", detail=detail))
    invalid = findings.invalid.height
    if invalid:
        uri = storage.write_parquet(_path("quarantine", file, labels), findings.invalid)
        share = f"{invalid} of {file.rows} rows ({_counts(findings.failed_checks)})"
        log.warning("%s: quarantined %s: %s", file.partition, share, storage.path_of(uri))
    return valid, CheckedPartition(
        partition=file.partition,
        rows=file.rows,
        quarantined=invalid,
        violations=tuple(findings.violations),
        casts=findings.casts,
        failed_checks=findings.failed_checks,
        first_invalid_rows=tuple(first),
    )


def _path(kind: str, file: PartitionFile, labels: Content | None) -> UPath:
    made_of = file.fingerprint
    if labels:
        made_of = storage.fingerprint(made_of, labels.digest)
    return storage.artifact_path(kind, f"{file.partition}", f"{made_of}.parquet")


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row as JSON can hold it and people can read it."""
    return {_short(name): _shown_value(value) for name, value in row.items()}


def _shown_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_shown_value(one) for one in value[:20]]
    return value if isinstance(value, int | float | None) else _short(f"{value}")


def _short(text: str) -> str:
    return plain(text, limit=100, one_line=True)


def _compare_newest(
    limits: Validation, checked: list[CheckedPartition], files: list[PartitionFile]
) -> CheckedPartition:
    """Return the newest partition with how it differs from the good ones before it."""
    moved, few = check_shift(files, limits.max_shift_psi), _far_fewer_rows(limits, checked)
    if limits.few_rows == "reject":
        moved, few = [*few, *moved], []
    odd = [*few, *_columns_without_values(files)]
    for warning in odd:
        log.warning("%s: %s", checked[-1].partition, warning)
    # Rows in quarantine are in the log already.
    warnings = (*odd, *_quarantined(checked[-1]))
    return checked[-1].model_copy(update={"violations": tuple(moved), "warnings": warnings})


def _quarantined(newest: CheckedPartition) -> list[Violation]:
    if not newest.quarantined:
        return []
    detail = (
        f"{newest.quarantined} of {newest.rows} rows break the contract and are left out "
        f"({_counts(newest.failed_checks)})"
    )
    return [Violation(check="invalid_rows", detail=detail, rows=newest.quarantined)]


def _columns_without_values(files: list[PartitionFile]) -> list[Violation]:
    """Return the columns that have no value in the newest partition, and had some before."""
    schema = load_schema()
    newest = storage.read_parquet(files[-1].uri)
    empty = [
        name
        for name in newest.columns
        if name != schema.label and newest.height == newest[name].null_count()
    ]
    found = []
    for name in empty if files[:-1] else []:
        before = storage.read_parquet(files[-2].uri, [name])[name]
        if before.null_count() < len(before):
            detail = f"{name} has no value in any row, unlike in {files[-2].partition}"
            found.append(Violation(check="no_value", detail=detail, column=name))
    return found


def _far_fewer_rows(limits: Validation, checked: list[CheckedPartition]) -> list[Violation]:
    *before, newest = (one.rows for one in checked if not one.violations)
    if len(before) < FEWEST_BEFORE or newest >= limits.min_rows_share * median(before):
        return []
    detail = (
        f"{newest} rows, far fewer than the {median(before):g} (median) of the {len(before)} "
        f"partitions before: is it complete? (min_rows_share in [validation] is "
        f"{limits.min_rows_share:g})"
    )
    return [Violation(check="far_fewer_rows", detail=detail, rows=newest)]


def _reject_or_leave_out(
    run: Run, raw: DatasetRef, checked: list[CheckedPartition], report_uri: str
) -> list[Violation]:
    """Return why earlier partitions are left out; stops where the newest, or too many, are bad."""
    *earlier, newest = checked
    broken = [
        violation.model_copy(update={"partition": one.partition})
        for one in earlier
        for violation in one.violations
    ]
    gone = {one.partition for one in (*raw.left_out, *broken)}
    total = len(checked) + len({one.partition for one in raw.left_out})
    rejected = [one.model_copy(update={"partition": newest.partition}) for one in newest.violations]
    least = least_share(run)
    if total - len(gone) < least * total:
        detail = (
            f"{total - len(gone)} of {total} partitions are good, at least {least:.0%} must be "
            "(min_partitions_share in [training])"
        )
        few = Violation(check="too_few_partitions", detail=detail, partition=newest.partition)
        rejected += [few, *raw.left_out, *broken]
    if rejected:
        names = dict.fromkeys(f"{one.partition}" for one in rejected)
        raise DataRejected(", ".join(names), rejected, report_uri)
    if broken:
        log.warning("partitions left out: %s", "; ".join(map(str, broken)))
    return broken


def check_rows(
    frame: pl.DataFrame,
    limits: Validation,
    *,
    partition: Partition | None,
    needs_label: bool,
    labels: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, Findings]:
    """Check the rows of one partition: returns the valid ones and the findings.

    Args:
        frame: Raw rows.
        limits: Shares and counts beyond which the rows are rejected as a whole.
        partition: The one all rows must be of; None for rows of any.
        needs_label: False lets the label be null in every row, or missing.
        labels: Those that do not come with the rows: KEY and LABEL.
    """
    findings = Findings()
    if frame.height < limits.min_rows:
        detail = f"{frame.height} rows, at least {limits.min_rows} needed"
        findings.violations.append(
            Violation(check="too_few_rows", detail=detail, rows=frame.height)
        )
    contract, label = load_schema().contract, load_schema().label
    typed = frame
    if label not in frame.columns and (labels is not None or not needs_label):
        typed = frame.with_columns(pl.lit(None).alias(label))
    if missing := [name for name in contract.columns if name not in typed.columns]:
        findings.violations += [
            Violation(check="missing_column", detail=name, column=name) for name in missing
        ]
        return pl.DataFrame(), findings
    conformed = conform(typed, load_schema().types)
    typed, failures, findings.casts = conformed.rows, conformed.failures, conformed.casts
    if labels is not None:
        typed = _with_labels(typed, labels)
    try:
        valid = contract.validate(typed, lazy=True).select(list(contract.columns))
    except pa.errors.SchemaErrors as error:
        failures.append(error.failure_cases.select("column", "check", "index"))
        # Fails for a column as a whole rather than for some of its rows.
        broken = error.failure_cases.filter(pl.col("check").str.starts_with("dtype("))
        if broken.height:
            findings.violations += [_wrong_type(row, typed) for row in broken.iter_rows(named=True)]
            return pl.DataFrame(), findings
    if failures:
        valid, findings.invalid, findings.failed_checks = _quarantine(frame, typed, failures)
    findings.violations += _without_a_value(frame)
    findings.violations += _broken_limits(valid, findings, limits, partition)
    findings.violations += _too_many_nulls(valid, limits, needs_label=needs_label)
    return valid, findings


def _with_labels(rows: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """Put labels where a row has none; the contract names columns of another type."""
    key, label = list(load_schema().key), load_schema().label
    if any(rows.schema[name] != dtype for name, dtype in labels.schema.items()):
        return rows
    joined = rows.join(labels, on=key, how="left", suffix=" later", maintain_order="left")
    later = f"{label} later"
    return joined.with_columns(pl.coalesce(label, later)).drop(later)


def check_shift(files: list[PartitionFile], max_psi: float) -> list[Violation]:
    """Compare the newest partition's stable columns with those before; returns what jumped."""
    if len(files) < 2:
        return []
    columns = list(load_schema().stable_columns)
    *before, newest = files
    reference = storage.read_partitions(before, columns, about=200_000)
    current = storage.read_parquet(newest.uri, columns)
    values = {column: psi(reference[column], current[column]) for column in columns}
    return [
        Violation(
            check="distribution_shift",
            detail=f"{column} is far from the {len(before)} partitions before "
            f"(population stability index {value:.2f}, limit {max_psi:.2f})",
            column=column,
        )
        for column, value in values.items()
        if value > max_psi
    ]


def read_rows(uri: str) -> pl.DataFrame:
    """Read raw rows from a file of any format; those of a CSV are text, for `conform` to read.

    Raises:
        BadInput: The file's name has an ending that is not known.
        polars.exceptions.PolarsError, ValueError: The file is broken; see `BROKEN_FILE`.
    """
    return read_file(storage.path_of(uri))


def _quarantine(
    frame: pl.DataFrame, typed: pl.DataFrame, failures: list[pl.DataFrame]
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, int]]:
    """Split rows by whether a check failed for them: valid rows, invalid rows, counts per check.

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
    columns = list(load_schema().contract.columns)
    return valid.select(columns), invalid.drop(ROW), dict(counts.iter_rows())


def _without_a_value(frame: pl.DataFrame) -> Iterator[Violation]:
    """Yield the columns that must have values and have none, as where a file lacks them."""
    for name, column in load_schema().contract.columns.items():
        if not column.nullable and name in frame and 0 < frame.height == frame[name].null_count():
            detail = (
                f"{name} has no value in any of {frame.height} rows: do the files lack the "
                "column? Add it there, or make it nullable in domain/schema.py"
            )
            yield Violation(check="no_value", detail=detail, column=name, rows=frame.height)


def _broken_limits(
    valid: pl.DataFrame, findings: Findings, limits: Validation, partition: Partition | None
) -> Iterator[Violation]:
    """Yield what the rows of a partition break together: its time, and how many are invalid."""
    time, cadence = load_schema().time, load_settings().data.cadence
    if partition and time and cadence.unit != "none":
        foreign = foreign_partitions(valid[time], cadence, partition)
        if len(foreign):
            some = ", ".join(foreign.unique().sort().head(3))
            yield Violation(
                check="wrong_partition",
                detail=f"{len(foreign)} rows are of another {cadence.unit} ({some}), "
                f"not of {partition}",
                column=time,
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


def foreign_partitions(times: pl.Series, cadence: Cadence, partition: Partition) -> pl.Series:
    """Return the partitions of the rows that are not of this one."""
    # An hour without zone that occurs twice may be either.
    first, second = (
        cadence.clock(pl.col(times.name), times.dtype, ambiguous)
        for ambiguous in ("earliest", "latest")
    )
    foreign = ~(cadence.holds(first, partition) | cadence.holds(second, partition))
    return times.to_frame().filter(foreign).select(cadence.names(first)).to_series()


def _too_many_nulls(
    valid: pl.DataFrame, limits: Validation, *, needs_label: bool
) -> Iterator[Violation]:
    schema = load_schema()
    for name, column in schema.contract.columns.items():
        is_label = name == schema.label
        if not column.nullable or valid.is_empty() or (is_label and not needs_label):
            continue
        limit = (column.metadata or {}).get("max_null_share", limits.max_null_share)
        nulls = valid[name].null_count()
        if nulls > limit * valid.height:
            check = "null_target" if is_label else "too_many_nulls"
            detail = f"{name} is null in {nulls} of {valid.height} rows, at most {limit:.0%} may be"
            yield Violation(check=check, detail=detail, column=name, rows=nulls)


def _wrong_type(failure: dict[str, Any], rows: pl.DataFrame) -> Violation:
    wanted = failure["check"].removeprefix("dtype('").removesuffix("')")
    column, actual = failure["column"], failure["failure_case"]
    detail = f"{column} is {actual}, not {wanted}"
    if rows.schema[column] == pl.String:
        # If a writer has no types, one word among numbers makes the whole column text.
        words = rows[column].drop_nulls().unique(maintain_order=True)
        words = words.filter(words.str.strip_chars().cast(pl.Float64, strict=False).is_null())
        detail += f"; such text is {', '.join(map(repr, words[:3]))}" if len(words) else ""
    return Violation(check="wrong_type", detail=detail, column=column)


def _counts(checks: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in checks.items())
