"""Where the shipped series is: ordinary Hugging Face directories inside the package."""

from pathlib import Path
from typing import Final

from medeval.models.checkpoints import discover

SERIES_DIRECTORY: Final = Path(__file__).parent / "series"


def shipped_checkpoints() -> list[Path]:
    """The directories `global_step_*` of the shipped series, the baseline first."""
    return [Path(checkpoint.location) for checkpoint in discover(str(SERIES_DIRECTORY))]
