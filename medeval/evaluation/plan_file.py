"""The options of a run, as flags and plan files give them.

A plan file is TOML with the names of the long flags, with underscores. Flags given in addition to
a file win over it. `medeval.cli.plan_options` makes the flags from the fields of `PlanFile`.
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
    """A single name where a list of names is expected, as that list."""
    return (value,) if isinstance(value, str) else value


def _shard(text: str) -> str:
    """A shard in the form it is recorded in."""
    return str(Shard.read(text))


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Scalar = bool | int | float | str
Backend = Literal["transformers", "vllm", "vllm-server", "openai"]


@dataclass(frozen=True, slots=True)
class Flag:
    """How a field of `PlanFile` looks as a flag of the command line.

    A tuple's values are split at commas where `metavar` ends in `,...`. `default` describes a
    default that is computed.
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
    """A single model: a folder, or a name that the server knows. Repeatable."""
    checkpoints: Annotated[Names, Flag("Models", "[NAME=]DIR")] = ()
    """A training run: a folder that holds global_step_N or checkpoint-N, or one model's folder.
    Repeatable.
    """
    baseline: Annotated[str | None, Flag("Models", "MODEL")] = None
    """The model that training started from: step 0 of every series, evaluated once."""
    steps: Annotated[tuple[int, ...] | None, Flag("Models", "N,...")] = None
    """Only these steps of each series."""
    processor: Annotated[str | None, Flag("Models", "DIR")] = None
    """The folder of tokenizer, chat template and image processor, if not the checkpoint's own."""

    benchmarks: Annotated[Names, Flag("Data", "NAME,...", alias="--tasks")] = ()
    """Benchmarks: names from medeval list, paths of .py files, or modules."""
    data_dir: Annotated[Names, Flag("Data", "[NAME=]DIR")] = ()
    """Read benchmark NAME's rows from a local folder, not from the hub. Repeatable."""
    limit: Annotated[int | None, Flag("Data", "N")] = Field(default=None, ge=1)
    """Only the first N samples of each benchmark."""
    sample_id: Annotated[Names, Flag("Data", "ID,...")] = ()
    """Only the samples with these ids."""
    shard: Annotated[Annotated[str, AfterValidator(_shard)] | None, Flag("Data", "I/N")] = None
    """Only the Ith of N parts of each benchmark's samples, in a run folder of its own; medeval
    merge joins them.
    """
    allow_count_mismatch: Annotated[bool, Flag("Data")] = False
    """Run a data set with more or fewer rows than were published."""

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
    (vllm-server), or a server that is running (openai).
    """
    base_url: Annotated[str | None, Flag("Engine", "URL[,URL...]")] = None
    """The address of an OpenAI-compatible server. Of several that serve the same model, each
    request goes to the one with the fewest in flight.
    """
    model_args: Annotated[dict[str, JsonValue], Flag("Engine", "K=V,...")] = Field(
        default_factory=dict
    )
    """Arguments of the engine, such as dtype=bfloat16,max_batch_size=8."""
    concurrency: Annotated[
        int | None, Flag("Engine", "N", default="32 for openai, 96 for transformers, 256 for vLLM")
    ] = Field(default=None, ge=1)
    """Samples in flight at once, in each worker. A server that refuses requests for being too many
    gets fewer until it accepts them again.
    """
    workers: Annotated[int | None, Flag("Engine", "N")] = Field(default=None, ge=1)
    """Processes on this machine, each with an engine of its own; each evaluates one checkpoint at a
    time.
    """
    gpus_per_worker: Annotated[
        int | None, Flag("Engine", "K", default="1, where there are any")
    ] = Field(default=None, ge=1)
    """GPUs of each worker, out of CUDA_VISIBLE_DEVICES or all of the machine's."""
    cluster: Annotated[Literal["ray"] | None, Flag("Engine")] = None
    """Run the workers on the Ray cluster that RAY_ADDRESS names, or on this machine. Parts of a
    checkpoint run side by side, into the one run folder.
    """

    judge: Annotated[Names, Flag("Judging", "[NAME=]JUDGE,...")] = ()
    """Judges instead of the benchmarks' own, or of benchmark NAME's alone. The tables show the
    first judge's verdicts.
    """
    judge_model: Annotated[str | None, Flag("Judging", "NAME")] = None
    """The model that judges ask: a name that its server knows, or [NAME=]DIR for --judge-backend
    vllm-server.
    """
    judge_base_url: Annotated[str | None, Flag("Judging", "URL")] = None
    """The OpenAI-compatible server of --judge-model."""
    judge_backend: Annotated[JudgeBackend | None, Flag("Judging", default="openai")] = None
    """With vllm-server, medeval starts a server for --judge-model, and ends it."""
    judge_api_key_variable: Annotated[str, Flag("Judging", "VARIABLE")] = "OPENAI_API_KEY"
    """The environment variable with that server's key."""
    judge_concurrency: Annotated[int, Flag("Judging", "N")] = Field(default=32, ge=1)
    """Requests to --judge-model in flight at once."""
    judge_max_calls: Annotated[int | None, Flag("Judging", "N")] = Field(default=None, ge=1)
    """The most requests to --judge-model; answers beyond them stay unscored."""
    judge_args: Annotated[dict[str, Scalar], Flag("Judging", "K=V,...")] = Field(
        default_factory=dict
    )
    """Arguments of the client that asks --judge-model, such as max_retries=2,timeout_s=60, or of
    the server that medeval starts.
    """
    defer_grading: Annotated[bool, Flag("Judging")] = False
    """Only make trajectories; medeval grade judges them later."""

    output_dir: Annotated[str | None, Flag("Run", "DIR", default="outputs/<series>")] = None
    """The run folder; one that exists is resumed or extended."""
    fresh: Annotated[bool, Flag("Run")] = False
    """First delete the plan's cells in the run folder."""
    keep_images: Annotated[int, Flag("Run", "N")] = Field(default=0, ge=-1)
    """Keep the images that tools make of the first N samples; -1 keeps all."""
    max_unscored: Annotated[int, Flag("Run", "N")] = Field(default=0, ge=0)
    """Exit with 1 where more than N samples are left unscored."""
    time_limit: Annotated[float | None, Flag("Run", "SECONDS")] = Field(default=None, gt=0)
    """Finish what is in flight and exit with 3 after this long."""


def read_options(path: Path | None, flags: Mapping[str, object]) -> PlanFile:
    """The options of a plan file, if one is given, with the flags that were given over them.

    Raises UsageError naming the key or flag that is not understood.
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
