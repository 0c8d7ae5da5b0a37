"""Answers in the format of a challenge that keeps the labels of its test split to itself.

DocVQA and InfographicVQA: a JSON list of objects with `questionId` (a number) and `answer`, one
for each question of the split, as https://rrc.cvc.uab.es/?ch=17 asks and lmms-eval writes it
(lmms_eval/tasks/docvqa/utils.py at commit 008ddc8).
"""

import json
from pathlib import Path

from medeval.errors import RecordError, UsageError
from medeval.store.files import write_whole
from medeval.store.keys import quoted
from medeval.store.run_folder import CellKey, RunFolder

SUBMITTED = ("docvqa_test", "infovqa_test")


def submission(folder: RunFolder, key: CellKey, *, repeat: int = 0) -> list[dict[str, int | str]]:
    """A cell's answers in the order of its samples; "" where the model gave none.

    Raises UsageError for a benchmark without such a format, and RecordError where a sample
    has no trajectory, because the challenge refuses a file that leaves questions out.
    """
    if key.benchmark not in SUBMITTED:
        raise UsageError(
            f"no submission format for benchmark {key.benchmark!r}",
            hint=f"there is one for {', '.join(SUBMITTED)}",
        )
    answers = {
        trajectory.sample_id: "" if trajectory.answer is None else trajectory.answer.text
        for trajectory in folder.cell(key).trajectories()
        if trajectory.repeat == repeat
    }
    ids = [sample.id for sample in folder.samples(key.benchmark)]
    missing = [name for name in ids if name not in answers]
    if missing or not ids:
        raise RecordError(
            f"{len(missing)} of {len(ids)} questions of {key.benchmark!r} have no trajectory "
            f"at repeat {repeat}: {', '.join(missing[:3]) or 'the run has no samples of it'}",
            hint="resume the run first: the challenge refuses a file that leaves questions out",
        )
    return [{"questionId": int(name), "answer": answers[name]} for name in ids]


def export_submissions(folder: RunFolder, output_dir: Path) -> list[Path]:
    """Write one file for each cell of a test split, from its first repeat; returns the files.

    Raises UsageError where the run has no such cell, and the errors of `submission`.
    """
    keys = [key for key in folder.cells() if key.benchmark in SUBMITTED]
    if not keys:
        raise UsageError(
            "the run has no benchmark whose answers are submitted to a challenge",
            hint=f"those benchmarks are {', '.join(SUBMITTED)}",
        )
    written: list[Path] = []
    for key in keys:
        step = "" if key.step is None else f".{key.step}"
        path = (
            output_dir / f"{key.benchmark}.{quoted(key.series)}{step}.{quoted(key.protocol)}.json"
        )
        answers = submission(folder, key)
        write_whole(path, [json.dumps(answers, ensure_ascii=False).encode(), b"\n"])
        written.append(path)
    return written
