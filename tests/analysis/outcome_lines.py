"""Outcome lines for run folders in tests."""

from collections.abc import Iterable
from pathlib import Path

from medeval.store.run_folder import RunFolder
from medeval.types.outcome import OutcomeRecord
from medeval.types.run import RunRecord
from medeval.types.sample import ImageRecord, ImageSource, Sample, SampleRecord

JUDGE = "choice#12345678"


def outcome(
    sample_id: str,
    verdicts: str,
    *,
    step: int | None = 0,
    benchmark: str = "small",
    repeat: int = 0,
    judge: str = JUDGE,
    cluster: str | None = None,
    series: str = "rl",
) -> OutcomeRecord:
    """An outcome from three characters: free, available (1, 0 or ?), called (1 or 0)."""
    free, available = ({"1": True, "0": False, "?": None}[each] for each in verdicts[:2])
    called = verdicts[2] == "1"
    return OutcomeRecord(
        checkpoint=series if step is None else f"{series}/{step}",
        series=series,
        step=step,
        benchmark=benchmark,
        pair="crop_zoom",
        sample_id=sample_id,
        groups={},
        cluster=cluster,
        repeat=repeat,
        free_correct=free,
        available_correct=available,
        free_score=None if free is None else float(free),
        available_score=None if available is None else float(available),
        called=called,
        calls_attempted=int(called),
        calls_executed=int(called),
        calls_observed=int(called),
        free_answer="A",
        available_answer="B",
        targets=("A",),
        free_stop="answered",
        available_stop="answered",
        judge=judge,
    )


def run_of(path: Path, outcomes: Iterable[OutcomeRecord]) -> RunFolder:
    """A run folder that holds these outcomes."""
    folder = RunFolder.create(
        path, RunRecord(sessions=(), pairs={"crop_zoom": ("free", "available")})
    )
    by_file: dict[tuple[str, int | None, str], list[OutcomeRecord]] = {}
    for each in outcomes:
        by_file.setdefault((each.series, each.step, each.benchmark), []).append(each)
    for (series, step, benchmark), lines in by_file.items():
        folder.write_outcomes(series, step, benchmark, "crop_zoom", lines)
    return folder


def sample_record(name: str) -> SampleRecord:
    """A sample as a run folder holds it."""
    image = ImageRecord(
        source="row",
        sha256="aa" * 32,
        width_px=4,
        height_px=3,
        media_type="image/png",
        size_bytes=9,
    )
    source = ImageSource(name="row", read=lambda: b"")
    sample = Sample(id=name, question="Which?", images=(source,), targets=("A",))
    return SampleRecord.from_sample(sample, [image])
