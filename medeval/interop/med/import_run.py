"""MED's published logs as an ordinary run folder, their samples paired by position."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from medeval.analysis.results import write_results
from medeval.analysis.summary import CellSummary
from medeval.errors import DataError, RecordError
from medeval.evaluation.loader import load_file
from medeval.evaluation.run_record import session
from medeval.interop.med.baselines import baselines_of, with_outside_baselines
from medeval.interop.med.checks import CheckedFolder, CheckedLog, check
from medeval.interop.med.layout import ARMS, AVAILABLE, PAIR, Arm, find_logs
from medeval.interop.med.lines import LogLine, read_lines, trajectory_of
from medeval.scoring.grade import judge_identity
from medeval.scoring.judge import Judge
from medeval.store.cell_folder import CellFolder
from medeval.store.keys import BASELINE
from medeval.store.records import now
from medeval.store.run_folder import CellKey, CellWriter, RunFolder
from medeval.types.definition import Loaded
from medeval.types.failure import FailureRecord
from medeval.types.run import BenchmarkRecord, DefinitionCopy, Metric, RunRecord
from medeval.types.sample import JsonValue, Sample, SampleRecord
from medeval.types.verdict import Verdict

JUDGE_FILE: Final = Path(__file__).with_name("reward.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """The run folder, the summaries of its cells, and notes for the user."""

    folder: RunFolder
    summaries: Sequence[CellSummary]
    notes: tuple[str, ...]


def import_med(
    directory: Path,
    output_dir: Path,
    *,
    baselines: Sequence[str] = (),
    repeats: int = 1,
    allow_missing: bool = False,
) -> ImportReport:
    """Read a tree of MED logs into a run folder; samples are `line-000001` and on.

    Each experiment becomes a series, and each benchmark keeps its name. A baseline becomes step 0;
    `baselines` are `[EXPERIMENT=]BASELINE`, by default those of the original's scripts. Each
    `repeats` lines in a row are of one sample. A line without a reward, or in the tool arm without
    a call count, leaves its sample unscored. Importing the same logs again adds nothing.

    Raises DataError where a log is damaged, missing, or of other length or order than the others
    of its benchmark; with `allow_missing` that arm is left out, and the notes say so.
    """
    found, named = with_outside_baselines(find_logs(directory), directory, baselines)
    series = _Series.of(baselines_of(found, named), {logs.experiment for logs in found})
    checked = check(found, repeats=repeats)
    left_out = [problem for folder in checked for problem in folder.problems]
    if left_out and not allow_missing:
        raise _damaged(left_out)
    notes = (
        *(f"left out: {problem}" for problem in left_out),
        *(note for folder in checked for note in folder.notes),
        *series.notes,
    )
    plan: dict[str, JsonValue] = {
        "import_med": str(directory),
        "baselines": list[JsonValue](baselines),
        "repeats": repeats,
        "allow_missing": allow_missing,
    }
    return _write(RunFolder(output_dir), checked, series, plan=plan, repeats=repeats, notes=notes)


def _damaged(problems: Sequence[str]) -> DataError:
    more = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
    return DataError(
        f"{problems[0]}{more}",
        hint="restore the logs, or import what is whole with --allow-missing: gaps stay gaps",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """The series and steps of the checkpoints of the logs.

    `shared` is the baseline that is step 0 of all series; None where series have different ones,
    each of which is then copied into its series. `uses` maps an experiment to its baseline.
    """

    shared: str | None
    uses: Mapping[str, str | None]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, uses: Mapping[str, str | None], experiments: set[str]) -> "_Series":
        if BASELINE in experiments:
            raise DataError(
                f"an experiment is called {BASELINE!r}, which is what medeval calls step 0 of "
                "every series",
                hint="rename its folder",
            )
        chosen = set(uses.values())
        only = chosen.pop() if len(chosen) == 1 else None
        notes = [
            f"experiment {name!r} has no baseline: its drift has no step 0 to start from"
            if baseline is None
            else f"step 0 of {name!r} is {baseline!r}"
            for name, baseline in sorted(uses.items())
        ]
        return cls(shared=only, uses=uses, notes=tuple(notes))

    def checkpoints(self, experiment: str, step: int | None) -> list[tuple[str, int | None]]:
        """Each series and step under which a checkpoint of the logs is imported."""
        if step is not None:
            return [(experiment, step)]
        if experiment == self.shared:
            return [(BASELINE, 0)]
        users = sorted(name for name, baseline in self.uses.items() if baseline == experiment)
        return [(name, 0) for name in users] or [(experiment, None)]


def _write(
    folder: RunFolder,
    checked: Sequence[CheckedFolder],
    series: _Series,
    *,
    plan: Mapping[str, JsonValue],
    repeats: int,
    notes: tuple[str, ...],
) -> ImportReport:
    (judge,) = load_file(JUDGE_FILE, Judge)
    counts = {item.logs.benchmark: log.count for item in checked for log in item.arms.values()}
    with folder.lock():
        record = _record(folder, judge, counts, plan, repeats, notes)
        if RunFolder.exists(folder.path):
            _refuse_other_run(folder.record(), record)
            record = folder.record().extended(record)
        for benchmark in counts:
            folder.write_samples(benchmark, _samples(benchmark, checked, repeats))
        folder.write_record(record)
        imported: list[CellKey] = []
        for item in checked:
            for name, step in series.checkpoints(item.logs.experiment, item.logs.step):
                for arm in (arm for arm in ARMS if arm in item.arms):
                    cell = folder.cell(CellKey(name, step, item.logs.benchmark, arm))
                    _write_cell(cell, item, arm, judge_identity(judge), repeats)
                    imported.append(cell.key)
        summaries = write_results(folder, imported)
    return ImportReport(folder=folder, summaries=summaries, notes=notes)


def _record(
    folder: RunFolder,
    judge: Loaded[Judge],
    counts: Mapping[str, int],
    plan: Mapping[str, JsonValue],
    repeats: int,
    notes: Sequence[str],
) -> RunRecord:
    identity = judge_identity(judge)
    copy_name = folder.keep_definition(judge.source.path, "judge", judge.value.name)
    free, available = ARMS
    return RunRecord(
        sessions=(session(plan, seed=0, extra={"notes": list[JsonValue](notes)}),),
        definitions=(
            DefinitionCopy(
                kind="judge",
                name=judge.value.name,
                path=f"medeval/interop/med/{judge.source.path.name}",
                sha256=judge.source.sha256,
                copy_name=copy_name,
            ),
        ),
        judges=dict.fromkeys(counts, identity),
        benchmarks={
            benchmark: BenchmarkRecord(
                origin="imported MED logs",
                revision=None,
                count=count // repeats,
                expected_count=None,
                pairing="position",
            )
            for benchmark, count in counts.items()
        },
        pairs={PAIR: (free, available)},
        metrics={identity: Metric(name=judge.value.metric, correct_at=judge.value.correct_at)},
    )


def _refuse_other_run(before: RunRecord, now_imported: RunRecord) -> None:
    """Raise where a benchmark of the run pairs by id, or has another number of samples."""
    for name, part in now_imported.benchmarks.items():
        there = before.benchmarks.get(name)
        if there is not None and (there.pairing, there.count) != (part.pairing, part.count):
            raise RecordError(
                f"the run has benchmark {name!r} with {there.count} samples paired by "
                f"{there.pairing}, the logs have {part.count} paired by {part.pairing}",
                hint="name another folder with --output-dir",
            )


def sample_id(position: int) -> str:
    """The id of the sample at a position, counted from 0: lines have no other stable name.

    >>> sample_id(0)
    'line-000001'
    """
    return f"line-{position + 1:06d}"


def _samples(
    benchmark: str, checked: Sequence[CheckedFolder], repeats: int
) -> Iterator[SampleRecord]:
    """The samples of a benchmark, from the lines of its first log."""
    log = next(
        log for item in checked if item.logs.benchmark == benchmark for log in item.arms.values()
    )
    for line in read_lines(log.path):
        position, repeat = divmod(line.number - 1, repeats)
        if repeat == 0:
            yield SampleRecord.from_sample(_sample(position, line), ())


def _sample(position: int, line: LogLine) -> Sample:
    origin = line.origin
    return Sample(
        id=sample_id(position),
        question=line.question,
        images=(),
        targets=line.targets,
        groups=origin.groups if origin else {},
        cluster=origin.cluster if origin else None,
        metadata={} if line.instance is None else {"id": line.instance},
    )


def _write_cell(cell: CellFolder, item: CheckedFolder, arm: Arm, judge: str, repeats: int) -> None:
    log: CheckedLog = item.arms[arm]
    logs = item.logs
    fields = {
        "imported": {
            "format": "med",
            "experiment": logs.experiment,
            "step": logs.step,
            "benchmark": logs.benchmark,
            "arm": arm,
            "sha256": log.sha256,
        }
    }
    recorded = {
        "repeats": repeats,
        "published_score": item.scores.get(arm),
        "evaluation_results": logs.results_name,
    }
    cell.claim(fields, recorded)
    done, judged = cell.done(), cell.judged()
    failed = {(failure.sample_id, failure.repeat) for failure in cell.failures()}
    with cell.writer() as writer:
        for line in read_lines(log.path):
            position, repeat = divmod(line.number - 1, repeats)
            key = (sample_id(position), repeat)
            reason = line.unscored_because(needs_calls=arm == AVAILABLE)
            if reason is not None:
                if key not in failed:
                    writer.append_failure(_unscored(key, reason))
                continue
            if key not in done:
                _append_trajectory(writer, line, key, arm)
            if (*key, judge) not in judged:
                writer.append_verdict(_verdict(line, key, judge))


def _append_trajectory(writer: CellWriter, line: LogLine, key: tuple[str, int], arm: Arm) -> None:
    writer.append_trajectory(
        trajectory_of(line, key[0], repeat=key[1], protocol=arm, offers_tools=arm == AVAILABLE)
    )


def _verdict(line: LogLine, key: tuple[str, int], judge: str) -> Verdict:
    return Verdict(
        sample_id=key[0],
        repeat=key[1],
        judge=judge,
        status="correct" if line.reward == 1 else "incorrect",
        score=line.reward,
        reason="imported",
    )


def _unscored(key: tuple[str, int], reason: str) -> FailureRecord:
    """A failure that keeps the sample unscored, also when the run is graded again."""
    return FailureRecord(
        sample_id=key[0],
        repeat=key[1],
        kind="data",
        try_number=1,
        error=reason,
        traceback="",
        when=now(),
    )
