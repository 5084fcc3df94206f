"""What adapters ask of a run. Standard library only at import: adapters are parsed with it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..core.settings import Settings


def key_of_run(pipeline: str, run_id: str) -> str:
    """Return the pipeline's name for an engine's run: unique, and fit for a file name."""
    return f"{pipeline}-" + re.sub(r"[^A-Za-z0-9.]+", "-", run_id).strip("-")


def graph_settings() -> Settings:
    """Return the settings that a graph is made of.

    Where they are wrong, those are the defaults: the graph still exists, its first task fails and
    names the bad settings, and an alert is sent.
    """
    from ..core.errors import SettingsError
    from ..core.settings import Settings, load_settings

    try:
        return load_settings()
    except SettingsError:
        return Settings.model_construct()


def refuse_catchup(engine: str) -> None:
    """Refuse [schedule] catchup on an engine that starts no run late.

    Raises:
        SettingsError: It is on.
    """
    from ..core.errors import SettingsError
    from ..core.settings import load_settings

    if load_settings().schedule.catchup:
        raise SettingsError(
            f"[schedule] catchup is true, but {engine} starts no run that was missed: set it to "
            "false, and run them with `uv run poe backfill`"
        )


def refuse_dates(engine: str) -> None:
    """Refuse the dates of [schedule] that an engine does not keep: any end, and a start to come.

    Raises:
        SettingsError: There is one.
    """
    from ..core.errors import SettingsError
    from ..core.settings import load_settings

    schedule = load_settings().schedule
    given = {"end_date": schedule.end_date}
    given["start_date"] = schedule.start_date if schedule.begins > datetime.now(UTC) else None
    for name, day in given.items():
        if day:
            raise SettingsError(
                f"[schedule] {name} is {day}, but {engine} neither begins nor ends a schedule by "
                "itself: leave it out, and set or empty the cron expressions on that day"
            )


def timed_out(run_key: str) -> bool:
    """Return whether a stage of the run ended its own process at its time limit.

    Such a process has sent its alert before it ended: an engine that only sees the process gone
    need not send another.
    """
    from ..core.deadline import EXIT_CODE
    from ..core.records import read_records

    return any(record.exit_code == EXIT_CODE for record in read_records(run_key))


def arrived(wanted: str | None) -> str | None:
    """Return the partition of a run, by default the newest; None until the source holds all of it.

    Raises:
        BadInput: The one wanted is not a partition of the cadence.
        MissingPartitions: It is long over. Where runs catch up, each partition of a gap would
            otherwise be waited for.
    """
    from ..core.errors import MissingPartitions
    from ..core.settings import load_settings
    from ..sources import newest_partition, open_source

    settings = load_settings()
    if not wanted:
        return newest_partition(settings)
    cadence, minutes = settings.data.cadence, settings.limits.wait_timeout_minutes
    cadence.parse(wanted)
    source = open_source(settings)
    if wanted in source.list_partitions():
        return wanted
    if source.is_arriving(wanted):
        return None
    # It may have become whole between two looks.
    if wanted in source.list_partitions():
        return wanted
    # The run of a partition begins before the next one has ended.
    ended = cadence.end(cadence.shift(wanted, 1))
    if datetime.now(UTC) - ended > timedelta(minutes=minutes):
        raise MissingPartitions(
            f"'{settings.data.address}' lacks {wanted}, which is so long over that it is not "
            f"waited for (wait_timeout_minutes in [limits] is {minutes:g}): deliver it, then run "
            "it again"
        )
    return None
