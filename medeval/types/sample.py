"""A sample: question, images, options, targets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, Self, TypeAlias

from medeval.errors import RecordError
from medeval.types.geometry import AxisLine, Box, Point
from medeval.types.json import FINITE, STRICT, Storable

if TYPE_CHECKING:
    from PIL import Image

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject = Annotated[Mapping[str, JsonValue], Storable]

MediaType = Literal["image/jpeg", "image/png", "image/webp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageSource:
    """The source of one image's bytes, which are read when needed and not kept.

    `name` identifies the image in messages. `read` raises DataError if the bytes cannot be read.
    """

    name: str
    read: Callable[[], bytes] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleText:
    """A sample without its images.

    `options` are the texts of a multiple choice in letter order (A first), without letters.
    `targets` are all accepted answers; for a multiple choice, the letter.
    `instruction` is the benchmark's text that asks for the form of the answer, "" if it has none.
    `groups` maps a grouping ("category") to this sample's group in it.
    `cluster` is shared by samples that are not independent (rotations of one question); None
    means that the sample stands alone.
    `chance` is the share that blind guessing gets right, 0 to 1, or None if undefined.
    `target_boxes` frame the subject of the question, `target_lines` and `target_points` mark the
    values to read off, each in a frame of the first image. `transform` names the change made to
    the images; for a rotation or reflection, a symmetry of a square (`medeval.data.symmetry`).
    """

    id: str
    question: str
    options: tuple[str, ...] = ()
    targets: tuple[str, ...]
    instruction: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    chance: float | None = None
    metadata: JsonObject = field(default_factory=dict)
    target_boxes: tuple[Box, ...] = ()
    transform: str | None = None
    target_lines: tuple[AxisLine, ...] = ()
    target_points: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample(SampleText):
    """One question about one or more images."""

    images: tuple[ImageSource, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageRecord:
    """The record of a sample's image, which identifies its bytes without having them.

    `source` says where the image came from, for people. If the image could not be read, `error`
    says why, and the unknown fields are None.
    """

    __pydantic_config__ = STRICT

    source: str
    sha256: str | None = None
    width_px: int | None = None
    height_px: int | None = None
    media_type: str | None = None
    size_bytes: int | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord(SampleText):
    """A sample in full, its images by hash: a line of `samples/<benchmark>.jsonl`.

    Older run folders have no `target_lines` and `target_points`.
    """

    __pydantic_config__ = FINITE

    images: tuple[ImageRecord, ...]

    @classmethod
    def from_sample(cls, sample: Sample, images: Sequence[ImageRecord]) -> Self:
        """The record of a sample whose images are described by `images`, in order.

        Raises RecordError if the numbers of images differ.
        """
        if len(images) != len(sample.images):
            raise RecordError(
                f"sample {sample.id!r} has {len(sample.images)} images, "
                f"but {len(images)} are described"
            )
        return cls(**_text_fields(sample), images=tuple(images))

    def sample(self) -> Sample:
        """The sample without its images, as judges see it."""
        return Sample(**_text_fields(self), images=())


def _text_fields(sample: SampleText) -> dict[str, Any]:
    return {item.name: getattr(sample, item.name) for item in fields(SampleText)}


class RequestImage(Protocol):
    """An image of a request to a model: its pixels, and on demand the bytes of a file.

    `sha256` identifies the image among all others. A sample's own image has the SHA-256 of its
    file's bytes; an image that a tool made has that of its mode, size and pixels.
    """

    @property
    def sha256(self) -> str:
        """The hash in lower-case hex."""
        ...

    @property
    def media_type(self) -> MediaType:
        """The type of the file that `encoded` returns."""
        ...

    @property
    def width_px(self) -> int:
        """The width of the image as it is sent."""
        ...

    @property
    def height_px(self) -> int:
        """The height of the image as it is sent."""
        ...

    @property
    def held_bytes(self) -> int:
        """The memory that the image takes now."""
        ...

    @property
    def is_encoded(self) -> bool:
        """Whether `encoded` returns at once."""
        ...

    def pixels(self) -> "Image.Image":
        """The image in RGB, a new copy at each call; DataError for damage found only now."""
        ...

    def encoded(self) -> bytes:
        """The image as a file. An image that a tool made is encoded at the first call only."""
        ...
