"""Puts LoRA adapters into a loaded base model, by transformers' own loading."""

from pathlib import Path
from typing import Any

from medeval.errors import FatalModelError

NAME = "checkpoint"
MERGE_HINT = "merge the adapter into its base with peft's merge_and_unload, and evaluate the result"


def put_adapter(model: Any, folder: Path) -> None:
    """Load the LoRA adapter in a folder into the model, instead of the one before it.

    Raises FatalModelError where peft is missing, where the adapter does not fit, and where the
    model would use only a part of it.
    """
    if NAME in getattr(model, "peft_config", {}):
        model.delete_adapter(NAME)
    try:
        report = model.load_adapter(str(folder), adapter_name=NAME)
    except ImportError as error:
        raise FatalModelError(
            f"LoRA adapters need peft: {error}", hint="pip install 'medeval[transformers]'"
        ) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise FatalModelError(
            f"transformers cannot load the adapter {str(folder)!r}: {error}", hint=MERGE_HINT
        ) from error
    unused = sorted({*report.missing_keys, *report.unexpected_keys, *report.mismatched_keys})
    if unused:
        raise FatalModelError(
            f"the adapter {str(folder)!r} and its base differ in {len(unused)} weights, "
            f"first {unused[0]!r}",
            hint=MERGE_HINT,
        )
    model.set_adapter(NAME)
