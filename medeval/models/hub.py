"""Fetches models from the Hugging Face hub into its cache, and finds them there offline."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final

from medeval.errors import UsageError

# `organisation/model[@revision]`; a revision is a branch, a tag or a commit.
HUB_NAME: Final = re.compile(r"(\w[\w.-]*/[\w.-]+)(?:@([^@\s]+))?")
# Weights, configuration, tokenizer, processor and chat template.
FILES: Final = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt")
CODE: Final = "*.py"
# The same weights once more, in the form of the model's authors.
OTHER_FORMS: Final = ("consolidated*.safetensors", "original/*")


def is_hub_name(name: str) -> bool:
    """Whether a name has the form of a model on the hub, `organisation/model[@revision]`."""
    return HUB_NAME.fullmatch(name) is not None


@cache
def fetch_model(name: str, *, trusts_code: bool = False) -> Path:
    """The folder of a model in the hub's cache; the folder's name is the model's commit.

    `name` is `organisation/model[@revision]`; it stays at the same commit in this process. Fetches
    what the cache lacks. Where the hub does not answer, takes what the cache has. The model's own
    Python files are fetched only with `trusts_code`. Raises UsageError where the model is neither
    on the hub nor in the cache.
    """
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    repository, revision = _parts(name)
    try:
        with _quiet():
            return Path(
                huggingface_hub.snapshot_download(
                    repository,
                    revision=revision,
                    allow_patterns=[*FILES, *([CODE] if trusts_code else [])],
                    ignore_patterns=list(OTHER_FORMS),
                )
            )
    except LocalEntryNotFoundError:
        offline = bool(huggingface_hub.constants.HF_HUB_OFFLINE)
        why = "HF_HUB_OFFLINE forbids asking the hub" if offline else "the hub does not answer"
        raise UsageError(
            f"there is no folder {name!r}, the hub's cache has no such model, and {why}",
            hint=("unset HF_HUB_OFFLINE, or " if offline else "") + download_hint(name),
        ) from None
    except _hub_errors() as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"cannot fetch model {name!r} from the hub: {reason}",
            hint="check the name and the revision; hf auth login for private and gated models",
        ) from error


def download_hint(name: str) -> str:
    """The command that fetches a model, for machines without a network."""
    repository, revision = _parts(name)
    command = f"hf download {repository}" + (f" --revision {revision}" if revision else "")
    return f"{command}, where there is a network; HF_HOME says where the cache is"


def _parts(name: str) -> tuple[str, str | None]:
    """The repository and the revision in a name on the hub."""
    match = HUB_NAME.fullmatch(name)
    assert match is not None
    return match[1], match[2]


def _hub_errors() -> tuple[type[Exception], ...]:
    """What `huggingface_hub` raises where the hub or the network fails.

    Network errors come from its HTTP library; the bases of HfHubHTTPError are classes of it.
    """
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, ValueError, *HfHubHTTPError.__bases__)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the messages of `huggingface_hub` inside the block; its progress bars stay."""
    import huggingface_hub.utils

    # `Any`: type checkers do not see its public names as exported
    hub: Any = huggingface_hub.utils
    verbosity = hub.logging.get_verbosity()
    hub.logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        hub.logging.set_verbosity(verbosity)
