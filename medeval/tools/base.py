"""What a tool is: a schema that the model reads, and a function that makes a new image.

A tool changes no image in place and does not see the model. A call that it cannot carry out raises
ToolError, with a message that the model can act on.
"""

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field, fields
from string import Template
from typing import Final, Literal

from medeval.errors import DataError, DefinitionError, ToolError
from medeval.images.picture import Picture
from medeval.images.resize import PixelBudget, Resample, ResizeRule
from medeval.tools.guessed_frames import guessed_frame
from medeval.types.geometry import PERCENT, PERMILLE, RELATIVE, Affine, Frame, Size, pixels
from medeval.types.sample import JsonValue


def check_template(owner: str, name: str, text: str, allowed: Set[str]) -> None:
    """Raise DefinitionError unless every placeholder of a text is one of those `allowed`.

    `owner` and `name` say in the message whose text it is.
    """
    template = Template(text)
    if not template.is_valid():
        raise DefinitionError(
            f"{owner}: {name} has a '$' that starts no placeholder",
            hint="write '$$' for a dollar sign",
        )
    unknown = set(template.get_identifiers()) - allowed
    if unknown:
        raise DefinitionError(
            f"{owner}: {name} uses {sorted(unknown)!r}, which is not filled in; "
            f"known: {sorted(allowed)!r}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolSchema:
    """The description of a tool that a model reads; `parameters` is a JSON Schema object."""

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


# Some published environments guess the frame from the values; a model trained there is evaluated
# with the same guess (`medeval.tools.guessed_frames`). All other frames ignore the values.
FrameGuess = Literal["guess_med", "guess_med_older", "guess_pixel_reasoner"]
FrameKind = (
    Literal["relative", "permille", "percent", "pixels_raw", "pixels_sent", "pixels_model"]
    | FrameGuess
)

# The frames that are the same for images of every size.
SIZELESS: Final[Mapping[FrameKind, Frame]] = {
    "relative": RELATIVE,
    "permille": PERMILLE,
    "percent": PERCENT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolContext:
    """What a call may work on: the conversation's images in order, and the declared frame.

    The first `n_originals` of the `pictures` are the sample's own. `model_sizes` holds, by index,
    the sizes of images after the engine's processor, where they are known. `metadata` is the
    sample's. `raw_to_root` maps raw pixels of each picture to raw pixels of the sample's image from
    which it was made; empty where that is not known. `earlier` holds, for each call before this
    one, the index of the image that it made, or None: for the calls of the same reply, or of all
    replies where blocks of code share their variables.
    """

    pictures: Sequence[Picture]
    frame: FrameKind
    n_originals: int = 1
    model_sizes: Mapping[int, Size] = field(default_factory=dict)
    metadata: Mapping[str, JsonValue] = field(default_factory=dict)
    raw_to_root: Sequence[Affine] = ()
    earlier: Sequence[int | None] = ()

    def check_index(self, index: int) -> None:
        """Raise ToolError, with the valid range, where no image has this index."""
        if not 0 <= index < len(self.pictures):
            raise ToolError(
                f"there is no image {index}; images are numbered 0 to {len(self.pictures) - 1}"
            )

    def picture(self, index: int) -> Picture:
        """The image of an index, from 0; ToolError, with the valid range, where there is none."""
        self.check_index(index)
        return self.pictures[index]

    def frame_of(
        self, index: int, values: Sequence[float] = (), cut_from: Size | None = None
    ) -> Frame:
        """The frame in which a call gives coordinates of the image of an index.

        Only a guessed frame looks at `values`, the coordinates themselves, and at `cut_from`, the
        size of the pixels that the tool works on (None: the raw size).
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
    """The image that a call made, the index of its parent, and the recipe that made it.

    `operation` and `arguments` are the recipe, from which `medeval.tools.remake` makes the image
    again: resolved numbers, not the model's. `raw_to_parent` maps raw pixels of the new image to
    raw pixels of its parent.
    """

    picture: Picture
    parent: int
    operation: str
    arguments: Mapping[str, JsonValue]
    raw_to_parent: Affine


def _accept_all(arguments: Mapping[str, JsonValue]) -> None:
    """The check of a tool that can judge no arguments without an image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A visual tool.

    `parameters` is a JSON Schema object, which the model reads word for word. `run` validates the
    arguments and raises ToolError where it refuses them; `check` raises for arguments that are
    wrong whatever the image, for recordings without images. `settings` are all else that decides
    what a call gives, and part of a cell's fingerprint. `by_size` says that arguments, metadata and
    the sizes of images alone decide whether a call is refused and how large its image is; without
    it, pixels may decide.
    """

    name: str
    description: str
    parameters: Mapping[str, JsonValue]
    run: Callable[[Mapping[str, JsonValue], ToolContext], ToolResult] = field(repr=False)
    settings: Mapping[str, JsonValue] = field(default_factory=dict)
    check: Callable[[Mapping[str, JsonValue]], None] = field(default=_accept_all, repr=False)
    by_size: bool = False

    @property
    def schema(self) -> ToolSchema:
        """The description of the tool that a model reads."""
        return ToolSchema(name=self.name, description=self.description, parameters=self.parameters)


def budget_recipe(budget: PixelBudget | None) -> "JsonValue":
    """A pixel budget as a recipe holds it: its limits, then settings that are not the default."""
    if budget is None:
        return None
    recipe: dict[str, JsonValue] = {
        "min_px": budget.min_px,
        "max_px": budget.max_px,
        "factor": budget.factor,
    }
    for item in fields(budget):
        if item.name not in recipe and getattr(budget, item.name) != item.default:
            recipe[item.name] = getattr(budget, item.name)
    return recipe


def read_budget(limits: "JsonValue") -> PixelBudget | None:
    """The pixel budget of a recipe, None for no resize; DataError for anything else."""
    match limits:
        case None:
            return None
        case {"min_px": int(smallest), "max_px": int(largest), "factor": int(factor), **rest}:
            match (rest.pop("rule", "smart"), rest.pop("resample", "bicubic"), rest):
                case (
                    ("smart" | "area") as rule,
                    ("nearest" | "bilinear" | "bicubic" | "lanczos") as resample,
                    {**unknown},
                ) if not unknown:
                    return _budget(smallest, largest, factor, rule, resample)
    raise DataError(f"{limits!r} is no pixel budget", hint="the record was changed")


def _budget(
    min_px: int, max_px: int, factor: int, rule: ResizeRule, resample: Resample
) -> PixelBudget:
    try:
        return PixelBudget(
            min_px=min_px, max_px=max_px, factor=factor, rule=rule, resample=resample
        )
    except DefinitionError as error:
        raise DataError(error.message, hint="the record was changed") from error


def no_recipe(what: str, arguments: "Mapping[str, JsonValue]", parent: "Picture") -> DataError:
    """The error for a recipe that no tool wrote for this image; `what` is such as "a crop"."""
    return DataError(
        f"{dict(arguments)!r} is no recipe of {what} from an image of "
        f"{parent.raw.width_px} x {parent.raw.height_px} pixels",
        hint="the record was changed, or its image is not the one that the tool worked on",
    )
