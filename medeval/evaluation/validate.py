"""Checks of a benchmark's rows before anybody spends GPU time on them."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from medeval.data.benchmark import Benchmark
from medeval.data.dataset import BenchmarkSamples
from medeval.errors import DataError
from medeval.evaluation.plan import PlannedBenchmark
from medeval.evaluation.plan_file import PlanFile
from medeval.images.picture import prepare
from medeval.rollout.render import shown_mark
from medeval.scoring.grade import grade_answer
from medeval.scoring.judge import Judge
from medeval.types.definition import Loaded
from medeval.types.geometry import AxisLine, Box, Point, Size
from medeval.types.sample import Sample
from medeval.types.trajectory import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something about a benchmark's rows that is not as declared; `sample_id` None for all.

    `n_checked` says how many samples were checked before a problem that ended the checking.
    """

    sample_id: str | None
    what: str
    n_checked: int | None = None


@dataclass(slots=True, kw_only=True)
class Marks:
    """How many target boxes, lines and points samples have, and how many samples have any."""

    boxes: int = 0
    lines: int = 0
    points: int = 0
    samples: int = 0

    def count(self, sample: Sample) -> None:
        """Take a sample in."""
        self.boxes += len(sample.target_boxes)
        self.lines += len(sample.target_lines)
        self.points += len(sample.target_points)
        self.samples += bool(sample.target_boxes or sample.target_lines or sample.target_points)


def find_problems(
    planned: PlannedBenchmark, options: PlanFile, marks: Marks | None = None
) -> tuple[BenchmarkSamples, Iterator[Problem]]:
    """The samples of a benchmark and, lazily, everything that is wrong with them.

    What is marked in the images is counted in `marks` as the samples are read. Raises DataError
    where the rows cannot be opened at all.
    """
    lenient = options.model_copy(update={"allow_count_mismatch": True})
    samples = planned.samples(lenient)
    return samples, _problems(planned, samples, options, marks or Marks())


def _problems(
    planned: PlannedBenchmark, samples: BenchmarkSamples, options: PlanFile, marks: Marks
) -> Iterator[Problem]:
    benchmark = planned.loaded.value
    expected = benchmark.count
    whole = options.limit is None and not options.sample_id
    if whole and expected is not None and samples.count != expected:
        yield Problem(sample_id=None, what=f"{samples.count} rows here, {expected} were published")
    seen: set[str] = set()
    clusters: Counter[str | None] = Counter()
    try:
        for sample in samples:
            if sample.id in seen:
                yield Problem(sample_id=sample.id, what="the id is given twice")
            seen.add(sample.id)
            clusters[sample.cluster] += 1
            marks.count(sample)
            yield from _image_problems(sample)
            yield from _target_problems(sample, benchmark, planned.judges[0])
    except DataError as error:
        what = f"{error.message}; no row after this one was checked"
        yield Problem(sample_id=None, what=what, n_checked=clusters.total())
        return
    if whole and benchmark.cluster_size is not None:
        yield from _cluster_problems(clusters, benchmark.cluster_size)


def _cluster_problems(clusters: Mapping[str | None, int], size: int) -> Iterator[Problem]:
    """Samples that share a question are as many as the benchmark says."""
    for cluster, count in clusters.items():
        if cluster is None:
            yield Problem(sample_id=None, what=f"{count} samples are in no cluster")
        elif count != size:
            what = f"{count} samples are in cluster {cluster!r}, not {size}"
            yield Problem(sample_id=None, what=what)


def _image_problems(sample: Sample) -> Iterator[Problem]:
    if not sample.images:
        yield Problem(sample_id=sample.id, what="no image")
    for number, source in enumerate(sample.images):
        try:
            picture = prepare(source.read(), name=source.name)
            picture.pixels()
        except DataError as error:
            yield Problem(sample_id=sample.id, what=error.message)
            continue
        if number == 0:
            yield from _mark_problems(sample, picture.raw)


def _mark_problems(sample: Sample, size: Size) -> Iterator[Problem]:
    """A target that is not in the first image, or in pixels of an image of another size."""
    marked: tuple[tuple[str, Sequence[Box | AxisLine | Point]], ...] = (
        ("box", sample.target_boxes),
        ("line", sample.target_lines),
        ("point", sample.target_points),
    )
    for kind, marks in marked:
        for mark in marks:
            what = _misplaced(mark, size)
            if what is not None:
                yield Problem(
                    sample_id=sample.id, what=f"the target {kind} {shown_mark(mark)} {what}"
                )


def _misplaced(mark: Box | AxisLine | Point, size: Size) -> str | None:
    """What is wrong with the place of a target; None where nothing is."""
    frame = mark.frame
    own = (size.width_px, size.height_px)
    if frame.name.startswith("pixels of") and (frame.width, frame.height) != own:
        return f"is of an image of {frame.width:g} x {frame.height:g}, this has {own[0]} x {own[1]}"
    match mark:
        case Box():
            is_inside = mark.clamped() is not None
        case AxisLine(axis, value):
            is_inside = 0 <= value <= (frame.width if axis == "x" else frame.height)
        case Point(x, y):
            is_inside = 0 <= x <= frame.width and 0 <= y <= frame.height
    return None if is_inside else "lies outside the image"


def _target_problems(
    sample: Sample, benchmark: Benchmark, judge: Loaded[Judge]
) -> Iterator[Problem]:
    """A target that its own judge does not accept as the answer is not what the judge expects."""
    if not sample.targets and benchmark.labelled:
        yield Problem(sample_id=sample.id, what="no target: it gets no score")
    if judge.value.needs_endpoint:
        return
    for target in sample.targets:
        answer = Answer(text=target, how_found="target", reply=target)
        verdict = asyncio.run(grade_answer(sample, answer, "answered", judge)).verdict
        if verdict.status != "correct":
            yield Problem(
                sample_id=sample.id,
                what=f"the target {target!r} is itself {verdict.status} by {judge.value.name}: "
                f"{verdict.reason or f'score {verdict.score}'}",
            )
