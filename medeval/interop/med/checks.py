"""Checks that MED logs can be paired by position: equal counts, and equal ids if any."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from medeval.errors import DataError, RecordError
from medeval.interop.med.layout import ARMS, SCORES, Arm, LogFolder
from medeval.interop.med.lines import DAMAGED, LogLine, read_lines
from medeval.store.files import explained

# Released scores have four decimals.
ROUNDING = 1e-4

MIGRATED_SCORE = re.compile(r"\s*(\d+(?:\.\d+)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLog:
    """One arm's log: the number and the ids of its lines, and the SHA-256 of the file.

    `share` is the share of lines with a reward of 1, None where a line has no reward.
    """

    path: Path
    count: int
    instances: tuple[str | None, ...]
    share: float | None
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFolder:
    """A benchmark at a checkpoint: the arms that can be imported, and the problems of others.

    `scores` are the published ones, `notes` say where there are none or they differ.
    """

    logs: LogFolder
    arms: Mapping[Arm, CheckedLog]
    scores: Mapping[Arm, float]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def check(found: Sequence[LogFolder], *, repeats: int) -> list[CheckedFolder]:
    """Read every log once, and compare it with the others of its benchmark."""
    first = [_read(logs, repeats) for logs in found]
    by_benchmark: dict[str, list[CheckedFolder]] = {}
    for folder in first:
        by_benchmark.setdefault(folder.logs.benchmark, []).append(folder)
    references = {name: _reference(folders) for name, folders in by_benchmark.items()}
    return [_against(folder, references[folder.logs.benchmark]) for folder in first]


def _read(logs: LogFolder, repeats: int) -> CheckedFolder:
    arms: dict[Arm, CheckedLog] = {}
    problems: list[str] = []
    for arm in ARMS:
        if arm not in logs.logs:
            problems.append(f"{logs.name}: the log of {arm!r} is missing")
            continue
        try:
            arms[arm] = _read_log(logs.logs[arm], repeats)
        except (DataError, RecordError) as error:
            problems.append(error.message)
    scores, notes = _scores(logs)
    return CheckedFolder(
        logs=logs, arms=arms, scores=scores, problems=tuple(problems), notes=tuple(notes)
    )


def _read_log(path: Path, repeats: int) -> CheckedLog:
    instances: list[str | None] = []
    rewards: list[float | None] = []
    for line in read_lines(path):
        _refuse_other_repeat(line, path, repeats)
        instances.append(line.instance)
        rewards.append(line.reward)
    if not instances:
        raise DataError(f"{path} holds no line", hint=DAMAGED)
    if len(instances) % repeats:
        raise DataError(f"{path} has {len(instances)} lines, no multiple of {repeats} repeats")
    is_whole = None not in rewards
    with explained("read", path), path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return CheckedLog(
        path=path,
        count=len(instances),
        instances=tuple(instances),
        share=rewards.count(1.0) / len(rewards) if is_whole else None,
        sha256=digest,
    )


def _refuse_other_repeat(line: LogLine, path: Path, repeats: int) -> None:
    expected = (line.number - 1) % repeats
    if line.repeat is not None and line.repeat != expected:
        raise DataError(
            f"{path}, record {line.number}: it is repeat {line.repeat!r} of its sample, expected "
            f"{expected!r} with {repeats} lines a sample",
            hint="--repeats says how many lines in a row are of one sample",
        )


def _scores(logs: LogFolder) -> tuple[dict[Arm, float], list[str]]:
    """The published scores, from either format of the file, and notes on missing ones."""
    if logs.results is None:
        return {}, [f"{logs.name}: no evaluation_results.json; its scores come from its lines"]
    try:
        with explained("read", logs.results):
            values = json.loads(logs.results.read_bytes())
    except ValueError as error:
        return {}, [f"{logs.results} is not JSON ({error}); its scores come from its lines"]
    if not isinstance(values, dict):
        return {}, [f"{logs.results} is not a JSON object; its scores come from its lines"]
    found = {arm: _score(values, logs.benchmark, arm) for arm in ARMS}
    scores = {arm: score for arm, score in found.items() if score is not None}
    lacking = [SCORES[arm] for arm in ARMS if arm not in scores]
    return scores, [
        f"{logs.name}: evaluation_results.json has no {name!r}; it comes from the lines"
        for name in lacking
    ]


def _score(values: Mapping[str, object], benchmark: str, arm: Arm) -> float | None:
    """An arm's score, from the released format or from RayEvaluator's summary before it."""
    score = values.get(SCORES[arm])
    if isinstance(score, int | float):
        return float(score)
    summary = values.get("summary")
    for source, entry in summary.items() if isinstance(summary, dict) else ():
        if source in (f"{benchmark}_bench_{arm}", f"{benchmark}_{arm}") and isinstance(entry, dict):
            match = MIGRATED_SCORE.match(str(entry.get("pass@1_accuracy")))
            return float(match[1]) if match else None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """The number and ids of lines that every log of a benchmark must have.

    `path` is the log that the ids were read from.
    """

    count: int
    instances: tuple[str | None, ...]
    path: Path | None


def _reference(folders: Sequence[CheckedFolder]) -> _Reference:
    """The most frequent number of lines, or the largest of those, and the ids of one such log."""
    logs = [log for folder in folders for log in folder.arms.values()]
    counts = Counter(log.count for log in logs)
    if not counts:
        return _Reference(count=0, instances=(), path=None)
    count = max(counts, key=lambda count: (counts[count], count))
    with_ids = [log for log in logs if log.count == count and None not in log.instances]
    chosen = with_ids[0] if with_ids else None
    return _Reference(
        count=count,
        instances=chosen.instances if chosen else (None,) * count,
        path=chosen.path if chosen else None,
    )


def _against(folder: CheckedFolder, reference: _Reference) -> CheckedFolder:
    arms: dict[Arm, CheckedLog] = {}
    problems = list(folder.problems)
    for arm, log in folder.arms.items():
        problem = _difference(log, reference)
        if problem is None:
            arms[arm] = log
        else:
            problems.append(problem)
    notes = [*folder.notes, *_other_scores(folder.logs, arms, folder.scores)]
    return CheckedFolder(
        logs=folder.logs,
        arms=arms,
        scores=folder.scores,
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _difference(log: CheckedLog, reference: _Reference) -> str | None:
    if log.count != reference.count:
        return (
            f"{log.path} has {log.count} lines, but its benchmark's logs have {reference.count}: "
            "samples pair by position, so every log must have the same"
        )
    for number, pair in enumerate(zip(log.instances, reference.instances, strict=True), start=1):
        here, there = pair
        if here is not None and there is not None and here != there:
            return (
                f"{log.path}, record {number} is of {here!r}, but in {reference.path} of "
                f"{there!r}: samples pair by position, so every log must have the same order"
            )
    return None


def _other_scores(
    logs: LogFolder, arms: Mapping[Arm, CheckedLog], scores: Mapping[Arm, float]
) -> Iterator[str]:
    for arm, log in arms.items():
        score, share = scores.get(arm), log.share
        if score is not None and share is not None and abs(score - share) > ROUNDING:
            yield (
                f"{logs.name}: {SCORES[arm]!r} is {score!r} in evaluation_results.json, but "
                f"{share:.4f} of the lines have a reward of 1"
            )
