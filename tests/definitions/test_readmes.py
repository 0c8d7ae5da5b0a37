import asyncio
import io
import re
from pathlib import Path

import pytest
from PIL import Image

from medeval.data.benchmark import Benchmark
from medeval.data.rows import open_rows
from medeval.evaluation.loader import load, shipped
from medeval.scoring.grade import grade_answer
from medeval.scoring.judge import Judge
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def written_out(readme: str, path: Path) -> str:
    (code,) = BLOCK.findall((ROOT / readme).read_text(encoding="utf-8"))
    path.write_text(code, encoding="utf-8")
    return str(path)


def table_rows(readme: str) -> dict[str, str]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    return {
        name: line for line in text.splitlines() for name in re.findall(r"^\| `(\w+)` \|", line)
    }


def test_the_benchmark_of_the_readme_runs(tmp_path: Path) -> None:
    loaded = load(written_out("benchmarks/README.md", tmp_path / "colours.py"), Benchmark)
    rows = open_rows(loaded.value.rows)
    samples = [loaded.value.to_sample(row) for row in rows]
    assert len(samples) == loaded.value.count == 3
    assert [sample.id for sample in samples] == ["red-0", "red-1", "red-2"]
    assert all(column in row for row in rows for column in loaded.value.columns)
    picture = Image.open(io.BytesIO(samples[0].images[0].read()))
    assert picture.convert("RGB").getcolors() == [(32 * 32, (255, 0, 0))]
    judge = load(loaded.value.judge, Judge)
    answer = Answer(text="Red.", how_found="answer_tag", reply="<answer>Red.</answer>")
    graded = asyncio.run(grade_answer(samples[0], answer, "answered", judge))
    assert graded.verdict.status == "correct"


@pytest.mark.parametrize(
    ("text", "status", "score"),
    [
        ("4", "correct", 1.0),
        ("5", "incorrect", 0.5),
        ("9", "incorrect", 0.0),
        ("four", "incorrect", 0.0),
    ],
)
def test_the_judge_of_the_readme_runs(tmp_path: Path, text: str, status: str, score: float) -> None:
    judge = load(written_out("judges/README.md", tmp_path / "near_count.py"), Judge)
    sample = Sample(id="s", question="How many?", images=(), targets=("4",))
    answer = Answer(text=text, how_found="answer_tag", reply=text)
    graded = asyncio.run(grade_answer(sample, answer, "answered", judge))
    assert (graded.verdict.status, graded.verdict.score) == (status, score)


def test_the_examples_are_about_20_lines() -> None:
    for readme in ("benchmarks/README.md", "judges/README.md"):
        (code,) = BLOCK.findall((ROOT / readme).read_text(encoding="utf-8"))
        assert sum(bool(line.strip()) for line in code.splitlines()) <= 25


def test_the_tables_list_what_is_shipped() -> None:
    benchmarks = {loaded.value.name: loaded.value for loaded in shipped(Benchmark)}
    listed = table_rows("benchmarks/README.md")
    assert set(listed) == set(benchmarks)
    for name, benchmark in benchmarks.items():
        assert f"`{benchmark.judge}`" in listed[name]
        assert benchmark.count is None or f"{benchmark.count:,}" in listed[name]

    judges = {loaded.value.name: loaded.value for loaded in shipped(Judge)}
    listed = table_rows("judges/README.md")
    assert set(listed) == set(judges)
    for name, judge in judges.items():
        assert f"| {judge.metric} | {judge.correct_at} |" in listed[name]


def test_every_benchmark_names_a_shipped_judge() -> None:
    names = {loaded.value.name for loaded in shipped(Judge)}
    assert {loaded.value.judge for loaded in shipped(Benchmark)} <= names
