"""What a run folder's records come to: outcomes for each pair, and the summary of each cell.

Rebuilt from samples, trajectories and verdicts alone, at any time.
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from medeval.analysis.aggregates import official_score, scored_results
from medeval.analysis.breakdowns import Breakdowns, CellScores
from medeval.analysis.pairs import Labels, PairName, Result, join_verdicts, pair_outcomes
from medeval.analysis.summary import CellName, CellSummary, Tally, summarize, summary_rows
from medeval.errors import RecordError
from medeval.store.keys import BASELINE
from medeval.store.run_folder import CellFolder, CellKey, RunFolder
from medeval.store.shards import n_asked
from medeval.types.run import RunRecord


def write_results(
    folder: RunFolder, cells: Sequence[CellKey], *, judge: str | None = None
) -> list[CellSummary]:
    """Rebuild the outcomes and tables of the run folder, and summarize the given cells.

    The tables cover the given cells and every other cell of the folder. `judge` is a judge
    identity, None for each benchmark's primary judge; another judge's outcomes and tables carry
    its name. Cells that were never begun are summarized as unscored.
    """
    record = folder.record()
    every = list(dict.fromkeys([*folder.cells(), *cells]))
    tables = Breakdowns()
    is_primary = judge is None or all(record.judges.get(key.benchmark) == judge for key in every)
    suffix = "" if is_primary else f".{judge}"

    def write(found: _CheckpointResults) -> None:
        _write_outcomes(folder, record, found)
        for key, results in found.results.items():
            part = record.benchmarks[key.benchmark]
            has_groups = any(sample.groups for sample in found.samples.values())
            is_broken_down = has_groups or part.cluster_size or part.suite
            if is_broken_down and (scored := scored_results(results, found.samples)):
                tables.add(CellScores(key=key, part=part, scored=scored))

    summaries = _summaries(folder, record, every, judge, write)
    _write_table(folder, f"summary{suffix}.csv", _summary_rows(summaries, record))
    for name, rows in tables.tables().items():
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
    return _summaries(folder, folder.record(), cells, judge, lambda _: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CheckpointResults:
    """What one checkpoint came to on one benchmark; `keys` are all of the benchmark's cells.

    `other_judge` is the judge, or None for the benchmark's primary one.
    """

    judge: str
    other_judge: str | None
    samples: Mapping[str, Labels]
    keys: Sequence[CellKey]
    results: Mapping[CellKey, Sequence[Result]]
    summaries: Sequence[CellSummary]


def _summaries(
    folder: RunFolder,
    record: RunRecord,
    cells: Sequence[CellKey],
    judge: str | None,
    visit: Callable[[_CheckpointResults], None],
) -> list[CellSummary]:
    """One summary a cell: checkpoints in the order of the cells, free arms before the others.

    Each checkpoint's results on a benchmark are visited, and then let go: all of a run's at once
    would take the memory of all its samples times all its checkpoints.
    """
    identities = {key.benchmark: judge or _primary_judge(record, key.benchmark) for key in cells}
    summaries: list[CellSummary] = []
    for benchmark, identity in identities.items():
        keys = [key for key in cells if key.benchmark == benchmark]
        samples = {sample.id: Labels.of(sample) for sample in folder.samples(benchmark)}
        for checkpoint in dict.fromkeys(key.checkpoint for key in keys):
            found = _read(folder, record, keys, checkpoint, identity, samples)
            visit(found)
            summaries += found.summaries
            # else it stays in memory while the next is read
            del found
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


def _read(
    folder: RunFolder,
    record: RunRecord,
    keys: Sequence[CellKey],
    checkpoint: str,
    judge: str,
    samples: Mapping[str, Labels],
) -> _CheckpointResults:
    read = {
        key: _results(folder.cell(key), record, judge, samples)
        for key in keys
        if key.checkpoint == checkpoint
    }
    is_primary = judge == record.judges.get(keys[0].benchmark)
    return _CheckpointResults(
        judge=judge,
        other_judge=None if is_primary else judge,
        samples=samples,
        keys=keys,
        results={key: results for key, (results, _) in read.items()},
        summaries=[summary for _, summary in read.values()],
    )


def _primary_judge(record: RunRecord, benchmark: str) -> str:
    if benchmark not in record.judges:
        raise RecordError(f"run.json names no judge for benchmark {benchmark!r}")
    return record.judges[benchmark]


def _results(
    cell: CellFolder, record: RunRecord, judge: str, samples: Mapping[str, Labels]
) -> tuple[Sequence[Result], CellSummary]:
    """Each trajectory's result, and what all of them come to, from one reading."""
    tally = Tally()
    trajectories = tally.passing(cell.trajectories())
    results = list(join_verdicts(trajectories, cell.verdicts_by(judge), judge))
    cost, key = tally.cost(), cell.key
    summary = summarize(
        CellName(
            checkpoint=key.checkpoint,
            series=key.series,
            step=key.step,
            benchmark=key.benchmark,
            protocol=key.protocol,
            judge=judge,
        ),
        results,
        lambda sample_id: samples[sample_id].cluster or sample_id,
        expected=_expected(cell, record, len(samples), cost.n_trajectories),
        cost=cost,
    )
    aggregate = record.benchmarks[key.benchmark].aggregate
    if aggregate == "mean over samples" or not summary.score.n:
        return results, summary
    value = official_score(aggregate, scored_results(results, samples))
    return results, replace(summary, score=replace(summary.score, value=value))


def _expected(cell: CellFolder, record: RunRecord, n_samples: int, n_done: int) -> int:
    """How many trajectories were asked of a cell; of one never begun, by the last session.

    A sample whose tries all failed was asked for, whatever else was.
    """
    begun = cell.record()
    entries = [record.sessions[-1].plan] if begun is None else begun.recorded
    asked = n_asked(entries, n_samples)
    failed = {(failure.sample_id, failure.repeat) for failure in cell.failures()}
    done = cell.done() if failed else ()
    return max(asked, n_done + sum(key not in done for key in failed))


def _write_outcomes(folder: RunFolder, record: RunRecord, found: _CheckpointResults) -> None:
    judge = found.other_judge
    for pair, (free, available) in record.pairs.items():
        for key, results in found.results.items():
            other = CellKey(key.series, key.step, key.benchmark, free)
            if key.protocol == available and other in found.results:
                owners = _series_of(key, found.keys)
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
                        name, found.samples.values(), found.results[other], results
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
    rows = summary_rows(summaries)
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
