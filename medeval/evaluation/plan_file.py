"""The options of a run, read from flags and plan files.

A plan file is TOML with the names of the long flags, with underscores. A flag wins over the same
option in a file. `medeval.cli.plan_options` makes the flags from the fields of `PlanFile`.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
)

from medeval.errors import UsageError
from medeval.scoring.judge_model import JudgeBackend
from medeval.store.shards import Shard


def _listed(value: object) -> object:
    """The value, with a single name as a list of one name."""
    return (value,) if isinstance(value, str) else value


def _shard(text: str) -> str:
    """A shard in its recorded form, `i/n`."""
    return str(Shard.read(text))


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Scalar = bool | int | float | str
Backend = Literal["transformers", "vllm", "vllm-server", "openai"]


@dataclass(frozen=True, slots=True)
class Flag:
    """How the command line shows a field of `PlanFile` as a flag.

    A tuple's values are split at commas if `metavar` ends in `,...`. `default` describes a
    computed default.
    """

    group: Literal["Models", "Data", "Protocol", "Engine", "Judging", "Run"]
    metavar: str = ""
    default: str = ""
    alias: str = ""


class PlanFile(BaseModel):
    """The options of a run, checked but not yet resolved.

    The docstring of a field is its description, and the help of its flag.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    model: Annotated[Names, Flag("Models", "[NAME=]MODEL")] = ()
    """A single model: a folder, a name on the hub (ORGANISATION/MODEL[@REVISION]), or a name that
    the server knows. Repeatable.
    """
    checkpoints: Annotated[Names, Flag("Models", "[NAME=]DIR")] = ()
    """A training run: a folder that holds steps (global_step_N, checkpoint-N, ...), or one model's
    folder. Models may be LoRA adapters. Repeatable.
    """
    baseline: Annotated[str | None, Flag("Models", "MODEL")] = None
    """The model that training started from: step 0 of every series, evaluated once."""
    base: Annotated[str | None, Flag("Models", "MODEL")] = None
    """The model that LoRA adapters belong to, if not the one they name: a folder or a hub's."""
    steps: Annotated[tuple[int, ...] | None, Flag("Models", "N,...")] = None
    """Only the steps with these numbers, such as 100,200."""
    processor: Annotated[str | None, Flag("Models", "DIR")] = None
    """Read tokenizer, chat template and image processor from this folder, for checkpoints that were
    saved without them.
    """

    benchmarks: Annotated[Names, Flag("Data", "NAME,...", alias="--tasks")] = ()
    """Benchmarks: names from medeval list, paths of .py files, or modules."""
    data_dir: Annotated[Names, Flag("Data", "[NAME=]DIR")] = ()
    """Read benchmark NAME's rows from a local folder, not from the hub. Repeatable."""
    limit: Annotated[int | None, Flag("Data", "N")] = Field(default=None, ge=1)
    """Only the first N samples of each benchmark."""
    sample_id: Annotated[Names, Flag("Data", "ID,...")] = ()
    """Only the samples with these ids."""
    shard: Annotated[Annotated[str, AfterValidator(_shard)] | None, Flag("Data", "I/N")] = None
    """Only the Ith of N parts of each benchmark's samples, in a separate run folder; medeval merge
    joins the parts.
    """
    allow_count_mismatch: Annotated[bool, Flag("Data")] = False
    """Accept a data set whose number of rows is not the published one."""

    pairs: Annotated[Names, Flag("Protocol", "NAME,...", default="crop_zoom")] = ()
    """Pairs of protocols, one without tools and one with."""
    protocols: Annotated[Names, Flag("Protocol", "NAME,...")] = ()
    """Single protocols, instead of pairs."""
    repeats: Annotated[int, Flag("Protocol", "N")] = Field(default=1, ge=1)
    """Trajectories for each sample and protocol (Avg@N)."""
    seed: Annotated[int, Flag("Protocol", "N")] = 0
    """The run's seed; each request's seed is computed from it."""
    temperature: Annotated[float | None, Flag("Protocol", "T")] = Field(default=None, ge=0)
    """Sampling temperature, instead of the protocols' own."""
    max_tokens: Annotated[int | None, Flag("Protocol", "N")] = Field(default=None, ge=1)
    """The most tokens in a turn, instead of the protocols' own."""

    backend: Annotated[
        Backend | None, Flag("Engine", default="openai with --base-url, else transformers")
    ] = None
    """What runs the model: transformers or vllm in this process, a vLLM server that medeval starts
    (vllm-server), or a server that runs already (openai).
    """
    base_url: Annotated[str | None, Flag("Engine", "URL[,URL...]")] = None
    """The address of an OpenAI-compatible server. With several that serve the same model, each
    request goes to the server with the fewest requests in flight.
    """
    model_args: Annotated[dict[str, JsonValue], Flag("Engine", "K=V,...")] = Field(
        default_factory=dict
    )
    """Arguments of the engine, such as dtype=bfloat16,max_batch_size=8."""
    concurrency: Annotated[
        int | None, Flag("Engine", "N", default="32 for openai, 96 for transformers, 256 for vLLM")
    ] = Field(default=None, ge=1)
    """Samples in flight at once, in each worker. If a server refuses requests as too many, it gets
    fewer until it accepts them again.
    """
    workers: Annotated[int | None, Flag("Engine", "N")] = Field(default=None, ge=1)
    """Worker processes on this machine, each with its own engine; each evaluates one checkpoint at
    a time.
    """
    gpus_per_worker: Annotated[
        int | None, Flag("Engine", "K", default="1, where there are any")
    ] = Field(default=None, ge=1)
    """GPUs of each worker, taken from CUDA_VISIBLE_DEVICES or from all GPUs of the machine."""
    cluster: Annotated[Literal["ray"] | None, Flag("Engine")] = None
    """Run the workers on the Ray cluster that RAY_ADDRESS names, or on this machine. Several
    workers share a checkpoint, and all write to one run folder.
    """

    judge: Annotated[Names, Flag("Judging", "[NAME=]JUDGE,...")] = ()
    """Judges that replace the benchmarks' own, or only those of benchmark NAME. The tables show the
    verdicts of the first judge.
    """
    judge_model: Annotated[str | None, Flag("Judging", "NAME")] = None
    """The model that judges ask: a name that its server knows, or [NAME=]DIR for --judge-backend
    vllm-server.
    """
    judge_base_url: Annotated[str | None, Flag("Judging", "URL")] = None
    """The OpenAI-compatible server of --judge-model."""
    judge_backend: Annotated[JudgeBackend | None, Flag("Judging", default="openai")] = None
    """With vllm-server, medeval starts and ends a server for --judge-model."""
    judge_api_key_variable: Annotated[str, Flag("Judging", "VARIABLE")] = "OPENAI_API_KEY"
    """The environment variable with the API key of the judges' server."""
    judge_concurrency: Annotated[int, Flag("Judging", "N")] = Field(default=32, ge=1)
    """Requests to --judge-model in flight at once."""
    judge_max_calls: Annotated[int | None, Flag("Judging", "N")] = Field(default=None, ge=1)
    """The most requests to --judge-model; further answers stay unscored."""
    judge_args: Annotated[dict[str, Scalar], Flag("Judging", "K=V,...")] = Field(
        default_factory=dict
    )
    """Arguments of the client that asks --judge-model, such as max_retries=2,timeout_s=60, or of
    the server that medeval starts.
    """
    defer_grading: Annotated[bool, Flag("Judging")] = False
    """Only make trajectories; medeval grade judges them later."""

    output_dir: Annotated[str | None, Flag("Run", "DIR", default="outputs/<series>")] = None
    """The run folder; an existing run is resumed or extended."""
    fresh: Annotated[bool, Flag("Run")] = False
    """First delete the plan's cells in the run folder."""
    keep_images: Annotated[int, Flag("Run", "N")] = Field(default=0, ge=-1)
    """Keep the images that tools make of the first N samples; -1 keeps all."""
    max_unscored: Annotated[int, Flag("Run", "N")] = Field(default=0, ge=0)
    """Exit with code 1 if more than N samples stay unscored."""
    time_limit: Annotated[float | None, Flag("Run", "SECONDS")] = Field(default=None, gt=0)
    """After this many seconds, finish the samples in flight and exit with code 3."""
    watch: Annotated[bool, Flag("Run")] = False
    """Evaluate new steps of --checkpoints as training writes them, until Ctrl-C or the last of
    --steps.
    """


def read_options(path: Path | None, flags: Mapping[str, object]) -> PlanFile:
    """The options of a plan file, if `path` is given, overridden by `flags`.

    Raises UsageError, naming the key or flag that is unknown or invalid.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"cannot read the plan {str(path)!r}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"the plan {str(path)!r} is not TOML: {error}") from error
    values.update(flags)
    try:
        return PlanFile.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise _unknown_option(name) from error
        raise UsageError(f"{name!r}: {first['msg']}, got {first['input']!r}") from error


def _unknown_option(name: str) -> UsageError:
    known = list(PlanFile.model_fields)
    near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return UsageError(
        f"a plan has no option {name!r}; known: {', '.join(known)}",
        hint=f"did you mean {near[0]!r}?" if near else None,
    )
