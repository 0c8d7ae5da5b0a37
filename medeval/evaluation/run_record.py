"""Writes or extends run.json: the options and versions of a run, and what its scores mean."""

import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from medeval.data.dataset import BenchmarkSamples
from medeval.evaluation.plan import Plan, PlannedBenchmark
from medeval.scoring.grade import judge_identity
from medeval.store.records import now
from medeval.store.run_folder import RunFolder
from medeval.types.definition import Source
from medeval.types.run import (
    BenchmarkRecord,
    DefinitionCopy,
    DefinitionKind,
    Metric,
    RowsFile,
    RunRecord,
    Session,
)
from medeval.types.sample import JsonValue


def record_run(folder: RunFolder, plan: Plan, samples: Mapping[str, BenchmarkSamples]) -> None:
    """Write or extend run.json, and keep a copy of every definition file."""
    commits: list[JsonValue] = [name for one in plan.all_checkpoints for name in one.hub_commits]
    options = plan.options.model_dump(mode="json")
    extra: dict[str, JsonValue] = {"hub_commits": commits} if commits else {}
    record = RunRecord(
        sessions=(session(options, seed=plan.options.seed, extra=extra),),
        definitions=tuple(_definition_copies(folder, plan)),
        judges={planned.name: judge_identity(planned.judges[0]) for planned in plan.benchmarks},
        benchmarks={
            planned.name: _benchmark_record(planned, samples[planned.name])
            for planned in plan.benchmarks
        },
        pairs={
            pair.value.name: (pair.value.free.name, pair.value.available.name)
            for pair in plan.pairs
        },
        metrics={
            judge_identity(judge): Metric(
                name=judge.value.metric, correct_at=judge.value.correct_at
            )
            for planned in plan.benchmarks
            for judge in planned.judges
        },
    )
    if RunFolder.exists(folder.path):
        before = folder.record()
        if plan.options.defer_grading:
            # the judge of the earlier verdicts stays the primary one
            record = replace(record, judges={**record.judges, **before.judges})
        record = before.extended(record)
    folder.write_record(record)


def _definition_copies(folder: RunFolder, plan: Plan) -> Iterator[DefinitionCopy]:
    """Copy each definition file into the run folder."""
    used: list[tuple[DefinitionKind, str, Source]] = [
        *(("benchmark", planned.name, planned.loaded.source) for planned in plan.benchmarks),
        *(("protocol", protocol.value.name, protocol.source) for protocol in plan.protocols),
        *(
            ("judge", judge.value.name, judge.source)
            for planned in plan.benchmarks
            for judge in planned.judges
        ),
    ]
    for kind, name, source in dict.fromkeys(used):
        yield DefinitionCopy(
            kind=kind,
            name=name,
            path=str(source.path),
            sha256=source.sha256,
            copy_name=folder.keep_definition(source.path, kind, name),
        )


def _benchmark_record(planned: PlannedBenchmark, samples: BenchmarkSamples) -> BenchmarkRecord:
    origin, benchmark = samples.origin, planned.loaded.value
    return BenchmarkRecord(
        origin=origin.description,
        revision=origin.revision,
        count=samples.count,
        expected_count=benchmark.count,
        files=tuple(RowsFile(name=name, size_bytes=size) for name, size in origin.files),
        aggregate=benchmark.aggregate,
        suite=benchmark.suite,
        cluster_size=benchmark.cluster_size,
    )


def session(
    plan: Mapping[str, JsonValue], *, seed: int, extra: Mapping[str, JsonValue] | None = None
) -> Session:
    """The record of this start of medeval, with the whole command line, which holds no keys."""
    return Session(
        created=now(),
        medeval_version=version("medeval"),
        command=tuple(sys.argv),
        plan=dict(plan),
        git_commit=_git_commit(),
        python=platform.python_version(),
        platform=platform.platform(),
        seed=seed,
        extra=dict(extra or {}),
    )


def _git_commit() -> str | None:
    """The commit of medeval's own checkout; None if it is installed from a wheel."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        completed = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return completed.stdout.strip() or None
