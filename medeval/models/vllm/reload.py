"""Replaces the weights in a running vLLM engine by the next checkpoint's, and verifies them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medeval.errors import ModelError
from medeval.models.vllm.arguments import QUANTIZED
from medeval.models.weights import architecture_hash, is_quantized, weight_fingerprint

WORKER_FOLDER = Path(__file__).parent / "worker"
WORKER_EXTENSION = "medeval_vllm_worker.WeightCheck"


class LoadedWeights:
    """The checkpoint whose weights an engine holds, with its `architecture_hash`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kind = architecture_hash(path)

    async def replace(self, path: Path, engine: Any) -> None:
        """Load another checkpoint's weights, compare them with its files, and clear the caches.

        `engine` is vLLM's asynchronous engine. Raises ModelError where that fails, or where the
        weights differ from the files'.
        """
        if architecture_hash(path) != self._kind:
            raise ModelError("the next checkpoint differs in more than its weights' values")
        if is_quantized(path):
            raise ModelError(QUANTIZED)
        new, old = str(path.resolve()), str(self.path.resolve())
        try:
            await engine.collective_rpc(
                "reload_weights", kwargs={"weights_path": new, "is_checkpoint_format": True}
            )
            await engine.collective_rpc("medeval_pack_weights")
            found = await engine.collective_rpc("medeval_compare_weights", args=(new, old))
            await engine.reset_mm_cache()
            await engine.reset_encoder_cache()
            # cached blocks do not record their weights; an older vLLM refuses the argument
            is_reset = await engine.reset_prefix_cache(reset_connector=True)
        except Exception as error:
            raise ModelError(f"weights cannot be reloaded: {error}") from error
        is_same = weight_fingerprint(path) == weight_fingerprint(self.path)
        _check(found, is_reset, is_same=is_same)
        self.path = path


def _check(found: Sequence[object], is_reset: bool, *, is_same: bool) -> None:
    wanted = "compared" if is_same else "telling"
    if not any(isinstance(one, Mapping) and one.get(wanted) for one in found):
        raise ModelError("no compared tensor proves that the engine holds the new weights")
    if not is_reset:
        raise ModelError("the engine did not clear what it had cached from the old weights")


def with_worker(pythonpath: str) -> str:
    """The PYTHONPATH with the folder of the worker's module added."""
    paths = [path for path in pythonpath.split(os.pathsep) if path]
    folder = str(WORKER_FOLDER)
    return os.pathsep.join(paths if folder in paths else [*paths, folder])
