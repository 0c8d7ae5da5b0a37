"""The methods that medeval adds to vLLM's workers.

vLLM's processes import this module by name, from a folder that holds nothing else. It imports only
the standard library, and torch and safetensors where they are used.
"""

import os
import re
import threading
import time
from pathlib import Path
from typing import Any

ORPHAN_POLL_S = 1.0
ROWS_COMPARED = 8
# The part of a tensor's name that vLLM and checkpoints have in common.
COMMON = re.compile(r"(?:layers|blocks)\.\d+\..*$|embed_tokens\.weight$|patch_embed\..*$")
# Names of the part that sees, whose layers are numbered as those of the language model are.
VISION = re.compile(r"visual|vision")
# vLLM joins tensors into these; the one named first begins the joined tensor.
JOINED = (("q_proj.", "qkv_proj."), ("gate_proj.", "gate_up_proj."))


class WeightCheck:
    """Methods that vLLM adds to its workers."""

    def medeval_end_with(self, owner: int) -> None:
        """End the worker when the process `owner` ends, so that a killed run leaves no engine."""
        threading.Thread(target=_end_with, args=(owner,), daemon=True).start()

    def medeval_pack_weights(self) -> None:
        """Pack the weights again of layers that compute with a packed copy, on CPUs.

        vLLM 0.32 does so for weights that a checkpoint names, but not for an output layer that
        shares the embedding's, which would keep the old ones. Raises ValueError where packed
        weights are part of compiled graphs, which cannot be packed again.
        """
        worker: Any = self
        layers = [one for one in worker.model_runner.get_model().modules() if _is_packed(one)]
        if layers and not worker.model_config.enforce_eager:
            raise ValueError("without enforce_eager, packed weights stay in compiled graphs")
        for layer in layers:
            if layer.weight.numel():
                layer.quant_method.process_weights_after_loading(layer)

    def medeval_unused_adapter_weights(self, number: int) -> list[str]:
        """The modules of a loaded LoRA adapter that vLLM leaves as they are in the base model."""
        adapters = self.model_runner.lora_manager._adapter_manager  # type: ignore[attr-defined]
        adapter, modules = adapters.get_adapter(number), adapters.modules
        used = {id(adapters._get_lora_layer_weights(adapter, name)) for name in modules}
        return sorted(
            name
            for name, weights in adapter.loras.items()
            # the first half of an expert layer's weights is used with the second
            if id(weights) not in used and name.removesuffix(".base_layer") not in modules
        )

    def medeval_compare_weights(self, new: str, old: str) -> dict[str, int]:
        """Compare rows of the weights in memory with a checkpoint's files.

        `telling` counts the compared tensors whose rows differ between the files of the two
        checkpoints. Raises ValueError at a tensor that differs from the new file: of several
        parallel engines, vLLM returns the result of one, but raises the error of any.
        """
        model = self.model_runner.get_model()  # type: ignore[attr-defined]
        there = {_common(name): one for name, one in model.named_parameters()}
        packed = {
            _common(f"{name}.weight"): layer
            for name, layer in model.named_modules()
            if _is_packed(layer)
        }
        for known in (there, packed):
            known.pop(None, None)
        rank, before = _tensor_parallel_rank(), _Files(Path(old))
        found = {"compared": 0, "telling": 0}
        for name, shape, rows in _Files(Path(new)).tensors():
            place = _place(name, shape, there, rank) or _packed_place(name, shape, packed, rank)
            if place is None:
                continue
            held, picked, columns = place
            if not held(rows(name, picked)[..., columns]):
                raise ValueError(f"{name!r} differs from the checkpoint's file")
            found["compared"] += 1
            found["telling"] += not held(before.rows(name, picked)[..., columns])
        _check_shared(filter(_is_packed, model.modules()))
        return found


class _Files:
    """The tensors of a checkpoint's safetensors files, a few rows at a time."""

    def __init__(self, directory: Path) -> None:
        from safetensors import safe_open

        self._open: dict[str, Any] = {}
        for path in sorted(directory.glob("*.safetensors")):
            file: Any = safe_open(path, framework="pt")
            self._open |= dict.fromkeys(file.keys(), file)

    def tensors(self) -> Any:
        """Each tensor's name, its shape, and the function that reads its rows."""
        for name, file in self._open.items():
            yield name, tuple(file.get_slice(name).get_shape()), self.rows

    def rows(self, name: str, picked: list[int]) -> Any:
        """Some rows of a tensor."""
        import torch

        part = self._open[name].get_slice(name)
        return torch.cat([part[row : row + 1] for row in picked])


def _common(name: str) -> tuple[bool, str] | None:
    match = COMMON.search(name)
    return (bool(VISION.search(name)), match[0]) if match else None


def _place(name: str, shape: tuple[int, ...], there: Any, rank: int) -> Any:
    """How to check a tensor: a function that compares rows with memory, the rows, and the columns.

    None where no parameter is known to hold the tensor, or where the engine keeps it in another
    form.
    """
    key = _common(name)
    if key is None:
        return None
    parameter = there.get(key)
    if parameter is None:
        parameter = there.get(_joined(key))
        # the first rows of a joined tensor, where it is not divided among workers
        is_whole = (
            parameter is not None
            and parameter.shape[1:] == shape[1:]
            and parameter.shape[0] > shape[0]
        )
        return _rows_of(parameter, shape) if is_whole and rank == 0 else None
    if tuple(parameter.shape) == shape:
        return _rows_of(parameter, shape)
    if len(shape) != 2 or parameter.dim() != 2:
        return None
    if parameter.shape[0] == shape[0] and shape[1] % max(1, parameter.shape[1]) == 0:
        width = parameter.shape[1]
        return _rows_of(parameter, shape, slice(rank * width, (rank + 1) * width))
    is_padded = key[1].startswith("embed_tokens") and parameter.shape[1] == shape[1]
    return _rows_of(parameter, shape) if is_padded and rank == 0 else None


def _rows_of(parameter: Any, shape: tuple[int, ...], columns: slice = slice(None)) -> Any:
    picked = _spread(min(parameter.shape[0], shape[0]))
    return lambda expected: _alike(expected, parameter.detach()[picked].cpu()), picked, columns


def _packed_place(name: str, shape: tuple[int, ...], packed: Any, rank: int) -> Any:
    """The same for a layer with packed weights, checked by its output for an input."""
    key = _common(name)
    if key is None or len(shape) != 2 or rank:
        return None
    layer = packed.get(key) or packed.get(_joined(key))
    if layer is None or layer.weight.numel() or layer.input_size_per_partition != shape[1]:
        return None
    probe = _probe(shape[1], layer.weight.dtype)
    made = layer.cpu_linear(probe, layer.weight, None)[0]
    picked = _spread(shape[0])
    if made.shape[0] < shape[0]:
        return None
    return lambda expected: _makes(expected, probe, made[picked]), picked, slice(None)


def _check_shared(layers: Any) -> None:
    """Raise ValueError where a layer's packed weights differ from its own."""
    for layer in layers:
        if layer.weight.dim() == 2 and layer.weight.numel():
            picked = _spread(layer.weight.shape[0])
            probe = _probe(layer.weight.shape[1], layer.weight.dtype)
            made = layer.cpu_linear(probe, layer.weight, None)[0]
            if not _makes(layer.weight.detach()[picked], probe, made[picked]):
                raise ValueError("a layer's packed weights differ from its own")


def _probe(n: int, dtype: Any) -> Any:
    import torch

    return torch.sin(torch.arange(1, n + 1, dtype=torch.float32)).to(dtype)[None]


def _makes(rows: Any, probe: Any, made: Any) -> bool:
    """Whether rows of weights give a layer's output for the probe, except for rounding."""
    import torch

    rows, at = rows.to(probe.dtype).float(), probe[0].float()
    share = 1e-4 if probe.dtype == torch.float32 else 2e-2
    room = share * rows.norm(dim=1) * at.norm()
    return bool(((rows @ at - made.float()).abs() <= room).all())


def _is_packed(layer: Any) -> bool:
    return hasattr(layer, "cpu_linear") and hasattr(layer, "weight")


def _joined(key: tuple[bool, str]) -> tuple[bool, str] | None:
    """The name of the tensor that vLLM joins this one into, where it comes first; or None."""
    for own, joined in JOINED:
        if own in key[1]:
            return key[0], key[1].replace(own, joined)
    return None


def _spread(n: int) -> list[int]:
    """A few evenly spread numbers from 0 to n - 1."""
    return sorted({n * index // ROWS_COMPARED for index in range(ROWS_COMPARED)})


def _alike(expected: Any, seen: Any) -> bool:
    import torch

    return expected.shape == seen.shape and torch.equal(expected.to(seen.dtype), seen)


def _tensor_parallel_rank() -> int:
    from vllm.distributed import get_tensor_model_parallel_rank

    return int(get_tensor_model_parallel_rank())


def _end_with(owner: int) -> None:
    while _is_alive(owner):
        time.sleep(ORPHAN_POLL_S)
    os._exit(1)


def _is_alive(process: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True
