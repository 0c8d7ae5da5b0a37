"""Crop and zoom: the tool that cuts a box out of an image and enlarges it into a pixel budget."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from string import Template
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from medeval.errors import DefinitionError, ToolError
from medeval.images.decode import MAX_PIXELS
from medeval.images.picture import Picture, made_picture
from medeval.images.resize import PixelBudget, Resample, whole_size
from medeval.tools.arguments import check_names, read_number, seen
from medeval.tools.base import (
    SIZELESS,
    Tool,
    ToolContext,
    ToolResult,
    budget_recipe,
    no_recipe,
    read_budget,
)
from medeval.tools.crop_rules import (
    DEFAULT_RULES,
    Corners,
    CropImage,
    CropRules,
    CutRegion,
    Target,
    check_box_in_frame,
    check_extent,
    cut_region,
)
from medeval.types.geometry import Affine, PixelBox, Size
from medeval.types.sample import JsonValue

if TYPE_CHECKING:
    from PIL import Image

# What is cut: an image's raw pixels, or those of the image as it was sent.
CutFrom: TypeAlias = Literal["raw", "sent"]

OPERATION: Final = "crop"

# 256 to 1024 visual tokens of 28 x 28 pixels.
DEFAULT_BUDGET: Final = PixelBudget(min_px=256 * 28 * 28, max_px=1024 * 28 * 28, factor=28)

PERMILLE_COORDINATES: Final = (
    "Coordinates are in thousandths of that image's width (x) and height (y), from 0 to 1000, "
    "measured from its top-left corner: [0, 0, 1000, 1000] is the whole image"
)

DESCRIPTION: Final = (
    "Cut a rectangular region out of an image and look at it enlarged, in the detail of "
    "the original. Use it to read small text or to inspect small or distant objects. "
    "The region is shown to you as a new image."
)


def crop_and_zoom(
    *,
    name: str = "crop_and_zoom",
    box_argument: str = "bbox_2d",
    image_argument: str = "image_index",
    minimum_side_px: int = 28,
    budget: PixelBudget | None = DEFAULT_BUDGET,
    coordinates: str = PERMILLE_COORDINATES,
    target: Target | None = None,
    rules: CropRules | None = None,
    other_arguments: Literal["refuse", "ignore"] = "refuse",
    description: str = DESCRIPTION,
    parameters: Mapping[str, JsonValue] | None = None,
) -> Tool:
    """The tool that cuts a box out of an image of the conversation and enlarges it.

    The box is read in the frame that the protocol declares; `coordinates` must state the same unit,
    range and origin in the schema. The box is clamped to the image, rounded outwards to whole
    pixels, and each side under `minimum_side_px` grows about its centre as far as the image
    reaches; `rules` replace all of this. The cut comes from the raw pixels and is resized into
    `budget` (None: not resized).

    The call names an image by its index in `image_argument`, unless `target` says otherwise.
    Arguments that are not in the schema are refused, or ignored as `other_arguments` says.
    `description` and `parameters` replace the schema with a published one, word for word.
    """
    if minimum_side_px < 1:
        raise DefinitionError(
            f"tool {name!r}: minimum_side_px is {minimum_side_px!r}, not 1 or more"
        )
    settings = _Settings(
        box_argument=box_argument,
        target=target or Target(argument=image_argument),
        rules=rules or CropRules(minimum_side_px=minimum_side_px),
        budget=budget,
        other_arguments=other_arguments,
    )
    return Tool(
        name=name,
        description=description,
        parameters=_parameters(settings, coordinates) if parameters is None else parameters,
        run=partial(_run, settings),
        settings=_settings_as_json(settings),
        check=partial(_check, settings),
        by_size=True,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    box_argument: str
    target: Target
    rules: CropRules
    budget: PixelBudget | None
    other_arguments: Literal["refuse", "ignore"]


def _settings_as_json(settings: _Settings) -> dict[str, JsonValue]:
    """The settings that decide a crop: the minimum side, the budget, and any unusual rule."""
    described: dict[str, JsonValue] = {
        "minimum_side_px": settings.rules.minimum_side_px,
        "budget": budget_recipe(settings.budget),
    }
    defaults: tuple[tuple[object, object], ...] = (
        (settings.rules, DEFAULT_RULES),
        (settings.target, Target()),
    )
    for chosen, default in defaults:
        for item in fields(chosen):  # type: ignore[arg-type]
            value = getattr(chosen, item.name)
            if item.name != "minimum_side_px" and value != getattr(default, item.name):
                described[item.name] = value
    if settings.other_arguments != "refuse":
        described["other_arguments"] = settings.other_arguments
    return described


def _parameters(settings: _Settings, coordinates: str) -> dict[str, JsonValue]:
    properties: dict[str, JsonValue] = {
        settings.box_argument: {
            "type": "array",
            "items": {"type": "number"},
            "minItems": 4,
            "maxItems": 4,
            "description": (
                "The region as [x1, y1, x2, y2]: its top-left corner (x1, y1) and its "
                f"bottom-right corner (x2, y2), with x1 < x2 and y1 < y2. {coordinates}."
            ),
        }
    }
    if settings.target.rule == "index":
        properties[settings.target.argument] = {
            "type": "integer",
            "minimum": 0,
            "default": 0,
            "description": (
                "Which image to cut from, counted from 0 in the order in which the images "
                "appear in the conversation: 0 is the first image you were given, and images "
                "made by tools are numbered after those you were given."
            ),
        }
    return {
        "type": "object",
        "properties": properties,
        "required": [settings.box_argument],
        "additionalProperties": False,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The pixels to cut out of an image; those outside of the image are black.

    `box` is in pixels of the `source`, which passes through a JPEG of `jpeg_quality` first (None:
    no JPEG). The cut is resized into `budget`, or to the size `sent` by the filter `resample`.
    """

    box: PixelBox
    budget: PixelBudget | None
    source: CutFrom = "raw"
    jpeg_quality: int | None = None
    sent: Size | None = None
    resample: Resample = "bicubic"

    def recipe(self, parent: Picture) -> dict[str, JsonValue]:
        """The cut as a trajectory records it; default settings are left out."""
        box = self.box
        recipe: dict[str, JsonValue] = {
            "box_px": [box.left, box.top, box.right, box.bottom],
            "budget": budget_recipe(self.budget),
        }
        if self.source != "raw":
            recipe["source"] = self.source
        if not self._is_inside(parent):
            recipe["outside"] = "black"
        if self.jpeg_quality is not None:
            recipe["jpeg_quality"] = self.jpeg_quality
        if self.sent is not None:
            recipe["sent_px"] = [self.sent.width_px, self.sent.height_px]
            recipe["resample"] = self.resample
        return recipe

    def picture(self, parent: Picture) -> Picture:
        """The cut out of `parent`, as a new image."""
        cut = partial(self._pixels, parent)
        if self.sent is None:
            return made_picture(cut(), budget=self.budget, again=cut)
        return made_picture(cut(), budget=None, again=cut, sent=self.sent, resample=self.resample)

    def _pixels(self, parent: Picture) -> "Image.Image":
        from PIL import Image

        whole = parent.pixels() if self.source == "raw" else parent.sent_pixels()
        if self.jpeg_quality is not None:
            buffer = io.BytesIO()
            whole.save(buffer, "JPEG", quality=self.jpeg_quality)
            whole = Image.open(buffer).convert("RGB")
        # Pillow's own `crop` warns of large sizes by a bound that is global to the process.
        part = Image.new(whole.mode, (self.box.width, self.box.height))
        part.paste(whole, (-self.box.left, -self.box.top))
        return part

    def _is_inside(self, parent: Picture) -> bool:
        limit = parent.raw if self.source == "raw" else parent.sent
        box = self.box
        across = box.left >= 0 and box.right <= limit.width_px
        return across and box.top >= 0 and box.bottom <= limit.height_px

    def is_possible(self, parent: Picture, *, outside: bool) -> bool:
        """Whether a tool can have cut this out of `parent`; `outside` says that it leaves it."""
        width, height = self.box.width, self.box.height
        if width < 1 or height < 1 or width * height > MAX_PIXELS:
            return False
        return self._is_inside(parent) != outside


def _run(
    settings: _Settings, arguments: Mapping[str, JsonValue], context: ToolContext
) -> ToolResult:
    rules = settings.rules
    if settings.other_arguments == "refuse":
        check_names(arguments, (settings.box_argument, *settings.target.arguments))
    index = settings.target.index(arguments, context)
    frame = SIZELESS.get(context.frame)
    if frame is not None and rules.invalid == "refuse":
        # A box that is wrong for images of every size is refused before the image is looked at.
        corners = _corners(settings, arguments)
        check_box_in_frame(corners, frame, settings.box_argument, index, rules)
    source = _source(rules, context, index)
    size = context.picture(index).sent if source == "sent" else context.picture(index).raw
    try:
        corners = _corners(settings, arguments)
        image = CropImage(
            frame=context.frame_of(index, corners, size),
            size=size,
            index=index,
            argument=settings.box_argument,
        )
        cut = _cut(cut_region(corners, image, rules), settings, source)
    except ToolError:
        if rules.invalid == "refuse":
            raise
        cut = _whole_image(size, settings, source, arguments)
    return _result(cut, index, context.picture(index))


def _check(settings: _Settings, arguments: Mapping[str, JsonValue]) -> None:
    """Raise ToolError for arguments that are wrong whatever the image."""
    rules = settings.rules
    if settings.other_arguments == "refuse":
        check_names(arguments, (settings.box_argument, *settings.target.arguments))
    if rules.invalid == "refuse":
        corners = _corners(settings, arguments)
        if not rules.swap_corners and rules.pad == 0:
            check_extent(corners, corners, settings.box_argument)


def _whole_image(
    size: Size, settings: _Settings, source: CutFrom, arguments: Mapping[str, JsonValue]
) -> Cut:
    """The cut of the whole image, in place of an invalid box.

    It is enlarged like any crop where the call could not be read or its box has four values.
    Otherwise it keeps its size, as after an exception in the published code of Chain-of-Focus.
    """
    box = arguments.get(settings.box_argument)
    whole = PixelBox(0, 0, size.width_px, size.height_px)
    if not arguments or (isinstance(box, list) and len(box) == 4):
        found = CutRegion(box=whole, width=size.width_px, height=size.height_px)
        return _cut(found, settings, source)
    return Cut(box=whole, budget=None, source=source)


def _source(rules: CropRules, context: ToolContext, index: int) -> CutFrom:
    if rules.source == "raw_of_originals":
        return "raw" if index < context.n_originals else "sent"
    return rules.source


def _corners(settings: _Settings, arguments: Mapping[str, JsonValue]) -> Corners:
    """The four numbers of a call's box; ToolError where they are not there."""
    argument = settings.box_argument
    if argument not in arguments:
        raise ToolError(f"{argument!r} is missing; it is a list [x1, y1, x2, y2]")
    value = arguments[argument]
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 4:
        published = Template(settings.rules.refusal).substitute(seen=seen(value))
        raise ToolError(published or f"{argument!r} is a list of four numbers, not {seen(value)}")
    x1, y1, x2, y2 = (read_number(item, argument) for item in value)
    return x1, y1, x2, y2


def _cut(found: CutRegion, settings: _Settings, source: CutFrom) -> Cut:
    rules, budget = settings.rules, settings.budget
    cut = Cut(box=found.box, budget=budget, source=source, jpeg_quality=rules.jpeg_quality)
    width, height = float(found.box.width), float(found.box.height)
    if rules.measure == "box" and budget is not None:
        width, height = found.width, found.height
    elif rules.upscale == 1.0:
        return cut
    sides = (width * rules.upscale, height * rules.upscale)
    return replace(
        cut,
        sent=whole_size(*sides) if budget is None else budget.size_of_sides(*sides),
        resample=rules.resample if budget is None else budget.resample,
    )


def _result(cut: Cut, index: int, parent: Picture) -> ToolResult:
    across, down = 1.0, 1.0
    if cut.source == "sent":
        across = parent.raw.width_px / parent.sent.width_px
        down = parent.raw.height_px / parent.sent.height_px
    left, top = float(cut.box.left), float(cut.box.top)
    return ToolResult(
        picture=cut.picture(parent),
        parent=index,
        operation=OPERATION,
        arguments=cut.recipe(parent),
        raw_to_parent=Affine(across, 0.0, left * across, 0.0, down, top * down),
    )


def remake_crop(arguments: Mapping[str, JsonValue], parent: Picture) -> Picture:
    """The crop that a recipe describes, byte for byte; DataError for a recipe of no crop."""
    match arguments:
        case {"box_px": [int(left), int(top), int(right), int(bottom)], "budget": limits, **rest}:
            outside = rest.pop("outside", None)
            cut = _read_cut(PixelBox(left, top, right, bottom), read_budget(limits), rest)
            known = outside in (None, "black") and not rest
            if cut and known and cut.is_possible(parent, outside=outside == "black"):
                return cut.picture(parent)
    raise no_recipe("a crop", arguments, parent)


def _read_cut(box: PixelBox, budget: PixelBudget | None, rest: dict[str, JsonValue]) -> Cut | None:
    """The cut of a recipe, or None for an invalid one; takes the known settings out of `rest`."""
    source, quality = rest.pop("source", "raw"), rest.pop("jpeg_quality", None)
    sent: Size | None = None
    if "sent_px" in rest:
        match rest.pop("sent_px"):
            case [int(width), int(height)] if 0 < width * height <= MAX_PIXELS and width > 0:
                sent = Size(width, height)
            case _:
                return None
    resample = rest.pop("resample", "bicubic")
    match source, resample, quality:
        case (
            ("raw" | "sent") as known,
            ("nearest" | "bilinear" | "bicubic" | "lanczos") as kind,
            (None | int()) as percent,
        ):
            return Cut(
                box=box,
                budget=budget,
                source=known,
                jpeg_quality=percent,
                sent=sent,
                resample=kind,
            )
    return None
