"""Figures of a run: nothing overlaps, nothing is cut, and gaps stay gaps."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import combinations, islice
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

import medeval.analysis.figures.style as style
from medeval.analysis.figures import figures, write_figure
from medeval.analysis.figures.style import apart, plain, smoothed, stretches
from medeval.analysis.report import Analysis, analyze
from medeval.errors import UsageError
from medeval.types.outcome import OutcomeRecord
from tests.analysis.figures.simulated import STEPS, story
from tests.analysis.outcome_lines import outcome, run_of
from tests.untraced import untraced

KINDS = ("measure", "explain", "diagnose", "calls")


def analysis_of(path: Path, outcomes: Iterator[OutcomeRecord], **options: bool) -> Analysis:
    return analyze(run_of(path, outcomes).path, resamples=50, **options)  # type: ignore[arg-type]


def shown_texts(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text that is shown, with its place in pixels."""
    figure.canvas.draw()
    hidden = set(hidden_labels(figure))
    found = []
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip() and text not in hidden:
            found.append((text.get_text(), text.get_window_extent()))
    return found


def hidden_labels(figure: Figure) -> Iterator[Text]:
    """Tick labels beyond the limits of their axis, or of axes that are switched off."""
    for axes in figure.axes:
        for axis, limits in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
            low, high = sorted(limits)
            for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]:
                if not (axes.axison and low <= tick.get_loc() <= high):
                    yield from (tick.label1, tick.label2)
        if not axes.axison:
            yield from (axes.xaxis.label, axes.yaxis.label)


def assert_legible(name: str, figure: Figure) -> None:
    width, height = figure.get_size_inches() * figure.dpi
    texts = untraced(partial(shown_texts, figure))
    for text, box in texts:
        assert box.x0 >= -0.5, (name, text)
        assert box.y0 >= -0.5, (name, text)
        assert box.x1 <= width + 0.5, (name, text)
        assert box.y1 <= height + 0.5, (name, text)
    for (first, one), (second, other) in combinations(texts, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        along = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across < 1 or along < 1.5, (name, first, second)
    assert width / figure.dpi == pytest.approx(3.4)


def single_model() -> Iterator[OutcomeRecord]:
    for number, marks in enumerate(["110", "101", "011", "000", "010", "111"] * 8):
        yield outcome(f"s{number}", marks, step=None)


def with_a_gap() -> Iterator[OutcomeRecord]:
    """Steps 0, 20, ... but nothing at 60 of vstar."""
    for each in story():
        if not (each.benchmark == "vstar" and each.step in (60,)):
            yield each


def never_calls() -> Iterator[OutcomeRecord]:
    for step in (0, 10):
        for number, marks in enumerate(["110", "100", "010", "000"] * 5):
            yield outcome(f"s{number}", marks, step=step)


def nothing_moves() -> Iterator[OutcomeRecord]:
    for step in (0, 1, 1000):
        for number in range(9):
            yield outcome(f"s{number}", "111", step=step)


def long_names() -> Iterator[OutcomeRecord]:
    series = "qwen3-vl_$8b$_instruct_crop_and_zoom_rl_with_a_very_long_name_$x_{"
    for step in (0, 12345, 50000):
        for benchmark in ("visual_probe_hard_$a_b_of_2026_second_edition", "b"):
            for number, marks in enumerate(["111", "100", "011", "000"] * 5):
                yield outcome(f"s{number}", marks, step=step, benchmark=benchmark, series=series)


def without_a_baseline() -> Iterator[OutcomeRecord]:
    """Two benchmarks, one of which begins at a later step; the samples have no ids."""
    for step in (0, 10, 20):
        for benchmark in ("begins_later", "small"):
            if (benchmark, step) != ("begins_later", 0):
                for number, marks in enumerate(["110", "101", "011", "000"] * 5):
                    yield outcome(f"line-{number:06}", marks, step=step, benchmark=benchmark)


STORIES = {
    "without_a_baseline": without_a_baseline,
    "story": story,
    "single_model": single_model,
    "with_a_gap": with_a_gap,
    "never_calls": never_calls,
    "nothing_moves": nothing_moves,
    "long_names": long_names,
}


@pytest.mark.parametrize("name", STORIES)
def test_nothing_overlaps_and_nothing_is_cut(name: str, tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", STORIES[name](), allow_missing=True)
    for kind, figure in figures(analysis):
        assert_legible(kind, figure)


def test_every_benchmark_and_their_mean_has_every_figure(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", story(steps=(0, 10)))
    names = [name for name, _ in figures(analysis)]
    suffixes = ("", ".vstar", ".hrbench_4k")
    assert sorted(names) == sorted(f"{kind}{suffix}" for kind in KINDS for suffix in suffixes)


def test_a_step_without_outcomes_is_a_gap_in_the_lines_and_named(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", with_a_gap(), allow_missing=True)
    drawn = dict(figures(analysis))["measure.vstar"]
    accuracy = drawn.axes[3]
    pieces = [line for line in accuracy.lines if line.get_linestyle() == "--"]
    assert [np.asarray(piece.get_xdata()).tolist() for piece in pieces] == [
        [0, 20, 40],
        [*STEPS[4:]],
    ]
    note = drawn.get_supxlabel()
    assert "missing: allowed" in note.replace("\n", " ")
    assert "steps without outcomes are gaps" in note.replace("\n", " ")


def test_without_a_baseline_there_is_no_tool_contribution(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", without_a_baseline(), allow_missing=True)
    drawn = dict(islice(figures(analysis), 1))["measure.begins_later"]
    assert drawn.axes[0].get_title(loc="left") == "S_tool undefined"
    note = drawn.get_supxlabel().replace("\n", " ")
    assert "by chance" not in note
    assert "pairing: position" in note


def test_an_undefined_quality_is_a_gap(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", never_calls())
    drawn = dict(figures(analysis))["diagnose"]
    labels = {text.get_text() for text in drawn.axes[1].texts}
    assert labels == {"mass", "policy"}


def test_smoothing_is_off_by_default_and_named_on_every_figure(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", story(steps=(0, 10, 20, 30), benchmarks={"vstar": 50}))
    assert all("smoothed" not in figure.get_supxlabel() for _, figure in figures(analysis))
    for name, figure in figures(analysis, smooth=3):
        note = figure.get_supxlabel().replace("\n", " ")
        assert "smoothed: lines are moving means over 3 steps" in note
        assert_legible(name, figure)


@pytest.mark.parametrize("smooth", [1, 2, 4])
def test_smoothing_is_over_an_odd_number_of_steps(smooth: int, tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", never_calls())
    with pytest.raises(UsageError, match="odd number"):
        next(figures(analysis, smooth=smooth))


def test_groups_are_refused(tmp_path: Path) -> None:
    outcomes = [replace(each, groups={"kind": each.sample_id}) for each in never_calls()]
    run = run_of(tmp_path / "run", outcomes)
    with pytest.raises(UsageError, match="whole benchmarks"):
        next(figures(analyze(run.path, by_group="kind", resamples=10)))


def test_several_series_are_named_in_the_files(tmp_path: Path) -> None:
    both = [replace(each, series=series) for series in ("rl", "sft") for each in never_calls()]
    analysis = analyze(run_of(tmp_path / "run", both).path, resamples=10)
    names = {name for name, _ in figures(analysis)}
    assert names == {f"{kind}.{series}" for kind in KINDS for series in ("rl", "sft")}


def test_the_same_numbers_give_the_same_files(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", never_calls())
    for place in ("one", "other"):
        for name, figure in islice(figures(analysis), 2):
            write_figure(figure, tmp_path / place, name)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 6
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


def test_drawing_leaves_the_settings_of_matplotlib_alone(tmp_path: Path) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    analysis = analysis_of(tmp_path / "run", never_calls())
    for name, figure in figures(analysis):
        write_figure(figure, tmp_path / "figures", name, ("png",))
        assert_legible(name, figure)
    assert dict(mpl.rcParams) == before


def test_the_line_of_a_figure_shows_the_table_s_numbers(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", story(benchmarks={"vstar": 50}))
    (line,) = [
        line
        for line in dict(figures(analysis))["measure"].axes[3].lines
        if line.get_marker() == "o"
    ]
    expected = 100 * analysis.measure["available"].to_numpy()
    assert np.allclose(np.asarray(line.get_ydata(), dtype=float), expected)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([0.5], [0.5]),
        ([0.5, 0.5], [0.4, 0.6]),
        ([1.0, 1.0, 1.0], [0.6, 0.8, 1.0]),
        ([0.0, 0.05], [0.0, 0.2]),
        ([0.9, 0.1], [0.9, 0.1]),
    ],
)
def test_labels_move_apart_and_stay_inside(places: list[float], expected: list[float]) -> None:
    assert apart(places, 0.2, 0.0, 1.0) == pytest.approx(expected)


def test_smoothing_never_crosses_a_gap() -> None:
    values = np.array([0.0, 3.0, 6.0, np.nan, 10.0, 20.0, 60.0])
    found = smoothed(values, 3)
    assert np.allclose(found, [0.0, 3.0, 6.0, np.nan, 10.0, 30.0, 60.0], equal_nan=True)


def test_stretches_of_nothing_are_none() -> None:
    assert stretches([False, False]) == []


def test_a_name_is_one_short_line_and_no_formula() -> None:
    assert plain("a$b\nc") == r"a\$b c"
    assert len(plain("x" * 99)) == style.LONGEST_NAME


def test_the_simulated_story_is_told_by_its_numbers(tmp_path: Path) -> None:
    analysis = analysis_of(tmp_path / "run", story())
    mean = analysis.explain[analysis.explain["benchmark"] == "mean of benchmarks"]
    harm = mean["call_harm"].to_numpy()
    assert harm[0] > 3 * harm[-1] > 0
    free = analysis.measure[analysis.measure["benchmark"] == "mean of benchmarks"]["free"]
    assert free.is_monotonic_increasing
    assert free.iloc[-1] - free.iloc[0] > 0.2
