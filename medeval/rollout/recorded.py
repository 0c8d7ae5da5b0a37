"""A recorded conversation: its replies, and what is known of the images that its tools work on.

A recording may lack the pixels of an image, or its size, or even how many images there are, and
the sample's metadata. A call that depends on what is missing is recorded as unchecked.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from medeval.errors import DataError, MedevalError
from medeval.images.decode import MAX_PIXELS
from medeval.images.picture import Picture, prepare
from medeval.images.request_image import FileImage, png_of
from medeval.images.resize import PixelBudget
from medeval.models.base import Reply
from medeval.tools.arguments import MANY_IMAGES
from medeval.tools.base import Tool, ToolContext, ToolResult
from medeval.types.geometry import IDENTITY, Size
from medeval.types.sample import JsonValue
from medeval.types.trajectory import NativeCall

if TYPE_CHECKING:
    from PIL import Image

SIZE_UNKNOWN: Final = "image size unknown"
PIXELS_UNKNOWN: Final = "image pixels unknown"
METADATA_UNKNOWN: Final = "sample metadata unknown"

# The operation of the image that stands for the result of an unchecked call.
UNCHECKED_OPERATION: Final = "unchecked"

RecordedMessage = Mapping[str, Any]


class UncheckedError(MedevalError):
    """A call needs something that the recording lacks; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recorded conversation: its messages, and what else its line of JSON holds.

    `metadata` is the sample's, None where the line has none. A trajectory that medeval wrote also
    has the `sizes` of the images that its messages refer to by number, and the numbers of the
    replies that were `cut_off` at a limit of tokens, both from 0.
    """

    messages: Sequence[RecordedMessage]
    metadata: Mapping[str, JsonValue] | None = None
    sizes: Mapping[int, Size] = field(default_factory=dict)
    cut_off: frozenset[int] = frozenset()

    @classmethod
    def of(cls, value: object) -> "Recording | None":
        """The conversation in a line of JSON: a list of messages, or an object with `messages`.

        None where the line holds no conversation.
        """
        line = value if isinstance(value, dict) else {"messages": value}
        messages, metadata = line.get("messages"), line.get("metadata")
        if not isinstance(messages, list) or not all(_is_message(item) for item in messages):
            return None
        return cls(
            messages=messages,
            metadata=metadata if isinstance(metadata, dict) else None,
            sizes=dict(_sizes(line.get("images"))),
            cut_off=frozenset(_cut_off(line.get("turns"))),
        )

    @property
    def replies(self) -> tuple[Reply, ...]:
        """The assistant's messages, as the replies of a model."""
        said = [message for message in self.messages if message["role"] == "assistant"]
        return tuple(
            Reply(
                text=_text(message),
                native_calls=_native_calls(message),
                finish="length" if number in self.cut_off else "stop",
            )
            for number, message in enumerate(said)
        )

    def images(self, budget: PixelBudget | None) -> "tuple[RecordedImage, ...]":
        """The sample's images: those of the messages before the first reply; may be empty."""
        found: list[RecordedImage] = []
        for message in self.messages:
            if message["role"] == "assistant":
                break
            for part in _parts(message):
                if str(part.get("type", "")).startswith("image"):
                    found.append(_recorded_image(part, self.sizes, budget))
        return tuple(found)


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def _parts(message: RecordedMessage) -> list[RecordedMessage]:
    """The parts of a message whose content is a list."""
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _text(message: RecordedMessage) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in _parts(message) if isinstance(part.get("text"), str))


def _native_calls(message: RecordedMessage) -> tuple[NativeCall, ...]:
    """The calls outside the text, in the form of OpenAI's messages or of medeval's trajectories."""
    calls = message.get("tool_calls") or message.get("native_calls")
    functions = [
        (str(call.get("id") or f"call_{index}"), call.get("function", call))
        for index, call in enumerate(calls if isinstance(calls, list) else [])
        if isinstance(call, dict)
    ]
    return tuple(
        NativeCall(
            id=call_id,
            name=str(function.get("name") or ""),
            arguments=_encoded_arguments(function.get("arguments")),
        )
        for call_id, function in functions
        if isinstance(function, dict)
    )


def _encoded_arguments(arguments: object) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)


def _sizes(images: object) -> Iterator[tuple[int, Size]]:
    """The raw sizes in the `images` of a trajectory that medeval wrote, by the images' numbers."""
    for image in images if isinstance(images, list) else ():
        match image:
            case {"index": int(index), "raw": {"width_px": int(width), "height_px": int(height)}}:
                yield index, Size(width, height)


def _cut_off(turns: object) -> Iterator[int]:
    """The numbers, from 0, of the replies that ended at a limit of tokens."""
    for number, turn in enumerate(turns if isinstance(turns, list) else ()):
        if isinstance(turn, dict) and turn.get("finish") == "length":
            yield number


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedImage:
    """An image of a recording; `unknown` says what the recording lacks of it.

    With None, `picture` is the image itself. With PIXELS_UNKNOWN it is blank and of the image's
    size; with SIZE_UNKNOWN it stands in for an image of any size.
    """

    picture: Picture
    unknown: str | None


def _recorded_image(
    part: RecordedMessage, sizes: Mapping[int, Size], budget: PixelBudget | None
) -> RecordedImage:
    match part:
        case {"width": int(width), "height": int(height)}:
            return _blank_image(Size(width, height), budget)
        case {"type": "image", "image": int(index)} if index in sizes:
            return _blank_image(sizes[index], budget)
        case {"image_url": {"url": str(url)}} if url.startswith("data:"):
            return _decoded_image(url, budget)
    return UNKNOWN_IMAGE


def _decoded_image(url: str, budget: PixelBudget | None) -> RecordedImage:
    try:
        data = base64.b64decode(url.partition(",")[2], validate=True)
        return RecordedImage(picture=prepare(data, name="recorded", budget=budget), unknown=None)
    except (binascii.Error, DataError):
        return UNKNOWN_IMAGE


def _blank_image(size: Size, budget: PixelBudget | None) -> RecordedImage:
    """A blank image of a recorded size, which is taken for unknown where no image has it."""
    if min(size.width_px, size.height_px) < 1 or size.width_px * size.height_px > MAX_PIXELS:
        return UNKNOWN_IMAGE
    sent = size if budget is None else budget.size_of(size)
    blank = FileImage.of(png_of(_blank_pixels(sent)), "image/png", sent)
    picture = Picture(sent_image=blank, raw=size, read_pixels=partial(_blank_pixels, size))
    return RecordedImage(picture=picture, unknown=PIXELS_UNKNOWN)


def _blank_pixels(size: Size) -> "Image.Image":
    from PIL import Image

    return Image.new("RGB", (size.width_px, size.height_px))


UNKNOWN_IMAGE: Final = RecordedImage(
    picture=Picture(
        sent_image=FileImage(data=b"", media_type="image/png", sha256="", width_px=1, height_px=1),
        raw=Size(1, 1),
        read_pixels=partial(_blank_pixels, Size(1, 1)),
    ),
    unknown=SIZE_UNKNOWN,
)


class RecordedTools:
    """Runs a protocol's tools on the recorded images, as far as they are known.

    A call that needs more makes an image of unknown size. Its operation is UNCHECKED_OPERATION,
    whose argument `unknown` says what is missing. Where no `images` are recorded, not even their
    number is known, and one image of unknown size stands in for them.
    """

    def __init__(
        self, images: Sequence[RecordedImage], metadata: Mapping[str, JsonValue] | None
    ) -> None:
        self._is_counted = bool(images)
        self._metadata = _UnknownMetadata() if metadata is None else metadata
        self.pictures = [image.picture for image in images or (UNKNOWN_IMAGE,)]
        # by the image's number in the conversation; grows by one with each call that is executed
        self._unknown = [image.unknown for image in images or (UNKNOWN_IMAGE,)]
        self._has_sizes = SIZE_UNKNOWN not in self._unknown

    def wrap(self, tool: Tool) -> Tool:
        """The tool, run on what is recorded."""
        return replace(tool, run=partial(self._run, tool))

    def _run(
        self, tool: Tool, arguments: Mapping[str, JsonValue], context: ToolContext
    ) -> ToolResult:
        tool.check(arguments)
        try:
            made = tool.run(arguments, self._context(tool, context))
        except UncheckedError as error:
            # missing sizes are named first: they are the easiest to add to a recording
            made = _unchecked(error.message if self._has_sizes else SIZE_UNKNOWN)
            self._unknown.append(SIZE_UNKNOWN)
        else:
            self._unknown.append(self._unknown[made.parent])
        return made

    def _context(self, tool: Tool, context: ToolContext) -> ToolContext:
        """What a call may look at: blank pixels only where the tool does not depend on pixels."""
        unknown = [None if tool.by_size and why == PIXELS_UNKNOWN else why for why in self._unknown]
        n_uncounted = 0 if self._is_counted else MANY_IMAGES
        return replace(
            context,
            pictures=_RecordedPictures(context.pictures, unknown, n_uncounted),
            n_originals=context.n_originals + n_uncounted,
            metadata=self._metadata,
            raw_to_root=context.raw_to_root if self._is_counted else (),
        )


def _unchecked(why: str) -> ToolResult:
    return ToolResult(
        picture=UNKNOWN_IMAGE.picture,
        parent=0,
        operation=UNCHECKED_OPERATION,
        arguments={"unknown": why},
        raw_to_parent=IDENTITY,
    )


class _RecordedPictures(Sequence[Picture]):
    """Images by number, and `n_uncounted` more; raises UncheckedError where too little is known.

    `unknown` says by number what is not known, None where the image may be looked at.
    """

    def __init__(
        self, pictures: Sequence[Picture], unknown: Sequence[str | None], n_uncounted: int
    ) -> None:
        self._pictures = pictures
        self._unknown = unknown
        self._n_uncounted = n_uncounted

    def __len__(self) -> int:
        return len(self._pictures) + self._n_uncounted

    def __getitem__(self, index: Any) -> Any:
        why = self._unknown[index] if index < len(self._unknown) else SIZE_UNKNOWN
        if why is not None:
            raise UncheckedError(why)
        return self._pictures[index]


class _UnknownMetadata(Mapping[str, JsonValue]):
    """The metadata of a sample whose recording has none: any look at it raises UncheckedError."""

    def __getitem__(self, key: str) -> JsonValue:
        raise UncheckedError(METADATA_UNKNOWN)

    def __iter__(self) -> Iterator[str]:
        raise UncheckedError(METADATA_UNKNOWN)

    def __len__(self) -> int:
        raise UncheckedError(METADATA_UNKNOWN)
