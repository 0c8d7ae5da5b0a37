"""Checks a benchmark's rows before a run spends GPU time on them."""

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
    """A difference between a benchmark's rows and its definition.

    `sample_id` is None for a problem of all rows. `n_checked` is the number of samples checked
    before a problem that ended the check, None for any other problem.
    """

    sample_id: str | None
    what: str
    n_checked: int | None = None


@dataclass(slots=True, kw_only=True)
class Marks:
    """The number of target boxes, lines and points, and of samples that have any."""

    boxes: int = 0
    lines: int = 0
    points: int = 0
    samples: int = 0

    def count(self, sample: Sample) -> None:
        """Add the marks of a sample."""
        self.boxes += len(sample.target_boxes)
        self.lines += len(sample.target_lines)
        self.points += len(sample.target_points)
        self.samples += bool(sample.target_boxes or sample.target_lines or sample.target_points)


def find_problems(
    planned: PlannedBenchmark, options: PlanFile, marks: Marks | None = None
) -> tuple[BenchmarkSamples, Iterator[Problem]]:
    """The samples of a benchmark and, lazily, every problem with them.

    Each sample's marks are added to `marks` when it is read. Raises DataError if the rows cannot
    be opened.
    """
    any_count = options.model_copy(update={"allow_count_mismatch": True})
    samples = planned.samples(any_count)
    return samples, _problems(planned, samples, options, marks or Marks())


def _problems(
    planned: PlannedBenchmark, samples: BenchmarkSamples, options: PlanFile, marks: Marks
) -> Iterator[Problem]:
    benchmark = planned.loaded.value
    expected = benchmark.count
    is_whole = options.limit is None and not options.sample_id
    if is_whole and expected is not None and samples.count != expected:
        yield Problem(sample_id=None, what=f"{samples.count} rows here, {expected} were published")
    seen: set[str] = set()
    clusters: Counter[str | None] = Counter()
    try:
        for sample in samples:
            if sample.id in seen:
                yield Problem(sample_id=sample.id, what="two samples have this id")
            seen.add(sample.id)
            clusters[sample.cluster] += 1
            marks.count(sample)
            yield from _image_problems(sample)
            yield from _target_problems(sample, benchmark, planned.judges[0])
    except DataError as error:
        what = f"{error.message}; no row after this one was checked"
        yield Problem(sample_id=None, what=what, n_checked=clusters.total())
        return
    if is_whole and benchmark.cluster_size is not None:
        yield from _cluster_problems(clusters, benchmark.cluster_size)


def _cluster_problems(clusters: Mapping[str | None, int], size: int) -> Iterator[Problem]:
    """Clusters whose number of samples is not the benchmark's `cluster_size`."""
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
    """Targets outside the first image, or in pixels of an image of another size."""
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
    """Why the position of a target is wrong; None if it is right."""
    frame = mark.frame
    image_size = (size.width_px, size.height_px)
    if frame.name.startswith("pixels of") and (frame.width, frame.height) != image_size:
        return (
            f"belongs to an image of {frame.width:g} x {frame.height:g}, "
            f"but this image has {size.width_px} x {size.height_px}"
        )
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
    """Targets that the benchmark's judge does not accept as the answer."""
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
                what=f"judge {judge.value.name!r} grades the target {target!r} as "
                f"{verdict.status}: {verdict.reason or f'score {verdict.score}'}",
            )
