"""Names weights in the formats of training frameworks, with the command that converts them.

The commands are those of each framework's documentation; docs/checkpoints.md links them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medeval.errors import UsageError


@dataclass(frozen=True, slots=True)
class TrainingFormat:
    """Files that hold weights in a form that no engine loads.

    `pattern` matches the path of such a file, from the name of the step's folder on. `convert`
    makes the hint from the step's folder and the file.
    """

    name: str
    pattern: re.Pattern[str]
    convert: Callable[[Path, Path], str]


def refuse_training_format(directory: Path) -> None:
    """Raise UsageError if a step's folder holds weights in a training framework's format."""
    levels = ("*", "*/*", "*/*/*")
    files = [path for level in levels for path in sorted(directory.glob(level)) if path.is_file()]
    for kind in FORMATS:
        found = [
            path
            for path in files
            if kind.pattern.search(path.relative_to(directory.parent).as_posix())
        ]
        if found:
            raise UsageError(
                f"{str(directory)!r} holds {kind.name} ({_count(found)}), "
                "and no model in safetensors",
                hint=kind.convert(directory, found[0]),
            )


def _count(files: Sequence[Path]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files)} files"


def _verl(backend: str) -> Callable[[Path, Path], str]:
    def command(step: Path, file: Path) -> str:
        actor = file.parent if backend == "fsdp" else file.parents[1]
        return (
            f"python -m verl.model_merger merge --backend {backend} --local_dir {actor} "
            f"--target_dir {actor / 'huggingface'}"
        )

    return command


def _accelerate(step: Path, file: Path) -> str:
    return (
        f"accelerate merge-weights {file.parent} {step} ; then copy config.json, tokenizer and "
        "processor of the base model there"
    )


def _dcp(step: Path, file: Path) -> str:
    return (
        "export it with the framework that trained it; python -m "
        f"torch.distributed.checkpoint.format_utils dcp_to_torch {file.parent} "
        f"{step / 'weights.pt'} reads it without one, into a file of torch"
    )


def _megatron_bridge(step: Path, file: Path) -> str:
    return (
        "python examples/conversion/convert_checkpoints.py export --hf-model BASE "
        f"--megatron-path {step} --hf-path {step / 'huggingface'}, in a checkout of NVIDIA's "
        "Megatron-Bridge"
    )


def _megatron_ranks(step: Path, file: Path) -> str:
    return (
        "export it with the framework that trained it, for ms-swift: swift export --mcore_model "
        f"{step.parent} --to_hf true --torch_dtype bfloat16 --output_dir {step / 'huggingface'}"
    )


def _deepspeed(step: Path, file: Path) -> str:
    tag, root = file.parent.name, file.parents[1]
    return (
        f"python {root / 'zero_to_fp32.py'} {root} {step} --tag {tag} --safe_serialization ; "
        f"then copy config.json, tokenizer and processor of the base model to {step}"
    )


def _pickled(step: Path, file: Path) -> str:
    folder = file.parent
    return (
        'python -c "from transformers import AutoModelForImageTextToText as M; '
        f"M.from_pretrained('{folder}').save_pretrained('{folder}')\""
    )


def _original(step: Path, file: Path) -> str:
    return (
        "take the model's Hugging Face form, or make it with the script convert_*_to_hf.py for its "
        "family, in transformers' repository below src/transformers/models"
    )


def _gguf(step: Path, file: Path) -> str:
    return (
        f"llama-server -m {file} --mmproj MMPROJ.gguf serves it; then --model NAME "
        "--base-url http://127.0.0.1:8080"
    )


# The first that matches wins: frameworks leave several kinds in one folder.
FORMATS = (
    TrainingFormat(
        "FSDP shards", re.compile(r"/model_world_size_\d+_rank_\d+\.pt$"), _verl("fsdp")
    ),
    TrainingFormat(
        "a Megatron checkpoint", re.compile(r"/dist_ckpt/[^/]*\.distcp$"), _verl("megatron")
    ),
    TrainingFormat(
        "FSDP shards (DCP)", re.compile(r"/pytorch_model_fsdp_\d+/.*\.distcp$"), _accelerate
    ),
    TrainingFormat("a Megatron checkpoint", re.compile(r"iter_\d+/.*\.distcp$"), _megatron_bridge),
    TrainingFormat("shards of torch's DCP", re.compile(r"\.distcp$"), _dcp),
    TrainingFormat(
        "DeepSpeed ZeRO states",
        re.compile(r"/(zero_pp_rank_\d+_)?mp_rank_\d+(_model|_optim)_states\.pt$"),
        _deepspeed,
    ),
    TrainingFormat(
        "a Megatron checkpoint", re.compile(r"/mp_rank_\d+(_\d+)?/.*\.pt$"), _megatron_ranks
    ),
    TrainingFormat("pickled weights", re.compile(r"/pytorch_model[^/]*\.bin$"), _pickled),
    TrainingFormat(
        "weights in the original form", re.compile(r"/(?!rng_state)[^/]*\.pth$"), _original
    ),
    TrainingFormat("GGUF weights", re.compile(r"\.gguf$"), _gguf),
)
