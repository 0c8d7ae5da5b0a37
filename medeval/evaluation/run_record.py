"""run.json, written or extended: the options of a run, and what its scores mean."""

from collections.abc import Mapping

from medeval.data.dataset import BenchmarkSamples
from medeval.evaluation.plan import Plan, PlannedBenchmark
from medeval.scoring.grade import judge_identity
from medeval.store.provenance import session
from medeval.store.records import BenchmarkPart, DefinitionPart, FilePart, MetricPart, RunRecord
from medeval.store.run_folder import RunFolder


def record_run(folder: RunFolder, plan: Plan, samples: Mapping[str, BenchmarkSamples]) -> None:
    """Write or extend run.json, and keep a copy of every definition file."""
    record = RunRecord(
        sessions=(session(plan.options.model_dump(mode="json"), seed=plan.options.seed),),
        definitions=tuple(_kept_definitions(folder, plan)),
        judges={planned.name: judge_identity(planned.judges[0]) for planned in plan.benchmarks},
        benchmarks={
            planned.name: _benchmark_part(planned, samples[planned.name])
            for planned in plan.benchmarks
        },
        pairs={
            pair.value.name: (pair.value.free.name, pair.value.available.name)
            for pair in plan.pairs
        },
        metrics={
            judge_identity(judge): MetricPart(
                name=judge.value.metric, correct_at=judge.value.correct_at
            )
            for planned in plan.benchmarks
            for judge in planned.judges
        },
    )
    if RunFolder.exists(folder.path):
        before = folder.record()
        if plan.options.defer_grading:
            # the judge that graded what is there already stays the primary one
            record = record.model_copy(update={"judges": {**record.judges, **before.judges}})
        record = before.extended(record)
    folder.write_record(record)


def _kept_definitions(folder: RunFolder, plan: Plan) -> list[DefinitionPart]:
    used = [("benchmark", planned.name, planned.loaded.source) for planned in plan.benchmarks]
    used += [("protocol", p.value.name, p.source) for p in plan.protocols]
    used += [
        ("judge", judge.value.name, judge.source)
        for planned in plan.benchmarks
        for judge in planned.judges
    ]
    return [
        DefinitionPart.model_validate(
            {
                "kind": kind,
                "name": name,
                "path": str(source.path),
                "sha256": source.sha256,
                "copy_name": folder.keep_definition(source.path, kind, name),
            }
        )
        for kind, name, source in dict.fromkeys(used)
    ]


def _benchmark_part(planned: PlannedBenchmark, samples: BenchmarkSamples) -> BenchmarkPart:
    origin, benchmark = samples.origin, planned.loaded.value
    return BenchmarkPart(
        origin=origin.description,
        revision=origin.revision,
        count=samples.count,
        expected_count=benchmark.count,
        files=tuple(FilePart(name=name, size_bytes=size) for name, size in origin.files),
        aggregate=benchmark.aggregate,
        suite=benchmark.suite,
        cluster_size=benchmark.cluster_size,
    )
