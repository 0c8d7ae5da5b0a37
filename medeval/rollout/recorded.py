"""What a recording tells of a sample: its images, their sizes, its metadata, or nothing at all."""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from medeval.errors import DataError, MedevalError
from medeval.images.decode import MAX_PIXELS
from medeval.images.picture import Picture, made_picture, prepare
from medeval.images.resize import PixelBudget
from medeval.tools.arguments import MANY_IMAGES
from medeval.tools.base import FrameKind, ToolContext, ToolResult
from medeval.types.geometry import IDENTITY, Affine, Size
from medeval.types.sample import EncodedImage, JsonValue

if TYPE_CHECKING:
    from PIL import Image

SIZE_UNKNOWN: Final = "image size unknown"
PIXELS_UNKNOWN: Final = "image pixels unknown"
METADATA_UNKNOWN: Final = "sample metadata unknown"

Message = Mapping[str, Any]


class UncheckedError(MedevalError):
    """What a call hangs on, and the recording does not tell; the message says what."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recorded conversation: its messages, and what the line tells beside them.

    `metadata` is the sample's, None where it is not told. Medeval's own trajectories tell the
    `sizes` of images that the messages name by a number, and which replies were `cut_off`.
    """

    messages: Sequence[Message]
    metadata: Mapping[str, JsonValue] | None = None
    sizes: Mapping[int, Size] = field(default_factory=dict)
    cut_off: frozenset[int] = frozenset()

    @classmethod
    def of(cls, value: object) -> "Recording | None":
        """The conversation that a line of JSON holds, alone or as its `messages`; None without."""
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

    def images(self, budget: PixelBudget | None) -> "list[RecordedImage] | None":
        """The sample's own images; None where the messages before the first reply name none."""
        found: list[RecordedImage] = []
        for message in self.messages:
            if message["role"] == "assistant":
                break
            for part in parts_of(message):
                if str(part.get("type", "")).startswith("image"):
                    found.append(_original(part, self.sizes, budget))
        return found or None


def _is_message(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("role"), str)


def parts_of(message: Message) -> list[Message]:
    """The parts of a message whose content is a list."""
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []


def _sizes(images: object) -> Iterator[tuple[int, Size]]:
    """The sizes that a trajectory of medeval's own lists, by the images' numbers."""
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
    """An image of a recording. `picture` is None where its size is unknown.

    `is_real` where the pixels are its own; all others are blank.
    """

    picture: Picture | None = None
    is_real: bool = False
    raw_to_root: Affine = IDENTITY


UNKNOWN: Final = RecordedImage()


def _original(
    part: Message, sizes: Mapping[int, Size], budget: PixelBudget | None
) -> RecordedImage:
    match part:
        case {"width": int(width), "height": int(height)}:
            return _blank(Size(width, height), budget)
        case {"type": "image", "image": int(index)} if index in sizes:
            return _blank(sizes[index], budget)
        case {"image_url": {"url": str(url)}} if url.startswith("data:"):
            return _decoded(url, budget)
    return UNKNOWN


def _decoded(url: str, budget: PixelBudget | None) -> RecordedImage:
    try:
        data = base64.b64decode(url.partition(",")[2], validate=True)
        return RecordedImage(picture=prepare(data, name="recorded", budget=budget), is_real=True)
    except (binascii.Error, DataError):
        return UNKNOWN


def _blank(size: Size, budget: PixelBudget | None) -> RecordedImage:
    """An image of a size that was told; one that no tool would take is as good as untold."""
    if min(size.width_px, size.height_px) < 1 or size.width_px * size.height_px > MAX_PIXELS:
        return UNKNOWN
    sent = size if budget is None else budget.size_of(size)
    picture = made_picture(_blank_pixels(sent), budget=None)
    return RecordedImage(
        picture=replace(picture, raw=size, read_pixels=partial(_blank_pixels, size))
    )


def _blank_pixels(size: Size) -> "Image.Image":
    from PIL import Image

    return Image.new("RGB", (size.width_px, size.height_px))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedContext(ToolContext):
    """A context some of whose pictures cannot be looked at: `hidden` says why, by index."""

    hidden: Mapping[int, str] = field(default_factory=dict)
    all_hidden: bool = False

    def picture(self, index: int) -> Picture:
        """The image a call names. Raises UncheckedError where the recording does not tell it."""
        self.check_index(index)
        if self.all_hidden or index in self.hidden:
            raise UncheckedError(self.hidden.get(index, SIZE_UNKNOWN))
        return self.pictures[index]


class _NoMetadata(Mapping[str, JsonValue]):
    """The metadata of a sample of which nothing is told."""

    def __getitem__(self, key: str) -> JsonValue:
        raise UncheckedError(METADATA_UNKNOWN)

    def __iter__(self) -> Iterator[str]:
        raise UncheckedError(METADATA_UNKNOWN)

    def __len__(self) -> int:
        raise UncheckedError(METADATA_UNKNOWN)


class _Uncounted(Sequence[Picture]):
    """The images of a recording that does not tell how many the sample has, and those made."""

    def __init__(self, n_made: int) -> None:
        self.n_made = n_made

    def __len__(self) -> int:
        return MANY_IMAGES + self.n_made

    def __getitem__(self, index: object) -> Any:
        raise UncheckedError(SIZE_UNKNOWN)


@dataclass(slots=True, kw_only=True)
class RecordedImages:
    """The images of a conversation while it is replayed; None where their number is unknown."""

    images: list[RecordedImage] | None
    metadata: Mapping[str, JsonValue] | None
    n_originals: int = 0
    n_made: int = 0

    def __post_init__(self) -> None:
        self.n_originals = len(self.images or ())

    @property
    def has_sizes(self) -> bool:
        """Whether the sizes of all the sample's own images are known."""
        own = (self.images or [UNKNOWN])[: max(1, self.n_originals)]
        return all(image.picture is not None for image in own)

    def context(
        self,
        frame: FrameKind,
        model_budget: PixelBudget | None,
        earlier: Sequence[int | None],
        *,
        by_size: bool,
    ) -> RecordedContext:
        """What a call may look at; unless it is decided `by_size`, blank images are hidden too."""
        metadata = _NoMetadata() if self.metadata is None else self.metadata
        if self.images is None:
            return RecordedContext(
                pictures=_Uncounted(self.n_made),
                frame=frame,
                n_originals=MANY_IMAGES,
                metadata=metadata,
                earlier=earlier,
                all_hidden=True,
            )
        hidden: dict[int, str] = {}
        for index, image in enumerate(self.images):
            if image.picture is None:
                hidden[index] = SIZE_UNKNOWN
            elif not (by_size or image.is_real):
                hidden[index] = PIXELS_UNKNOWN
        pictures = [image.picture or NOT_LOOKED_AT for image in self.images]
        return RecordedContext(
            pictures=pictures,
            frame=frame,
            n_originals=self.n_originals,
            model_sizes={
                index: model_budget.size_of(picture.sent)
                for index, picture in enumerate(pictures)
                if model_budget is not None
            },
            metadata=metadata,
            raw_to_root=[image.raw_to_root for image in self.images],
            earlier=earlier,
            hidden=hidden,
        )

    def add(self, made: ToolResult | None) -> int:
        """Take in what a call made, None where that is not known; its index."""
        self.n_made += 1
        if self.images is None:
            return MANY_IMAGES + self.n_made - 1
        self.images.append(UNKNOWN if made is None else self._made(made, self.images))
        return len(self.images) - 1

    def _made(self, made: ToolResult, images: Sequence[RecordedImage]) -> RecordedImage:
        parent = images[made.parent]
        return RecordedImage(
            picture=made.picture,
            is_real=parent.is_real,
            raw_to_root=parent.raw_to_root.after(made.raw_to_parent),
        )


# In the place of a picture of unknown size, which nothing gets to see.
NOT_LOOKED_AT: Final = Picture(
    encoded=EncodedImage(data=b"", media_type="image/png", sha256="", width_px=1, height_px=1),
    raw=Size(1, 1),
    read_pixels=partial(_blank_pixels, Size(1, 1)),
)
