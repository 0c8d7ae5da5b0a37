"""What both in-process engines need: saved sampling settings, end tokens, native calls."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medeval.errors import FatalModelError
from medeval.tools.calls.find import find_calls
from medeval.types.trajectory import NativeCall


def generation_defaults(path: Path) -> dict[str, Any]:
    """The sampling settings in the checkpoint's generation_config.json."""
    saved = _saved_generation(path)
    names = ("top_p", "top_k", "repetition_penalty")
    return {name: saved[name] for name in names if saved.get(name) is not None}


def defaults_notes(defaults: Mapping[str, Any]) -> tuple[str, ...]:
    """The note on settings that `generation_defaults` found; empty without any."""
    if not defaults:
        return ()
    shown = ", ".join(f"{name}={value!r}" for name, value in defaults.items())
    return (f"from generation_config.json, where the protocol is silent: {shown}",)


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
    """The tokens that end a reply, by the checkpoint's files and its tokenizer."""
    text = configuration.get("text_config") or configuration
    saved = _saved_generation(path).get("eos_token_id") or text.get("eos_token_id")
    ids = saved if isinstance(saved, list) else [saved]
    return frozenset(token for token in (*ids, tokenizer_end) if token is not None)


def split_native_calls(text: str, turn: int) -> tuple[str, tuple[NativeCall, ...]]:
    """A text without its well-formed Hermes calls, and the calls, as a server's parser does it."""
    well_formed = [call for call in find_calls(text, (), "hermes") if call.error is None]
    calls = tuple(
        NativeCall(
            id=f"call_{turn}_{index}",
            name=str(call.name),
            arguments=json.dumps(call.arguments, ensure_ascii=False),
        )
        for index, call in enumerate(well_formed)
    )
    for call in reversed(well_formed):
        text = text[: call.start] + text[call.end :]
    return text, calls
