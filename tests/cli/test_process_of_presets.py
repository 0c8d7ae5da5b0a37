"""`native5` and `vtool_r1` on real tables: a known mixture of calls is found again, exactly."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from medeval.types.sample import JsonValue
from tests.analysis.process.conversations import call
from tests.cli.process_runs import Plan, Planned, analyzed, evaluated, row_of
from tests.frozen_rows import NO_SHARED, SHARED

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)

DATA = SHARED / "tablevqa_rendered"
N = 8

BENCHMARK = """
from medeval import Benchmark, Box, HubFiles, Sample
from medeval.types.geometry import RELATIVE

SIDES = ("x1", "y1", "x2", "y2")


def to_sample(row):
    headers = row["column_headers"]
    at = next((i for i, name in enumerate(headers) if i and headers.count(name) == 1), 1)
    listed = [("column", "column_headers", "columns_bbox"), ("row", "row_starters", "rows_bbox")]
    return Sample(
        id=row.text("id"),
        question=f"tables {row.index}: {row.text('question')}",
        images=(row.image_file(row.text("image")),),
        targets=("right",),
        groups={"bars": "vertical"},
        target_boxes=(Box(*(row["columns_bbox"][at][side] for side in SIDES), RELATIVE),),
        metadata={
            "regions": [
                {"axis": axis, "name": name, "box": [box[side] for side in SIDES]}
                for axis, names, boxes in listed
                for name, box in zip(row[names], row[boxes], strict=True)
            ]
        },
    )


TABLES = Benchmark(
    name="tables",
    title="real tables",
    rows=HubFiles("nobody/nothing", table="samples.jsonl"),
    to_sample=to_sample,
    judge="exact_match",
)
"""


def rows() -> list[dict[str, Any]]:
    lines = (DATA / "samples.jsonl").read_text().splitlines()[:N]
    return [json.loads(line) for line in lines]


def target(row: dict[str, Any]) -> int:
    headers = row["column_headers"]
    return next(i for i, name in enumerate(headers) if i and headers.count(name) == 1)


def run(tmp_path: Path, preset: str, planned: Planned) -> dict[str, Any]:
    (tmp_path / "tables.py").write_text(BENCHMARK)
    evaluated(
        tmp_path,
        [str(tmp_path / "tables.py")],
        planned,
        pairs=[preset],
        data_dir=[f"tables={DATA}"],
        limit=N,
        steps=[0],
    )
    return analyzed(tmp_path)[1]


def zoom(box: dict[str, float], image: int = 0) -> str:
    """A zoom in thousandths of an image."""
    sides: list[JsonValue] = [1000 * box[side] for side in ("x1", "y1", "x2", "y2")]
    return call("zoom", bbox_2d=sides, image_index=image)


# At the left edge, where no table has a column to look for.
BAD = {"x1": 0.0, "y1": 0.0, "x2": 0.001, "y2": 1.0}


def native5_plan(_: str, number: int, __: int) -> Plan:
    row = rows()[number]
    box = row["columns_bbox"][target(row)]
    bad = zoom(BAD)
    whole = zoom({"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0})
    plans: list[Plan] = [
        (False, [zoom(box)], True),
        (True, [bad], False),
        (True, [whole, zoom(box, image=1)], True),
        (False, [], False),
    ]
    return plans[number % 4]


# The least side of a zoom of native5, in pixels.
LEAST = 28


def cut(start: float, end: float, side: int) -> tuple[int, int]:
    """A stretch, 0 to 1 of a side, in the pixels that a zoom cuts: rounded outwards, then grown."""
    # a number that is whole but for the last digits of its thousandths stays whole
    first, last = math.floor(start * side + 1e-6), math.ceil(end * side - 1e-6)
    missing = max(0, LEAST - (last - first))
    first = min(max(first - missing // 2, 0), side - LEAST) if missing else first
    return first, max(last, first + LEAST)


def zoomed(row: dict[str, Any], box: dict[str, float]) -> tuple[float, float, float]:
    """ModF1, IoU and area over the target's, of the pixels that a zoom cuts, by hand."""
    width, height = row["image_size"]
    (left, right), (top, bottom) = (
        cut(box["x1"], box["x2"], width),
        cut(box["y1"], box["y2"], height),
    )
    wanted = row["columns_bbox"][target(row)]
    x1, x2 = wanted["x1"] * width, wanted["x2"] * width
    y1, y2 = wanted["y1"] * height, wanted["y2"] * height
    shared = max(0.0, min(right, x2) - max(left, x1)) * max(0.0, min(bottom, y2) - max(top, y1))
    area, needed = (right - left) * (bottom - top), (x2 - x1) * (y2 - y1)
    extra, missed = area - shared, needed - shared
    modf1 = 2 * shared / (2 * shared + 0.1 * extra + 1.0 * missed)
    return modf1, shared / (area + needed - shared), area / needed


def test_native5_zooms(tmp_path: Path) -> None:
    tables = run(tmp_path, "native5", native5_plan)

    assert row_of(tables["process_calls"])["executed"] == 1.0
    found = row_of(tables["process_zoom"])
    assert (found["cropped"], found["modf1_best_n"], found["modf1_cited_n"]) == (0.75, 6, 6)
    for name in ("target_inside", "all_targets_inside", "hit_iou_50"):
        assert found[name] == pytest.approx(2 / 3), name
    good = [
        zoomed(row, row["columns_bbox"][target(row)])
        for number, row in enumerate(rows())
        if number % 4 in (0, 2)
    ]
    bad = [zoomed(row, BAD) for row in rows()[1::4]]
    assert [each[:2] for each in bad] == [(0.0, 0.0)] * 2
    assert 0.97 < min(each[0] for each in good) < max(each[0] for each in good) < 1.0
    for name in ("modf1_best", "modf1_final", "modf1_cited"):
        assert found[name] == pytest.approx(sum(each[0] for each in good) / 6, rel=1e-9), name
    assert found["target_iou"] == pytest.approx(sum(each[1] for each in good) / 6, rel=1e-9)
    ratios = math.prod(each[2] for each in [*good, *bad]) ** (1 / 6)
    assert found["crop_over_target"] == pytest.approx(ratios, rel=1e-9)
    outcomes = tables["process_outcomes"]
    inside = [
        row_of(outcomes, outcome=name)["target_inside"]
        for name in ("call gain", "call harm", "both right")
    ]
    assert inside == [1.0, 0.0, 1.0]


def focus(axis: str, name: str) -> str:
    return (
        "ACTION 0:\n```python\n"
        f"image = focus_on_{axis}_with_draw(image_1, [{name!r}], {axis}_bbox)\n"
        "display(image)\n```"
    )


def vtool_plan(_: str, number: int, __: int) -> Plan:
    row = rows()[number]
    at, headers = target(row), row["column_headers"]
    # of two columns of one name the later counts, which the target never is
    other = next(name for i, name in enumerate(headers) if i != at)
    plans: list[Plan] = [
        (False, [focus("columns", headers[at])], True),
        (True, [focus("columns", other)], False),
        (False, [focus("rows", row["row_starters"][1])], False),
        (True, [], True),
    ]
    return plans[number % 4]


def by_hand(row: dict[str, Any]) -> tuple[float, float]:
    """Precision and recall of the second row against the target column."""
    column = row["columns_bbox"][target(row)]
    starters = row["row_starters"]
    # a name that occurs twice has the later box
    own = row["rows_bbox"][len(starters) - 1 - starters[::-1].index(starters[1])]
    width, height = column["x2"] - column["x1"], own["y2"] - own["y1"]
    return width / (own["x2"] - own["x1"]), height / (column["y2"] - column["y1"])


def test_vtool_r1_focuses(tmp_path: Path) -> None:
    tables = run(tmp_path, "vtool_r1", vtool_plan)

    precisions, recalls = zip(*(by_hand(row) for row in rows()[2::4]), strict=True)
    found = row_of(tables["process_focus"])
    assert found["n"] == 6
    assert found["focus_precision"] == pytest.approx((2 + sum(precisions)) / 6)
    assert found["focus_recall"] == pytest.approx((2 + sum(recalls)) / 6)
    misuse = row_of(tables["process_misuse"])
    counts = ["focus_attempted", "misused_attempted", "focus_executed", "misused_executed"]
    assert [misuse[name] for name in counts] == [6, 2, 6, 2]
    assert (misuse["samples_misused"], misuse["sample_called"]) == (2, 0.75)
    outcomes = tables["process_outcomes"]
    assert row_of(outcomes, outcome="call gain")["focus_precision"] == pytest.approx(1.0)
    assert row_of(outcomes, outcome="call harm")["focus_recall"] == pytest.approx(0.0)
    assert row_of(outcomes, outcome="both wrong")["wrong_axis"] == 1.0
