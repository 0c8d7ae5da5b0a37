"""Judges a run again from its folder alone, without data set and engine."""

import asyncio
import csv
import io
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

from medeval.analysis.agreement import (
    DISAGREEMENT_COLUMNS,
    Agreement,
    disagreement_rows,
    judge_agreements,
)
from medeval.analysis.results import write_results
from medeval.analysis.summary import CellSummary
from medeval.errors import DefinitionError, RecordError, UsageError
from medeval.evaluation.loader import load_file
from medeval.evaluation.plan import ready_judge
from medeval.scoring.grade import judge_identity
from medeval.scoring.judge import Judge
from medeval.scoring.judge_model import JudgeClient, open_judge_model
from medeval.scoring.judging import judge_cell
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.definition import Loaded
from medeval.types.run import DefinitionCopy, Metric, RunRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RegradeSettings:
    """How a run is judged again: `client` asks the judges' model, `concurrency` requests at once.

    With `again`, answers that have a verdict are judged as well. `tell` shows a message to people.
    """

    client: JudgeClient | None = None
    concurrency: int = 1
    again: bool = False
    tell: Callable[[str], None] = lambda _: None


def regrade(
    folder: RunFolder, judges: Sequence[Loaded[Judge]], settings: RegradeSettings | None = None
) -> list[CellSummary]:
    """Judge every cell by `judges` or, without any, by each benchmark's own judge.

    Trajectories that have a verdict by the judge are skipped, unless the settings say `again`.
    The benchmark's own judge is the copy in the run folder, so its identity stays. Outcomes and
    tables are rebuilt; those of `judges` are added under the name of each.

    A judge that asks a model needs `client`; only a benchmark's own judge may use the replies in
    the run folder instead. Raises UsageError if a judge has neither.
    """
    settings = settings or RegradeSettings()
    with folder.lock():
        record, cells = folder.record(), folder.cells()
        judges = [ready_judge(judge, settings.client) for judge in judges]
        if judges:
            chosen = {key.benchmark: judges for key in cells}
            folder.write_record(_with_judges(folder, record, judges))
        else:
            client, own = _own_judges(folder, record, cells, settings.client)
            settings = replace(settings, client=client)
            chosen = {benchmark: [judge] for benchmark, judge in own.items()}
            _record_models(folder, record, own)
        asyncio.run(_judge(folder, cells, chosen, settings))
        identities: list[str | None] = [judge_identity(judge) for judge in judges]
        return [
            summary
            for identity in identities or [None]
            for summary in write_results(folder, cells, judge=identity)
        ]


async def _judge(
    folder: RunFolder,
    cells: Sequence[CellKey],
    chosen: dict[str, list[Loaded[Judge]]],
    settings: RegradeSettings,
) -> None:
    client, tell = settings.client, settings.tell
    async with nullcontext() if client is None else open_judge_model(client, folder.path, tell):
        for key in cells:
            await judge_cell(
                folder.cell(key),
                folder.samples(key.benchmark),
                chosen[key.benchmark],
                again=settings.again,
                concurrency=settings.concurrency,
            )


def write_agreements(folder: RunFolder, judges: Sequence[str]) -> list[Agreement]:
    """The agreement of each two judges that saw the same answers of a run.

    `judges` are judge identities; without any, the benchmarks' own judges are compared. The
    answers on which they disagree are written to `tables/disagreements.csv`.
    """
    judges = judges or sorted(set(folder.record().judges.values()))
    agreements = [
        agreement
        for agreement in judge_agreements(folder, judges)
        if agreement.n or agreement.undecided
    ]
    if agreements:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(DISAGREEMENT_COLUMNS)
        writer.writerows(row for agreement in agreements for row in disagreement_rows(agreement))
        folder.write_table("disagreements.csv", text.getvalue())
    return agreements


def _own_judges(
    folder: RunFolder, record: RunRecord, cells: Sequence[CellKey], client: JudgeClient | None
) -> tuple[JudgeClient | None, dict[str, Loaded[Judge]]]:
    """The client that the benchmarks' own judges share, and each judge, ready to grade."""
    own = {key.benchmark: kept_judge(folder, record, key.benchmark) for key in cells}
    for benchmark, judge in own.items():
        model = judge.value.model
        if judge.value.needs_endpoint and model is not None:
            # the replies in the run folder may be enough
            client = client or JudgeClient(model, None)
            if client.name != model:
                raise UsageError(
                    f"{benchmark!r} is judged by {judge_identity(judge)!r}, not by {client.name!r}",
                    hint=f"--judge {judge.value.name} adds the verdicts of another model",
                )
    return client, {
        benchmark: ready_judge(judge, client, f"of {benchmark!r} ")
        for benchmark, judge in own.items()
    }


def _record_models(folder: RunFolder, record: RunRecord, own: dict[str, Loaded[Judge]]) -> None:
    """Record which model judges, if the deferred run did not name one."""
    named = {benchmark: judge_identity(judge) for benchmark, judge in own.items()}
    if any(record.judges[benchmark] != identity for benchmark, identity in named.items()):
        later = RunRecord(sessions=(), judges=named, metrics=_metrics(list(own.values())))
        folder.write_record(record.extended(later))


def kept_judge(folder: RunFolder, record: RunRecord, benchmark: str) -> Loaded[Judge]:
    """The primary judge of a benchmark, from the copy of its definition in the run folder.

    If it asks a model, it has the model's name but no client.
    """
    identity = record.judges[benchmark]
    name, _, model = identity.partition("#")[0].partition("@")
    for copy in record.definitions:
        if copy.kind == "judge" and copy.name == name:
            for judge in _copied_judges(folder, copy):
                named = Loaded(replace(judge.value, model=model or None), judge.source)
                if judge_identity(named) == identity:
                    return named
    raise RecordError(
        f"the run folder has no definition of its judge {identity!r}",
        hint="definitions/ was changed: restore it from a copy, or name a judge with --judge",
    )


def _copied_judges(folder: RunFolder, part: DefinitionCopy) -> Sequence[Loaded[Judge]]:
    """The judges in the run's copy of a definition file; RecordError where it does not load."""
    try:
        return load_file(folder.path / "definitions" / part.copy_name, Judge)
    except DefinitionError as error:
        raise RecordError(
            f"this medeval cannot load the run's own judge {part.name!r}: {error.message}",
            hint=f"name a judge to take its place: --judge {part.name} if it is shipped, or a file",
        ) from error


def _metrics(judges: Sequence[Loaded[Judge]]) -> dict[str, Metric]:
    return {
        judge_identity(judge): Metric(name=judge.value.metric, correct_at=judge.value.correct_at)
        for judge in judges
    }


def _with_judges(
    folder: RunFolder, record: RunRecord, judges: Sequence[Loaded[Judge]]
) -> RunRecord:
    copies = tuple(
        DefinitionCopy(
            kind="judge",
            name=judge.value.name,
            path=str(judge.source.path),
            sha256=judge.source.sha256,
            copy_name=folder.keep_definition(judge.source.path, "judge", judge.value.name),
        )
        for judge in judges
    )
    return record.extended(RunRecord(sessions=(), definitions=copies, metrics=_metrics(judges)))
