"""What a tool is: a schema the model reads, and a function from images to a new image.

A tool never changes an image in place and never sees the model; a call that cannot be carried
out raises ToolError with a message the model can act on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from medeval.errors import ToolError
from medeval.images.picture import Picture
from medeval.tools.guessed_frames import guessed_frame
from medeval.types.geometry import PERCENT, PERMILLE, RELATIVE, Affine, Frame, Size, pixels
from medeval.types.sample import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSchema:
    """A tool as a model is told of it; `parameters` is a JSON Schema object."""

    name: str
    description: str
    parameters: Mapping[str, JsonValue]

    def as_json(self) -> dict[str, JsonValue]:
        """The OpenAI form: `{"type": "function", "function": {...}}`."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }


# The guesses are those of published environments, reproduced to evaluate as trained: see
# `medeval.tools.guessed_frames`. Every other frame is declared, and never looks at the values.
FrameGuess = Literal["guess_med", "guess_med_older", "guess_pixel_reasoner"]
FrameKind = (
    Literal["relative", "permille", "percent", "pixels_raw", "pixels_sent", "pixels_model"]
    | FrameGuess
)

# The declared frames that are the same for images of every size.
SIZELESS: Final[Mapping[FrameKind, Frame]] = {
    "relative": RELATIVE,
    "permille": PERMILLE,
    "percent": PERCENT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a call may work on: the conversation's images in order, and the declared frame.

    The first `n_originals` images are the sample's own. `model_sizes` are the sizes of images
    after the engine's processor, by index, where they are known. `metadata` is the sample's.
    `raw_to_root` maps raw pixels of each picture to those of the sample's image it comes from;
    empty where that is not known. `earlier` are the images that the calls before this one made,
    None for one that made none: those of the same reply, or of all where blocks share their names.
    """

    pictures: Sequence[Picture]
    frame: FrameKind
    n_originals: int = 1
    model_sizes: Mapping[int, Size] = field(default_factory=dict)
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    raw_to_root: Sequence[Affine] = ()
    earlier: Sequence[int | None] = ()

    def check_index(self, index: int) -> None:
        """Raise ToolError, with the valid range, where there is no image of an index."""
        if not 0 <= index < len(self.pictures):
            raise ToolError(
                f"there is no image {index}; images are numbered 0 to {len(self.pictures) - 1}"
            )

    def picture(self, index: int) -> Picture:
        """The image a call names by its index, counted from 0.

        Raises ToolError, with the valid range, where there is none.
        """
        self.check_index(index)
        return self.pictures[index]

    def frame_of(
        self, index: int, values: Sequence[float] = (), cut_from: Size | None = None
    ) -> Frame:
        """The frame that coordinates about the given image are in.

        `values` are the coordinates themselves, and `cut_from` the size of the pixels that the
        tool works on: a published guess looks at them, a declared frame never does.
        """
        self.check_index(index)
        if self.frame in SIZELESS:
            return SIZELESS[self.frame]
        picture = self.picture(index)
        match self.frame:
            case "guess_med" | "guess_med_older" | "guess_pixel_reasoner":
                return guessed_frame(self.frame, values, cut_from or picture.raw)
            case "pixels_model":
                size = self.model_sizes.get(index, picture.sent)
                return pixels(size.width_px, size.height_px, f"image {index}")
            case "pixels_sent":
                return pixels(picture.sent.width_px, picture.sent.height_px, f"image {index}")
            case _:
                return pixels(picture.raw.width_px, picture.raw.height_px, f"image {index}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The image a call made, the index of the image it was made from, and the exact recipe.

    `operation` and `arguments` are what re-makes the image: resolved numbers, not the model's.
    `raw_to_parent` maps raw pixels of the new image to raw pixels of its parent.
    """

    picture: Picture
    parent: int
    operation: str
    arguments: Mapping[str, JsonValue]
    raw_to_parent: Affine


def _unchecked(arguments: Mapping[str, JsonValue]) -> None:
    """A tool that can say nothing about its arguments without an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A visual tool.

    `parameters` is a JSON Schema object, shown to the model word for word. `run` validates the
    arguments itself and raises ToolError where it refuses them; `check` does so as far as that
    goes without any image, for conversations whose images are not at hand. `settings` are
    whatever else decides what a call gives; they are part of a cell's fingerprint. With
    `by_size` arguments, metadata and the sizes of images decide whether a call is carried out and
    how large the image it makes is; without, the pixels may.
    """

    name: str
    description: str
    parameters: Mapping[str, JsonValue]
    run: Callable[[Mapping[str, JsonValue], ToolContext], ToolResult] = field(repr=False)
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    check: Callable[[Mapping[str, JsonValue]], None] = field(default=_unchecked, repr=False)
    by_size: bool = False

    @property
    def schema(self) -> ToolSchema:
        """The tool as a model is told of it."""
        return ToolSchema(name=self.name, description=self.description, parameters=self.parameters)
