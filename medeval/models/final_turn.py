"""Conversations that end with the assistant's own words: the turn goes on, or another follows.

Servers differ in what they make of such a conversation: some always go on with the turn, others
always open a new one. Two settings tell them which is meant; whether they are heeded is seen from
the tokens of two short prompts.
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
    """The messages with those that continue a turn joined to what the turn held before."""
    turns: list[Message] = []
    for message in messages:
        if message.continues and turns:
            content = (*turns[-1].content, *message.content)
            turns[-1] = replace(turns[-1], content=content)
        else:
            turns.append(message)
    return tuple(turns)


def final_turn_settings(messages: Sequence[Message]) -> dict[str, JsonValue]:
    """How a server is told what to do with a last turn of the assistant's; else nothing."""
    if not messages or messages[-1].role != "assistant":
        return {}
    goes_on = messages[-1].continues
    return {"continue_final_message": goes_on, "add_generation_prompt": not goes_on}


FINAL_TURN_SETTINGS: Final = frozenset({"continue_final_message", "add_generation_prompt"})


class FinalTurnCheck:
    """Whether a server heeds the two settings, asked once. `label` names the model."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._asking = asyncio.Lock()
        self._is_checked = False
        self.note: str | None = None

    async def check(self, generate: Callable[[Request], Awaitable[Reply]]) -> None:
        """Raise FatalModelError where the server makes the same of both kinds of turn."""
        async with self._asking:
            if self._is_checked:
                return
            ended, open_ended = [
                (await generate(_question(goes_on=goes_on))).usage.prompt_tokens
                for goes_on in (False, True)
            ]
            if ended is None or open_ended is None:
                self.note = (
                    f"the server of {self._label} counts no tokens of a prompt: whether it heeds "
                    "continue_final_message, which this protocol needs, could not be seen"
                )
            elif open_ended >= ended:
                raise FatalModelError(
                    f"the server of {self._label} makes the same prompt of an assistant's turn "
                    f"that goes on and of one that has ended ({open_ended} and {ended} tokens), "
                    "and this protocol needs the difference",
                    hint=HINT,
                )
            self._is_checked = True


def _question(*, goes_on: bool) -> Request:
    asked = Message(role="user", content=(Text("Count to three."),))
    said = Message(role="assistant", content=(Text("One,"),))
    more = Message(role="assistant", content=(Text(" two"),), continues=goes_on)
    whole = Message(role="assistant", content=(Text("One, two"),))
    return Request(
        messages=(asked, said, more) if goes_on else (asked, whole),
        images=(),
        sampling=Sampling(max_tokens=1),
        seed=0,
    )
