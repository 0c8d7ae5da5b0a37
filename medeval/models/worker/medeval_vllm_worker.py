"""What a worker of vLLM does for medeval beside its own work.

A module of its own on the standard library, with torch and safetensors where they are used: it is
imported inside vLLM's processes, by this name, from a folder that holds nothing else.
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
# vLLM joins these; the first of each stands at the start of the joined tensor.
JOINED = (("q_proj.", "qkv_proj."), ("gate_proj.", "gate_up_proj."))


class WeightCheck:
    """Methods that vLLM adds to its workers."""

    def medeval_end_with(self, owner: int) -> None:
        """End the worker when the run's process is gone: a killed run leaves no engine."""
        threading.Thread(target=_end_with, args=(owner,), daemon=True).start()

    def medeval_compare_weights(self, new: str, old: str) -> dict[str, int]:
        """Compare rows of the weights in memory with a checkpoint's files.

        `telling` counts the tensors whose rows in the files differ between the two checkpoints,
        so that they tell the new from the old. Raises ValueError at one that is not the new one's:
        of several engines side by side, vLLM tells what one returns, but what any of them raises.
        """
        runner: Any = self.model_runner  # type: ignore[attr-defined]
        there = {_common(name): one for name, one in runner.get_model().named_parameters()}
        rank, before = _tensor_parallel_rank(), _Files(Path(old))
        found = {"compared": 0, "telling": 0}
        for name, shape, rows in _Files(Path(new)).tensors():
            place = _place(name, shape, there, rank)
            if place is None:
                continue
            parameter, first, columns = place
            picked = _spread(min(parameter.shape[0], shape[0] - first))
            expected = rows(name, [first + row for row in picked])[..., columns]
            seen = parameter.detach()[picked].cpu()
            if not _alike(expected, seen):
                raise ValueError(f"{name!r} is not what the checkpoint's file holds")
            found["compared"] += 1
            found["telling"] += not _alike(
                before.rows(name, [first + row for row in picked])[..., columns], seen
            )
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
        """Each tensor's name, shape, and where rows of it can be had."""
        for name, file in self._open.items():
            yield name, tuple(file.get_slice(name).get_shape()), self.rows

    def rows(self, name: str, picked: list[int]) -> Any:
        """Some rows of a tensor."""
        import torch

        part = self._open[name].get_slice(name)
        return torch.cat([part[row : row + 1] for row in picked])


def _common(name: str) -> tuple[bool, str] | None:
    match = COMMON.search(name)
    return ("visual" in name, match[0]) if match else None


def _place(name: str, shape: tuple[int, ...], there: Any, rank: int) -> Any:
    """The parameter that holds a tensor, its first row in the file, and its columns.

    None where no parameter is known to hold it, or where the engine keeps it in another form.
    """
    key = _common(name)
    if key is None:
        return None
    parameter = there.get(key)
    if parameter is None:
        for own, joined in JOINED:
            if own in key[1] and (key[0], key[1].replace(own, joined)) in there:
                parameter = there[key[0], key[1].replace(own, joined)]
                return _joined_place(parameter, shape, rank)
        return None
    if tuple(parameter.shape) == shape:
        return parameter, 0, slice(None)
    if len(shape) != 2 or parameter.dim() != 2:
        return None
    if parameter.shape[0] == shape[0] and shape[1] % max(1, parameter.shape[1]) == 0:
        width = parameter.shape[1]
        return parameter, 0, slice(rank * width, (rank + 1) * width)
    is_padded = key[1].startswith("embed_tokens") and parameter.shape[1] == shape[1]
    return (parameter, 0, slice(None)) if is_padded and rank == 0 else None


def _joined_place(parameter: Any, shape: tuple[int, ...], rank: int) -> Any:
    """The first rows of a joined tensor, where it is not divided among workers."""
    is_whole = parameter.shape[1:] == shape[1:] and parameter.shape[0] > shape[0]
    return (parameter, 0, slice(None)) if is_whole and rank == 0 else None


def _spread(n: int) -> list[int]:
    """A few of the first n numbers, evenly spread."""
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
    """Whether a process runs; one that ended and that nobody asked about does not."""
    try:
        os.kill(process, 0)
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except ProcessLookupError:
        return False
    except OSError:
        return True
