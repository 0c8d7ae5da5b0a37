"""The engine that a plan asks for, opened for one checkpoint."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medeval.checkpoints import Checkpoint
from medeval.errors import UsageError
from medeval.models.base import Model
from medeval.plan import Plan

# Arguments of engines that have a flag of their own.
OWN_FLAGS = frozenset({"model", "base_url", "path", "processor_path", "name"})


def model_opener(plan: Plan) -> Callable[[Checkpoint], Model]:
    """A function from a checkpoint to its model, not started yet.

    Raises UsageError where `--model-args` holds a name that the backend does not know.
    """
    return _transformers(plan) if plan.backend == "transformers" else _openai(plan)


def _transformers(plan: Plan) -> Callable[[Checkpoint], Model]:
    from medeval.models.transformers import TransformersModel

    options = plan.options
    for checkpoint in plan.all_checkpoints:
        if not Path(checkpoint.location).is_dir():
            raise UsageError(
                f"no model folder {checkpoint.location!r}",
                hint="the transformers backend takes a local folder; --base-url names a server",
            )
    arguments = _checked(TransformersModel, dict(options.model_args), plan.backend)
    if options.processor is not None:
        arguments["processor_path"] = Path(options.processor)
    return lambda checkpoint: TransformersModel(Path(checkpoint.location), **arguments)


def _openai(plan: Plan) -> Callable[[Checkpoint], Model]:
    from medeval.models.openai import OpenAIModel

    options = plan.options
    arguments = _checked(OpenAIModel, dict(options.model_args), plan.backend)
    return lambda checkpoint: OpenAIModel(
        model=checkpoint.location, base_url=str(options.base_url), **arguments
    )


def _checked(engine: Callable[..., Model], given: dict[str, Any], backend: str) -> dict[str, Any]:
    known = [name for name in inspect.signature(engine).parameters if name not in OWN_FLAGS]
    for name in given:
        if name not in known:
            raise UsageError(
                f"--model-args has {name!r}, which the {backend} backend does not know",
                hint=f"known: {', '.join(known)}",
            )
    return given
