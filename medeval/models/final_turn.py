"""Conversations whose last message is the assistant's: the reply goes on in it, or follows it.

Servers differ: some always continue the last turn, others always open a new one. Two settings of a
request select the behaviour; a check of the token counts of two short prompts shows whether a
server obeys them.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from medeval.errors import FatalModelError
from medeval.models.base import Reply, Request, Sampling
from medeval.types.sample import JsonValue
from medeval.types.trajectory import Message, Text

HINT: Final = (
    "serve the model with vLLM or SGLang, which know continue_final_message, or run it with "
    "--backend transformers or --backend vllm"
)


def whole_turns(messages: Sequence[Message]) -> tuple[Message, ...]:
    """The messages, with each one that continues a turn joined to that turn."""
    turns: list[Message] = []
    for message in messages:
        if message.continues and turns:
            content = (*turns[-1].content, *message.content)
            turns[-1] = replace(turns[-1], content=content)
        else:
            turns.append(message)
    return tuple(turns)


def final_turn_settings(messages: Sequence[Message]) -> dict[str, JsonValue]:
    """The settings for a last turn of the assistant's; empty where the last turn is another's."""
    if not messages or messages[-1].role != "assistant":
        return {}
    goes_on = messages[-1].continues
    return {"continue_final_message": goes_on, "add_generation_prompt": not goes_on}


FINAL_TURN_SETTINGS: Final = frozenset({"continue_final_message", "add_generation_prompt"})


class FinalTurnCheck:
    """Checks once whether a server obeys the two settings; `label` names the model."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._lock = asyncio.Lock()
        self._is_checked = False
        self.note: str | None = None

    async def check(self, generate: Callable[[Request], Awaitable[Reply]]) -> None:
        """Raise FatalModelError where the server treats both kinds of turn alike."""
        async with self._lock:
            if self._is_checked:
                return
            ended, open_ended = [
                (await generate(_question(goes_on=goes_on))).usage.prompt_tokens
                for goes_on in (False, True)
            ]
            if ended is None or open_ended is None:
                self.note = (
                    f"the server of {self._label} does not report a prompt's tokens: whether it "
                    "obeys continue_final_message, which this protocol needs, is unknown"
                )
            elif open_ended >= ended:
                raise FatalModelError(
                    f"the server of {self._label} treats an assistant's unfinished turn like a "
                    f"finished one ({open_ended} and {ended} tokens), "
                    "and this protocol needs the difference",
                    hint=HINT,
                )
            self._is_checked = True


def _question(*, goes_on: bool) -> Request:
    question = Message(role="user", content=(Text("Count to three."),))
    begun = Message(role="assistant", content=(Text("One,"),))
    more = Message(role="assistant", content=(Text(" two"),), continues=goes_on)
    whole = Message(role="assistant", content=(Text("One, two"),))
    return Request(
        messages=(question, begun, more) if goes_on else (question, whole),
        images=(),
        sampling=Sampling(max_tokens=1),
        seed=0,
    )
