"""A crop's recipe: what is cut from which form of an image, and how it is sent."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

from medeval.images.decode import MAX_PIXELS
from medeval.images.picture import Picture, made_picture
from medeval.images.resize import PixelBudget, Resample
from medeval.tools.recipes import budget_recipe, no_recipe, read_budget
from medeval.types.geometry import PixelBox, Size
from medeval.types.sample import JsonValue

if TYPE_CHECKING:
    from PIL import Image

CutFrom: TypeAlias = Literal["raw", "sent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The pixels to cut out of an image; what lies outside of it is black.

    `sent` is the size they are sent at where it is not what the budget makes of the cut's own.
    """

    box: PixelBox
    budget: PixelBudget | None
    source: CutFrom = "raw"
    jpeg_quality: int | None = None
    sent: Size | None = None
    resample: Resample = "bicubic"

    def recipe(self, parent: Picture) -> dict[str, JsonValue]:
        """The cut as a trajectory records it; what is usual is left out."""
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
        """The image that is cut."""
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
        # Not `crop`, which warns of sizes by a bound that is global to the process.
        part = Image.new(whole.mode, (self.box.width, self.box.height))
        part.paste(whole, (-self.box.left, -self.box.top))
        return part

    def _is_inside(self, parent: Picture) -> bool:
        limit = parent.raw if self.source == "raw" else parent.sent
        box = self.box
        across = box.left >= 0 and box.right <= limit.width_px
        return across and box.top >= 0 and box.bottom <= limit.height_px

    def is_possible(self, parent: Picture, *, outside: bool) -> bool:
        """Whether a tool can have made this cut of an image."""
        width, height = self.box.width, self.box.height
        if width < 1 or height < 1 or width * height > MAX_PIXELS:
            return False
        return self._is_inside(parent) != outside


def remake_crop(arguments: Mapping[str, JsonValue], parent: Picture) -> Picture:
    """The crop that a recipe describes, byte for byte; raises DataError for any other recipe."""
    match arguments:
        case {"box_px": [int(left), int(top), int(right), int(bottom)], "budget": limits, **rest}:
            outside = rest.pop("outside", None)
            cut = _read(PixelBox(left, top, right, bottom), read_budget(limits), rest)
            known = outside in (None, "black") and not rest
            if cut and known and cut.is_possible(parent, outside=outside == "black"):
                return cut.picture(parent)
    raise no_recipe("a crop", arguments, parent)


def _read(box: PixelBox, budget: PixelBudget | None, rest: dict[str, JsonValue]) -> Cut | None:
    """The cut of a recipe, whose known settings are taken out of `rest`; None for unknown ones."""
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
