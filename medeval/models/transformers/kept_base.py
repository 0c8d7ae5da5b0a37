"""Keeps a base model loaded between the LoRA adapters that are evaluated on it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medeval.models.transformers.loading import LoadedModel


class KeptBase:
    """The base that was used last, for the next adapter on it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._loaded: LoadedModel | None = None

    def take(self, path: Path, load: "Callable[[], LoadedModel]") -> "LoadedModel":
        """The loaded base in `path`, which `load` loads unless it is kept."""
        if self._loaded is None or self._path != path:
            self.clear()
            self._path, self._loaded = path, load()
        return self._loaded

    def clear(self) -> None:
        """Let the base go."""
        self._path = self._loaded = None
