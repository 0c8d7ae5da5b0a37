"""Finds checkpoints that cannot run what a plan asks for, before any engine starts.

Configuration, chat template and processor say it; no weights are read. Checkpoints that differ only
in their weights are looked at once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medeval.errors import FatalModelError, MedevalError, ModelError, UsageError
from medeval.evaluation.cell import Cell, is_complete
from medeval.evaluation.engines import model_opener
from medeval.evaluation.plan import Plan
from medeval.models.base import too_many_images
from medeval.models.checkpoints import Checkpoint
from medeval.models.weights import prompt_hash
from medeval.rollout.protocol import EvalProtocol
from medeval.store.run_folder import CellKey
from medeval.types.definition import Loaded
from medeval.types.trajectory import Message, Text

if TYPE_CHECKING:
    from medeval.models.chat_template import ChatTemplate

# Files of models that see images. Where a template shows none, vLLM's server may show them itself.
PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


class MisfitError(UsageError):
    """Checkpoints, by their ids, that cannot run what the plan asks for."""

    def __init__(self, message: str, *, hint: str | None, checkpoints: frozenset[str]) -> None:
        super().__init__(message, hint=hint)
        self.checkpoints = checkpoints


@dataclass(frozen=True, slots=True)
class Prompts:
    """What makes a checkpoint's prompts.

    `max_images` is the most images of a conversation, None for any number.
    """

    template: "ChatTemplate"
    max_images: int | None


def find_misfits(plan: Plan, cells: Iterable[Cell]) -> dict[CellKey, MedevalError]:
    """Why checkpoints cannot run cells in which trajectories are missing.

    Empty where a server or the caller opens the models.
    """
    if not plan.opens_folders:
        return {}
    kinds: dict[Checkpoint, str] = {}
    alike: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells:
        if cell.done and is_complete(cell):
            continue
        if cell.checkpoint not in kinds:
            kinds[cell.checkpoint] = prompt_hash(*_folders(plan, cell.checkpoint))
        names = cell.planned.name, cell.protocol.value.name
        alike.setdefault((kinds[cell.checkpoint], *names), []).append(cell)
    loaded: dict[str, Prompts | MedevalError | None] = {}
    misfits: dict[CellKey, MedevalError] = {}
    for (kind, *_), some in alike.items():
        if kind not in loaded:
            loaded[kind] = _load(plan, some[0].checkpoint)
        prompts = loaded[kind]
        reason = _misfit(some[0], prompts) if isinstance(prompts, Prompts) else prompts
        if reason is not None:
            misfits |= {cell.folder.key: reason for cell in some}
    return misfits


def refuse_misfits(misfits: Mapping[CellKey, MedevalError]) -> None:
    """Raise MisfitError with a line for each reason, if there is any."""
    if not misfits:
        return
    by_reason: dict[str, list[str]] = {}
    for key, reason in misfits.items():
        by_reason.setdefault(" ".join(reason.message.split()), []).append(key.checkpoint)
    lines = []
    for reason_text, named in by_reason.items():
        first, *others = dict.fromkeys(named)
        count = f" and {len(others)} more" if others else ""
        lines.append(f"  {first}{count}: {reason_text}")
    hints = dict.fromkeys(reason.hint for reason in misfits.values() if reason.hint)
    checkpoints = frozenset(key.checkpoint for key in misfits)
    raise MisfitError(
        "\n".join(["the plan cannot be run:", *lines]),
        hint="\n      ".join(hints) or None,
        checkpoints=checkpoints,
    )


def _folders(plan: Plan, checkpoint: Checkpoint) -> tuple[Path, Path]:
    """The folder of a checkpoint's configuration, and that of its processor."""
    folder = checkpoint.base or checkpoint.location
    return Path(folder), Path(plan.options.processor or folder)


def _load(plan: Plan, checkpoint: Checkpoint) -> Prompts | MedevalError | None:
    """What makes a checkpoint's prompts, or why it has none; None where vLLM alone can tell."""
    try:
        if plan.backend == "transformers":
            from medeval.models.transformers.model import TransformersModel

            model = model_opener(plan)(checkpoint)
            assert isinstance(model, TransformersModel), "the backend's model"
            _, processor = model.load_processor()
            return Prompts(processor.template, processor.max_images)
        return _vllm_prompts(plan, checkpoint)
    except ModelError as error:
        return error


def _vllm_prompts(plan: Plan, checkpoint: Checkpoint) -> Prompts | None:
    """The chat template, as vLLM has processors of its own.

    A server may bring templates of its own and load tokenizers that this Python does not. So its
    models are looked at, which costs an import of torch, only for what the template alone can say.
    """
    _, folder = _folders(plan, checkpoint)
    is_server = plan.backend == "vllm-server"
    has_processor = any((folder / name).is_file() for name in PROCESSOR_FILES)
    if is_server and not (
        (folder / "tokenizer_config.json").is_file()
        and (not has_processor or any(map(_offers_native_tools, plan.protocols)))
    ):
        return None
    try:
        from medeval.models.chat_template import ChatTemplate
        from medeval.models.transformers.loading import quiet
    except ImportError:
        return None
    arguments = plan.options.model_args
    trusts_code = bool(arguments.get("trust_remote_code"))
    if "template" in str(arguments.get("engine_args")):
        return None  # the server gets another one
    try:
        with quiet():
            template = ChatTemplate.from_folder(folder, None, trust_remote_code=trusts_code)
    except FatalModelError:
        if is_server:
            return None
        raise
    shows_images = template.form.image_place is not None or (is_server and has_processor)
    return Prompts(template, None if shows_images else 0)


def _misfit(cell: Cell, prompts: Prompts) -> MedevalError | None:
    """Why prompts cannot hold a cell's images and tools; None where they can."""
    protocol, most = cell.protocol.value, prompts.max_images
    if most is not None:
        n_images = max((len(sample.images) for sample in cell.samples), default=0)
        if n_images > most:
            return too_many_images(most, f"samples of {cell.planned.name!r} have {n_images}")
        if n_images and protocol.tools:
            return too_many_images(most, f"the tools of {protocol.name!r} make more")
    if _offers_native_tools(cell.protocol):
        message = Message(role="user", content=(Text("a"),))
        try:
            prompts.template.render((message,), [tool.schema for tool in protocol.tools])
        except FatalModelError as error:
            return error
    return None


def _offers_native_tools(protocol: Loaded[EvalProtocol]) -> bool:
    return bool(protocol.value.tools) and protocol.value.call_syntax == "openai"
