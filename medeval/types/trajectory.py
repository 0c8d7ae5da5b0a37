"""A trajectory: the messages, images, turns and calls of one conversation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from medeval.types.geometry import Affine, Size
from medeval.types.json import OPEN, STRICT
from medeval.types.sample import JsonObject, JsonValue, MediaType

Role = Literal["system", "user", "assistant", "tool"]
CallStatus = Literal["executed", "rejected", "malformed", "over_limit", "not_offered"]
FinishReason = Literal["stop", "length", "tool_calls", "context", "refused"]
StopReason = Literal[
    "answered",
    "no_answer",
    "empty",
    "malformed_call",
    "tool_error",
    "not_offered",
    "turn_limit",
    "call_limit",
    "image_limit",
    "length",
    "context",
    "refused",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryImage:
    """One image of a conversation: its origin and its sent form.

    A sample's own image is known by the SHA-256 of the bytes that are sent, `sha256`, and has their
    `media_type`. An image that a tool made is known by `pixels_sha256`, that of its mode, size and
    pixels as they are sent; the other two are None. In schema version 1, such an image too had
    the `sha256` and `media_type` of its PNG.
    `parent` is the index of the image it was made from, None for a sample's own image; `root`
    is the index of the sample's image at the start of that chain. `operation` and `arguments`
    are the recipe. `to_root` maps pixels of the sent image to pixels of the root's raw image.
    `raw` is the upright size before any resize for sending; `model` is the size after the
    engine's own processor, None if the engine does not report it.
    `exif_orientation` is the orientation tag that was applied, None if there was none.
    """

    __pydantic_config__ = STRICT

    index: int
    sha256: str | None = None
    media_type: MediaType | None = None
    pixels_sha256: str | None = None
    parent: int | None
    root: int
    operation: str | None
    arguments: JsonObject
    to_root: Affine
    raw: Size
    sent: Size
    model: Size | None = None
    exif_orientation: int | None = None

    def __post_init__(self) -> None:
        if (self.sha256 is None) == (self.pixels_sha256 is None):
            raise ValueError("an image has either a sha256 or a pixels_sha256")

    @property
    def identity(self) -> str:
        """The SHA-256 that identifies the image, and names its file in a run folder."""
        return self.pixels_sha256 or self.sha256 or ""

    @property
    def shown_hash(self) -> str:
        """The hash with its kind, for people: `sha256 ab12` or `pixels_sha256 ab12`."""
        kind = "sha256" if self.pixels_sha256 is None else "pixels_sha256"
        return f"{kind} {self.identity}"


@dataclass(frozen=True, slots=True)
class Text:
    """Text inside a message."""

    __pydantic_config__ = STRICT

    type: Literal["text"] = field(default="text", kw_only=True, repr=False)
    text: str


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image inside a message, by its index in the conversation's images.

    A line of JSON also has the image's `sha256` or `pixels_sha256` here, for people; it is not
    read.
    """

    __pydantic_config__ = OPEN

    type: Literal["image"] = field(default="image", kw_only=True, repr=False)
    image: int


Content: TypeAlias = Text | ImageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeCall:
    """A call in the server's own field for tool calls; `arguments` is the text it sent."""

    __pydantic_config__ = STRICT

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation.

    `reasoning` and `native_calls` are the parts of an assistant message outside its content;
    `call_id` names the call that a tool message answers. A message that `continues` is in the same
    turn as the message before it, whatever the roles of the two.
    """

    __pydantic_config__ = STRICT

    role: Role
    content: tuple[Content, ...]
    reasoning: str = ""
    native_calls: tuple[NativeCall, ...] = ()
    call_id: str | None = None
    continues: bool = False

    @property
    def text(self) -> str:
        """All text of the message, joined without a separator."""
        return "".join(part.text for part in self.content if isinstance(part, Text))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedCall:
    """A call found in a reply, before any check against the tools.

    `start` and `end` are character offsets in the reply's text; both 0 for a native call.
    `error` says why the call is malformed; then `name` and `arguments` may be None.
    Calls with `of_block` come from one block of code: after a failed call no further one runs, and
    only results of calls with `shown` are shown to the model.
    """

    raw_text: str
    name: str | None
    arguments: Mapping[str, JsonValue] | None
    error: str | None = None
    start: int = 0
    end: int = 0
    native_id: str | None = None
    of_block: bool = False
    shown: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call and its result.

    `image` is the index of the image it made; `observed` says whether the model was shown the
    result or the error; `seconds` is the time the tool took.
    """

    __pydantic_config__ = STRICT

    turn: int
    name: str | None
    raw_text: str
    arguments: JsonObject | None
    status: CallStatus
    error: str | None = None
    image: int | None = None
    observed: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Numbers of tokens, as counted by the engine; None if it does not report them."""

    __pydantic_config__ = STRICT

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=_total(self.prompt_tokens, other.prompt_tokens),
            completion_tokens=_total(self.completion_tokens, other.completion_tokens),
            cached_tokens=_total(self.cached_tokens, other.cached_tokens),
        )


def _total(first: int | None, second: int | None) -> int | None:
    if first is None:
        return second
    return first if second is None else first + second


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One generation: the model's text and why it stopped. `text` is cut by the stop rules."""

    __pydantic_config__ = STRICT

    text: str
    reasoning: str
    native_calls: tuple[NativeCall, ...]
    finish: FinishReason
    seed: int
    usage: Usage
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The final answer, the rule that found it, and the whole last reply.

    `reply` is for judges whose definition says that they read it.
    """

    __pydantic_config__ = STRICT

    text: str
    how_found: str
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """The conversation of one sample under one protocol at one repeat.

    `messages` has all messages, including the last reply. `answer` is None exactly if `stop` is
    not "answered". `engine_seconds` is its part of the time of an engine that it shared with
    other conversations, None if that was not measured.
    """

    __pydantic_config__ = STRICT

    sample_id: str
    repeat: int
    protocol: str
    stop: StopReason
    answer: Answer | None
    messages: tuple[Message, ...]
    images: tuple[TrajectoryImage, ...]
    turns: tuple[Turn, ...]
    calls: tuple[ToolCall, ...]
    seconds: float
    engine_seconds: float | None = None

    @property
    def usage(self) -> Usage:
        """Tokens over all turns."""
        return sum((turn.usage for turn in self.turns), Usage())

    @property
    def attempted(self) -> int:
        """Calls found in the model's text, whether or not they were executed."""
        return len(self.calls)

    @property
    def executed(self) -> int:
        """Calls whose tool ran."""
        return sum(call.status == "executed" for call in self.calls)

    @property
    def observed(self) -> int:
        """Executed calls whose result the model was shown."""
        return sum(call.status == "executed" and call.observed for call in self.calls)

    @property
    def called(self) -> bool:
        """Whether a call reached the tools: executed or rejected (MED's rule)."""
        return any(call.status in ("executed", "rejected") for call in self.calls)
