"""The common style of figures: one column wide, in colours that the colour-blind can tell apart.

Colours are those of Okabe and Ito (Color Universal Design, 2008). matplotlib is imported where
it is used, and never through pyplot: a figure has no global state.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medeval.analysis.med.curves import Floats
from medeval.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_IN = 3.4

BLACK = "#000000"
GREY = "#6b6b6b"
ORANGE = "#E69F00"
SKY = "#56B4E9"
GREEN = "#009E73"
BLUE = "#0072B2"
VERMILION = "#D55E00"
PURPLE = "#CC79A7"

TEXT_PT = 7.0
NOTE_PT = 5.5
LABEL_SPACING_PT = 8.5
TITLE_WIDTH = 48
NOTE_WIDTH = 76
LONGEST_NAME = 40

RC: Mapping[Any, Any] = {
    "font.size": TEXT_PT,
    "axes.labelsize": TEXT_PT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": TEXT_PT,
    "ytick.labelsize": TEXT_PT,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": TEXT_PT,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.0,
    "legend.handletextpad": 0.4,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.0,
    "hatch.linewidth": 0.4,
    # text stays text in PDF, and a file is the same in every run
    "pdf.fonttype": 42,
    "svg.hashsalt": "medeval",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a quantity is drawn in every figure."""

    colour: str
    marker: str = "o"
    dash: str = "-"


LOOKS: Mapping[str, Look] = {
    "free": Look(colour=GREY, marker="s", dash="--"),
    "available": Look(colour=BLUE),
    "gap": Look(colour=BLACK, marker="D"),
    "tool_drift": Look(colour=BLACK, marker="D"),
    "called": Look(colour=GREEN, marker="^"),
    "call_gain": Look(colour=BLUE),
    "schema_gain": Look(colour=SKY, marker="s"),
    "call_harm": Look(colour=VERMILION, marker="^"),
    "schema_harm": Look(colour=ORANGE, marker="v"),
    "gross_gain": Look(colour=BLUE),
    "gross_harm": Look(colour=VERMILION, marker="^", dash="--"),
    "mass": Look(colour=GREY, marker="s", dash=":"),
    "policy": Look(colour=GREEN, marker="^", dash="--"),
    "quality": Look(colour=PURPLE),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Line:
    """A quantity along the steps; arrays of shape (n_steps,), NaN where it is undefined."""

    label: str
    look: Look
    steps: Floats
    value: Floats
    low: Floats
    high: Floats


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the common style; matplotlib's settings are put back afterwards.

    Raises UsageError where matplotlib is not installed.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise UsageError(
            "figures need matplotlib, which is not installed",
            hint="pip install 'medeval[plot]'",
        ) from None
    with mpl.rc_context(dict(RC)):
        yield


def panels(
    heights_in: Sequence[float],
    *,
    columns: int = 1,
    titles: Sequence[str],
    note: str,
    together: bool = True,
) -> "tuple[Figure, list[list[Axes]]]":
    """A figure of rows of panels, with titles above and a note below.

    The panels share their x axis if `together`. Room for titles and note is added to `heights_in`.
    Draw within `styled`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    head = [line for title in titles for line in _wrapped(title, TITLE_WIDTH)]
    notes = _wrapped(note, NOTE_WIDTH)
    room_in = 0.45 + 0.14 * len(head) + 0.1 * len(notes)
    figure = Figure(
        figsize=(COLUMN_IN, sum(heights_in) + room_in),
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.03),
    )
    FigureCanvasAgg(figure)
    figure.suptitle("\n".join(head), x=0.02, ha="left", fontsize=TEXT_PT + 0.5, weight="bold")
    figure.supxlabel("\n".join(notes), x=0.02, ha="left", fontsize=NOTE_PT, color=GREY)
    grid = figure.subplots(
        len(heights_in),
        columns,
        sharex=together,
        squeeze=False,
        gridspec_kw={"height_ratios": list(heights_in)},
    )
    return figure, [list(row) for row in grid]


def plain(text: str, longest: int = LONGEST_NAME) -> str:
    """A name as matplotlib can show it: on one line, not too long, never read as a formula."""
    joined = _on_one_line(text)
    return _no_formula(joined if len(joined) <= longest else joined[: longest - 1] + "…")


def _wrapped(text: str, width: int) -> list[str]:
    return [_no_formula(line) for line in textwrap.wrap(_on_one_line(text), width)]


def _on_one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _no_formula(text: str) -> str:
    return text.replace("$", r"\$")


def stretches(defined: Sequence[bool]) -> list[slice]:
    """The runs of consecutive steps at which something is defined.

    >>> stretches([True, False, True, True])
    [slice(0, 1, None), slice(2, 4, None)]
    """
    edges = np.flatnonzero(np.diff([0, *map(int, defined), 0]))
    return [
        slice(int(start), int(stop)) for start, stop in zip(edges[::2], edges[1::2], strict=True)
    ]


def smoothed(values: Floats, window: int) -> Floats:
    """The centred moving mean over up to `window` steps, narrower at the ends of a stretch.

    Undefined values stay undefined, and nothing is averaged across them.

    >>> smoothed(np.array([0.0, 3.0, 6.0, 0.0]), 3).tolist()
    [0.0, 3.0, 3.0, 0.0]
    """
    found = values.astype(float).copy()
    for part in stretches((~np.isnan(values)).tolist()):
        inner = values[part]
        for position in range(len(inner)):
            reach = min(window // 2, position, len(inner) - 1 - position)
            mean = inner[position - reach : position + reach + 1].mean()
            found[part.start + position] = mean
    return found


def draw_line(axes: "Axes", line: Line, smooth: int | None) -> None:
    """A line with its band; a single point has a bar; where it is undefined, the line breaks."""
    look = line.look
    for part in stretches((~np.isnan(line.value)).tolist()):
        x, value, low, high = (a[part] for a in (line.steps, line.value, line.low, line.high))
        if len(x) == 1:
            axes.vlines(x, low, high, color=look.colour, linewidth=0.9)
        else:
            axes.fill_between(x, low, high, color=look.colour, alpha=0.18, linewidth=0)
        shown = smoothed(value, smooth) if smooth else value
        axes.plot(x, shown, color=look.colour, linestyle=look.dash)
        axes.plot(
            x,
            value,
            color=look.colour,
            linestyle="none",
            marker=look.marker,
            alpha=0.45 if smooth else 1.0,
            markeredgewidth=0,
        )


def draw_lines(
    axes: "Axes", lines: Sequence[Line], *, height_in: float, smooth: int | None
) -> None:
    """Lines with their bands, each with its name next to its end."""
    for line in lines:
        draw_line(axes, line, smooth)
    label_ends(axes, lines, height_in)


def label_ends(axes: "Axes", lines: Sequence[Line], height_in: float) -> None:
    """Write each line's name right of the panel at the height of its end, without overlaps."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high)
    named = [line for line in lines if not np.isnan(line.value).all()]
    ends = [float(line.value[~np.isnan(line.value)][-1]) for line in named]
    spacing = (high - low) * LABEL_SPACING_PT / (72.0 * height_in * 0.85)
    for line, place in zip(named, apart(ends, spacing, low, high), strict=True):
        axes.text(
            1.03,
            place,
            line.label,
            transform=axes.get_yaxis_transform(),
            color=line.look.colour,
            va="center",
            ha="left",
        )


def apart(places: Sequence[float], spacing: float, low: float, high: float) -> list[float]:
    """Places moved as little as needed to keep `spacing` and stay between `low` and `high`.

    >>> apart([4.0, 4.0, 1.0], 2.0, 0.0, 10.0)
    [3.0, 5.0, 1.0]
    """
    order = sorted(range(len(places)), key=lambda position: places[position])
    blocks: list[list[float]] = []
    for position in order:
        # a block is [sum of the wanted places, number of members]
        blocks.append([places[position], 1.0])
        while len(blocks) > 1 and _start(blocks[-1], spacing) < (
            _start(blocks[-2], spacing) + blocks[-2][1] * spacing
        ):
            total, members = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += members
    moved: list[float] = []
    for block in blocks:
        start = _start(block, spacing)
        moved += [start + member * spacing for member in range(int(block[1]))]
    moved = _within(moved, spacing, low, high)
    found = [0.0] * len(places)
    for position, place in zip(order, moved, strict=True):
        found[position] = place
    return found


def _start(block: Sequence[float], spacing: float) -> float:
    total, members = block
    return total / members - spacing * (members - 1) / 2.0


def _within(places: list[float], spacing: float, low: float, high: float) -> list[float]:
    """Sorted places, moved between the limits; order and spacing stay."""
    for position in range(len(places)):
        places[position] = max(places[position], low + spacing * position)
    for position in range(len(places)):
        from_top = high - spacing * position
        places[-1 - position] = min(places[-1 - position], from_top)
    return places


def finish_steps(axes: "Axes", steps: Floats, *, most_ticks: int = 5) -> None:
    """Put ticks at whole steps, and a margin left and right of them."""
    from matplotlib.ticker import FixedLocator, MaxNLocator

    if len(steps) <= most_ticks and _are_even(steps):
        axes.xaxis.set_major_locator(FixedLocator(list(steps)))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(most_ticks, integer=True))
    margin = 0.04 * float(steps[-1] - steps[0])
    axes.set_xlim(float(steps[0]) - margin, float(steps[-1]) + margin)


def _are_even(steps: Floats) -> bool:
    """Whether the steps are so even that a label at each has enough room."""
    widths = np.diff(steps)
    return bool(widths.min() > 0.7 * widths.max())


def forest(axes: "Axes", lines: Sequence[Line]) -> None:
    """One row a quantity: its value at the only checkpoint, with its interval.

    The row of an undefined quantity says `undefined`.
    """
    places = list(range(len(lines)))
    for place, line in zip(places, lines, strict=True):
        value, low, high = float(line.value[0]), float(line.low[0]), float(line.high[0])
        if np.isnan(value):
            axes.text(
                0.5,
                place,
                "undefined",
                transform=axes.get_yaxis_transform(),
                color=GREY,
                va="center",
                ha="center",
            )
            continue
        axes.hlines(place, low, high, color=line.look.colour, linewidth=1.1)
        axes.plot([value], [place], color=line.look.colour, marker=line.look.marker, markersize=4)
    axes.set_yticks(places, [line.label for line in lines])
    axes.set_ylim(len(lines) - 0.5, -0.5)
    axes.axvline(0.0, color=GREY, linewidth=0.5, zorder=0)
    axes.tick_params(axis="y", length=0)
