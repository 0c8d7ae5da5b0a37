"""ReFocus: questions about bar charts, subfigures and tables whose parts have named boxes.

Rows: https://huggingface.co/datasets/ReFocus/ReFocus_Data, folder "test_data_with_bounding_box "
(with the space at its end), each file one object of rows by id: chartQA_h_bar_wbb.json (444) and
chartQA_v_bar_wbb.json (382), charxiv-subfigures.json (143), tablevqa_wbb.json (750),
tablevqa-vwtq_syn_wbb.json and tablevqa-vtabfact_wbb.json (250 each). Columns as
zeyofu/ReFocus_Code, src/main_*.py at commit 8412b5f reads them: figure_path, query (of a subfigure:
prompt) and answer; of a chart x_values, x_bboxes, y_values, y_bboxes; of a table column_headers,
columns_bbox, row_starters, rows_bbox. The files could not be read; counts are those of
VTool-R1 and TableVQA-Bench. figure_path leads to a file as on the authors' machine: it is looked
for from the repository's top, then by the end of its path in the zip archives of images/.

The question is put as it is: the published prompts are those of the tools.

The named boxes are kept for tools, in `metadata["regions"]`: axis (x, y, column or row), name, and
box as left, top, right, bottom, 0 to 1 of the image. They were found by OpenCV: some are empty or
overlap, names may occur twice, and where rows or columns could not be matched there are none. They
say what there is, not what a question is about, so a sample has no target boxes.
"""

from medeval import Benchmark, HubFiles, Row, Sample
from medeval.errors import DataError
from medeval.types.sample import JsonValue

FOLDER = "test_data_with_bounding_box "
CHARTS = (f"{FOLDER}/chartQA_h_bar_wbb.json", f"{FOLDER}/chartQA_v_bar_wbb.json")
# Which columns hold the names and the boxes along each axis.
AXES = {
    "x": ("x_values", "x_bboxes"),
    "y": ("y_values", "y_bboxes"),
    "column": ("column_headers", "columns_bbox"),
    "row": ("row_starters", "rows_bbox"),
}


def regions(row: Row) -> list[JsonValue]:
    """The named boxes of an image, axis by axis, in the order of the file."""
    found: list[JsonValue] = []
    for axis, (names, boxes) in AXES.items():
        named = row.texts(names) if row.get(names) else ()
        framed = row.get(boxes) or []
        if not isinstance(framed, list) or len(framed) < len(named):
            raise DataError(f"row {row.index}: {len(named)} {names}, but {boxes} is {framed!r}")
        for name, box in zip(named, framed, strict=False):
            sides: list[JsonValue] = [float(box[side]) for side in ("x1", "y1", "x2", "y2")]
            found.append({"axis": axis, "name": name, "box": sides})
    return found


def to_sample(row: Row) -> Sample:
    """A row of any part."""
    bars = "horizontal" if "_h_bar_" in row.table else "vertical"
    return Sample(
        id=row.text("key"),
        question=row.text("query" if "query" in row else "prompt"),
        images=(row.image_file(row.text("figure_path")),),
        targets=(row.text("answer"),),
        groups={"bars": bars} if "_bar_" in row.table else {},
        metadata={"regions": regions(row)},
    )


def refocus(part: str, title: str, table: str | tuple[str, ...], count: int) -> Benchmark:
    """One part of ReFocus."""
    return Benchmark(
        name=f"refocus_{part}",
        title=f"ReFocus, {title}",
        rows=HubFiles(
            "ReFocus/ReFocus_Data",
            table=table,
            allow_patterns=("images/*",),
            paths_from="repository",
            archives=("images/*.zip",),
        ),
        count=count,
        columns=("key", "figure_path", "answer"),
        to_sample=to_sample,
        judge="refocus" if part == "chart" else "refocus_brief",
        groups=("bars",) if part == "chart" else (),
        licence="Apache-2.0 (charts, papers and tables: as ChartQA, CharXiv and TableVQA-Bench)",
        citation="Fu et al., ReFocus, ICML 2025, arXiv:2501.05452",
    )


REFOCUS_CHART = refocus("chart", "horizontal and vertical bars of ChartQA", CHARTS, 826)
REFOCUS_CHARXIV = refocus(
    "charxiv", "subfigures of CharXiv", f"{FOLDER}/charxiv-subfigures.json", 143
)
REFOCUS_VWTQ = refocus("vwtq", "TableVQA-Bench vwtq", f"{FOLDER}/tablevqa_wbb.json", 750)
REFOCUS_VWTQ_SYN = refocus(
    "vwtq_syn", "TableVQA-Bench vwtq_syn", f"{FOLDER}/tablevqa-vwtq_syn_wbb.json", 250
)
REFOCUS_VTABFACT = refocus(
    "vtabfact", "TableVQA-Bench vtabfact", f"{FOLDER}/tablevqa-vtabfact_wbb.json", 250
)
