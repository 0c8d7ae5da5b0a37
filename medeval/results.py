"""What a run folder's records come to: outcomes for each pair, and the summary of each cell.

Rebuilt from samples, trajectories and verdicts alone, at any time.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from medeval.analysis.aggregates import official_score, scored_results
from medeval.analysis.breakdowns import CellScores, breakdowns
from medeval.analysis.pairs import PairName, Result, join_verdicts, pair_outcomes
from medeval.analysis.summary import CellName, CellSummary, as_columns, summarize
from medeval.errors import RecordError
from medeval.records import CellRecord, RunRecord, SampleRecord
from medeval.store import CellKey, RunFolder

BASELINE = "baseline"


def write_results(
    folder: RunFolder, cells: Sequence[CellKey], *, judge: str | None = None
) -> list[CellSummary]:
    """Rebuild outcomes, summary and `tables/summary.csv` for the given cells.

    `judge` is a judge identity, None for each benchmark's primary judge; another judge's
    outcomes and table carry its name. Cells that were never begun are summarized as unscored.
    """
    record = folder.record()
    found = list(_read(folder, record, cells, judge))
    for benchmark in found:
        _write_outcomes(folder, record, benchmark)
    summaries = _in_order(folder, found, record, cells)
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
    return summaries


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
    samples: Mapping[str, SampleRecord]
    results: Mapping[CellKey, Sequence[Result]]


def _read(
    folder: RunFolder, record: RunRecord, cells: Sequence[CellKey], judge: str | None
) -> Iterator[_BenchmarkResults]:
    for benchmark in dict.fromkeys(key.benchmark for key in cells):
        identity = judge or _primary_judge(record, benchmark)
        keys = [key for key in cells if key.benchmark == benchmark]
        yield _BenchmarkResults(
            judge=identity,
            is_primary=identity == record.judges.get(benchmark),
            samples={sample.id: sample for sample in folder.samples(benchmark)},
            results={key: _results(folder, key, identity) for key in keys},
        )


def _in_order(
    folder: RunFolder,
    found: Sequence[_BenchmarkResults],
    record: RunRecord,
    cells: Sequence[CellKey],
) -> list[CellSummary]:
    """One summary a cell: checkpoints in the order of the cells, free arms before the others."""

    def repeats(key: CellKey) -> int:
        return _repeats(folder.cell(key).record(), record)

    summaries = [
        _summary(key, benchmark, results, record, repeats=repeats(key))
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


def _repeats(cell: CellRecord | None, record: RunRecord) -> int:
    """How many repeats were asked of a cell; of one that was never begun, by the last session."""
    entries = [record.sessions[-1].plan] if cell is None else cell.recorded
    asked = [entry.get("repeats", 1) for entry in entries]
    return max(value for value in asked if isinstance(value, int))


def _results(folder: RunFolder, key: CellKey, judge: str) -> list[Result]:
    cell = folder.cell(key)
    return list(join_verdicts(cell.trajectories(), cell.verdicts(), judge))


def _summary(
    key: CellKey,
    benchmark: _BenchmarkResults,
    results: Sequence[Result],
    record: RunRecord,
    *,
    repeats: int,
) -> CellSummary:
    samples = benchmark.samples
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

    summary = summarize(name, results, expected=len(samples) * repeats, cluster_of=cluster_of)
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
                for series in _series_of(key, folder):
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


def _series_of(key: CellKey, folder: RunFolder) -> Iterable[str]:
    """The series that a cell's outcomes belong to: a shared baseline is step 0 of them all."""
    if key.series != BASELINE:
        return (key.series,)
    cells = folder.cells()
    own = {cell.series for cell in cells if cell.step == 0}
    stepped = {cell.series for cell in cells if cell.step is not None} - own
    return sorted(stepped) or (BASELINE,)


def _summary_rows(summaries: Sequence[CellSummary], record: RunRecord) -> list[dict[str, object]]:
    rows = as_columns(summaries)
    pairing = {name: part.pairing for name, part in record.benchmarks.items()}
    if "position" in pairing.values():
        rows = [{**row, "pairing": pairing[str(row["benchmark"])]} for row in rows]
    return rows


def _write_table(folder: RunFolder, name: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Write a table; one without rows is left out."""
    import pandas as pd

    if rows:
        folder.write_table(name, pd.DataFrame(rows).to_csv(index=False))
