"""What is known about a table, put into the team's own files."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl

from ...core.errors import BadInput
from ...core.optional import PACKAGE
from ...core.paths import config_file
from ...core.settings import SUFFIXES
from .infer import ENOUGH_ROWS
from .look import Column, Table, read_file
from .plan import Plan
from .steady import max_psi

TEMPLATES = Path(__file__).with_name("templates")
# Text with at most this many different values may only have those that were seen.
MAX_LISTED = 20
LINE = 100
# A sample of a table that is not small has this many rows.
SAMPLE_ROWS = 2000


def write(table: Table, plan: Plan, root: Path, masked: Sequence[str] = ()) -> dict[str, str]:
    """Return the text of every file, by its path in the project."""
    domain = f"src/{PACKAGE}/domain"
    columns = [_contract(table.columns[name], table, plan, masked) for name in plan.contract]
    parts = [part.name for part in plan.parts if part.part == "hour"]
    texts = [part.name for part in plan.parts if part.part != "hour"]
    settled = {*plan.left_out, *(part.column for part in plan.parts)}
    facts: dict[str, Any] = {
        "package": PACKAGE,
        "table": table,
        "plan": plan,
        "rows": table.rows,
        "columns": columns,
        "numeric": (*plan.numeric, *parts, *plan.lags),
        "categorical": (*plan.categorical, *texts),
        "doubtful": [
            (name, why)
            for name, why in plan.suspicious.items()
            if name not in settled and name != plan.target
        ],
        "classes": _described_target(table, plan),
        "estimator": "Classifier" if plan.problem == "classification" else "Regressor",
        "bad": [(column["name"], column["bad"]) for column in columns if column["bad"]],
        "what": "the whole table" if table.is_small else f"{SAMPLE_ROWS:,} rows of the table",
        "source": table.source.shown,
        "masked": f"; values of {', '.join(masked)} are masked" if masked else "",
    }
    tests = {name: f"tests/domain/{name}.py" for name in _names("sample", "test_")}
    code = {name: f"{domain}/{name}.py" for name in ("schema", "features", "problem")}
    files = {
        path: _code(path, _render(f"{name}.py", facts), root)
        for name, path in (code | tests).items()
    }
    config = config_file(root).read_text(encoding="utf-8")
    files["config/pipeline.toml"] = set_values(config, settings(table, plan, root, masked))
    files["data/README.md"] = _render("data.md", facts)
    return files


def _names(*starts: str) -> list[str]:
    names = sorted(path.name.partition(".")[0] for path in TEMPLATES.glob("*.py.j2"))
    return [name for name in names if name.startswith(starts)]


def _render(name: str, facts: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["code"] = _literal
    text = (TEMPLATES / f"{name}.j2").read_text(encoding="utf-8")
    return environment.from_string(text).render(facts) + "\n"


def _literal(value: Any) -> str:
    """Return a value as Python writes it, text in double quotes."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple | list):
        inner = ", ".join(map(_literal, value))
        if isinstance(value, list):
            return f"[{inner}]"
        return f"({inner},)" if value else "()"
    return repr(value)


def _code(path: str, text: str, root: Path) -> str:
    """Return Python as the project formats it; a finding of its linter is waived at the top.

    Names of columns may be longer than a line, or in any script.
    """

    def ruff(*arguments: str) -> str:
        command = [sys.executable, "-m", "ruff", *arguments, "--quiet", "--stdin-filename"]
        done = subprocess.run(
            [*command, path, "-"], input=text, cwd=root, capture_output=True, text=True
        )
        if done.stderr:
            raise BadInput(f"ruff cannot read what was written: {done.stderr.strip()}")
        return done.stdout

    text = ruff("format")
    if text.isascii() and all(len(line) <= LINE for line in text.splitlines()):
        return text
    found = {one["code"] for one in json.loads(ruff("check", "--output-format=json") or "[]")}
    return f"# ruff: noqa: {', '.join(sorted(found))}\n{text}" if found else text


def _contract(
    column: Column, table: Table, plan: Plan, masked: Sequence[str] = ()
) -> dict[str, Any]:
    """Return what the contract says of a column, and a value that breaks it, as Python.

    It shows no value of a masked column.
    """
    is_label = column.name == plan.target
    check, bad, note = "", "", ""
    bounded = column.dtype.is_numeric() and column.low is not None
    if is_label and plan.problem == "classification":
        values = tuple(sorted(plan.classes))  # type: ignore[type-var]
        check = "" if column.dtype == pl.Boolean else f"isin({_literal(list(values))})"
        bad = "" if column.dtype == pl.Boolean else _other(values)
    elif column.name in (*masked, *plan.key):
        # Values that name rows have no bounds: new ones keep coming.
        pass
    elif bounded and math.isfinite(column.low) and math.isfinite(column.high):
        low, high = _bounds(column)
        note = f"seen: {column.low:g} to {column.high:g}"
        check, bad = f"in_range({low!r}, {high!r})", f"{high + 1!r}"
    elif column.dtype == pl.String and column.name in plan.categorical:
        values = tuple(table.sample[column.name].drop_nulls().unique().sort())
        if column.distinct == len(values) <= MAX_LISTED and all(
            len(f"{value}") <= 60 for value in values
        ):
            note = "add what else may come"
            check, bad = f"isin({_literal(list(values))})", _other(values)
    # Rows without a time are not part of the sample.
    nulls = 0 if column.name == plan.time else column.nulls
    nullable = bool(nulls) or is_label
    return {
        "name": column.name,
        "dtype": _dtype(column.dtype),
        "check": check,
        "note": note,
        "nullable": nullable,
        "max_null_share": _null_share(column, table, plan) if nulls else None,
        "bad": bad or ("" if nullable else "None"),
    }


def _dtype(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.Datetime):
        zone = f", {_literal(dtype.time_zone)}" if dtype.time_zone else ""
        return f"Datetime({_literal(dtype.time_unit)}{zone})"
    return f"{dtype.base_type()}"


def _bounds(column: Column) -> tuple[Any, Any]:
    """Return bounds with as much room on either side as the values take, but not below zero."""
    span = (column.high - column.low) or max(abs(column.high), 1)
    low, high = column.low - span, column.high + span
    low = 0 if column.low >= 0 else low
    # Two digits are enough, rounded outwards.
    step = 10 ** (math.floor(math.log10(span)) - 1)
    low, high = (
        edge(value / step) * step for edge, value in ((math.floor, low), (math.ceil, high))
    )
    if column.dtype.is_integer():
        return math.floor(low), math.ceil(high)
    return float(f"{low:.6g}"), float(f"{high:.6g}")


def _other(values: tuple[Any, ...]) -> str:
    """Return a value of that type that is not among them."""
    if isinstance(values[0], str):
        return _literal("never seen")
    return repr(max(values) + 1)


def _null_share(column: Column, table: Table, plan: Plan) -> float:
    """Return a share a bit above what was seen, in the partition that lacks the most."""
    share = column.nulls / table.rows
    if plan.time:
        clock = plan.cadence.clock(pl.col(plan.time), table.columns[plan.time].dtype)
        parts = table.sample.group_by(plan.cadence.names(clock).alias("partition"))
        nulls = (pl.col(column.name).null_count() / pl.len()).alias("share")
        by_partition = parts.agg(nulls, pl.len().alias("rows"))
        # A large partition without any value is an accident.
        usual = by_partition.filter((pl.col("share") < 1) | (pl.col("rows") < ENOUGH_ROWS))
        share = max([share, *usual["share"].to_list()])
    return round(min(1.0, share * 1.2 + 0.05), 2)


def _described_target(table: Table, plan: Plan) -> str:
    column = table.columns[plan.target]
    if plan.problem == "regression":
        return f"{column.low:g} to {column.high:g}"
    shown = ", ".join(_literal(name) for name in plan.classes[:5])
    return f"Classes, the most frequent first: {shown}{' …' * (len(plan.classes) > 5)}"


def settings(
    table: Table, plan: Plan, root: Path, masked: Sequence[str] = ()
) -> dict[str, dict[str, Any]]:
    """Return the settings that follow from a table, by section."""
    windows = plan.windows
    values: dict[str, dict[str, Any]] = {
        "data": _data(table, plan, root, masked),
        "validation": {"min_rows": max(1, min(100, (windows.least_rows or table.rows) // 2))},
        "training": {
            "window": windows.window,
            "holdout": windows.holdout,
            "wider_window": windows.wider,
        },
        "gates": {"min_above_baseline": 0.0},
        "monitoring": {
            "window": windows.watched,
            "max_psi": max_psi(windows.typical_rows * windows.watched or table.rows),
            "max_drifted_share": 0.3,
        },
    }
    # Also where it is the default: an earlier table may have had another.
    by_time = "random" if plan.cadence.unit == "none" else "time"
    values["training"]["split"] = "group" if plan.group else by_time
    if windows.newest:
        begin = plan.cadence.start(windows.newest)
        values["schedule"] = {"start_date": begin.date()}
    if table.dialect:
        # Also where a Parquet file is the sample: the next files may be as the first was.
        values["data.csv"] = table.dialect
    return values


def _reads_sample(table: Table, masked: Sequence[str]) -> bool:
    """Tell whether the sample is all that the pipeline needs."""
    return table.is_small and table.source.kind != "sql" and not masked


def _data(table: Table, plan: Plan, root: Path, masked: Sequence[str]) -> dict[str, Any]:
    source, cadence = table.source, {"cadence": plan.cadence.unit}
    if source.kind == "sql":
        query = source.query
        if plan.time and ":start" not in query:
            time = '"' + plan.time.replace('"', '""') + '"'
            query = f"SELECT * FROM ({query}) AS t WHERE {time} >= :start AND {time} < :end"
        return {"kind": "sql", "source": source.shown, "query": query, **cadence}
    if _reads_sample(table, masked):
        kind = {"kind": "files"} if source.kind == "files" else {"kind": "table"}
        return {**kind, "source": "data/sample", "file": "{partition}.parquet", **cadence}
    address = source.address
    if "://" not in address:
        path = Path(address).resolve()
        address = path.relative_to(root).as_posix() if path.is_relative_to(root) else f"{path}"
    for name in table.source.paths:
        if not name.endswith(SUFFIXES):
            raise BadInput(
                f"'{name}' is read where it is, and the pipeline reads files that end in one of "
                f"{', '.join(SUFFIXES)}: rename or convert it"
            )
    if source.kind == "table":
        return {"kind": "table", "source": address, **cadence}
    before = address.partition("{partition}")[0]
    folder = before.rpartition("/")[0]
    return {"kind": "files", "source": folder, "file": address[len(folder) + 1 :], **cadence}


def set_values(text: str, values: Mapping[str, Mapping[str, Any]]) -> str:
    """Return settings with these values; comments, order and everything else stay.

    Bounds of single metrics and the dialect of a CSV go: they were those of another table.
    """
    sections: dict[str, list[str]] = {"": []}
    name = ""
    for line in text.splitlines():
        if match := re.match(r"\[([\w.]+)\]", line):
            name = match[1]
            sections[name] = []
        sections[name].append(line)
    former = ("gates.metrics.", *([] if "data.csv" in values else ["data.csv"]))
    sections = {name: lines for name, lines in sections.items() if not name.startswith(former)}
    for name, wanted in values.items():
        lines = sections.setdefault(name, [f"[{name}]", ""])
        for key, value in wanted.items():
            _set_value(lines, key, value)
    result = "\n".join(line for lines in sections.values() for line in lines).rstrip() + "\n"
    read = tomllib.loads(result)
    for name, wanted in values.items():
        section = read
        for part in name.split("."):
            section = section[part]
        if any(section.get(key) != value for key, value in wanted.items()):
            raise BadInput(
                f"[{name}] of config/pipeline.toml could not be set: write one line per key"
            )
    return result


def _set_value(lines: list[str], key: str, value: Any) -> None:
    new = f"{key} = {value if isinstance(value, date) else json.dumps(value, ensure_ascii=False)}"
    old = rf'(?:# )?{key}\s*=\s*(?:"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[^#\s]+)\s*(#.*)?$'
    for place, line in enumerate(lines):
        if match := re.match(old, line):
            lines[place] = f"{new:<38} {match[1]}" if match[1] else new
            return
    last = max(place for place, line in enumerate(lines) if line.strip())
    lines.insert(last + 1, new)


def sample_frames(table: Table, plan: Plan, masked: Sequence[str]) -> dict[str, pl.DataFrame]:
    """Return the new sample, by the name of the file: all of a small table, or its newest rows."""
    if table.source.kind == "files":
        names = sorted(table.source.names.items())
        frames = {
            f"{name}.parquet": read_file(table, path)
            for name, path in (names if table.is_small else names[-3:])
        }
        if not table.is_small:
            frames = {name: frame.head(SAMPLE_ROWS // 3) for name, frame in frames.items()}
    elif table.is_small:
        frame = table.sample.sort(plan.time) if plan.time else table.sample
        frames = {"rows.parquet": frame}
    elif plan.time:
        frames = {"rows.parquet": _newest(table, plan.time)}
    else:
        frames = {"rows.parquet": table.sample.sample(SAMPLE_ROWS, seed=7)}
    if plan.time:
        frames = {name: frame.drop_nulls(plan.time) for name, frame in frames.items()}
    return {name: _mask(frame, masked) for name, frame in frames.items()}


def _newest(table: Table, time: str) -> pl.DataFrame:
    cut = table.sample[time].sort()[-max(1, SAMPLE_ROWS * table.sample.height // table.rows)]
    newest = table.frame.filter(pl.col(time) >= cut).collect(engine="streaming")
    return newest.sort(time).tail(SAMPLE_ROWS)


def _mask(frame: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return rows in which text is replaced by meaningless words, other values by those of others.

    The same text gets the same word, so that a key stays one. The words are numbered in a random
    order that is kept nowhere.
    """
    for name in names:
        values = frame[name]
        if values.dtype == pl.String:
            texts = values.drop_nulls().unique().shuffle()
            words = pl.Series([f"{name}-{number}" for number in range(len(texts))], dtype=pl.String)
            values = values.replace_strict(texts, words, default=None)
        else:
            values = values.shuffle()
        frame = frame.with_columns(values.alias(name))
    return frame


def put_sample(frames: Mapping[str, pl.DataFrame], folder: Path, *others: Path) -> None:
    """Replace a folder by the new sample; others that belonged to the old one go."""
    for old in (folder, *others):
        shutil.rmtree(old, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, frame in frames.items():
        frame.write_parquet(folder / name)
