"""The main commands of the command line as functions."""

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from medeval.analysis.frames import Run
from medeval.errors import ModelError, UsageError
from medeval.evaluation.engines import model_opener
from medeval.evaluation.loader import load
from medeval.evaluation.plan import judge_client, ready_judge, resolve
from medeval.evaluation.plan_file import PlanFile, read_options
from medeval.evaluation.run import carry_out
from medeval.models.base import Model
from medeval.models.checkpoints import Checkpoint
from medeval.scoring.judge import Judge
from medeval.scoring.predictions import score_lines

logger = logging.getLogger(__name__)


class _LogProgress:
    """Writes a run's messages to the log; shows no progress."""

    def __init__(self, n_missing: int) -> None:
        pass

    def advance(self, *, scored: bool) -> None:
        pass

    def tell(self, message: str) -> None:
        logger.warning("%s", message)


def run(
    plan: str | Path | None = None,
    *,
    open_model: Callable[[Checkpoint], Model] | None = None,
    **options: Any,
) -> Run:
    """Run, resume or extend a plan, as `medeval run` does, and return the run.

    `options` are the command line's long flags with underscores (`checkpoints=["runs/rl"]`,
    `benchmarks=["vstar"]`, `output_dir="outputs/x"`); they win over the plan file's. `open_model`
    replaces the backend: a function from a checkpoint to a model of your own.

    Raises UsageError, DefinitionError, DataError or RecordError if the plan cannot be carried
    out, and ModelError if every cell stops. If only some cells stop, the reasons are logged as
    warnings, and the frames contain the unscored samples.
    """
    unknown = [name for name in options if name not in PlanFile.model_fields]
    if unknown:
        raise UsageError(
            f"run() has no option {unknown[0]!r}; known: {', '.join(PlanFile.model_fields)}"
        )
    listed = {name: _listed(name, value) for name, value in options.items()}
    read = read_options(None if plan is None else Path(plan), listed)
    resolved = resolve(read, has_own_models=open_model is not None)
    if resolved.options.watch:
        raise UsageError("run() returns when all is done; watch is for the command line")
    for note in resolved.notes:
        logger.warning("%s", note)
    if open_model is not None and (
        resolved.options.workers is not None or resolved.options.cluster is not None
    ):
        raise UsageError(
            "workers open the backend's models, and open_model is a function of this process",
            hint="leave out open_model, or workers and cluster",
        )
    report = carry_out(resolved, open_model or model_opener(resolved), _LogProgress)
    if len(report.stopped) == len(report.summaries):
        raise ModelError(f"every cell stopped: {next(iter(report.stopped.values()))}")
    return Run(report.folder.path)


def _listed(name: str, value: object) -> object:
    """The option's value, with a single name as a list where a list is expected, paths as text."""
    if isinstance(value, Path):
        value = str(value)
    wants_names = PlanFile.model_fields[name].annotation == tuple[str, ...]
    if wants_names:
        items = [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
        return tuple(str(item) for item in items)
    return value


def load_run(path: str | Path) -> Run:
    """A run folder as pandas frames. Raises RecordError if `path` is not a run folder."""
    return Run(path)


def score(lines: Iterable[Mapping[str, Any]], judge: str, **options: Any) -> list[dict[str, Any]]:
    """Judge predictions made elsewhere, as `medeval score` does.

    Each line holds `answer` and the fields of a sample that the judge reads (`targets`,
    `question`, ...). `options` are those of a judge that asks a model: `judge_model`,
    `judge_base_url`, ... Raises DataError, naming the line and the missing field.

    >>> score([{"answer": "19.0", "targets": ["19.4"]}], "relaxed_accuracy")[0]["verdict"]
    'correct'
    """
    read = read_options(None, options)
    client = judge_client(read)
    loaded = ready_judge(load(judge, Judge), client)
    scored = score_lines(lines, loaded, client=client, concurrency=read.judge_concurrency)
    return [line.model_dump() for line in scored]
