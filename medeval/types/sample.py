"""What a sample is: question, images, options, targets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from medeval.types.geometry import AxisLine, Box, Point

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

MediaType = Literal["image/jpeg", "image/png", "image/webp"]


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
    images, one of the symmetries of a square (`medeval.data.symmetry`) where they were turned.
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
