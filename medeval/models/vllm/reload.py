"""The weights in a living engine of vLLM, replaced by the next checkpoint's where that is sure."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from medeval.errors import ModelError
from medeval.models.vllm.arguments import QUANTIZED
from medeval.models.weights import is_quantized, kinship, weight_fingerprint

WORKER_FOLDER = Path(__file__).parent / "worker"
WORKER_EXTENSION = "medeval_vllm_worker.WeightCheck"


class Controls(Protocol):
    """What an engine takes beside requests for replies; vLLM's own engine has these methods."""

    async def collective_rpc(
        self, method: str, *, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> list[Any]:
        """What each worker returns from a method."""
        ...

    async def reset_mm_cache(self) -> None:
        """Forget prepared images."""
        ...

    async def reset_encoder_cache(self) -> None:
        """Forget encoded images."""
        ...

    async def reset_prefix_cache(self, *, reset_connector: bool) -> bool:
        """Forget the states of earlier prompts; False where some are still held.

        A connector's are those that were moved out of the engine's own cache.
        """
        ...


class LoadedWeights:
    """Which checkpoint's weights an engine holds, and its kind: what else was read of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kind = kinship(path)

    async def replace(self, path: Path, controls: Controls) -> None:
        """Load another checkpoint's weights in place, compare them with its files, empty caches.

        Raises ModelError where that cannot be done, or where the weights are not the files'.
        """
        if kinship(path) != self._kind:
            raise ModelError("the next checkpoint differs in more than its weights' values")
        if is_quantized(path):
            raise ModelError(QUANTIZED)
        new, old = str(path.resolve()), str(self.path.resolve())
        try:
            await controls.collective_rpc(
                "reload_weights", kwargs={"weights_path": new, "is_checkpoint_format": True}
            )
            await controls.collective_rpc("medeval_pack_weights")
            found = await controls.collective_rpc("medeval_compare_weights", args=(new, old))
            await controls.reset_mm_cache()
            await controls.reset_encoder_cache()
            # neither cache's blocks say which weights made them; an older vLLM refuses the argument
            is_reset = await controls.reset_prefix_cache(reset_connector=True)
        except Exception as error:
            raise ModelError(f"weights cannot be reloaded: {error}") from error
        is_same = weight_fingerprint(path) == weight_fingerprint(self.path)
        _check(found, is_reset, is_same=is_same)
        self.path = path


def _check(found: Sequence[object], is_reset: bool, *, is_same: bool) -> None:
    wanted = "compared" if is_same else "telling"
    if not any(isinstance(one, Mapping) and one.get(wanted) for one in found):
        raise ModelError("nothing in memory tells the new weights from the old")
    if not is_reset:
        raise ModelError("the engine did not let go of what it had cached of the old weights")


def with_worker(pythonpath: str) -> str:
    """A PYTHONPATH on which vLLM's processes find the worker's module as well."""
    paths = [path for path in pythonpath.split(os.pathsep) if path]
    folder = str(WORKER_FOLDER)
    return os.pathsep.join(paths if folder in paths else [*paths, folder])
