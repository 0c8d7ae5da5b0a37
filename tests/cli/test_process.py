"""`medeval analyze --process`: a known mixture of good and bad calls is found again, exactly."""

import json
import re
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from click.testing import CliRunner

import medeval
from medeval.analysis.process.tables import TABLES
from medeval.cli import group
from medeval.data.symmetry import TURNS
from medeval.errors import UsageError
from tests.analysis.process.conversations import box_of, call, crop
from tests.cli.process_runs import Plan, Planned, analyzed, evaluated, row_of, widths
from tests.frozen_rows import NO_SHARED, SHARED

PAIR = """
from medeval import EvalProtocol, Pair, Sampling, crop_and_zoom
from medeval.tools.focus import VTOOL_V1, focus_tools
from medeval.tools.draw import draw_line, draw_point
from medeval.tools.rotate_flip import flip, rotate

FREE = EvalProtocol(
    name="free",
    user="$question",
    call_syntax="hermes",
    frame="pixels_raw",
    stop=("</tool_call>",),
    sampling=Sampling(temperature=0.0, max_tokens=64),
)
AVAILABLE = FREE.with_tools(
    crop_and_zoom(minimum_side_px=1, budget=None),
    rotate(),
    flip(),
    draw_line(),
    draw_point(),
    *focus_tools(VTOOL_V1),
    name="available",
    prompt="<tools>\\n$tools\\n</tools>",
    max_generations=8,
    max_calls=6,
)
MANY = Pair(name="many", free=FREE, available=AVAILABLE)
"""

TABLE_BENCHMARK = """
import json

from medeval import Benchmark, Box, HubFiles, Sample, pixels


def to_sample(row):
    size = row.image_size("image")
    frame = pixels(size.width_px, size.height_px)
    column = row["columns_bbox"][1]
    sides = [round(column[side] * length) for side, length in zip(
        ("x1", "y1", "x2", "y2"), (size.width_px, size.height_px) * 2, strict=True)]
    return Sample(
        id=row.text("id"),
        question=f"tables {row.index}: {row.text('question')}",
        images=(row.image_file(row.text("image")),),
        targets=("right",),
        groups={"bars": "vertical" if row.index % 2 else "horizontal"},
        target_boxes=(Box(*sides, frame),),
    )


TABLES = Benchmark(
    name="tables",
    title="real tables",
    rows=HubFiles("nobody/nothing", table="samples.jsonl"),
    to_sample=to_sample,
    judge="exact_match",
)
"""

DRAWN_BENCHMARKS = """
import io
from dataclasses import replace

from PIL import Image

from medeval import AxisLine, Benchmark, DrawnRows, Point, Sample, pixels
from medeval.data.symmetry import TURNS, turned

FRAME = pixels(400, 200)


def draw(index):
    buffer = io.BytesIO()
    Image.new("RGB", (400, 200), (index, 0, 0)).save(buffer, "PNG")
    return {"image": buffer.getvalue()}


def sample(name, row):
    return Sample(
        id=f"{name}{row.index}",
        question=f"{name} {row.index}:",
        images=(row.image("image"),),
        targets=("right",),
    )


def marked(row):
    return replace(
        sample("marked", row),
        target_lines=(AxisLine("x", 100, FRAME), AxisLine("y", 100, FRAME)),
        target_points=(Point(200, 50, FRAME),),
    )


def benchmark(name, n, to_sample):
    return Benchmark(
        name=name, title=name, rows=DrawnRows(n, draw), to_sample=to_sample, judge="exact_match"
    )


TURNED = benchmark(
    "turned", 14, lambda row: turned(sample("turned", row), TURNS[row.index % len(TURNS)])
)
MARKED = benchmark("marked", 8, marked)
"""

UNDOING: dict[str, tuple[tuple[str, Any], ...]] = {
    "rotate_90": (("rotate", 270),),
    "rotate_180": (("flip", "horizontal"), ("flip", "vertical")),
    "rotate_270": (("rotate", 90),),
    "flip_horizontal": (("flip", "horizontal"),),
    "flip_vertical": (("flip", "vertical"),),
    "transpose": (("rotate", 90), ("flip", "horizontal")),
    "transverse": (("rotate", 270), ("flip", "horizontal")),
}


def written_pair(folder: Path) -> str:
    path = folder / "many.py"
    path.write_text(PAIR)
    return str(path)


def table_plan(rows: list[dict[str, Any]]) -> Planned:
    """Six kinds of samples at step 0; at step 10 every crop is the target itself."""

    def planned(_: str, number: int, step: int) -> Plan:
        row = rows[number]
        width, height = row["image_size"]
        target = row["columns_bbox"][1]
        good = crop(
            round(target["x1"] * width),
            round(target["y1"] * height),
            round(target["x2"] * width),
            round(target["y2"] * height),
        )
        # the margin left of all columns
        bad = good if step else crop(0, 0, 5, height)
        column = box_of(
            *(
                target[side] * size
                for side, size in zip(("x1", "y1", "x2", "y2"), (width, height) * 2, strict=True)
            )
        )
        focus = call("focus_on_columns_with_draw", names=["a"], boxes={"a": column})
        other = call("focus_on_rows_with_draw", names=["a"], boxes={"a": column})
        plans: list[Plan] = [
            (False, [good], True),
            (True, [bad], False),
            (True, [bad, good], True),
            (False, [bad], False),
            (True, [], True),
            (False, [focus, other], False),
        ]
        return plans[number % 6]

    return planned


def focused(row: dict[str, Any]) -> tuple[float, float]:
    """Precision and recall of the second column against the whole pixels nearest to it."""
    sides = ("x1", "y1", "x2", "y2")
    exact = [
        row["columns_bbox"][1][side] * size
        for side, size in zip(sides, row["image_size"] * 2, strict=True)
    ]
    (x1, y1, x2, y2), (left, top, right, bottom) = exact, map(round, exact)
    shared = (min(x2, right) - max(x1, left)) * (min(y2, bottom) - max(y1, top))
    return shared / ((x2 - x1) * (y2 - y1)), shared / ((right - left) * (bottom - top))


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_a_known_mixture_on_real_tables_is_found_again(tmp_path: Path) -> None:
    data = SHARED / "tablevqa_rendered"
    rows = [json.loads(line) for line in (data / "samples.jsonl").read_text().splitlines()]
    (tmp_path / "tables.py").write_text(TABLE_BENCHMARK)
    evaluated(
        tmp_path,
        [str(tmp_path / "tables.py")],
        table_plan(rows),
        data_dir=[f"tables={data}"],
        limit=24,
        pairs=[written_pair(tmp_path)],
    )
    text, tables = analyzed(tmp_path)

    # 4 samples of each of the 6 kinds
    calls = row_of(tables["process_calls"], step=0)
    assert (calls["n"], calls["attempted"], calls["composite"]) == (24, 7 / 6, 1 / 6)
    assert calls["tools"] == 1.0
    zoom = row_of(tables["process_zoom"], step=0)
    assert (zoom["n"], zoom["cropped"]) == (24, pytest.approx(4 / 6))
    for name in ("modf1_best", "target_inside", "target_iou", "hit_iou_50", "modf1_final"):
        assert zoom[name] == pytest.approx(0.5), name
    assert zoom["modf1_best_n"] == 16
    later = row_of(tables["process_zoom"], step=10)
    assert (later["modf1_best"], later["crop_over_target"]) == (1.0, pytest.approx(1.0))

    # the crops of call gains are good, those of call harms bad
    inside = {
        name: row_of(tables["process_outcomes"], step=0, outcome=name)["target_inside"]
        for name in ("call gain", "call harm", "both right", "both wrong")
    }
    assert inside == {"call gain": 1.0, "call harm": 0.0, "both right": 1.0, "both wrong": 0.0}
    contrast = row_of(
        tables["process_contrasts"],
        step=0,
        measure="modf1_best",
        outcome="call gain",
        against="call harm",
    )
    assert contrast["difference"] == 1.0
    assert contrast["difference_low"] > 0.0
    quality = tables["process_quality"]
    good = row_of(quality, step=0, criterion="a target inside a crop", met=True)
    bad = row_of(quality, step=0, criterion="a target inside a crop", met=False)
    assert (good["gain_quality"], good["harm_quality"]) == (1.0, 0.0)
    assert (bad["gain_quality"], bad["harm_quality"]) == (0.0, 1.0)

    # numbers 5, 11, 17 and 23 are "vertical": a row tool is wrong for each of the four
    misuse = row_of(tables["process_misuse"], step=0)
    assert misuse["focus_attempted"] == misuse["focus_executed"] == 8
    assert misuse["misused_attempted"] == misuse["misused_executed"] == 4
    assert (misuse["samples_misused"], misuse["attempted_wrong"]) == (4, 0.5)
    assert (misuse["sample_misused"], misuse["call_executed"]) == (pytest.approx(4 / 24), 1.0)
    wrong = row_of(quality, step=0, criterion="no focus along the wrong axis", met=False)
    assert (wrong["n"], wrong["gain_quality"]) == (4, 0.0)
    focus = row_of(tables["process_focus"], step=0)
    precision, recall = (mean(each) for each in zip(*map(focused, rows[5:24:6]), strict=True))
    assert focus["focus_precision"] == pytest.approx(precision, rel=1e-9)
    assert focus["focus_recall"] == pytest.approx(recall, rel=1e-9)

    tools = tables["process_tools"]
    assert row_of(tools, step=0, tool="crop_and_zoom")["modf1"] == pytest.approx(8 / 20)
    assert row_of(tools, step=0, tool="focus_on_rows_with_draw")["misused"] == 1.0
    steps = tables["process_transitions"]
    first = row_of(steps, step=0, **{"from": "(start)", "to": "crop_and_zoom"})
    assert (first["count"], first["share"]) == (16, 0.8)
    assert row_of(steps, step=0, **{"from": "crop_and_zoom", "to": "crop_and_zoom"})["count"] == 4
    assert max(widths(text)) <= 125


def drawn_plan(name: str, number: int, step: int) -> Plan:
    if name == "turned":
        # the second seven end one call too late at step 0: the image is mirrored again
        calls = [
            call(tool, image_index=at, **{"angle" if tool == "rotate" else "direction": argument})
            for at, (tool, argument) in enumerate(UNDOING[TURNS[number % 7]])
        ]
        if number >= 7 and not step:
            calls.append(call("flip", direction="vertical", image_index=len(calls)))
        return number % 2 == 0, calls, number < 7
    exact = [
        call("draw_line", axis="x", value=100),
        call("draw_line", axis="y", value=100 if step else 125, image_index=1),
        call("draw_point", x=200, y=50, image_index=2),
    ]
    return False, exact if number < 4 else [], number < 4


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder beside a run on turned and on marked images."""
    path = tmp_path_factory.mktemp("drawn")
    evaluate_drawn(path)
    return path


def evaluate_drawn(tmp_path: Path, **options: Any) -> None:
    (tmp_path / "drawn.py").write_text(DRAWN_BENCHMARKS)
    benchmarks = [f"{tmp_path / 'drawn.py'}::{name}" for name in ("turned", "marked")]
    evaluated(tmp_path, benchmarks, drawn_plan, pairs=[written_pair(tmp_path)], **options)


def test_known_turns_lines_and_points_are_found_again(drawn: Path) -> None:
    text, tables = analyzed(drawn)

    turned = {step: row_of(tables["process_orientation"], step=step) for step in (0, 10)}
    assert [turned[step]["upright_best"] for step in (0, 10)] == [1.0, 1.0]
    assert [turned[step]["upright_final"] for step in (0, 10)] == [0.5, 1.0]
    assert turned[0]["upright_at_start"] == 0.0
    gains = row_of(tables["process_outcomes"], step=0, benchmark="turned", outcome="call gain")
    harms = row_of(tables["process_outcomes"], step=0, benchmark="turned", outcome="call harm")
    assert (gains["n"], harms["n"]) == (3, 3)
    assert (gains["upright_final"], harms["upright_final"]) == (1.0, 0.0)

    # half of the samples: x exact, y half a reach off at step 0; the other half draws nothing
    marks = {step: row_of(tables["process_marks"], step=step) for step in (0, 10)}
    assert [marks[step]["line_final"] for step in (0, 10)] == [pytest.approx(0.375), 0.5]
    assert [marks[step]["point_final"] for step in (0, 10)] == [0.5, 0.5]
    line = row_of(tables["process_tools"], step=10, benchmark="marked", tool="draw_line")
    assert line["line"] == pytest.approx((2 / 3 + 1) / 2)
    assert "Process, orientation" in text
    assert "process_zoom" not in tables

    calls = tables["process_calls"][tables["process_calls"]["step"] == 0].set_index("benchmark")
    mean = calls.loc["mean of benchmarks"]
    assert mean["attempted"] == pytest.approx(calls["attempted"][["turned", "marked"]].mean())
    assert (mean["attempted_benchmarks"], mean["n"]) == (2, 22)
    assert re.search("^mean of 2 +0 +22 ", text, re.MULTILINE)
    assert "A mean of benchmarks is unweighted" in text
    # the turned images' calls that gained ended upright, and those that harmed did not
    signs = re.search("^turned +0 +upright, end +100 .*?] +(.) .*] +(.) ", text, re.MULTILINE)
    assert signs is not None and signs.groups() == (">", "<")


def test_groups_and_json(drawn: Path) -> None:
    text, tables = analyzed(
        drawn, "--by-group", "orientation", "--benchmarks", "turned", "--format", "json"
    )
    found = json.loads(text)
    assert {name for name in found if name.startswith("process_")} <= set(TABLES)
    assert len(found["process_orientation"]) == 2 * 7
    assert set(tables["process_orientation"]["group"]) == set(TURNS)
    assert row_of(tables["process_orientation"], step=0, group="transpose")["n"] == 2


def test_the_tables_go_where_nothing_asks_for_them_any_more(drawn: Path) -> None:
    analyzed(drawn)
    command = ["analyze", str(drawn / "run"), "--resamples", "50"]
    result = CliRunner().invoke(group, command, catch_exceptions=False)
    assert not re.search("^Process", result.stdout, re.MULTILINE)
    assert list((drawn / "run/tables").glob("process_*.csv")) == []


def test_a_shared_baseline_is_step_0_of_the_series(tmp_path: Path) -> None:
    evaluate_drawn(tmp_path, baseline=str(tmp_path / "rl/global_step_0"), steps=[10])
    _, tables = analyzed(tmp_path)
    assert sorted(set(tables["process_calls"]["step"])) == [0, 10]


def test_a_frame_of_outcomes_has_nothing_to_measure(drawn: Path) -> None:
    run = medeval.load_run(drawn / "run")
    assert "process_marks" in medeval.analyze(run, resamples=50).process
    with pytest.raises(UsageError, match="no trajectories to measure"):
        _ = medeval.analyze(run.outcomes, resamples=50).process
