"""A stored model, perhaps written by older code, and whether it fits today's code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import registry
from .errors import ChampionUnusable, PipelineError
from .logs import get_logger
from .outcomes import Misfit

if TYPE_CHECKING:
    import polars as pl
    from mlflow.entities.model_registry import ModelVersion

log = get_logger(__name__)


@dataclass(frozen=True)
class StoredModel:
    """A registered version of the model, loaded.

    Attributes:
        estimator: A fitted scikit-learn model.
        inputs: The features it was trained on, in their order, with MLflow's name of their type;
            None where it is not known.
    """

    version: int
    estimator: Any
    inputs: Mapping[str, str | None]

    def check(self, columns: Mapping[str, pl.DataType]) -> None:
        """Check today's columns against those it was trained on.

        Raises:
            ChampionUnusable: Some are gone, or numbers have become text, or text numbers.
        """
        if gone := tuple(name for name in self.inputs if name not in columns):
            raise ChampionUnusable(self.version, Misfit(kind="columns_gone", columns=gone))
        changed = tuple(name for name, kind in self.inputs.items() if _differs(kind, columns[name]))
        if changed:
            raise ChampionUnusable(self.version, Misfit(kind="types_changed", columns=changed))

    def inputs_of(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the columns it was trained on; raises like `check`."""
        self.check(rows.schema)
        return rows.select(list(self.inputs))

    @contextmanager
    def blamed(self) -> Iterator[None]:
        """Raise `ChampionUnusable` for an error in the body, which only the model can cause."""
        try:
            yield
        except (PipelineError, MemoryError, OSError):
            raise
        except Exception as error:
            raise ChampionUnusable(self.version, Misfit.of("fails", error)) from error

    def say_what_differs(self, features: Sequence[str]) -> None:
        """Log which of today's features it does not know, and which others it takes."""
        for text, names in (
            ("does not know", [name for name in features if name not in self.inputs]),
            ("also takes", [name for name in self.inputs if name not in features]),
        ):
            if names:
                log.warning(
                    "version %d was trained on other features than FEATURES names: it %s %s",
                    self.version,
                    text,
                    ", ".join(names),
                )


def open_version(version: ModelVersion, features: Sequence[str]) -> StoredModel:
    """Load a registered version.

    Args:
        version: Which one.
        features: Today's features, which are logged beside its own where they differ.

    Raises:
        ChampionUnusable: Its files are gone or damaged, or today's code cannot load them. A network
            error is raised as it is, since a retry may help.
    """
    from mlflow.exceptions import MlflowException

    number = int(version.version)
    try:
        folder = registry.download(f"models:/{version.name}/{number}")
        require_unchanged(version, folder)
    except (MlflowException, OSError) as error:
        code = getattr(error, "error_code", "")
        if code == "RESOURCE_DOES_NOT_EXIST" or _is_gone(error):
            raise ChampionUnusable(number, Misfit.of("not_loadable", error)) from error
        raise
    return open_folder(folder, number, features)


def require_unchanged(version: ModelVersion, folder: Path) -> None:
    """Refuse files of a version that are not those that were registered.

    Raises:
        ChampionUnusable: They are damaged, or were replaced.
        OSError: They cannot be read.
    """
    digest = version.tags.get(registry.DIGEST_TAG)
    if digest and registry.digest_of(folder) != digest:
        detail = f"{folder}/model.pkl is not what was registered: it is damaged or was replaced"
        raise ChampionUnusable(int(version.version), Misfit(kind="not_loadable", detail=detail))


def open_folder(folder: Path, version: int, features: Sequence[str]) -> StoredModel:
    """Load a version whose files are in a folder; like `open_version`."""
    from mlflow.models import Model

    try:
        signature = Model.load(str(folder)).signature
        estimator = registry.load_model(str(folder))
    except (MemoryError, TimeoutError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and not _is_gone(error):
            raise
        raise ChampionUnusable(version, Misfit.of("not_loadable", error)) from error
    inputs: dict[str, str | None] = dict.fromkeys(features)
    if signature and signature.inputs and signature.inputs.has_input_names():
        inputs = {one.name: getattr(one.type, "name", None) for one in signature.inputs}
    model = StoredModel(version, estimator, inputs)
    model.say_what_differs(features)
    return model


def _is_gone(error: Exception) -> bool:
    """Return whether a file is missing; a full disk, say, is not the model's fault."""
    # MLflow's own has no number.
    plain = type(error) is OSError and error.errno is None
    return plain or isinstance(error, FileNotFoundError)


def _differs(stored: str | None, now: pl.DataType) -> bool:
    """Return whether MLflow's type is text and the column's a number, or the reverse."""
    import polars as pl

    if stored == "string":
        return now.is_numeric()
    return now == pl.String and stored in ("boolean", "integer", "long", "float", "double")
