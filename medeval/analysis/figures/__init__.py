"""Figures of an analysis: MEASURE, EXPLAIN, DIAGNOSE and CALLS, one column wide."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medeval.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from medeval.analysis.figures.calls import CallReader
    from medeval.analysis.figures.view import View
    from medeval.analysis.report import Analysis
    from medeval.store.run_folder import RunFolder

Format = Literal["pdf", "svg", "png"]
FORMATS: tuple[Format, ...] = ("pdf", "svg", "png")
PNG_DPI = 200

# Without a date, the same numbers give the same files.
METADATA: Mapping[Format, dict[str, str | None]] = {
    "pdf": {"CreationDate": None},
    "svg": {"Date": None},
    "png": {},
}


def figures(
    analysis: "Analysis", folder: "RunFolder | None" = None, *, smooth: int | None = None
) -> "Iterator[tuple[str, Figure]]":
    """Each figure of an analysis with its name.

    `measure`, `explain`, `diagnose` and `calls` show the mean of benchmarks, or the only benchmark.
    With several benchmarks, each also has its own figures, such as `measure.<benchmark>`. With
    several series or pairs, their names stand before the benchmark's.

    Parameters
    ----------
    analysis : Analysis
        One that is not split by groups.
    folder : RunFolder, optional
        The run folder; its trajectories give the calls by status and by tool.
    smooth : int, optional
        Draw lines as moving means over this many steps, and say so on the figure.

    Raises
    ------
    UsageError
        Where matplotlib is not installed, the analysis is split by groups, or `smooth` is not
        an odd number above 1.

    Notes
    -----
    A figure is a matplotlib `Figure` without global state: show it in a notebook by naming it,
    or `figure.savefig(path)`.
    """
    if smooth is not None and (smooth < 3 or smooth % 2 == 0):
        raise UsageError(
            f"lines are smoothed over an odd number of steps from 3 on, seen {smooth!r}"
        )
    from medeval.analysis.figures.calls import CallReader
    from medeval.analysis.figures.style import styled

    reader = None if folder is None else CallReader(folder)
    for name, view in _views(analysis, smooth):
        for kind, draw in _drawers(reader).items():
            with styled():
                drawn = draw(view)
            yield kind + name, drawn


def _drawers(reader: "CallReader | None") -> "dict[str, Callable[[View], Figure]]":
    from medeval.analysis.figures.calls import calls_figure
    from medeval.analysis.figures.diagnose import diagnose_figure
    from medeval.analysis.figures.explain import explain_figure
    from medeval.analysis.figures.measure import measure_figure

    return {
        "measure": measure_figure,
        "explain": explain_figure,
        "diagnose": diagnose_figure,
        "calls": lambda view: calls_figure(view, reader),
    }


def _views(analysis: "Analysis", smooth: int | None) -> "Iterator[tuple[str, View]]":
    """Each view with the suffix that it gives to the names of its figures."""
    from medeval.analysis.figures.view import View
    from medeval.store.keys import quoted

    tabulations = analysis.tabulations
    several_series = len({each.found.outcomes.series for each in tabulations}) > 1
    several_pairs = len({each.found.outcomes.pair for each in tabulations}) > 1
    for tabulation in tabulations:
        outcomes = tabulation.found.outcomes
        names = [outcomes.series] if several_series else []
        names += [outcomes.pair] if several_pairs else []
        is_only = len(tabulation.populations) == 1
        for population in tabulation.populations:
            if population.group is not None:
                raise UsageError("figures show whole benchmarks, not groups of their samples")
            own = [] if population.is_mean or is_only else [population.benchmark]
            suffix = "".join(f".{quoted(name)}" for name in [*names, *own])
            yield (
                suffix,
                View(
                    analysis=analysis, tabulation=tabulation, population=population, smooth=smooth
                ),
            )


def write_figure(
    figure: "Figure", directory: Path, name: str, formats: Sequence[Format] = FORMATS
) -> list[Path]:
    """Write a figure as `<name>.<format>` in place of earlier ones; returns the files.

    The same numbers give the same bytes under the same version of matplotlib.
    """
    from io import BytesIO

    from medeval.analysis.figures.style import styled
    from medeval.store.files import write_whole

    with styled():
        _fix_layout(figure)
    paths = []
    for form in formats:
        data = BytesIO()
        with styled():
            figure.savefig(data, format=form, dpi=PNG_DPI, metadata=METADATA[form])
        paths.append(directory / f"{name}.{form}")
        write_whole(paths[-1], [data.getvalue()])
    return paths


def _fix_layout(figure: "Figure") -> None:
    """Fix the layout of the panels, with rounded positions.

    The last bits of the solver's result differ from one call to the next, and the ids in an SVG
    file are hashes that depend on them.
    """
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        left, bottom, width, height = (round(edge, 6) for edge in axes.get_position().bounds)
        axes.set_position((left, bottom, width, height))
