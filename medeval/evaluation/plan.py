"""A plan: the checkpoints, benchmarks, protocols and judges that a run's options name."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from medeval.data.benchmark import Benchmark
from medeval.data.dataset import BenchmarkSamples
from medeval.errors import UsageError
from medeval.evaluation.loader import load, refuse_shared_names
from medeval.evaluation.plan_file import Backend, PlanFile
from medeval.models.base import Sampling
from medeval.models.checkpoints import (
    Checkpoint,
    discover,
    located,
    model_beside_steps,
    series_of,
)
from medeval.models.model_folder import UnfinishedError, base_named_by, model_directory
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.scoring.judge import Judge
from medeval.scoring.judge_model import JudgeClient, open_client
from medeval.store.keys import BASELINE
from medeval.store.run_folder import CellKey
from medeval.store.shards import run_folder
from medeval.types.definition import Loaded


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBenchmark:
    """A benchmark with its judges, the primary one first; `data_dir` is None for the hub's rows."""

    loaded: Loaded[Benchmark]
    data_dir: Path | None
    judges: tuple[Loaded[Judge], ...]

    @property
    def name(self) -> str:
        """The benchmark's name."""
        return self.loaded.value.name

    def samples(self, options: PlanFile) -> BenchmarkSamples:
        """The benchmark's samples that the options select."""
        return BenchmarkSamples(
            self.loaded.value,
            self.data_dir,
            limit=options.limit,
            ids=options.sample_id,
            shard=options.shard,
            allow_count_mismatch=options.allow_count_mismatch,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The resolved plan of a run: definitions are loaded, checkpoints are found.

    `notes` name, for people, the folders of --checkpoints that are left out, and why.
    `opens_folders` says that the backend loads the checkpoints from folders; False where a server
    or the caller opens them.
    """

    options: PlanFile
    backend: Backend
    checkpoints: tuple[Checkpoint, ...]
    baseline: Checkpoint | None
    benchmarks: tuple[PlannedBenchmark, ...]
    protocols: tuple[Loaded[EvalProtocol], ...]
    pairs: tuple[Loaded[Pair], ...]
    output_dir: Path
    judge_client: JudgeClient | None = None
    notes: tuple[str, ...] = ()
    opens_folders: bool = False

    @property
    def all_checkpoints(self) -> tuple[Checkpoint, ...]:
        """The baseline, if there is one, and then the checkpoints."""
        return self.checkpoints if self.baseline is None else (self.baseline, *self.checkpoints)

    def cells(self) -> Iterator[tuple[Checkpoint, PlannedBenchmark, Loaded[EvalProtocol]]]:
        """Every cell in the order of the run: by checkpoint, then benchmark, then protocol."""
        for checkpoint in self.all_checkpoints:
            for benchmark in self.benchmarks:
                for protocol in self.protocols:
                    yield checkpoint, benchmark, protocol


def cell_key(checkpoint: Checkpoint, benchmark: str, protocol: str) -> CellKey:
    """The store's key of one cell."""
    return CellKey(
        series=checkpoint.series, step=checkpoint.step, benchmark=benchmark, protocol=protocol
    )


def resolve(options: PlanFile, *, has_own_models: bool = False) -> Plan:
    """Load everything that the options name. Raises UsageError or DefinitionError.

    With `has_own_models`, the caller opens the models: their names need be neither folders nor
    names on the hub.
    """
    if not options.benchmarks:
        raise UsageError("no benchmark to run", hint="--benchmarks NAME[,NAME]; see medeval list")
    backend = options.backend or ("openai" if options.base_url else "transformers")
    if backend != "openai" and options.base_url:
        raise UsageError(
            f"--base-url names a server, but the backend is {backend!r}", hint="--backend openai"
        )
    if backend == "openai" and not options.base_url:
        raise UsageError(
            "the openai backend needs a server", hint="--base-url http://127.0.0.1:8000"
        )
    opens_folders = backend != "openai" and not has_own_models
    checkpoints, baseline, notes = _resolve_checkpoints(options, backend, looks_up=opens_folders)
    pairs, protocols = _resolve_protocols(options)
    client = judge_client(options)
    return Plan(
        options=options,
        backend=backend,
        checkpoints=checkpoints,
        baseline=baseline,
        benchmarks=tuple(
            replace(planned, judges=_ready_judges(planned, client, options))
            for planned in plan_benchmarks(options)
        ),
        protocols=protocols,
        pairs=pairs,
        output_dir=Path(
            options.output_dir or run_folder(_first_series(options, checkpoints), options.shard)
        ),
        judge_client=client,
        notes=notes,
        opens_folders=opens_folders,
    )


def judge_client(options: PlanFile) -> JudgeClient | None:
    """The client of the judges' model, not connected yet; None if the options name no model."""
    if options.judge_model is None:
        if options.judge_base_url is not None:
            raise UsageError(
                "--judge-base-url names a server, but no model on it", hint="--judge-model NAME"
            )
        return None
    return open_client(
        name=options.judge_model,
        base_url=options.judge_base_url,
        backend=options.judge_backend or "openai",
        api_key_variable=options.judge_api_key_variable,
        max_calls=options.judge_max_calls,
        arguments=options.judge_args,
    )


def _ready_judges(
    planned: PlannedBenchmark, client: JudgeClient | None, options: PlanFile
) -> tuple[Loaded[Judge], ...]:
    """The judges of a benchmark, ready to grade. Raises UsageError if one cannot grade."""
    if options.defer_grading and client is None:
        return planned.judges
    return tuple(ready_judge(judge, client, f"of {planned.name!r} ") for judge in planned.judges)


def ready_judge(judge: Loaded[Judge], client: JudgeClient | None, whose: str = "") -> Loaded[Judge]:
    """A judge that is ready to grade. Raises UsageError if it lacks a model or a package."""
    judge.value.check()
    if not judge.value.needs_endpoint:
        return judge
    if client is None:
        raise UsageError(
            f"judge {judge.value.name!r} {whose}asks a model, and none is named",
            hint="--judge-model NAME --judge-base-url URL; medeval run --defer-grading leaves "
            "the judging to medeval grade",
        )
    return client.bound(judge)


def _first_series(options: PlanFile, checkpoints: Sequence[Checkpoint]) -> str:
    """The series that the run folder is called after; it may have no step yet."""
    return checkpoints[0].series if checkpoints else series_of(options.checkpoints[0])


def _resolve_checkpoints(
    options: PlanFile, backend: str, *, looks_up: bool
) -> tuple[tuple[Checkpoint, ...], Checkpoint | None, tuple[str, ...]]:
    """The checkpoints, the baseline, and notes on the steps that are left out.

    `looks_up` says whether single models are folders or names on the hub.
    """
    _check_watch(options)
    singles = [_single_checkpoint(model) for model in options.model]
    steps = _chosen_steps(options)
    _check_names([*steps, *singles])
    baseline = None
    if options.baseline is not None:
        _refuse_step_0(steps)
        baseline = replace(_single_checkpoint(options.baseline), series=BASELINE, step=0)
        baseline = _located(baseline, options) if looks_up else baseline
    found, left_out = _finished(steps, options, backend)
    if looks_up:
        singles = [_located(single, options) for single in singles]
    checkpoints = (*found, *singles)
    if not checkpoints and not options.watch:
        if left_out:
            raise next(iter(left_out.values()))
        raise UsageError(
            "no checkpoint to evaluate", hint="--checkpoints DIR for a series, --model for one"
        )
    everything = (*checkpoints, *filter(None, [baseline]))
    if options.base is not None and everything and all(one.base is None for one in everything):
        raise UsageError(
            "--base names the base of LoRA adapters, and no checkpoint is one",
            hint="the model that training started from is the --baseline",
        )
    beside = filter(None, map(model_beside_steps, options.checkpoints))
    notes = [
        f"{folder} is a model itself, which is left out: its steps are evaluated; --model {folder} "
        "evaluates it"
        for folder in beside
    ]
    notes += [f"{one.id} is left out: {error.message}" for one, error in left_out.items()]
    return checkpoints, baseline, (*notes, *_other_bases(options, everything))


def _other_bases(options: PlanFile, checkpoints: Iterable[Checkpoint]) -> tuple[str, ...]:
    """A note for each base, other in name than that of --base, that adapters name."""
    if options.base is None:
        return ()
    given = Path(options.base.partition("@")[0]).name
    adapters = [one.location for one in checkpoints if one.base is not None]
    named = dict.fromkeys(base_named_by(Path(adapter))[0] for adapter in adapters)
    return tuple(
        f"adapters name {base!r} as their base, and are put on --base {options.base}"
        for base in named
        if base is not None and Path(base).name != given
    )


def finished_steps(
    plan: Plan, known: Set[str]
) -> tuple[list[Checkpoint], dict[Checkpoint, UsageError]]:
    """The chosen steps of --checkpoints that can be evaluated now, and why the others cannot.

    Leaves out those whose ids are `known`. Raises UsageError if a folder of --checkpoints is gone,
    or if a step is in two folders.
    """
    steps = [step for step in _chosen_steps(plan.options) if step.id not in known]
    return _finished(steps, plan.options, plan.backend)


def _finished(
    steps: Sequence[Checkpoint], options: PlanFile, backend: str
) -> tuple[list[Checkpoint], dict[Checkpoint, UsageError]]:
    """The steps that can be evaluated, and why others cannot: they are unfinished.

    With --watch, also why the weights of others are in a form that no engine loads.
    """
    found: list[Checkpoint] = []
    left_out: dict[Checkpoint, UsageError] = {}
    for step in steps:
        try:
            if backend == "openai":
                directory = model_directory(Path(step.location))
                found.append(replace(step, location=str(directory)))
            else:
                found.append(_located(step, options))
        except UsageError as error:
            if not options.watch and not isinstance(error, UnfinishedError):
                raise
            left_out[step] = error
    return found, left_out


def _check_watch(options: PlanFile) -> None:
    if options.watch and (options.model or not options.checkpoints):
        raise UsageError(
            "--watch evaluates the steps that training writes into folders of --checkpoints",
            hint="--checkpoints DIR, and no --model; --baseline may be given",
        )


def _check_names(checkpoints: Sequence[Checkpoint]) -> None:
    """Refuse two checkpoints of one name, and a series with the baseline's."""
    ids = [checkpoint.id for checkpoint in checkpoints]
    for identity in ids:
        if ids.count(identity) > 1:
            raise UsageError(
                f"two checkpoints are called {identity!r}", hint="name them apart: NAME=DIR"
            )
    if any(checkpoint.series == BASELINE for checkpoint in checkpoints):
        raise UsageError(
            f"{BASELINE!r} is the name of step 0 of every series, not of a series",
            hint="give it another name, NAME=DIR, or name that model with --baseline",
        )


def _refuse_step_0(steps: Sequence[Checkpoint]) -> None:
    for checkpoint in steps:
        if checkpoint.step == 0:
            raise UsageError(
                f"--baseline is step 0 of every series, and so is {checkpoint.id!r}",
                hint="leave one out: --steps chooses the steps of a series",
            )


def _chosen_steps(options: PlanFile) -> list[Checkpoint]:
    """The checkpoints of all folders, of the --steps alone if there are any.

    Two folders are one series only if both are named alike.
    """
    found: list[Checkpoint] = []
    named_by_user: dict[str, bool] = {}
    for argument in options.checkpoints:
        checkpoints = discover(argument, may_be_empty=options.watch)
        series = checkpoints[0].series if checkpoints else series_of(argument)
        is_named = "=" in argument and not Path(argument).exists()
        if series in named_by_user and not (is_named and named_by_user[series]):
            raise UsageError(
                f"two folders of --checkpoints give the series {series!r}",
                hint="name them apart, or both alike where they are one series: NAME=DIR",
            )
        named_by_user[series] = is_named
        found.extend(checkpoints)
    return _choose_steps(found, options.steps, may_come=options.watch)


def _choose_steps(
    found: list[Checkpoint], steps: tuple[int, ...] | None, *, may_come: bool
) -> list[Checkpoint]:
    if steps is None:
        return found
    for series in dict.fromkeys(checkpoint.series for checkpoint in found):
        found_steps = [c.step for c in found if c.series == series]
        missing = [step for step in steps if step not in found_steps]
        if missing and not may_come:
            raise UsageError(f"series {series!r} has no step {missing!r}; found: {found_steps!r}")
    return [checkpoint for checkpoint in found if checkpoint.step in steps]


def _single_checkpoint(model: str) -> Checkpoint:
    """The checkpoint of `[NAME=]MODEL`: a folder, a name on the hub, or a name on a server."""
    name, separator, location = model.partition("=")
    if not separator:
        name, location = Path(model).resolve().name if Path(model).is_dir() else model, model
    return Checkpoint(series=name, step=None, location=location)


def _located(checkpoint: Checkpoint, options: PlanFile) -> Checkpoint:
    trusts_code = bool(options.model_args.get("trust_remote_code"))
    return located(checkpoint, base=options.base, trusts_code=trusts_code)


def _resolve_protocols(
    options: PlanFile,
) -> tuple[tuple[Loaded[Pair], ...], tuple[Loaded[EvalProtocol], ...]]:
    if options.pairs and options.protocols:
        raise UsageError("give --pairs or --protocols, not both", hint="a pair names two protocols")
    names = options.pairs or (() if options.protocols else ("crop_zoom",))
    pairs = tuple(_with_overrides(load(name, Pair), options) for name in names)
    arms = [Loaded(arm, pair.source) for pair in pairs for arm in pair.value.arms]
    arms += [
        Loaded(_override(loaded.value, options), loaded.source)
        for loaded in (load(name, EvalProtocol) for name in options.protocols)
    ]
    refuse_shared_names(arms, EvalProtocol)
    return pairs, tuple({arm.value.name: arm for arm in arms}.values())


def _with_overrides(pair: Loaded[Pair], options: PlanFile) -> Loaded[Pair]:
    free, available = (_override(arm, options) for arm in pair.value.arms)
    return Loaded(replace(pair.value, free=free, available=available), pair.source)


def _override(protocol: EvalProtocol, options: PlanFile) -> EvalProtocol:
    """The protocol with the sampling settings that the options override."""
    changes = {
        name: value
        for name in ("max_tokens", "temperature")
        if (value := getattr(options, name)) is not None
    }
    sampling: Sampling = replace(protocol.sampling, **changes)
    return replace(protocol, sampling=sampling)


def plan_benchmarks(options: PlanFile) -> tuple[PlannedBenchmark, ...]:
    """The benchmarks that the options name, with their data folders and judges."""
    loaded = [load(name, Benchmark) for name in options.benchmarks]
    refuse_shared_names(loaded, Benchmark)
    names = {
        name: benchmark.value.name
        for benchmark in loaded
        for name in (benchmark.value.name, *benchmark.value.aliases)
    }
    directories = _by_benchmark(options.data_dir, names, "--data-dir")
    for name, given in directories.items():
        if len(given) > 1:
            raise UsageError(f"--data-dir names {len(given)} folders for {name!r}: {given!r}")
    judges = _by_benchmark(options.judge, names, "--judge")
    return tuple(
        PlannedBenchmark(
            loaded=benchmark,
            data_dir=Path(directories[name][0]) if name in directories else None,
            judges=tuple(load(judge, Judge) for judge in judges.get(name, [benchmark.value.judge])),
        )
        for name, benchmark in {b.value.name: b for b in loaded}.items()
    )


def _by_benchmark(
    arguments: tuple[str, ...], names: Mapping[str, str], flag: str
) -> dict[str, list[str]]:
    """Values of a `[NAME=]VALUE` flag, by benchmark; one without a name is for every benchmark.

    `names` maps each name and alias of a benchmark to its name.
    """
    values: dict[str, list[str]] = {}
    benchmarks = list(dict.fromkeys(names.values()))
    for argument in arguments:
        name, separator, value = argument.partition("=")
        if not separator or Path(argument).exists():
            if flag == "--data-dir" and len(benchmarks) > 1:
                raise UsageError(
                    f"{flag} {argument!r} does not name its benchmark",
                    hint=f"{flag} NAME=DIR, with NAME one of {', '.join(benchmarks)}",
                )
            for benchmark in benchmarks:
                values.setdefault(benchmark, []).append(argument)
        elif name in names:
            values.setdefault(names[name], []).append(value)
        else:
            raise UsageError(
                f"{flag} {argument!r} names no benchmark of this run: {', '.join(benchmarks)}"
            )
    return values
