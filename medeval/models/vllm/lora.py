"""LoRA adapters on a base model that stays loaded."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medeval.models.weights import ADAPTER_WEIGHTS, read_adapter_configuration

# The ranks for which vLLM reserves memory.
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
# Names of tensors in a language model; what else an adapter changes belongs to images.
LANGUAGE = re.compile(
    r"(?:^|\.)(?:language_model|text_model)\.|^base_model\.model\.(?:model\.layers|lm_head)\."
)


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """The folder of a whole model, or the folders of a LoRA adapter and of its `base`."""

    path: Path
    base: Path | None = None

    @property
    def loaded(self) -> Path:
        """The folder of the whole model."""
        return self.base or self.path


def adapters_on(loaded: Path, folders: Sequence[ModelFolder]) -> tuple[Path, ...]:
    """The folders of the adapters of one base, each once."""
    return tuple(dict.fromkeys(one.path for one in folders if one.base == loaded))


def lora_arguments(adapters: Sequence[Path]) -> dict[str, Any]:
    """The arguments of vLLM for adapters, one held at a time; empty without adapters.

    Raises FatalModelError where one has no readable configuration.
    """
    if not adapters:
        return {}
    rank = max(map(_rank, adapters))
    arguments = {
        "enable_lora": True,
        "max_lora_rank": next((one for one in RANKS if one >= rank), rank),
    }
    if any(map(changes_vision, adapters)):
        arguments["enable_tower_connector_lora"] = True
    return arguments


def changes_vision(adapter: Path) -> bool:
    """Whether an adapter has weights outside of the language model."""
    with (adapter / ADAPTER_WEIGHTS).open("rb") as file:
        names = json.loads(file.read(int.from_bytes(file.read(8), "little"))).keys()
    return not all(map(LANGUAGE.search, names - {"__metadata__"}))


def _rank(adapter: Path) -> int:
    """The highest rank of an adapter's matrices."""
    configuration = read_adapter_configuration(adapter)
    patterns = configuration.get("rank_pattern") or {}
    return max(int(configuration.get("r", 0)), *map(int, patterns.values()), 1)
