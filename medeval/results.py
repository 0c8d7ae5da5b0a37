"""What a run folder's records come to: outcomes for each pair, and the summary of each cell.

Rebuilt from samples, trajectories and verdicts alone, at any time.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from medeval.analysis.aggregates import official_score, scored_results
from medeval.analysis.breakdowns import CellScores, breakdowns
from medeval.analysis.pairs import Labels, PairName, Result, join_verdicts, pair_outcomes
from medeval.analysis.summary import CellName, CellSummary, as_columns, summarize
from medeval.checkpoints import BASELINE
from medeval.costs import Cost, Tally
from medeval.errors import RecordError
from medeval.records import RunRecord, SampleRecord
from medeval.shards import asked_of
from medeval.store import CellFolder, CellKey, RunFolder


def write_results(
    folder: RunFolder, cells: Sequence[CellKey], *, judge: str | None = None
) -> list[CellSummary]:
    """Rebuild the outcomes and tables of the run folder, and summarize the given cells.

    The tables cover every cell of the folder beside the given ones. `judge` is a judge identity,
    None for each benchmark's primary judge; another judge's outcomes and tables carry its name.
    Cells that were never begun are summarized as unscored.
    """
    record = folder.record()
    every = list(dict.fromkeys([*folder.cells(), *cells]))
    found = list(_read(folder, record, every, judge))
    for benchmark in found:
        _write_outcomes(folder, record, benchmark)
    summaries = _in_order(folder, found, record, every)
    is_primary = all(benchmark.is_primary for benchmark in found)
    suffix = "" if is_primary else f".{judge}"
    _write_table(folder, f"summary{suffix}.csv", _summary_rows(summaries, record))
    cell_scores = [
        CellScores(key=key, part=record.benchmarks[key.benchmark], scored=scored)
        for benchmark in found
        for key, results in benchmark.results.items()
        if (scored := scored_results(results, benchmark.samples))
    ]
    for name, rows in breakdowns(cell_scores).items():
        _write_table(folder, f"{name}{suffix}.csv", rows)
    return _chosen(summaries, cells)


def _chosen(summaries: Sequence[CellSummary], cells: Sequence[CellKey]) -> list[CellSummary]:
    """The summaries of the given cells, checkpoints in the order of the cells."""
    order = {key.checkpoint: position for position, key in enumerate(cells)}
    asked = {(key.checkpoint, key.benchmark, key.protocol) for key in cells}
    return sorted(
        (
            summary
            for summary in summaries
            if (summary.checkpoint, summary.benchmark, summary.protocol) in asked
        ),
        key=lambda summary: order[summary.checkpoint],
    )


def summarize_cells(
    folder: RunFolder, cells: Sequence[CellKey], *, judge: str | None = None
) -> list[CellSummary]:
    """The summaries that `write_results` gives, without writing anything."""
    record = folder.record()
    return _in_order(folder, list(_read(folder, record, cells, judge)), record, cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class _BenchmarkResults:
    judge: str
    is_primary: bool
    samples: Mapping[str, Labels]
    results: Mapping[CellKey, Sequence[Result]]
    costs: Mapping[CellKey, Cost]


def _read(
    folder: RunFolder, record: RunRecord, cells: Sequence[CellKey], judge: str | None
) -> Iterator[_BenchmarkResults]:
    for benchmark in dict.fromkeys(key.benchmark for key in cells):
        identity = judge or _primary_judge(record, benchmark)
        keys = [key for key in cells if key.benchmark == benchmark]
        read = {key: _results(folder.cell(key), identity) for key in keys}
        yield _BenchmarkResults(
            judge=identity,
            is_primary=identity == record.judges.get(benchmark),
            samples={sample.id: _labels(sample) for sample in folder.samples(benchmark)},
            results={key: results for key, (results, _) in read.items()},
            costs={key: cost for key, (_, cost) in read.items()},
        )


def _labels(sample: SampleRecord) -> Labels:
    return Labels(
        id=sample.id,
        options=sample.options,
        targets=sample.targets,
        groups=sample.groups,
        cluster=sample.cluster,
    )


def _in_order(
    folder: RunFolder,
    found: Sequence[_BenchmarkResults],
    record: RunRecord,
    cells: Sequence[CellKey],
) -> list[CellSummary]:
    """One summary a cell: checkpoints in the order of the cells, free arms before the others."""
    summaries = [
        _summary(folder.cell(key), benchmark, results, record)
        for benchmark in found
        for key, results in benchmark.results.items()
    ]
    order = {key.checkpoint: position for position, key in enumerate(cells)}
    available = {arm for _, arm in record.pairs.values()}
    return sorted(
        summaries,
        key=lambda summary: (
            order[summary.checkpoint],
            summary.benchmark,
            summary.protocol in available,
        ),
    )


def _primary_judge(record: RunRecord, benchmark: str) -> str:
    if benchmark not in record.judges:
        raise RecordError(f"run.json names no judge for benchmark {benchmark!r}")
    return record.judges[benchmark]


def _expected(cell: CellFolder, record: RunRecord, n_samples: int) -> int:
    """How many trajectories were asked of a cell; of one never begun, by the last session.

    A sample whose tries all failed was asked for, whatever else was.
    """
    begun = cell.record()
    entries = [record.sessions[-1].plan] if begun is None else begun.recorded
    asked = asked_of(entries, n_samples)
    done = cell.done()
    failed = {(failure.sample_id, failure.repeat) for failure in cell.failures()} - done
    return max(asked, len(done) + len(failed))


def _results(cell: CellFolder, judge: str) -> tuple[list[Result], Cost]:
    """Each trajectory's result, and what all of them took, from one reading."""
    tally = Tally()
    results = list(join_verdicts(tally.passing(cell.trajectories()), cell.verdicts(), judge))
    begun = cell.record()
    told = [entry.get("concurrency") for entry in begun.recorded] if begun else []
    at_once = [number for number in told if isinstance(number, int)]
    return results, tally.cost(max(at_once, default=None))


def _summary(
    cell: CellFolder,
    benchmark: _BenchmarkResults,
    results: Sequence[Result],
    record: RunRecord,
) -> CellSummary:
    key, samples = cell.key, benchmark.samples
    aggregate = record.benchmarks[key.benchmark].aggregate
    name = CellName(
        checkpoint=key.checkpoint,
        series=key.series,
        step=key.step,
        benchmark=key.benchmark,
        protocol=key.protocol,
        judge=benchmark.judge,
    )

    def cluster_of(sample_id: str) -> str:
        return samples[sample_id].cluster or sample_id

    summary = summarize(
        name, results, expected=_expected(cell, record, len(samples)), cluster_of=cluster_of
    )
    summary = replace(summary, cost=benchmark.costs[key])
    scored = scored_results(results, samples)
    if aggregate == "mean over samples" or not scored:
        return summary
    official = replace(summary.score, value=official_score(aggregate, scored))
    return replace(summary, score=official)


def _write_outcomes(folder: RunFolder, record: RunRecord, benchmark: _BenchmarkResults) -> None:
    results = benchmark.results
    judge = None if benchmark.is_primary else benchmark.judge
    for pair, (free, available) in record.pairs.items():
        for key, found in results.items():
            other = CellKey(key.series, key.step, key.benchmark, free)
            if key.protocol == available and other in results:
                owners = _series_of(key, results)
                if key.series not in owners:
                    folder.drop_outcomes(key.series, key.step, key.benchmark, pair, judge)
                for series in owners:
                    name = PairName(
                        checkpoint=key.checkpoint,
                        series=series,
                        step=key.step,
                        benchmark=key.benchmark,
                        pair=pair,
                    )
                    outcomes = pair_outcomes(
                        name, benchmark.samples.values(), results[other], found
                    )
                    folder.write_outcomes(
                        series, key.step, key.benchmark, pair, outcomes, judge=judge
                    )


def _series_of(key: CellKey, cells: Iterable[CellKey]) -> Sequence[str]:
    """The series that a cell's outcomes belong to: a shared baseline is step 0 of them all."""
    if key.series != BASELINE or key.step != 0:
        return (key.series,)
    cells = list(cells)
    own = {cell.series for cell in cells if cell.step == 0}
    stepped = {cell.series for cell in cells if cell.step is not None} - own
    return sorted(stepped) or (BASELINE,)


def _summary_rows(summaries: Sequence[CellSummary], record: RunRecord) -> list[dict[str, object]]:
    rows = as_columns(summaries)
    parts = record.benchmarks
    if any(part.pairing == "position" for part in parts.values()):
        rows = [{**row, "pairing": parts[str(row["benchmark"])].pairing} for row in rows]
    return [{**row, "rows": parts[str(row["benchmark"])].rows_mark} for row in rows]


def _write_table(folder: RunFolder, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a table; one without rows is left out."""
    if not rows:
        return
    text = io.StringIO()
    columns = dict.fromkeys(name for row in rows for name in row)
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    folder.write_table(name, text.getvalue())
