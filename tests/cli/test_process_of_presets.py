"""`native5` and `vtool_r1` on real tables: a known mixture of calls is found again, exactly."""

import json
from pathlib import Path
from typing import Any

import pytest

from medeval.types import JsonValue
from tests.analysis.process.conversations import call
from tests.cli.process_runs import Plan, Planned, analyzed, evaluated, row_of
from tests.frozen_rows import NO_SHARED, SHARED

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)

DATA = SHARED / "tablevqa_rendered"
N = 8

BENCHMARK = """
from medeval import Benchmark, Box, HubFiles, Sample
from medeval.boxes import RELATIVE

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


def native5_plan(_: str, number: int, __: int) -> Plan:
    row = rows()[number]
    box = row["columns_bbox"][target(row)]
    bad = zoom({"x1": 0.0, "y1": 0.0, "x2": 0.001, "y2": 1.0})
    whole = zoom({"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0})
    plans: list[Plan] = [
        (False, [zoom(box)], True),
        (True, [bad], False),
        (True, [whole, zoom(box, image=1)], True),
        (False, [], False),
    ]
    return plans[number % 4]


def test_native5_zooms(tmp_path: Path) -> None:
    tables = run(tmp_path, "native5", native5_plan)

    assert row_of(tables["process_calls"])["executed"] == 1.0
    found = row_of(tables["process_zoom"])
    assert (found["cropped"], found["modf1_best_n"], found["modf1_cited_n"]) == (0.75, 6, 6)
    for name in ("target_inside", "all_targets_inside", "hit_iou_50"):
        assert found[name] == pytest.approx(2 / 3), name
    # a zoom is rounded out to whole pixels, of columns of a few dozen
    for name in ("modf1_best", "modf1_final", "modf1_cited"):
        assert found[name] == pytest.approx(2 / 3, abs=0.005), name
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
