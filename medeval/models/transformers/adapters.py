"""Puts LoRA adapters into a loaded base model, by transformers' own loading."""

from pathlib import Path
from typing import Any

from medeval.errors import FatalModelError
from medeval.models.weights import read_adapter_configuration

NAME = "checkpoint"
MERGE_HINT = "merge the adapter into its base with peft's merge_and_unload, and evaluate the result"


# Ways to draw an adapter's first values that leave the base as it is.
PLAIN_STARTS = (None, True, False, "gaussian")


def changes_base(folder: Path) -> bool:
    """Whether an adapter changes weights of its base, which stay changed when it is taken out."""
    settings = read_adapter_configuration(folder)
    return (
        settings.get("bias", "none") != "none"
        or settings.get("init_lora_weights") not in PLAIN_STARTS
        or bool(settings.get("modules_to_save") or settings.get("trainable_token_indices"))
    )


def put_adapter(model: Any, folder: Path) -> None:
    """Load the LoRA adapter in a folder into the model, instead of the one before it.

    Raises FatalModelError where peft is missing, where the adapter does not fit, and where the
    model would use only a part of it; the model is then not to be used again.
    """
    try:
        if NAME in getattr(model, "peft_config", {}):
            model.delete_adapter(NAME)
        report = model.load_adapter(str(folder), adapter_name=NAME)
        model.set_adapter(NAME)
    except ImportError as error:
        raise FatalModelError(
            f"LoRA adapters need peft: {error}", hint="pip install 'medeval[transformers]'"
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise FatalModelError(
            f"transformers cannot load the adapter {str(folder)!r}: {error}", hint=MERGE_HINT
        ) from error
    if not read_adapter_configuration(folder).get("lora_alpha", 1):
        raise FatalModelError(
            f"the adapter {str(folder)!r} has lora_alpha 0, so it changes nothing",
            hint="set lora_alpha in its adapter_config.json to that of the training",
        )
    unused = sorted({*report.missing_keys, *report.unexpected_keys, *report.mismatched_keys})
    if unused:
        raise FatalModelError(
            f"the adapter {str(folder)!r} and its base differ in {len(unused)} weights, "
            f"first {unused[0]!r}",
            hint=MERGE_HINT,
        )
