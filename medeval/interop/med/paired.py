"""A run's outcomes for MED's formats: the same samples in the same order at every checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medeval.errors import RecordError, UsageError
from medeval.store.keys import BASELINE, SampleKey
from medeval.store.run_folder import CellKey, OutcomeKey, RunFolder
from medeval.types.outcome import OutcomeRecord
from medeval.types.trajectory import ToolCall

logger = logging.getLogger(__name__)

SHOWN_IDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedCell:
    """Both arms of one benchmark at one checkpoint, in the benchmark's order.

    `free` and `available` are whether each answer is correct; `calls` counts the calls that reached
    the tools. `series` and `step` are those of the cells; a shared baseline's series is `baseline`.
    `scores` are the arms' scores, free first. `results_name` is the file that an imported score was
    read from.
    """

    series: str
    step: int | None
    benchmark: str
    free: tuple[bool, ...]
    available: tuple[bool, ...]
    calls: tuple[int, ...]
    scores: tuple[float, float]
    results_name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRun:
    """Every checkpoint's outcomes under one pair, over the samples that all of them decided.

    `order` maps a benchmark to the samples and repeats that its cells hold, in order; `free` and
    `available` name the protocols.
    """

    pair: str
    free: str
    available: str
    order: Mapping[str, tuple[SampleKey, ...]]
    cells: tuple[PairedCell, ...]

    def of(self, series: str) -> list[PairedCell]:
        """The cells of a series; those of a shared baseline are not among them."""
        return [cell for cell in self.cells if cell.series == series]


def calls_that_reached_tools(calls: Sequence[ToolCall]) -> int:
    """MED's `tool_call_counts`: calls that were handed to a tool, refused ones included."""
    return sum(call.status in ("executed", "rejected") for call in calls)


def paired_run(
    folder: RunFolder, *, pair: str | None = None, allow_missing: bool = False
) -> PairedRun:
    """A run's outcomes by its primary judges, cut to the samples decided at every checkpoint.

    `pair` may be None if the run has only one. Samples that are undecided at any checkpoint are
    left out with a warning. Raises RecordError where a sample is unscored at any checkpoint, unless
    `allow_missing` leaves it out as well, or where no sample is left; UsageError where the run has
    no such pair.
    """
    record = folder.record()
    name = _chosen_pair(record.pairs, pair)
    free, available = record.pairs[name]
    keys = [key for key in folder.outcome_keys() if key.judge is None and key.pair == name]
    if not keys:
        raise RecordError(
            f"the run in {str(folder.path)!r} has no outcomes of pair {name!r}",
            hint="evaluate both arms; `medeval grade` rebuilds outcomes",
        )
    cells = set(folder.cells())
    _warn_of_single_arms(cells, keys, record.pairs[name])
    order: dict[str, tuple[SampleKey, ...]] = {}
    paired: list[PairedCell] = []
    for benchmark in dict.fromkeys(key.benchmark for key in keys):
        outcomes = {
            cell: _by_key(folder, key)
            for key in keys
            if key.benchmark == benchmark
            for cell in [_cell_of(key, available, cells)]
        }
        kept = _decided_everywhere(folder, benchmark, outcomes, allow_missing=allow_missing)
        order[benchmark] = kept.keys
        for cell, found in outcomes.items():
            paired.append(_paired_cell(folder, cell, free, found, kept))
    return PairedRun(
        pair=name,
        free=free,
        available=available,
        order=order,
        cells=tuple(sorted(paired, key=lambda cell: (cell.series, cell.step or 0))),
    )


def _chosen_pair(pairs: Mapping[str, tuple[str, str]], pair: str | None) -> str:
    if pair is None and len(pairs) == 1:
        return next(iter(pairs))
    if pair is None or pair not in pairs:
        seen = "no pair was named" if pair is None else f"no pair {pair!r}"
        known = ", ".join(sorted(pairs)) or "none"
        raise UsageError(f"{seen}; the run has: {known}", hint="--pair NAME")
    return pair


def _cell_of(key: OutcomeKey, protocol: str, cells: set[CellKey]) -> CellKey:
    """The available arm's cell behind outcomes: the series' own, else the shared baseline's."""
    own = CellKey(key.series, key.step, key.benchmark, protocol)
    return own if own in cells else CellKey(BASELINE, key.step, key.benchmark, protocol)


def _warn_of_single_arms(
    cells: set[CellKey], keys: Sequence[OutcomeKey], arms: tuple[str, str]
) -> None:
    paired = {_cell_of(key, arms[1], cells) for key in keys}
    both_arms = {(cell.series, cell.step, cell.benchmark) for cell in paired}
    for cell in sorted(cells, key=lambda cell: cell.order):
        if cell.protocol in arms and (cell.series, cell.step, cell.benchmark) not in both_arms:
            logger.warning(
                "left out: %s x %s has only the arm %r",
                cell.checkpoint,
                cell.benchmark,
                cell.protocol,
            )


def _by_key(folder: RunFolder, key: OutcomeKey) -> dict[SampleKey, OutcomeRecord]:
    found = folder.outcomes(key.series, key.step, key.benchmark, key.pair)
    return {(outcome.sample_id, outcome.repeat): outcome for outcome in found}


@dataclass(frozen=True, slots=True)
class _Kept:
    keys: tuple[SampleKey, ...]
    is_whole: bool


def _decided_everywhere(
    folder: RunFolder,
    benchmark: str,
    outcomes: Mapping[CellKey, Mapping[SampleKey, OutcomeRecord]],
    *,
    allow_missing: bool,
) -> _Kept:
    repeats = 1 + max((repeat for found in outcomes.values() for _, repeat in found), default=0)
    wanted = [
        (sample.id, repeat) for sample in folder.samples(benchmark) for repeat in range(repeats)
    ]
    missing = {key for found in outcomes.values() for key in wanted if key not in found}
    undecided = {
        key
        for found in outcomes.values()
        for key, outcome in found.items()
        if outcome.free_correct is None or outcome.available_correct is None
    }
    if missing and not allow_missing:
        raise RecordError(
            f"benchmark {benchmark!r} has samples without an outcome at some checkpoint: "
            f"{_shown(missing)}",
            hint="finish the run, or leave those samples out everywhere with --allow-missing",
        )
    for reason, keys in (("unscored", missing), ("undecided", undecided)):
        if keys:
            logger.warning(
                "benchmark %s: left out everywhere, %s at a checkpoint: %s",
                benchmark,
                reason,
                _shown(keys),
            )
    kept = tuple(key for key in wanted if key not in missing and key not in undecided)
    if not kept:
        raise RecordError(f"benchmark {benchmark!r} has no sample decided at every checkpoint")
    return _Kept(kept, is_whole=len(kept) == len(wanted))


def _shown(keys: set[SampleKey]) -> str:
    ids = sorted({sample_id for sample_id, _ in keys})
    more = f" and {len(ids) - SHOWN_IDS} more" if len(ids) > SHOWN_IDS else ""
    return f"{', '.join(map(repr, ids[:SHOWN_IDS]))}{more}"


def _paired_cell(
    folder: RunFolder,
    key: CellKey,
    free: str,
    outcomes: Mapping[SampleKey, OutcomeRecord],
    kept: _Kept,
) -> PairedCell:
    chosen = [outcomes[sample] for sample in kept.keys]
    calls = _calls(folder, key, outcomes)
    arms = (CellKey(key.series, key.step, key.benchmark, free), key)
    recorded = [_recorded(folder, arm) for arm in arms] if kept.is_whole else [{}, {}]
    shares = (
        sum(outcome.free_correct is True for outcome in chosen) / len(chosen),
        sum(outcome.available_correct is True for outcome in chosen) / len(chosen),
    )
    results_name = recorded[1].get("evaluation_results")
    return PairedCell(
        series=key.series,
        step=key.step,
        benchmark=key.benchmark,
        free=tuple(outcome.free_correct is True for outcome in chosen),
        available=tuple(outcome.available_correct is True for outcome in chosen),
        calls=tuple(calls[sample] for sample in kept.keys),
        scores=(
            _number(recorded[0].get("published_score"), shares[0]),
            _number(recorded[1].get("published_score"), shares[1]),
        ),
        results_name=results_name if isinstance(results_name, str) else None,
    )


def _recorded(folder: RunFolder, key: CellKey) -> Mapping[str, object]:
    """The published score of an imported cell, and the file that it was read from."""
    record = folder.cell(key).record()
    return {} if record is None else record.recorded[0]


def _number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) else otherwise


def _calls(
    folder: RunFolder, key: CellKey, outcomes: Mapping[SampleKey, OutcomeRecord]
) -> dict[SampleKey, int]:
    """The calls that reached the tools; conversations are read only if outcomes do not tell."""
    counts = {
        sample: outcome.calls_executed if outcome.called else 0
        for sample, outcome in outcomes.items()
    }
    if all(
        not outcome.called or outcome.calls_attempted == outcome.calls_executed
        for outcome in outcomes.values()
    ):
        return counts
    for trajectory in folder.cell(key).trajectories():
        sample = (trajectory.sample_id, trajectory.repeat)
        counts[sample] = calls_that_reached_tools(trajectory.calls)
    return counts
