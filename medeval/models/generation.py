"""What engines in this process have in common: saved settings, end tokens, native calls."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medeval.errors import FatalModelError
from medeval.tools.calls.find import find_calls
from medeval.types.trajectory import NativeCall


def generation_defaults(path: Path) -> dict[str, Any]:
    """The sampling settings that the checkpoint's authors saved with it."""
    saved = _saved_generation(path)
    names = ("top_p", "top_k", "repetition_penalty")
    return {name: saved[name] for name in names if saved.get(name) is not None}


def _saved_generation(path: Path) -> dict[str, Any]:
    file = path / "generation_config.json"
    if not file.is_file():
        return {}
    try:
        saved = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FatalModelError(f"cannot read {str(file)!r}: {error}") from error
    return saved if isinstance(saved, dict) else {}


def end_token_ids(
    path: Path, configuration: Mapping[str, Any], tokenizer_end: int | None
) -> frozenset[int]:
    """The tokens that end a reply: the checkpoint's, and its tokenizer's."""
    text = configuration.get("text_config") or configuration
    named = _saved_generation(path).get("eos_token_id") or text.get("eos_token_id")
    ids = named if isinstance(named, list) else [named]
    return frozenset(one for one in (*ids, tokenizer_end) if one is not None)


def split_native_calls(text: str, turn: int) -> tuple[str, tuple[NativeCall, ...]]:
    """Split the well-formed Hermes blocks from a text, as a server's parser does."""
    found = [call for call in find_calls(text, (), "hermes") if call.error is None]
    calls = tuple(
        NativeCall(
            id=f"call_{turn}_{index}",
            name=str(call.name),
            arguments=json.dumps(call.arguments, ensure_ascii=False),
        )
        for index, call in enumerate(found)
    )
    for call in reversed(found):
        text = text[: call.start] + text[call.end :]
    return text, calls
