"""What a table's columns are for: roles that are not given are proposed, with a reason each."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import polars as pl

from ...core.cadence import Cadence, Unit
from ...core.errors import BadInput
from ...core.settings import load_settings
from ...interface import OURS
from .look import Column, Table
from .plan import Asked, Part, Plan, Problem, Windows
from .steady import find_steady
from .texts import form_of_times, is_ambiguous, shown

# A number with more different values is measured, not a class.
MAX_NUMBER_CLASSES = 10
MAX_CLASSES = 100
# Text with more different values is not a category.
MAX_CATEGORIES = 200
# A single column that predicts the target this well already knows it.
LEAK = 0.98
# A time to split by needs three partitions, and six are better; so are thirty rows in each.
FEW_PARTITIONS, ENOUGH_PARTITIONS, ENOUGH_ROWS = 3, 6, 30
# Partitions that a model learns from and is measured on, as a first draft.
LONGEST = {"hour": 336, "day": 28, "week": 26, "month": 24}
# Where they have fewer rows than that together, there may be more of them.
ENOUGH_TO_LEARN, MOST_PARTITIONS = 10_000, 120
# Those that are watched together.
WATCHED = {"hour": 24, "day": 7, "week": 4, "month": 3}

ID_NAME = re.compile(r"(^|[_\W])(id|key|uuid|guid)([_\W]|$)|[a-z]I[dD]$", re.IGNORECASE)
ID_NAME_CAMEL = re.compile(r"[a-z](Id|ID)$")
# A time that says something about the row, not when it happened.
OTHER_TIME = re.compile(
    r"birth|born|expir|valid|updated|(?:^|[_\W])(?:dob|until|end|due)(?:[_\W]|$)", re.IGNORECASE
)
# Shops are closed on Sundays: as many partitions in a row may be missing, and not more in all.
LONGEST_GAP = {"hour": 6, "day": 2, "week": 1, "month": 0}
LEAST_SHARE = 0.7
# A number with its unit, which polars leaves text.
WITH_UNIT = r"^[$€£¥]?\s*[+-]?\d[\d.,]*\s*(?:[$€£¥%]|EUR|USD|GBP|CHF)?$"


def infer(table: Table, asked: Asked) -> Plan:
    """Propose what each column is for.

    Raises:
        BadInput: A named column is not there, or nothing can be learned from such a table.
    """
    there = ", ".join(table.columns)
    for name in (asked.target, asked.time, *asked.key, *asked.group):
        if name and name not in table.columns:
            raise BadInput(f"the table has no column '{name}'; there are: {there}")
    if asked.target in (asked.time, *asked.key, *asked.group):
        raise BadInput(
            f"'{asked.target}' is the target, which rows to score lack: name other columns "
            "for --time, --key and --group"
        )
    plan = _problem(table, asked)
    plan = _time(table, asked, plan)
    plan = _key(table, asked, plan)
    plan = _lags(table, asked, plan)
    plan = find_steady(table, _features(table, plan))
    return _group(table, asked, plan)


def _problem(table: Table, asked: Asked) -> Plan:
    """Decide whether the target is a class or a number."""
    column = table.columns[asked.target]
    values = table.sample[asked.target].drop_nulls()
    if column.distinct < 2 or values.n_unique() < 2:
        only = f"only {values[0]!r}" if len(values) else "no value at all"
        raise BadInput(
            f"target '{column.name}' holds {only}: there is nothing to tell apart. Name another "
            "column, or a table with more rows"
        )
    if column.dtype.is_temporal():
        raise BadInput(f"target '{column.name}' is a time: predict a number of days or hours")
    is_number = column.dtype.is_numeric()
    is_whole = column.dtype.is_integer() or (is_number and bool((values % 1 == 0).all()))
    few = column.distinct <= MAX_NUMBER_CLASSES
    found: Problem = "regression" if is_number and not (is_whole and few) else "classification"
    kind = "numbers" if is_number else f"{column.dtype}"
    reason = f"{column.distinct:,} different values ({kind})"
    problem = asked.problem or found
    if problem == "regression" and not is_number:
        raise BadInput(f"target '{column.name}' is {column.dtype}, not a number: drop --problem")
    if problem == "regression":
        return Plan(column.name, problem, reasons={"problem": reason})
    if column.distinct > MAX_CLASSES:
        raise BadInput(
            f"target '{column.name}' has {column.distinct:,} different values, too many for "
            "classes: group them, or name another column"
        )
    classes = values.value_counts(sort=True)
    rare = classes.filter(pl.col("count") < 10)[column.name].to_list()
    suspicious = {column.name: f"rare classes: {shown(rare)}"} if rare else {}
    names = tuple(classes[column.name].to_list())
    seen = " of a sample" * (not table.is_small)
    counts = [f"{name} {count:,}" for name, count in classes.head(6).iter_rows()]
    reason += f"; rows{seen}: {', '.join(counts)}{', …' * (len(names) > 6)}"
    return Plan(column.name, problem, names, suspicious=suspicious, reasons={"problem": reason})


def _time(table: Table, asked: Asked, plan: Plan) -> Plan:
    """Decide which column cuts the table into partitions, and how finely."""
    reasons = dict(plan.reasons)
    name = None if asked.cadence == "none" else asked.time or _likely_time(table, plan, reasons)
    if name and not table.columns[name].dtype.is_temporal():
        raise BadInput(
            f"--time {name}: {_no_time(table.sample[name])}; write it like 2026-11-27 or "
            "2026-11-27T14:00:00Z"
        )
    if name and not _is_mostly_there(table, name):
        raise BadInput(
            f"--time {name}: {table.columns[name].nulls:,} of {table.rows:,} rows have none that "
            "can be read; drop them, or take another column"
        )
    if name and (nulls := table.columns[name].nulls):
        went = "left out of the sample" if table.is_small else "put into quarantine"
        said = reasons.get("time", "it was named")
        reasons["time"] = f"{said}; {nulls:,} rows have none that can be read and are {went}"
    plan = replace(plan, time=name, reasons=reasons)
    if table.source.kind == "files":
        if asked.cadence == "none":
            raise BadInput("--cadence none: a pattern with {partition} has one; name the folder")
        return _files(table, asked, plan)
    if name is None:
        reasons.setdefault("cadence", "no time to split by, so rows are held out by chance")
        return plan
    return _cadence(table, asked, plan)


def _no_time(values: pl.Series) -> str:
    if values.dtype != pl.String:
        return (
            f"it holds {values.dtype} like {shown(values.drop_nulls()[:1])}, not a date or a time"
        )
    texts = values.drop_nulls()
    form, wrong = form_of_times(texts)
    if is_ambiguous(texts, form):
        return f"of {shown(texts[:1])} nobody knows whether the day or the month comes first"
    return f"it holds text, and no date or time is {shown(wrong.unique(maintain_order=True))}"


def _is_mostly_there(table: Table, name: str) -> bool:
    """Return whether validation will tolerate the rows that have no time."""
    least = load_settings().validation.max_invalid_share
    return table.columns[name].nulls <= least * table.rows


def _likely_time(table: Table, plan: Plan, reasons: dict[str, str]) -> str | None:
    times = [
        column
        for column in table.columns.values()
        if column.dtype.is_temporal() and column.distinct > 1
        if _is_mostly_there(table, column.name)
        if column.name != plan.target and not OTHER_TIME.search(column.name)
    ]
    if not times:
        return None
    whole = [column for column in times if not column.nulls]
    newest = max(whole or times, key=lambda column: f"{column.high}")
    others = ", ".join(column.name for column in times if column is not newest)
    every = "almost every row" if newest.nulls else "every row"
    reasons["time"] = (
        f"the newest of the times that every row has (others: {others})"
        if others
        else f"the only time that {every} has"
    )
    return newest.name


def _cadence(table: Table, asked: Asked, plan: Plan) -> Plan:
    """Take the finest cadence with enough partitions without a gap, and enough rows in each."""
    assert plan.time is not None
    dtype = table.columns[plan.time].dtype
    finest: list[Unit] = ["hour", "day", "week", "month"]
    units = [asked.cadence] if asked.cadence else finest[dtype == pl.Date :]
    found: dict[Unit, dict[str, int]] = {}
    for unit in units:
        cadence = _cut_by(unit)
        names = cadence.names(cadence.clock(pl.col(plan.time), dtype)).alias("partition")
        counts = table.frame.select(names).drop_nulls().group_by("partition").len()
        rows = dict(sorted(counts.collect(engine="streaming").iter_rows()))
        found[unit] = _recent(cadence, rows)
        there = _there(found[unit])
        if len(there) >= ENOUGH_PARTITIONS and statistics.median(there) >= ENOUGH_ROWS:
            break
    else:
        unit = max(found, key=lambda one: min(len(_there(found[one])), ENOUGH_PARTITIONS))
    rows, partial = _without_partial(found[unit])
    if len(rows) < FEW_PARTITIONS:
        raise BadInput(
            f"column '{plan.time}' has {len(rows)} {unit}(s) in a row up to {max(rows)}: too few "
            "to hold the newest out. Give more, or --cadence none to hold rows out by chance"
        )
    there = _there(rows)
    gaps = f"{len(there)} of {len(rows)} {unit}s" if len(there) < len(rows) else ""
    reason = f"{gaps or f'{len(rows)} {unit}s in a row'} up to {max(rows)}"
    reason += f", of {statistics.median(there):g} rows{partial}"
    reasons = plan.reasons | {"cadence": reason}
    windows = _windows(unit, _after_lags(asked, rows))
    # A partition that has only begun is still scored.
    least = min(windows.least_rows, *_there(found[unit])[-1:])
    windows = replace(windows, least_rows=least)
    return replace(plan, cadence=_cut_by(unit), windows=windows, reasons=reasons)


def _cut_by(unit: Unit) -> Cadence:
    """Return a cadence in the zone and from the weekday that the settings say."""
    data = load_settings().data
    return Cadence(unit, data.time_zone, data.week_start)


def _files(table: Table, asked: Asked, plan: Plan) -> Plan:
    """Read the cadence off the names of the files."""
    names = list(table.source.names)
    units: list[Unit] = ["hour", "day", "week", "month"]
    for unit in units:
        cadence = _cut_by(unit)
        if all(re.fullmatch(cadence.pattern, name) for name in names):
            break
    else:
        raise BadInput(
            f"'{names[0]}' in '{table.source.paths[0]}' is not an hour, day, week or month like "
            "2026-11-27T14, 2026-11-27, 2026-W48 or 2026-11: rename the files, or name their folder"
        )
    rows = _recent(cadence, dict.fromkeys(sorted(names), table.rows // len(names)))
    if len(rows) < FEW_PARTITIONS:
        raise BadInput(
            f"'{table.source.address}' has {len(rows)} {unit}(s) in a row up to {max(rows)}: too "
            "few to hold the newest out. Give more of them"
        )
    reasons = plan.reasons | {"cadence": f"the names of {len(names)} files, like '{names[0]}'"}
    windows = _windows(unit, _after_lags(asked, rows))
    return replace(plan, cadence=cadence, windows=windows, reasons=reasons)


def _recent(cadence: Cadence, rows: dict[str, int]) -> dict[str, int]:
    """Return the newest partitions back to a long gap, oldest first; a missing one has no rows."""
    walked, kept, gap, name = list[str](), 1, 0, max(rows)
    while name >= min(rows):
        walked.append(name)
        gap = 0 if name in rows else gap + 1
        if gap > LONGEST_GAP[cadence.unit]:
            break
        if not gap and sum(one in rows for one in walked) >= LEAST_SHARE * len(walked):
            kept = len(walked)
        name = cadence.shift(name, -1)
    return {name: rows.get(name, 0) for name in reversed(walked[:kept])}


def _there(rows: dict[str, int]) -> list[int]:
    """Return how many rows each partition has that is not missing."""
    return [count for count in rows.values() if count]


def _without_partial(rows: dict[str, int]) -> tuple[dict[str, int], str]:
    """Leave out a newest partition that has only begun, and say so."""
    *before, newest = _there(rows)
    least = load_settings().validation.min_rows_share
    if len(before) <= FEW_PARTITIONS or newest >= least * statistics.median(before):
        return rows, ""
    *kept, name = rows
    while not rows[kept[-1]]:
        kept.pop()
    return {one: rows[one] for one in kept}, f"; {name} has {newest} and may not be complete"


def _after_lags(asked: Asked, rows: dict[str, int]) -> dict[str, int]:
    """Return the partitions that have all of those before them that a lag looks at."""
    longest, most = max(asked.lags, default=0), len(rows) - FEW_PARTITIONS
    if longest > most:
        less = f"give a lag of at most {most}" if most else "leave it out"
        raise BadInput(
            f"--lag {longest}: there are {len(rows)} partitions in a row, too few to look as far "
            f"back; {less}"
        )
    return dict(list(rows.items())[longest:])


def _windows(unit: Unit, rows: dict[str, int]) -> Windows:
    needed = ENOUGH_TO_LEARN // max(1, round(statistics.median(_there(rows))))
    longest = max(LONGEST[unit], min(needed, MOST_PARTITIONS))
    wider = min(len(rows), longest * 4 // 3)
    window = max(FEW_PARTITIONS, wider * 3 // 4)
    recent = [count for count in list(rows.values())[-wider:] if count]
    return Windows(
        window=window,
        wider=wider,
        holdout=max(1, window // 4),
        watched=min(wider, WATCHED[unit]),
        typical_rows=round(statistics.median(recent)),
        least_rows=min(recent),
        newest=max(rows),
    )


def _key(table: Table, asked: Asked, plan: Plan) -> Plan:
    """Find columns that no two rows share."""

    def is_key(*names: str) -> bool:
        key = pl.col(*names) if len(names) == 1 else pl.struct(names)
        found = table.frame.select(key.n_unique()).collect(engine="streaming")
        return bool(found.item() == table.rows)

    times = [plan.time] if plan.time else []
    if asked.key:
        if is_key(*asked.key):
            return replace(plan, key=asked.key)
        longer = tuple(dict.fromkeys([*times, *asked.key]))
        if times and is_key(*longer):
            reasons = plan.reasons | {
                "key": f"'{plan.time}' joins it: rows of other times share it"
            }
            return replace(plan, key=longer, reasons=reasons)
        raise BadInput(
            f"--key {', '.join(asked.key)}: several rows share it; add a column that tells them "
            "apart, or remove the rows that are there twice"
        )
    names = [
        column.name
        for column in table.columns.values()
        if not (column.nulls or column.dtype.is_float() or column.dtype == pl.Boolean)
        if column.name not in (plan.target, plan.time, *OURS)
    ]
    # Names of things first, then times, which a series of one thing has for a key.
    names.sort(key=lambda name: not is_id_name(name))
    likely = [[name] for name in names if table.columns[name].distinct > 0.9 * table.rows]
    likely = [one for one in likely if is_id(table, table.columns[one[0]])][:3]
    likely += [times] if times else []
    likely += [[*times, name] for name in names[:5] if times]
    for one in likely:
        if is_key(*one):
            reasons = plan.reasons | {"key": "no two rows share it"}
            return replace(plan, key=tuple(one), reasons=reasons)
    none = "no column or pair that no two rows share was found, so live performance is not measured"
    return replace(plan, reasons=plan.reasons | {"key": none})


def _lags(table: Table, asked: Asked, plan: Plan) -> Plan:
    """Name the features that are made of the target in partitions before."""
    if not asked.lags:
        return plan
    lag, dtype = max(asked.lags), table.columns[plan.target].dtype
    if plan.time is None:
        raise BadInput(f"--lag {lag}: no column says what is before what; name it with --time")
    if not (dtype.is_numeric() or dtype == pl.Boolean):
        raise BadInput(f"--lag {lag}: the target '{plan.target}' is {dtype}, of which no mean is")
    names = {}
    for lag in sorted(set(asked.lags)):
        name = f"{plan.target}_{lag}_before"
        while name in table.columns:
            name += "_"
        names[name] = lag
    of = f"of each {', '.join(plan.series)}" if plan.series else "of all rows together"
    why = f"the mean {of}; to change that, see SERIES in domain/features.py"
    return replace(plan, lags=names, reasons=plan.reasons | {"lags": why})


def is_id_name(name: str) -> bool:
    """Tell whether a column is called like one that names things."""
    return bool(ID_NAME.search(name) or ID_NAME_CAMEL.search(name))


def is_id(table: Table, column: Column) -> bool:
    """Tell whether a column names rows or things rather than measuring them."""
    if column.dtype == pl.String:
        return column.distinct > 0.9 * table.rows or (
            is_id_name(column.name) and column.distinct > 20
        )
    if not column.dtype.is_integer():
        return False
    if is_id_name(column.name) and column.distinct > 20:
        return True
    # By chance, n numbers out of so few would hardly all differ: exp(-n² / 2 / span) is below 1 %.
    values = table.sample[column.name].drop_nulls()
    is_numbered = (
        values.n_unique() == len(values) and column.high - column.low < len(values) ** 2 / 10
    )
    return is_numbered and column.distinct > 0.9 * table.rows


def _features(table: Table, plan: Plan) -> Plan:
    """Sort the columns into numbers, categories and what is left out."""
    left_out: dict[str, str] = {}
    suspicious = dict(plan.suspicious)
    numeric: list[str] = []
    categorical: list[str] = []
    parts: list[Part] = []
    for column in table.columns.values():
        name = column.name
        if name == plan.target:
            continue
        why = _no_feature(table, plan, column)
        if why:
            left_out[name] = suspicious[name] = why
        # With the time, a key may be a category: the place of an hourly measurement.
        if name in plan.key and (len(plan.key) == 1 or column.dtype != pl.String):
            left_out.setdefault(name, "names the row")
        if column.dtype.is_temporal() and not why:
            left_out.pop(name, None)
            made = _parts(table, plan, column)
            parts += made
            if not made:
                left_out[name] = "a time with no weekday, hour or month to learn from"
        elif name in left_out:
            continue
        elif column.dtype == pl.String:
            categorical.append(name)
        else:
            numeric.append(name)
            if column.dtype.is_integer() and 2 < column.distinct <= MAX_NUMBER_CLASSES:
                suspicious[name] = "few whole numbers: a category, perhaps?"
    if not (numeric or categorical or parts or plan.lags):
        raise BadInput(
            f"no column is left to learn from: {'; '.join(map(': '.join, left_out.items()))}"
        )
    return replace(
        plan,
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        parts=tuple(parts),
        left_out=left_out,
        suspicious=suspicious,
    )


def _no_feature(table: Table, plan: Plan, column: Column) -> str:
    """Return why a column must not be learned from; empty if it may."""
    if column.name == "target":
        return "called like what is predicted; rename it in the source to learn from it"
    if column.nulls == table.rows:
        return "holds no value"
    if column.distinct == 1 and not column.nulls:
        return "constant"
    if column.name == plan.time:
        return ""
    known = _knows(table.sample, column, plan)
    if known >= LEAK:
        return f"leak-like: alone it tells the target ({known:.0%})"
    if is_id(table, column):
        return f"id-like: {column.distinct:,} different values"
    if column.dtype == pl.String and _has_units(table.sample[column.name]):
        like = table.sample[column.name].drop_nulls()[0]
        return f"numbers with a unit, like '{like}': write them without it to learn from them"
    if column.dtype == pl.String and column.distinct > MAX_CATEGORIES:
        return f"text with {column.distinct:,} different values: high-cardinality"
    return ""


def _has_units(values: pl.Series) -> bool:
    """Tell whether text holds numbers, with a unit before or after them."""
    texts = values.drop_nulls()
    return len(texts) > 0 and texts.str.contains(WITH_UNIT).all()


def _knows(sample: pl.DataFrame, column: Column, plan: Plan) -> float:
    """Return how well a column alone predicts the target: 0 not at all, 1 fully.

    Classes: with few values by the most frequent class of each, otherwise by how rarely the class
    changes along the sorted column. Numbers: by rank correlation, or the share of the variance
    between values.
    """
    rows = sample.select(x=column.name, y=plan.target).drop_nulls()
    distinct = rows["x"].n_unique()
    if rows.height < 20 or distinct < 2 or rows["y"].n_unique() < 2:
        return 0.0
    is_coarse = distinct <= rows.height / 5
    if plan.problem == "regression":
        if column.dtype != pl.String:
            # Rank 1 either way.
            rank = rows.select(pl.corr(pl.col("x").cast(pl.Float64), "y", method="spearman")).item()
            return abs(float(rank or 0.0))
        if not is_coarse:
            return 0.0
        between = rows.select(
            (pl.col("y") - pl.col("y").mean().over("x")).var() / pl.col("y").var()
        )
        return 1 - float(between.item())
    largest = rows["y"].value_counts()["count"].to_numpy() / rows.height
    if is_coarse:
        of_value = rows.group_by("x", "y").len().group_by("x").agg(pl.col("len").max())
        right = of_value["len"].sum() / rows.height
        most = float(largest.max())
        return (float(right) - most) / (1 - most)
    if column.dtype == pl.String:
        return 0.0
    changes = rows.sort("x", "y")["y"].rle_id().n_unique() - len(largest)
    return 1 - changes / rows.height / (1 - float((largest**2).sum()))


def _parts(table: Table, plan: Plan, column: Column) -> list[Part]:
    """Return what can be learned from a time: only what comes again."""
    found = []
    values = table.sample[column.name].drop_nulls()
    made: dict[Literal["weekday", "hour", "month"], Callable[[pl.Series], bool]] = {
        "weekday": lambda times: times.dt.weekday().n_unique() > 1,
        "hour": lambda times: times.dtype != pl.Date and times.dt.hour().n_unique() > 1,
        # A month that was not learned from tells nothing.
        "month": lambda times: (
            plan.cadence.unit in ("month", "none") and times.dt.month().n_unique() == 12
        ),
    }
    for part, is_there in made.items():
        name = f"{column.name}_{part}"
        while name in table.columns:
            name += "_"
        if is_there(values):
            found.append(Part(name, column.name, part))
    return found


def _group(table: Table, asked: Asked, plan: Plan) -> Plan:
    """Without a time, keep together the rows of a thing that has several."""
    if asked.group and plan.time:
        why = 'by group, not by time; for both, set split = "time_and_group"'
        return replace(plan, group=asked.group, reasons=plan.reasons | {"group": why})
    if asked.group or plan.time:
        return replace(plan, group=asked.group)
    for name in plan.left_out:
        column = table.columns[name]
        if is_id(table, column) and not column.nulls and 10 <= column.distinct < table.rows / 2:
            why = f"rows share its {column.distinct:,} values: none may be on both sides"
            return replace(plan, group=(name,), reasons=plan.reasons | {"group": why})
    return plan
