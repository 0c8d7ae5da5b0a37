"""Training scenes as the model sees them: the whole image and the crop, at the model's own size.

The evaluation resizes with Pillow, and a crop twice: the tool to its own budget, the checkpoint's
image processor to the model's. Resizing is linear, so that one matrix per side does both steps
here; the pixels are equal except for rounding.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from medeval.data.scenes import COLOURS, EDGE_PX, MarkerSize, paint_scene
from medeval.images.resize import smart_resize
from medeval.tools.crop import DEFAULT_BUDGET
from medeval.types.geometry import Box, Size

if TYPE_CHECKING:
    from medeval.data.scenes import Canvas

VIEW_PX: Final = 56
CELLS: Final = 4
# The boxes of crops, per axis and in per-mille: one around each cell of a grid that refines the
# grid of image tokens. All are squares of one size, as other shapes would give other numbers of
# tokens.
SPANS: Final = ((0, 310), (220, 530), (470, 780), (690, 1000))


@dataclass(frozen=True, slots=True, eq=False)
class Views:
    """Training scenes with their labels, one row per scene.

    `whole` and `crop` have shape (scenes, VIEW_PX, VIEW_PX, 3), 0 to 255; `colour`, `column`
    and `row` are indices into COLOURS and SPANS.
    """

    whole: NDArray[np.uint8]
    crop: NDArray[np.uint8]
    colour: NDArray[np.int64]
    column: NDArray[np.int64]
    row: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.colour)

    def some(self, rows: NDArray[np.int64], *, across: bool = False, down: bool = False) -> "Views":
        """The scenes at `rows`, mirrored if asked; the grid of boxes is its own mirror image."""
        whole, crop = self.whole[rows], self.crop[rows]
        column, row = self.column[rows], self.row[rows]
        if across:
            whole, crop, column = whole[:, :, ::-1], crop[:, :, ::-1], CELLS - 1 - column
        if down:
            whole, crop, row = whole[:, ::-1], crop[:, ::-1], CELLS - 1 - row
        return Views(whole, crop, self.colour[rows], column, row)


def draw_views(seed: str, n_scenes: int, size: MarkerSize) -> Views:
    """The views of scenes drawn from `<seed> 0`, `<seed> 1` and so on."""
    shape = (n_scenes, VIEW_PX, VIEW_PX, 3)
    whole, crop = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
    labels = np.empty((3, n_scenes), np.int64)
    names = list(COLOURS)
    for index in range(n_scenes):
        canvas, colour, box = paint_scene(f"{seed} {index}", size)
        column, row = cell_of(box)
        whole[index] = whole_view(canvas)
        crop[index] = crop_view(canvas, column, row)
        labels[:, index] = names.index(colour), column, row
    return Views(whole, crop, *labels)


def cell_of(box: Box) -> tuple[int, int]:
    """The column and row of the grid cell with the box's centre."""
    centre_x, centre_y = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    return int(centre_x * CELLS / EDGE_PX), int(centre_y * CELLS / EDGE_PX)


def span_px(cell: int) -> tuple[int, int]:
    """The first pixel and the end of a cell's span, rounded outwards as the tool does."""
    start, end = (share * EDGE_PX / 1000 for share in SPANS[cell])
    return math.floor(start), math.ceil(end)


def whole_view(canvas: "Canvas") -> NDArray[np.uint8]:
    """The whole image as the model sees it."""
    return _applied(_shrinking(EDGE_PX), canvas)


def crop_view(canvas: "Canvas", column: int, row: int) -> NDArray[np.uint8]:
    """The crop around a cell as the model sees it after the tool."""
    left, right = span_px(column)
    top, bottom = span_px(row)
    return _applied(_zooming(right - left), canvas[top:bottom, left:right])


def _applied(operator: NDArray[np.float32], canvas: "Canvas") -> NDArray[np.uint8]:
    values = canvas.astype(np.float32)
    rows = np.tensordot(operator, values, axes=(1, 0))
    both = np.tensordot(rows, operator, axes=(1, 1)).transpose(0, 2, 1)
    return both.round().clip(0, 255).astype(np.uint8)


@cache
def _shrinking(edge_px: int) -> NDArray[np.float32]:
    return _resizing(edge_px, VIEW_PX)


@cache
def _zooming(edge_px: int) -> NDArray[np.float32]:
    crop_px = smart_resize(Size(edge_px, edge_px), DEFAULT_BUDGET).width_px
    return _resizing(crop_px, VIEW_PX) @ _resizing(edge_px, crop_px)


def _resizing(before_px: int, after_px: int) -> NDArray[np.float32]:
    """The matrix of Pillow's bicubic resize along one side, shape (after, before)."""
    unit = Image.fromarray(np.eye(before_px, dtype=np.float32))
    resized = unit.resize((before_px, after_px), Image.Resampling.BICUBIC)
    return np.asarray(resized)
