"""Opening a database that SQLAlchemy knows, and reading what a query gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from ..core.errors import SettingsError
from ..core.redact import redact_error
from ..core.settings import without_passwords
from .read import limit_bytes, limit_rows

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

_BATCH = 100_000
# Databases whose times have a zone; dates and times without one are in the data's then.
_SET_ZONE = {"postgresql": "SET TIME ZONE '{}'", "duckdb": "SET TimeZone = '{}'"}


@contextmanager
def connect(address: str, folder: Path, zone: str) -> Iterator[Connection]:
    """Open a database for a query, and close it.

    Args:
        address: SQLAlchemy's, with the log-in.
        folder: The base of a relative path to a database file.
        zone: What times without a zone mean.

    Raises:
        SettingsError: The address is invalid, its file is missing, or there is no driver for it.
        sqlalchemy.exc.SQLAlchemyError: The database refused; the message has no password.
    """
    import sqlalchemy as sa

    url = locate(address, folder)
    if _is_file(url) and not Path(f"{url.database}").is_file():
        raise SettingsError(
            f"'{without_passwords(address)}': there is no database at {url.database}"
        )
    try:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
    except (ModuleNotFoundError, sa.exc.NoSuchModuleError) as error:
        raise SettingsError(
            f"no driver for '{without_passwords(address)}' is installed ({error}). Add it, like "
            "`uv add 'psycopg[binary]'` for postgresql+psycopg:// or `uv add duckdb-engine`"
        ) from None
    try:
        with engine.connect() as connection:
            if statement := _SET_ZONE.get(connection.dialect.name):
                connection.execute(sa.text(statement.format(zone)))
            # Rows come batch by batch if the database supports it; only a query may use this.
            yield connection.execution_options(stream_results=True)
    except sa.exc.SQLAlchemyError as error:
        redact_error(error)
        raise


def locate(address: str, folder: Path) -> URL:
    """Return an address, with an absolute path if the database is a file.

    Raises:
        SettingsError: It is not an address of SQLAlchemy's.
    """
    import sqlalchemy as sa

    try:
        url = sa.make_url(address)
    except sa.exc.ArgumentError:
        raise SettingsError(
            f"'{without_passwords(address)}' is not an address of SQLAlchemy's, like "
            "postgresql+psycopg://user:password@host/database"
        ) from None
    return url.set(database=f"{Path(folder, f'{url.database}')}") if _is_file(url) else url


def read_query(
    connection: Connection, query: str, parameters: dict[str, Any] | None = None
) -> pl.DataFrame:
    """Return the rows of a query, read batch by batch.

    Raises:
        TooLarge: There are more rows, or they take more bytes, than `[validation]` allows.
    """
    import sqlalchemy as sa

    batches = pl.read_database(
        sa.text(query),
        connection,
        iter_batches=True,
        batch_size=_BATCH,
        infer_schema_length=None,
        execute_options={"parameters": parameters or {}},
    )
    frames, rows, size = [], 0, 0.0
    for batch in batches:
        frames.append(batch)
        limit_rows(rows := rows + batch.height)
        limit_bytes(size := size + batch.estimated_size())
    frame = pl.concat(frames, how="vertical_relaxed") if frames else pl.DataFrame()
    # Values that polars has no type for, like a UUID, become text.
    return frame.with_columns(pl.col(pl.Object).map_elements(str, return_dtype=pl.String))


def in_order(frame: pl.DataFrame, query: str) -> pl.DataFrame:
    """Sort the rows unless their query does: the same rows give the same frame."""
    return frame if "order by" in query.lower() else frame.sort(pl.all(), nulls_last=True)


def _is_file(url: URL) -> bool:
    return url.get_backend_name() in ("sqlite", "duckdb") and url.database not in (
        None,
        "",
        ":memory:",
    )
