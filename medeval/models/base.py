"""The interface between a rollout and an engine: one request in, one reply out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from medeval.errors import FatalModelError
from medeval.tools.base import ToolSchema
from medeval.types.geometry import Size
from medeval.types.sample import JsonValue, RequestImage
from medeval.types.trajectory import FinishReason, ImageRef, Message, NativeCall, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are sampled. Temperature 0 is greedy; None leaves a setting to the engine.

    `max_tokens` bounds one turn.
    """

    temperature: float = 0.0
    max_tokens: int = 2048
    top_p: float | None = None
    top_k: int | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None


@dataclass(frozen=True, slots=True)
class TokenHistory:
    """The tokens of a conversation so far, for engines that extend them turn by turn.

    `ids` are the prompt and generated tokens of all earlier turns; `n_messages` is the number of
    messages they cover, the last reply included. `states` is the engine's own: what it computed
    for the ids and their images, kept as long as the conversation keeps this object.
    """

    ids: tuple[int, ...]
    n_messages: int
    states: object = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One turn to generate.

    `images` are the images that the messages refer to by index. `tools` is empty unless the
    protocol offers them natively. A reply ends right after the first of the `stop` strings.
    `history` is the one that the previous reply of the conversation returned, None in the first
    turn, where the engine returned none, or where earlier messages have been rewritten since.
    Where the last message `continues` an assistant's turn, the reply goes on in that turn.
    """

    messages: tuple[Message, ...]
    images: tuple[RequestImage, ...]
    sampling: Sampling
    seed: int
    tools: tuple[ToolSchema, ...] = ()
    stop: tuple[str, ...] = ()
    history: TokenHistory | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the engine generated in one turn.

    `text` excludes reasoning and native calls where the engine returns them separately, and
    includes the stop string where the engine can. `finish` "context" means that the prompt did
    not fit; `text` is then empty. `model_sizes` are the sizes of the images after the engine's
    processor, in the order of the messages; None where the engine does not report them.
    """

    text: str
    finish: FinishReason
    reasoning: str = ""
    native_calls: tuple[NativeCall, ...] = ()
    usage: Usage = field(default_factory=Usage)
    history: TokenHistory | None = None
    model_sizes: tuple[Size, ...] | None = None


def shown_images(messages: Sequence[Message], images: Sequence[RequestImage]) -> list[RequestImage]:
    """The images in the order in which the messages show them."""
    return [
        images[part.image]
        for message in messages
        for part in message.content
        if isinstance(part, ImageRef)
    ]


class Model(Protocol):
    """An engine with one checkpoint, in this process or on a server.

    `generate` is called from many coroutines at once; the engine batches them. It
    raises TransientModelError once its own retries are used up, and FatalModelError where no
    request can succeed.
    """

    async def start(self) -> None:
        """Load or connect; raises FatalModelError where the model cannot be used."""
        ...

    async def generate(self, request: Request) -> Reply:
        """Generate one turn."""
        ...

    async def close(self) -> None:
        """Free memory and close connections; may be called more than once."""
        ...

    def identity(self) -> Mapping[str, JsonValue]:
        """All that can change a reply: engine, version, dtype, weights, template, pixel budgets.

        Complete after `start`; equal for two runs that must give the same replies.
        """
        ...

    def notes(self) -> tuple[str, ...]:
        """Notes to report once, for example settings left out and fallbacks taken."""
        ...


def too_many_images(most: int, what: str) -> FatalModelError:
    """The error of a model that takes `most` images a conversation, 0 or 1; `what` has more."""
    if most == 0:
        return FatalModelError(
            f"the model takes no images, and {what}",
            hint="use a vision-language model, or a benchmark without images",
        )
    return FatalModelError(
        f"the model takes one image a conversation, and {what}",
        hint="use --protocols without tools, and benchmarks of one image a sample",
    )
