"""ReFocus: rows by id, named boxes, and images that are found by the end of their path."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from medeval.data.benchmark import Benchmark
from medeval.data.rows import HubFiles, open_rows
from medeval.errors import DataError
from medeval.evaluation.loader import load
from medeval.types.sample import Sample
from tests.frozen_rows import NO_SHARED, SHARED, picture, prompt, without_images

CHART = load("refocus_chart", Benchmark).value
VWTQ = load("refocus_vwtq", Benchmark).value
FOLDER = "test_data_with_bounding_box "


def box(left: float, top: float, right: float, bottom: float) -> dict[str, float]:
    return {"x1": left, "y1": top, "x2": right, "y2": bottom}


HORIZONTAL = {
    "figure_path": "data/ChartQA Dataset/test/png/12.png",
    "query": "What is the value of Japan?",
    "answer": "42",
    "x_values": [],
    "x_bboxes": [],
    "y_values": ["Japan", "China"],
    "y_bboxes": [box(0.1, 0.0, 0.9, 0.5), box(0.1, 0.5, 0.9, 1.0)],
    "figure_bbox": box(0, 0, 1, 1),
}
VERTICAL = {
    **HORIZONTAL,
    "x_values": [2005],
    "x_bboxes": [box(0.2, 0.1, 0.4, 0.9)],
    "y_values": [],
    "y_bboxes": [],
}


def write(folder: Path, tables: Mapping[str, object]) -> Path:
    """The layout of the official repository: tables by id, images in an archive."""
    (folder / FOLDER).mkdir()
    (folder / "images").mkdir()
    for name, rows in tables.items():
        (folder / FOLDER / name).write_text(json.dumps(rows, indent=4), encoding="utf-8")
    with zipfile.ZipFile(folder / "images" / "chart.zip", "w") as archive:
        archive.writestr("ChartQA Dataset/test/png/12.png", picture())
        archive.writestr("ChartQA Dataset/val/png/12.png", picture(9, 9))
        archive.writestr("__MACOSX/ChartQA Dataset/test/png/12.png", b"")
    return folder


def charts(folder: Path) -> list[Sample]:
    tables = {
        "chartQA_h_bar_wbb.json": {"7": HORIZONTAL},
        "chartQA_v_bar_wbb.json": {"8": VERTICAL},
    }
    return [CHART.to_sample(row) for row in open_rows(CHART.rows, write(folder, tables))]


@pytest.mark.parametrize(
    ("part", "tables", "count"),
    [
        ("chart", ("chartQA_h_bar_wbb.json", "chartQA_v_bar_wbb.json"), 826),
        ("charxiv", ("charxiv-subfigures.json",), 143),
        ("vwtq", ("tablevqa_wbb.json",), 750),
        ("vwtq_syn", ("tablevqa-vwtq_syn_wbb.json",), 250),
        ("vtabfact", ("tablevqa-vtabfact_wbb.json",), 250),
    ],
)
def test_the_parts_are_the_published_files(part: str, tables: tuple[str, ...], count: int) -> None:
    benchmark = load(f"refocus_{part}", Benchmark).value
    assert isinstance(benchmark.rows, HubFiles)
    assert benchmark.rows.repo == "ReFocus/ReFocus_Data"
    assert benchmark.rows.tables == tuple(f"{FOLDER}/{table}" for table in tables)
    judge = "refocus" if part == "chart" else "refocus_brief"
    assert (benchmark.count, benchmark.judge) == (count, judge)


def test_rows_become_these_samples_and_prompts(tmp_path: Path) -> None:
    horizontal, vertical = charts(tmp_path)
    assert without_images(horizontal) == Sample(
        id="7",
        question="What is the value of Japan?",
        images=(),
        targets=("42",),
        groups={"bars": "horizontal"},
        metadata={
            "regions": [
                {"axis": "y", "name": "Japan", "box": [0.1, 0.0, 0.9, 0.5]},
                {"axis": "y", "name": "China", "box": [0.1, 0.5, 0.9, 1.0]},
            ]
        },
    )
    assert prompt(horizontal) == "What is the value of Japan?"
    assert (vertical.id, vertical.groups) == ("8", {"bars": "vertical"})
    assert vertical.metadata == {
        "regions": [{"axis": "x", "name": "2005", "box": [0.2, 0.1, 0.4, 0.9]}]
    }


def test_an_image_is_the_archives_member_that_agrees_best(tmp_path: Path) -> None:
    horizontal, _ = charts(tmp_path)
    assert horizontal.images[0].read() == picture()


def test_a_file_in_the_repository_goes_before_an_archive(tmp_path: Path) -> None:
    horizontal, _ = charts(tmp_path)
    place = tmp_path / str(HORIZONTAL["figure_path"])
    place.parent.mkdir(parents=True)
    place.write_bytes(picture(3, 3))
    assert horizontal.images[0].read() == picture(3, 3)


def test_a_subfigure_is_asked_by_its_prompt(tmp_path: Path) -> None:
    benchmark = load("refocus_charxiv", Benchmark).value
    row = {"figure_path": "data/charxiv/3.jpg", "prompt": "Which subplot rises?", "answer": "(b)"}
    folder = write(tmp_path, {"charxiv-subfigures.json": {"3": row}})
    (sample,) = map(benchmark.to_sample, open_rows(benchmark.rows, folder))
    assert (sample.id, sample.question, sample.targets) == ("3", "Which subplot rises?", ("(b)",))
    assert sample.metadata == {"regions": []}
    with pytest.raises(DataError, match=r"no file 'data/charxiv/3\.jpg'"):
        sample.images[0].read()


def test_names_without_boxes_are_refused(tmp_path: Path) -> None:
    rows = {"1": {**HORIZONTAL, "y_bboxes": [box(0, 0, 1, 1)]}}
    folder = write(tmp_path, {"chartQA_h_bar_wbb.json": rows, "chartQA_v_bar_wbb.json": rows})
    with pytest.raises(DataError, match="2 y_values, but y_bboxes is"):
        CHART.to_sample(open_rows(CHART.rows, folder)[0])


@pytest.mark.skipif(not SHARED.is_dir(), reason=NO_SHARED)
def test_real_tables_keep_every_named_box(tmp_path: Path) -> None:
    place = SHARED / "tablevqa_rendered"
    lines = (place / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    items = [json.loads(line) for line in lines]
    rows = {
        item["id"]: {
            "figure_path": f"tablevqabench/{item['image']}",
            "query": item["question"],
            **{key: item[key] for key in ("answer", "column_headers", "columns_bbox",
                                          "row_starters", "rows_bbox")},
        }
        for item in items
    }  # fmt: skip
    folder = write(tmp_path, {"tablevqa_wbb.json": rows})
    with zipfile.ZipFile(folder / "images" / "table.zip", "w") as archive:
        for path in (place / "images").iterdir():
            archive.write(path, f"images/{path.name}")
    samples = [VWTQ.to_sample(row) for row in open_rows(VWTQ.rows, folder)]
    assert [sample.id for sample in samples] == [item["id"] for item in items]
    for sample, item in zip(samples, items, strict=True):
        regions = sample.metadata["regions"]
        assert isinstance(regions, list)
        names = [region["name"] for region in regions if isinstance(region, dict)]
        assert names == [*item["column_headers"], *item["row_starters"]]
        assert sample.images[0].read() == (place / item["image"]).read_bytes()
