"""VisualProbe: open questions about small things in large photographs, at three difficulties.

Rows: https://huggingface.co/datasets/Mini-o3/VisualProbe_Easy, _Medium and _Hard, val.json of 141,
268 and 106 objects with images (one path), problem, solution, doc_id and data_source, as
dddraxxx/Mini-o3, examples/minio3/preprocess_visualprobe.py at commit 27f814f reads them; the
files themselves could not be read. A path begins with the repository's own name
(VisualProbe_Easy/data/7.jpg), and is taken relative to the repository without it. A row without a
doc_id has its position as id.

The question is put as it is, without an instruction. The authors report the mean of 32 samples a
question at temperature 1 (`--repeats 32 --temperature 1`), judged by a model.
"""

from medeval import Benchmark, HubFiles, Row, Sample


def to_sample(row: Row) -> Sample:
    """A row of VisualProbe."""
    names = [name.split("/") for name in row.texts("images")]
    return Sample(
        id=row.text("doc_id") if row.get("doc_id") is not None else f"val-{row.index:05d}",
        question=row.text("problem").replace("<image>", "").strip(),
        images=tuple(
            row.image_file("/".join(name[name[0].startswith("VisualProbe") :])) for name in names
        ),
        targets=(row.text("solution"),),
    )


def visual_probe(difficulty: str, count: int) -> Benchmark:
    """VisualProbe at one difficulty: Easy, Medium or Hard."""
    return Benchmark(
        name=f"visual_probe_{difficulty.lower()}",
        title=f"VisualProbe {difficulty}",
        aliases=(f"VisualProbe_{difficulty}",),
        rows=HubFiles(
            f"Mini-o3/VisualProbe_{difficulty}", table="val.json", allow_patterns=("data/*",)
        ),
        count=count,
        columns=("images", "problem", "solution"),
        to_sample=to_sample,
        judge="visual_probe",
        suite="visual_probe",
        licence="CC BY-NC 4.0",
        citation="Lai et al., Mini-o3, 2025, arXiv:2509.07969",
    )


VISUAL_PROBE_EASY = visual_probe("Easy", 141)
VISUAL_PROBE_MEDIUM = visual_probe("Medium", 268)
VISUAL_PROBE_HARD = visual_probe("Hard", 106)
