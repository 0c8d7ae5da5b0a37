"""The parts that records are made of; each mirrors one of the frozen types and gives it back."""

from typing import Annotated, Literal

from pydantic import Discriminator, FiniteFloat

from medeval.store.schema import Arguments, Part, as_mapping
from medeval.types.geometry import Affine, AxisLine, Box, Frame, Point, Size
from medeval.types.sample import MediaType
from medeval.types.trajectory import (
    Answer,
    CallStatus,
    Content,
    FinishReason,
    ImageRef,
    Message,
    NativeCall,
    Role,
    Text,
    ToolCall,
    TrajectoryImage,
    Turn,
    Usage,
)


class FramePart(Part):
    """A frame: the extent of the image in the unit of its coordinates."""

    name: str
    width: FiniteFloat
    height: FiniteFloat

    def value(self) -> Frame:
        """The frame itself."""
        return Frame(self.name, self.width, self.height)


class BoxPart(Part):
    """A box in a declared frame."""

    left: FiniteFloat
    top: FiniteFloat
    right: FiniteFloat
    bottom: FiniteFloat
    frame: FramePart

    def box(self) -> Box:
        """The box itself."""
        return Box(self.left, self.top, self.right, self.bottom, self.frame.value())


class AxisLinePart(Part):
    """A line across an image in a declared frame."""

    axis: Literal["x", "y"]
    value: FiniteFloat
    frame: FramePart

    def line(self) -> AxisLine:
        """The line itself."""
        return AxisLine(self.axis, self.value, self.frame.value())


class PointPart(Part):
    """A point in a declared frame."""

    x: FiniteFloat
    y: FiniteFloat
    frame: FramePart

    def point(self) -> Point:
        """The point itself."""
        return Point(self.x, self.y, self.frame.value())


class SizePart(Part):
    """Width and height in pixels."""

    width_px: int
    height_px: int

    def size(self) -> Size:
        """The size itself."""
        return Size(self.width_px, self.height_px)


class AffinePart(Part):
    """The map (x, y) -> (a x + b y + c, d x + e y + f)."""

    a: float
    b: float
    c: float
    d: float
    e: float
    f: float

    def affine(self) -> Affine:
        """The map itself."""
        return Affine(self.a, self.b, self.c, self.d, self.e, self.f)


class TrajectoryImagePart(Part):
    """An image of a conversation; the fields are those of `types.TrajectoryImage`."""

    index: int
    sha256: str
    media_type: MediaType
    parent: int | None
    root: int
    operation: str | None
    arguments: Arguments
    to_root: AffinePart
    raw: SizePart
    sent: SizePart
    model: SizePart | None
    exif_orientation: int | None

    def image(self) -> TrajectoryImage:
        """The image's description itself."""
        return TrajectoryImage(
            index=self.index,
            sha256=self.sha256,
            media_type=self.media_type,
            parent=self.parent,
            root=self.root,
            operation=self.operation,
            arguments=as_mapping(self.arguments),
            to_root=self.to_root.affine(),
            raw=self.raw.size(),
            sent=self.sent.size(),
            model=None if self.model is None else self.model.size(),
            exif_orientation=self.exif_orientation,
        )


class TextPart(Part):
    """Text inside a message."""

    type: Literal["text"] = "text"
    text: str


class ImagePart(Part):
    """An image inside a message: its index in the trajectory's images, and its hash."""

    type: Literal["image"] = "image"
    image: int
    sha256: str


class NativeCallPart(Part):
    """A call in the server's own field for tool calls."""

    id: str
    name: str
    arguments: str

    def call(self) -> NativeCall:
        """The call itself."""
        return NativeCall(id=self.id, name=self.name, arguments=self.arguments)


class MessagePart(Part):
    """A message; images stand in it by index and hash."""

    role: Role
    content: tuple[Annotated[TextPart | ImagePart, Discriminator("type")], ...]
    reasoning: str
    native_calls: tuple[NativeCallPart, ...]
    call_id: str | None
    continues: bool = False

    def message(self) -> Message:
        """The message itself."""
        content: tuple[Content, ...] = tuple(
            Text(part.text) if isinstance(part, TextPart) else ImageRef(part.image)
            for part in self.content
        )
        return Message(
            role=self.role,
            content=content,
            reasoning=self.reasoning,
            native_calls=tuple(part.call() for part in self.native_calls),
            call_id=self.call_id,
            continues=self.continues,
        )


class ToolCallPart(Part):
    """A call and what became of it; the fields are those of `types.ToolCall`."""

    turn: int
    name: str | None
    raw_text: str
    arguments: Arguments | None
    status: CallStatus
    error: str | None
    image: int | None
    observed: bool
    seconds: float

    def call(self) -> ToolCall:
        """The call itself."""
        return ToolCall(
            turn=self.turn,
            name=self.name,
            raw_text=self.raw_text,
            arguments=None if self.arguments is None else as_mapping(self.arguments),
            status=self.status,
            error=self.error,
            image=self.image,
            observed=self.observed,
            seconds=self.seconds,
        )


class UsagePart(Part):
    """Tokens as the engine counted them; None where it did not tell."""

    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None

    def usage(self) -> Usage:
        """The counts themselves."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.completion_tokens,
            cached_tokens=self.cached_tokens,
        )


class TurnPart(Part):
    """One generation; the fields are those of `types.Turn`."""

    text: str
    reasoning: str
    native_calls: tuple[NativeCallPart, ...]
    finish: FinishReason
    seed: int
    usage: UsagePart
    seconds: float

    def turn(self) -> Turn:
        """The turn itself."""
        return Turn(
            text=self.text,
            reasoning=self.reasoning,
            native_calls=tuple(part.call() for part in self.native_calls),
            finish=self.finish,
            seed=self.seed,
            usage=self.usage.usage(),
            seconds=self.seconds,
        )


class AnswerPart(Part):
    """The final answer and the rule that found it; `reply` is the whole last reply."""

    text: str
    how_found: str
    reply: str

    def answer(self) -> Answer:
        """The answer itself."""
        return Answer(text=self.text, how_found=self.how_found, reply=self.reply)
