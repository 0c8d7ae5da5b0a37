"""How far two judges agree, on the same answers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medeval.store.keys import CellKey
from medeval.store.run_folder import RunFolder
from medeval.types.verdict import Verdict, VerdictStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictPair:
    """The verdicts of two judges on one answer."""

    cell: CellKey
    sample_id: str
    repeat: int
    first: VerdictStatus
    second: VerdictStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Two judges on the answers that both have a verdict on.

    `n` counts the answers that both decided. `agreed` is the share of those with equal verdicts and
    `kappa` Cohen's kappa over them, None where `n` is 0 or all verdicts are the same. `undecided`
    counts the answers that either judge left undecided. `disagreements` lists the answers with two
    different verdicts, undecided ones included.
    """

    first: str
    second: str
    n: int
    agreed: float | None
    kappa: float | None
    undecided: int
    disagreements: tuple[VerdictPair, ...]


def cohens_kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Agreement of two raters beyond what their own rates would give by chance (Cohen, 1960).

    Parameters
    ----------
    pairs
        The two labels of each item.

    Returns
    -------
    float or None
        At most 1.0, for full agreement; 0.0 for what chance gives; below 0 for less. None
        without items, or where both raters always give one same label.

    Examples
    --------
    >>> cohens_kappa([("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "no")])
    0.5
    """
    labels = sorted({label for pair in pairs for label in pair})
    if len(labels) < 2:
        return None
    from statsmodels.stats import inter_rater

    table = np.zeros((len(labels), len(labels)))
    for (first, second), count in Counter(pairs).items():
        table[labels.index(first), labels.index(second)] = count
    return float(inter_rater.cohens_kappa(table, return_results=False))


def agreement(first: str, second: str, compared: Sequence[VerdictPair]) -> Agreement:
    """How far two judges agree on the answers that both have a verdict on."""
    decided = [
        (item.first, item.second)
        for item in compared
        if "undecided" not in (item.first, item.second)
    ]
    same = sum(one == other for one, other in decided)
    return Agreement(
        first=first,
        second=second,
        n=len(decided),
        agreed=same / len(decided) if decided else None,
        kappa=cohens_kappa(decided),
        undecided=len(compared) - len(decided),
        disagreements=tuple(item for item in compared if item.first != item.second),
    )


def judge_agreements(folder: RunFolder, judges: Sequence[str]) -> list[Agreement]:
    """The agreement of each two judges over a run, then of the two parts of composite judges."""
    verdicts = {key: _by_answer(folder, key, judges) for key in folder.cells()}
    found = [
        agreement(first, second, _compared(verdicts, first, second))
        for index, first in enumerate(judges)
        for second in judges[index + 1 :]
    ]
    parts = {judge: _compared_parts(verdicts, judge) for judge in judges}
    return found + [
        agreement(f"{judge}: {first}", second, compared)
        for judge, by_names in parts.items()
        for (first, second), compared in by_names.items()
    ]


DISAGREEMENT_COLUMNS = (
    "first judge",
    "second judge",
    "checkpoint",
    "benchmark",
    "protocol",
    "sample",
    "repeat",
    "first verdict",
    "second verdict",
)


def disagreement_rows(agreement: Agreement) -> list[tuple[str, ...]]:
    """The disagreements as rows under `DISAGREEMENT_COLUMNS`."""
    return [
        (
            agreement.first,
            agreement.second,
            item.cell.checkpoint,
            item.cell.benchmark,
            item.cell.protocol,
            item.sample_id,
            str(item.repeat),
            item.first,
            item.second,
        )
        for item in agreement.disagreements
    ]


_Verdicts = dict[CellKey, dict[tuple[str, int], dict[str, Verdict]]]


def _by_answer(
    folder: RunFolder, key: CellKey, judges: Sequence[str]
) -> dict[tuple[str, int], dict[str, Verdict]]:
    found: dict[tuple[str, int], dict[str, Verdict]] = {}
    for verdict in folder.cell(key).verdicts():
        if verdict.judge in judges:
            found.setdefault((verdict.sample_id, verdict.repeat), {})[verdict.judge] = verdict
    return found


def _compared(verdicts: _Verdicts, first: str, second: str) -> list[VerdictPair]:
    return [
        VerdictPair(
            cell=key,
            sample_id=sample_id,
            repeat=repeat,
            first=by_judge[first].status,
            second=by_judge[second].status,
        )
        for key, answers in verdicts.items()
        for (sample_id, repeat), by_judge in answers.items()
        if first in by_judge and second in by_judge
    ]


def _compared_parts(verdicts: _Verdicts, judge: str) -> dict[tuple[str, str], list[VerdictPair]]:
    """The verdicts of a composite judge's two parts, by the names of the parts."""
    found: dict[tuple[str, str], list[VerdictPair]] = {}
    for key, answers in verdicts.items():
        for (sample_id, repeat), by_judge in answers.items():
            parts = dict(by_judge[judge].parts) if judge in by_judge else {}
            if len(parts) == 2:
                (first, one), (second, other) = parts.items()
                found.setdefault((first, second), []).append(
                    VerdictPair(
                        cell=key,
                        sample_id=sample_id,
                        repeat=repeat,
                        first=_status(one),
                        second=_status(other),
                    )
                )
    return found


def _status(score: float | None) -> VerdictStatus:
    if score is None:
        return "undecided"
    return "correct" if score >= 1.0 else "incorrect"
