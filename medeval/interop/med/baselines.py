"""The baselines of a tree of MED logs: which checkpoint is step 0 of which experiment."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from medeval.errors import UsageError
from medeval.interop.med.layout import (
    BASELINES,
    LogFolder,
    find_logs,
    refuse_duplicates,
    root_of,
)


def with_outside_baselines(
    found: Sequence[LogFolder], directory: Path, baselines: Sequence[str]
) -> tuple[list[LogFolder], dict[str, str]]:
    """The logs, including baselines outside the tree, and the baseline that each flag names.

    `baselines` are `[EXPERIMENT=]BASELINE`, where BASELINE is an experiment of the tree or another
    folder. The result maps an experiment to its baseline, and "" to that of all experiments.
    """
    logs = list(found)
    named: dict[str, str] = {}
    for argument in baselines:
        experiment, place = _split(argument)
        known = {item.experiment for item in logs}
        if experiment and experiment not in known:
            raise UsageError(
                f"--baseline names the experiment {experiment!r}, which is not there; "
                f"found: {sorted(known)!r}"
            )
        inner = _inside(Path(place), root_of(directory))
        if place in known or inner in known:
            named[experiment] = place if place in known else inner
        elif Path(place).is_dir():
            added = find_logs(Path(place))
            logs += added
            refuse_duplicates(logs)
            named[experiment] = added[0].experiment
        else:
            raise UsageError(
                f"no baseline {place!r}: neither an experiment nor a folder",
                hint=f"the experiments: {', '.join(sorted(known))}",
            )
    return logs, named


def _split(argument: str) -> tuple[str, str]:
    experiment, separator, place = argument.partition("=")
    if separator and not Path(argument).exists():
        return experiment, place
    return "", argument


def _inside(place: Path, root: Path) -> str:
    """A folder's name as an experiment of the tree, or "" where it lies elsewhere."""
    if place.resolve().is_relative_to(root.resolve()):
        return place.resolve().relative_to(root.resolve()).as_posix()
    return ""


def baselines_of(found: Sequence[LogFolder], named: Mapping[str, str]) -> dict[str, str | None]:
    """The baseline of each experiment that has steps and no step 0 of its own.

    It is the one in `named`; else the one that BASELINES has for the experiment's prefix; else the
    only experiment below `baseline/`; else None. Raises UsageError where several are below
    `baseline/`, or where a named baseline has steps.
    """
    steps: dict[str, set[int | None]] = {}
    for logs in found:
        steps.setdefault(logs.experiment, set()).add(logs.step)
    stepless = {name for name, found_steps in steps.items() if found_steps == {None}}
    for name in named.values():
        if name not in stepless:
            raise UsageError(f"the baseline {name!r} has steps: a baseline is one checkpoint")
    for name in named:
        if name and 0 in steps[name]:
            raise UsageError(f"experiment {name!r} has a step 0 of its own, and needs no baseline")
    return {
        name: _baseline_of(name, stepless, named)
        for name, found_steps in steps.items()
        if name not in stepless and 0 not in found_steps
    }


def _baseline_of(experiment: str, stepless: set[str], named: Mapping[str, str]) -> str | None:
    if experiment in named or "" in named:
        return named.get(experiment, named.get(""))
    for prefix, baseline in BASELINES.items():
        if experiment.startswith(prefix) and baseline in stepless:
            return baseline
    candidates = sorted(name for name in stepless if name.startswith("baseline/"))
    if len(candidates) > 1:
        raise UsageError(
            f"which baseline is step 0 of {experiment!r}? There are: {', '.join(candidates)}",
            hint=f"--baseline {experiment}={candidates[0]}",
        )
    return candidates[0] if candidates else None
