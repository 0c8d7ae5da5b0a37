"""The original's table of one experiment: 110 columns, a row for each step and benchmark.

Source: recipe/med/analysis_plot/create_csv.py of GAIR-NLP/Med. There, and so here, 0/0 is 0.0;
in medeval's own tables it is undefined.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medeval.errors import UsageError
from medeval.interop.med.experiments import Experiment, experiments, start_of
from medeval.interop.med.layout import benchmark_name
from medeval.interop.med.paired import PairedCell, PairedRun, paired_run
from medeval.store.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd

Mask = NDArray[np.bool_]


def med_csv(
    folder: RunFolder, series: str, *, pair: str | None = None, allow_missing: bool = False
) -> str:
    """The table of a series as CSV text, as the original's create_csv.py writes it.

    The series "baseline" is the shared baseline. Raises UsageError where the run has no such series
    or pair, and the errors of `paired_run`.
    """
    run = paired_run(folder, pair=pair, allow_missing=allow_missing)
    found = [item for item in experiments(run) if item.series == series]
    if not found:
        known = ", ".join(dict.fromkeys(cell.series for cell in run.cells))
        raise UsageError(
            f"the run has no series {series!r} under pair {run.pair!r}; it has: {known}"
        )
    return experiment_csv(run, found[0])


def experiment_csv(run: PairedRun, experiment: Experiment) -> str:
    """The table of an experiment as CSV text."""
    return str(experiment_frame(run, experiment).to_csv(index=False))


def experiment_frame(run: PairedRun, experiment: Experiment) -> "pd.DataFrame":
    """The table of an experiment, sorted by step and the original's name of the benchmark.

    Columns without a suffix split the samples by the tool-free answers at the step itself, those
    that end in `_0` by those at the start, those in `_0_t` by both.
    """
    import pandas as pd

    start = start_of(run, experiment)
    rows = [_row(experiment, cell, start.get(cell.benchmark)) for cell in run.of(experiment.series)]
    return pd.DataFrame(rows).sort_values(["step", "benchmark"])


def _row(experiment: Experiment, cell: PairedCell, start: PairedCell | None) -> dict[str, Any]:
    now = np.array(cell.free)
    row: dict[str, Any] = {
        "step": cell.step or 0,
        "benchmark": benchmark_name(cell.benchmark),
        "json_path": experiment.results_name(cell),
        "wo_tool_score": cell.scores[0],
        "w_tool_score": cell.scores[1],
        **_Split.of(cell, now, ~now).columns(),
    }
    if start is not None:
        before = np.array(start.free)
        fixed = _Split.of(cell, before, ~before).columns()
        both = _Split.of(cell, before & now, ~before & ~now).columns()
        row |= {f"{name}_0": value for name, value in fixed.items()}
        row |= {f"{name}_0_t": value for name, value in both.items()}
    return row


def _count(mask: Mask) -> int:
    return int(np.count_nonzero(mask))


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


@dataclass(frozen=True)
class _Split:
    """A cell's samples, split into those that succeed and those that fail without tools."""

    succeed: Mask
    fail: Mask
    correct: Mask
    called: Mask
    call_sum: int

    @classmethod
    def of(cls, cell: PairedCell, succeed: Mask, fail: Mask) -> "_Split":
        calls = np.array(cell.calls)
        return cls(succeed, fail, np.array(cell.available), calls > 0, int(calls.sum()))

    @cached_property
    def _term_counts(self) -> tuple[int, int, int, int]:
        """Call gain, schema gain, call harm, schema harm."""
        return (
            _count(self.fail & self.correct & self.called),
            _count(self.fail & self.correct & ~self.called),
            _count(self.succeed & ~self.correct & self.called),
            _count(self.succeed & ~self.correct & ~self.called),
        )

    def columns(self) -> dict[str, int | float]:
        """The 35 columns of a split, in the original's order."""
        total = len(self.correct)
        terms = self._term_counts
        return {
            **{f"term{n}": _ratio(count, total) for n, count in enumerate(terms, start=1)},
            **self._counts(total),
            **{f"term{n}_num": count for n, count in enumerate(terms, start=1)},
            "N_fail": _count(self.fail),
            "N_succ": _count(self.succeed),
            "N_call_fail": _count(self.fail & self.called),
            **dict(self._factors(total)),
        }

    def _counts(self, total: int) -> dict[str, int | float]:
        n_called, n_correct = _count(self.called), _count(self.correct)
        return {
            "call_num": n_called,
            "call_sum": self.call_sum,
            "wo_tool_total": total,
            "w_tool_total": total,
            "wo_tool_correct_num": _count(self.succeed),
            "wo_tool_incorrect_num": _count(self.fail),
            "w_tool_correct_num": n_correct,
            "w_tool_incorrect_num": total - n_correct,
            "w_tool_call_num": n_called,
            "w_tool_no_call_num": total - n_called,
        }

    def _factors(self, total: int) -> Iterator[tuple[str, float]]:
        """Mass, policy and quality of each term, then the complements of the qualities."""
        gains, harms = self._qualities
        n_fail, n_succeed = _count(self.fail), _count(self.succeed)
        yield "p_fail", _ratio(n_fail, total)
        yield "p_succ", _ratio(n_succeed, total)
        yield "p_call_fail", _ratio(_count(self.fail & self.called), n_fail)
        yield "p_nocall_fail", _ratio(_count(self.fail & ~self.called), n_fail)
        yield "p_call_succ", _ratio(_count(self.succeed & self.called), n_succeed)
        yield "p_nocall_succ", _ratio(_count(self.succeed & ~self.called), n_succeed)
        yield "p_acc_call_fail", gains[0]
        yield "p_acc_nocall_fail", gains[1]
        yield "p_err_call_succ", harms[0]
        yield "p_err_nocall_succ", harms[1]
        yield "p_acc_call_succ", 1.0 - harms[0]
        yield "p_acc_nocall_succ", 1.0 - harms[1]
        yield "p_err_call_fail", 1.0 - gains[0]
        yield "p_err_nocall_fail", 1.0 - gains[1]

    @property
    def _qualities(self) -> tuple[tuple[float, float], tuple[float, float]]:
        gain_called, gain_uncalled, harm_called, harm_uncalled = self._term_counts
        return (
            _ratio(gain_called, _count(self.fail & self.called)),
            _ratio(gain_uncalled, _count(self.fail & ~self.called)),
        ), (
            _ratio(harm_called, _count(self.succeed & self.called)),
            _ratio(harm_uncalled, _count(self.succeed & ~self.called)),
        )
