"""Every difference between a benchmark's rows and its definition is a Problem."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from medeval.errors import DataError
from medeval.evaluation.plan import plan_benchmarks
from medeval.evaluation.plan_file import PlanFile
from medeval.evaluation.validate import Problem, find_problems
from tests.small_benchmark import png, write_benchmark, write_judge

DEFINITION = """from medeval import AxisLine, Benchmark, Box, HubRows, Point, Sample, pixels
from medeval.types.geometry import RELATIVE


def to_sample(row):
    return Sample(
        id=row.text("id"),
        question="?",
        images=row.images("images"),
        targets=row.texts("targets"),
        options=("red", "blue"),
        cluster=row.get("cluster"),
        target_boxes=[Box(*box, RELATIVE) for box in row.get("boxes") or ()],
        target_lines=[AxisLine("y", y, pixels(48, 40)) for y in row.get("lines") or ()],
        target_points=[Point(*xy, pixels(*size)) for *xy, size in row.get("points") or ()],
    )


MINE = Benchmark(
    name="mine", title="rows of a test", rows=HubRows("none/none", split="test"), count={count},
    columns=("id", "images", "targets"), to_sample=to_sample, judge="choice",
)
"""


def problems(benchmark: Path, **options: Any) -> list[Problem]:
    asked = PlanFile.model_validate({"benchmarks": [str(benchmark)], **options})
    _, found = find_problems(plan_benchmarks(asked)[0], asked)
    return list(found)


def rows(
    folder: Path, *given: Mapping[str, object], count: int | None = None, says: str = ""
) -> list[Problem]:
    """The problems of a local copy with the given rows, each completed to a valid row.

    `says` is what the definition declares besides.
    """
    (folder / "a.png").write_bytes(png())
    sound = {"images": ["a.png"], "targets": ["A"]}
    filled = [{"id": f"s{index}", **sound, **row} for index, row in enumerate(given)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in filled))
    path = folder / "mine.py"
    definition = DEFINITION.format(count=len(given) if count is None else count)
    path.write_text(definition.replace('judge="choice",', f'judge="choice", {says}'))
    return problems(path, data_dir=[str(folder)])


def test_sound_rows_have_no_problem(tmp_path: Path) -> None:
    assert problems(write_benchmark(tmp_path)) == []
    assert rows(tmp_path, {}, {"targets": ["B"]}, {"images": ["a.png", "a.png"]}) == []


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"images": []}, "no image"),
        ({"targets": []}, "no target: it gets no score"),
        ({"targets": ["A", "E"]}, "judge 'choice' grades the target 'A' as undecided: sample 's0': "
         "targets ('A', 'E') name no option of 2"),
        ({"images": ["absent.png"]}, "no file 'absent.png'"),
    ],
)  # fmt: skip
def test_a_row_that_is_off_is_named(tmp_path: Path, row: Mapping[str, object], what: str) -> None:
    found = rows(tmp_path, row, {})
    assert {problem.sample_id for problem in found} == {"s0"}
    assert what in found[0].what


def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    (problem,) = problems(write_benchmark(tmp_path, broken=(3,)))
    assert problem.sample_id == "s003"
    assert "is not an image we read" in problem.what


def test_an_id_that_is_given_twice_is_named(tmp_path: Path) -> None:
    (problem,) = rows(tmp_path, {"id": "same"}, {"id": "same"})
    assert problem == Problem(sample_id="same", what="two samples have this id")


def test_another_number_of_rows_than_published_is_told_for_the_whole_only(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, 3, count=4)
    (problem,) = problems(path)
    assert problem == Problem(sample_id=None, what="3 rows here, 4 were published")
    assert problems(path, limit=2) == problems(path, sample_id=["s001"]) == []


def test_a_benchmark_without_a_published_number_has_any(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path, 3)
    path.write_text(path.read_text().replace("count=3", "count=None"))
    assert problems(path) == []


def test_a_row_that_cannot_become_a_sample_ends_the_check(tmp_path: Path) -> None:
    found = rows(tmp_path, {"targets": ["E"]}, {"targets": [None]}, {"images": []})
    assert [problem.sample_id for problem in found] == ["s0", None]
    assert "expected text, got None" in found[1].what
    assert found[1].what.endswith("; no row after this one was checked")


def test_targets_are_not_checked_by_a_judge_that_needs_a_server(tmp_path: Path) -> None:
    judge = write_judge(tmp_path, raises=("s000",))
    path = write_benchmark(tmp_path, 2, judge=judge)
    (problem,) = problems(path)
    assert problem.what.startswith(
        "judge 'letter' grades the target 'A' as undecided: the judge failed"
    )
    judge.write_text(judge.read_text().replace("grade=grade,", "ask=grade,"))
    assert problems(path) == []


def test_a_target_that_scores_too_low_is_named_with_its_score(tmp_path: Path) -> None:
    judge = write_judge(tmp_path, correct_at=2.0)
    found = problems(write_benchmark(tmp_path, 1, judge=judge))
    assert [problem.what for problem in found] == [
        "judge 'letter' grades the target 'A' as incorrect: score 1.0"
    ]


def test_rows_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    path = write_benchmark(tmp_path)
    with pytest.raises(DataError):
        problems(path, data_dir=[str(tmp_path / "absent")])


def test_clusters_are_as_large_as_the_benchmark_says(tmp_path: Path) -> None:
    given: list[dict[str, object]] = [{"cluster": name} for name in ("a", "a", "b", None)]
    found = rows(tmp_path, *given, says="cluster_size=2")
    assert [(problem.sample_id, problem.what) for problem in found] == [
        (None, "1 samples are in cluster 'b', not 2"),
        (None, "1 samples are in no cluster"),
    ]
    assert rows(tmp_path, *given) == []


def test_a_benchmark_without_labels_needs_no_targets(tmp_path: Path) -> None:
    assert rows(tmp_path, {"targets": []}, says="labelled=False") == []


def test_a_target_that_is_not_in_the_image_is_named(tmp_path: Path) -> None:
    found = rows(
        tmp_path,
        {
            "boxes": [[0.5, 0.5, 1.5, 1.5], [1.1, 0, 1.2, 1]],
            "lines": [40, 41],
            "points": [[9, 40, [48, 40]], [-1, 0, [48, 40]], [9, 9, [480, 400]]],
        },
        {"boxes": [[0, 0, 1, 1]]},
    )
    assert found == [
        Problem(
            sample_id="s0", what="the target box [1.1, 0, 1.2, 1] relative lies outside the image"
        ),
        Problem(sample_id="s0", what="the target line y = 41 pixels lies outside the image"),
        Problem(sample_id="s0", what="the target point (-1, 0) pixels lies outside the image"),
        Problem(
            sample_id="s0",
            what="the target point (9, 9) pixels belongs to an image of 480 x 400, "
            "but this image has 48 x 40",
        ),
    ]
