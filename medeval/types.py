"""The nouns of a run: what a sample is, what was said, what was called, how it was judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from medeval.boxes import AxisLine, Box, Point

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MediaType = Literal["image/jpeg", "image/png", "image/webp"]
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
Aggregate = Literal["mean over samples", "mean over cycles"]
VerdictStatus = Literal["correct", "incorrect", "undecided"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """Where the bytes of one image come from; they are read when needed and not kept.

    `name` tells people which image it is. `read` raises DataError where the bytes cannot be had.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One question about one or more images.

    `options` are the texts of a multiple choice in letter order (A first), without letters.
    `targets` are all accepted answers; for a multiple choice, the letter.
    `instruction` is how the benchmark asks for the form of the answer, "" where it does not.
    `groups` maps a grouping ("category") to this sample's group in it.
    `cluster` is shared by samples that are not independent (rotations of one question); None
    means that the sample stands alone.
    `chance` is the share that blind guessing gets right, 0 to 1, or None where undefined.
    `target_boxes` frame what the question is about, `target_lines` and `target_points` mark what
    is to be read off, each in a frame of the first image. `transform` names what was done to the
    images, one of the symmetries of a square (`medeval.symmetry`) where they were turned.
    """

    id: str
    question: str
    images: tuple[ImageSource, ...]
    targets: tuple[str, ...]
    options: tuple[str, ...] = ()
    instruction: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    chance: float | None = None
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    target_boxes: tuple[Box, ...] = ()
    transform: str | None = None
    target_lines: tuple[AxisLine, ...] = ()
    target_points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedImage:
    """The exact bytes that are sent to a model, and their size in pixels once decoded."""

    data: bytes = field(repr=False)
    media_type: MediaType
    sha256: str
    width_px: int
    height_px: int


@dataclass(frozen=True, slots=True)
class Affine:
    """The map (x, y) -> (a x + b y + c, d x + e y + f) between pixel coordinates of two images."""

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def apply(self, x: float, y: float) -> tuple[float, float]:
        """The image of a point.

        >>> Affine(0.5, 0, 10, 0, 0.5, 20).apply(4, 8)
        (12.0, 24.0)
        """
        return (self.a * x + self.b * y + self.c, self.d * x + self.e * y + self.f)

    def after(self, inner: "Affine") -> "Affine":
        """The map that applies `inner` first and then this one."""
        return Affine(
            self.a * inner.a + self.b * inner.d,
            self.a * inner.b + self.b * inner.e,
            self.a * inner.c + self.b * inner.f + self.c,
            self.d * inner.a + self.e * inner.d,
            self.d * inner.b + self.e * inner.e,
            self.d * inner.c + self.e * inner.f + self.f,
        )


IDENTITY = Affine(1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width_px: int
    height_px: int

    @property
    def area_px(self) -> int:
        """How many pixels there are."""
        return self.width_px * self.height_px


@dataclass(frozen=True, slots=True, kw_only=True)
class TrajectoryImage:
    """One image of a conversation: where it came from and what was sent.

    `parent` is the index of the image it was made from, None for a sample's own image; `root`
    is the index of the sample's image at the start of that chain. `operation` and `arguments`
    are the recipe. `to_root` maps pixels of this image as sent to pixels of the root's raw image.
    `raw` is the size before any resize for sending, upright; `model` is the size after the
    engine's own processor, None where the engine does not tell.
    `exif_orientation` is the orientation tag that was applied, None where there was none to apply.
    """

    index: int
    sha256: str
    media_type: MediaType
    parent: int | None
    root: int
    operation: str | None
    arguments: Mapping[str, JsonValue]
    to_root: Affine
    raw: Size
    sent: Size
    model: Size | None = None
    exif_orientation: int | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Text inside a message."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageRef:
    """An image inside a message, by its index in the conversation's images."""

    index: int


Content: TypeAlias = Text | ImageRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeCall:
    """A call in the server's own field for tool calls; `arguments` is the text it sent."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a conversation.

    `reasoning` and `native_calls` are what an assistant message held apart from its content;
    `call_id` names the call that a tool message answers. One that `continues` stands in the same
    turn as the message before it, whatever wrote it.
    """

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
    """A call as it was found in a reply, before any check against the tools.

    `start` and `end` are character offsets in the reply's text; both 0 for a native call.
    `error` says why the call is malformed; then `name` and `arguments` may be None.
    The calls `of_block` are those of one block of code: after one that fails none is run, and only
    the result with `shown` is put before the model.
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
    """A call and what became of it.

    `image` is the index of the image it made; `observed` says whether the result or the error
    was put before the model; `seconds` is the time the tool took.
    """

    turn: int
    name: str | None
    raw_text: str
    arguments: Mapping[str, JsonValue] | None
    status: CallStatus
    error: str | None = None
    image: int | None = None
    observed: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens as the engine counted them; None where it did not tell."""

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
    """One generation: what the model wrote and why it stopped. `text` is after stop rules."""

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

    text: str
    how_found: str
    reply: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """The conversation of one sample under one protocol at one repeat.

    `messages` is all that was said, the last reply included. `answer` is None exactly where
    `stop` is not "answered". `engine_seconds` is its part of the time of an engine that it shared
    with others, None where that was not measured.
    """

    sample_id: str
    repeat: int
    protocol: str
    messages: tuple[Message, ...]
    images: tuple[TrajectoryImage, ...]
    turns: tuple[Turn, ...]
    calls: tuple[ToolCall, ...]
    answer: Answer | None
    stop: StopReason
    seconds: float
    engine_seconds: float | None = None

    @property
    def usage(self) -> Usage:
        """Tokens over all turns."""
        return sum((turn.usage for turn in self.turns), Usage())

    @property
    def attempted(self) -> int:
        """Calls found in what the model wrote, whatever became of them."""
        return len(self.calls)

    @property
    def executed(self) -> int:
        """Calls whose tool ran."""
        return sum(call.status == "executed" for call in self.calls)

    @property
    def observed(self) -> int:
        """Executed calls whose result was put before the model."""
        return sum(call.status == "executed" and call.observed for call in self.calls)

    @property
    def called(self) -> bool:
        """Whether a call reached the tools: executed or rejected (MED's rule)."""
        return any(call.status in ("executed", "rejected") for call in self.calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """What a judge found: a score, or None where it cannot decide, with what it read and why.

    `parts` are the scores of the judges that it is made of, by name, where it is made of several.
    """

    score: float | None
    extracted: str | None = None
    reason: str = ""
    parts: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A grade turned into correct, incorrect or undecided, by one judge identity.

    `score` is None exactly where `status` is "undecided". `judge` is
    `<name>[@<model>]#<first 8 hex of its definition's sha256>`. `parts` are the grade's.
    """

    sample_id: str
    repeat: int
    judge: str
    status: VerdictStatus
    score: float | None
    extracted: str | None = None
    reason: str = ""
    parts: Mapping[str, float | None] = field(default_factory=dict)
