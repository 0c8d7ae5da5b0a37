"""The models of every JSONL line and JSON file of a run folder."""

import json
from collections.abc import Mapping, Sequence
from typing import Literal, Self, TypeVar

from pydantic import Field, FiniteFloat, JsonValue, NonNegativeInt, ValidationError, model_validator

from medeval.errors import RecordError
from medeval.store.fingerprints import canonical_json, fingerprint
from medeval.store.parts import (
    AnswerPart,
    AxisLinePart,
    BoxPart,
    MessagePart,
    PointPart,
    ToolCallPart,
    TrajectoryImagePart,
    TurnPart,
    UsagePart,
)
from medeval.store.schema import Arguments, Part, Record, as_mapping, unfit
from medeval.types.sample import Sample
from medeval.types.trajectory import Message, StopReason, Text, Trajectory, TrajectoryImage
from medeval.types.verdict import Aggregate, Verdict, VerdictStatus

FailureKind = Literal["model", "data", "judge", "internal"]
Pairing = Literal["id", "position"]

AnyRecord = TypeVar("AnyRecord", bound=Record)


def _record(kind: type[AnyRecord], values: Mapping[str, object], subject: str) -> AnyRecord:
    """A record of `values`. Raises RecordError, naming the field, where they do not fit."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise unfit(error, subject) from None


class SampleImagePart(Part):
    """An image of a sample: what identifies its bytes, without the bytes.

    `source` tells people where it came from. What could not be read is None, and `error` then
    says why.
    """

    source: str
    sha256: str | None
    width_px: int | None
    height_px: int | None
    media_type: str | None
    size_bytes: int | None
    error: str | None = None


class SampleRecord(Record):
    """A sample in full, its images by hash; the fields are those of `types.Sample`.

    Older run folders have no `target_lines` and `target_points`.
    """

    id: str
    question: str
    options: tuple[str, ...]
    targets: tuple[str, ...]
    instruction: str
    groups: dict[str, str]
    cluster: str | None
    chance: FiniteFloat | None
    metadata: Arguments
    target_boxes: tuple[BoxPart, ...]
    transform: str | None
    target_lines: tuple[AxisLinePart, ...] = ()
    target_points: tuple[PointPart, ...] = ()
    images: tuple[SampleImagePart, ...]

    @classmethod
    def from_sample(cls, sample: Sample, images: Sequence[SampleImagePart]) -> Self:
        """The record of a sample whose images are described by `images`, in order.

        Raises RecordError where the numbers of images differ or a value has no JSON form.
        """
        if len(images) != len(sample.images):
            raise RecordError(
                f"sample {sample.id!r} has {len(sample.images)} images, "
                f"but {len(images)} are described"
            )
        copied = {
            name: getattr(sample, name)
            for name in cls.model_fields
            if name not in ("schema_version", "images")
        }
        return _record(cls, {**copied, "images": tuple(images)}, f"sample {sample.id!r}")

    def sample(self) -> Sample:
        """The sample without its images, as judges see it."""
        return Sample(
            id=self.id,
            question=self.question,
            images=(),
            targets=self.targets,
            options=self.options,
            instruction=self.instruction,
            groups=self.groups,
            cluster=self.cluster,
            chance=self.chance,
            metadata=as_mapping(self.metadata),
            target_boxes=tuple(part.box() for part in self.target_boxes),
            transform=self.transform,
            target_lines=tuple(part.line() for part in self.target_lines),
            target_points=tuple(part.point() for part in self.target_points),
        )


class TrajectoryRecord(Record):
    """A trajectory in full, with the counts written out; no image bytes, only their hashes."""

    sample_id: str
    repeat: NonNegativeInt
    protocol: str
    stop: StopReason
    answer: AnswerPart | None
    attempted: int
    executed: int
    observed: int
    called: bool
    messages: tuple[MessagePart, ...]
    images: tuple[TrajectoryImagePart, ...]
    turns: tuple[TurnPart, ...]
    calls: tuple[ToolCallPart, ...]
    usage: UsagePart
    seconds: float
    engine_seconds: float | None = None

    @classmethod
    def from_trajectory(cls, trajectory: Trajectory) -> Self:
        """The record of a trajectory; raises RecordError where a value has no JSON form."""
        copied = {
            name: getattr(trajectory, name)
            for name in cls.model_fields
            if name not in ("schema_version", "messages")
        }
        messages = [_message(message, trajectory.images) for message in trajectory.messages]
        subject = f"trajectory of sample {trajectory.sample_id!r}"
        return _record(cls, {**copied, "messages": messages}, subject)

    def trajectory(self) -> Trajectory:
        """The trajectory itself."""
        return Trajectory(
            sample_id=self.sample_id,
            repeat=self.repeat,
            protocol=self.protocol,
            messages=tuple(part.message() for part in self.messages),
            images=tuple(part.image() for part in self.images),
            turns=tuple(part.turn() for part in self.turns),
            calls=tuple(part.call() for part in self.calls),
            answer=None if self.answer is None else self.answer.answer(),
            stop=self.stop,
            seconds=self.seconds,
            engine_seconds=self.engine_seconds,
        )


def _message(message: Message, images: Sequence[TrajectoryImage]) -> dict[str, object]:
    return {
        "role": message.role,
        "content": [
            {"type": "text", "text": part.text}
            if isinstance(part, Text)
            else {"type": "image", "image": part.index, "sha256": images[part.index].sha256}
            for part in message.content
        ],
        "reasoning": message.reasoning,
        "native_calls": message.native_calls,
        "call_id": message.call_id,
        "continues": message.continues,
    }


class VerdictRecord(Record):
    """A verdict; the fields are those of `types.Verdict`."""

    sample_id: str
    repeat: NonNegativeInt
    judge: str
    status: VerdictStatus
    score: FiniteFloat | None
    extracted: str | None
    reason: str
    parts: dict[str, FiniteFloat | None] = Field(default_factory=dict)

    @classmethod
    def from_verdict(cls, verdict: Verdict) -> Self:
        """The record of a verdict; raises RecordError where its score is not finite."""
        copied = {
            name: getattr(verdict, name) for name in cls.model_fields if name != "schema_version"
        }
        return _record(cls, copied, f"verdict on sample {verdict.sample_id!r}")

    def verdict(self) -> Verdict:
        """The verdict itself."""
        return Verdict(
            sample_id=self.sample_id,
            repeat=self.repeat,
            judge=self.judge,
            status=self.status,
            score=self.score,
            extracted=self.extracted,
            reason=self.reason,
            parts=self.parts,
        )


class FailureRecord(Record):
    """One failed try at one sample, for no fault of the model's; the sample stays unscored.

    `try_number` counts from 1. `when` is ISO 8601 in UTC.
    """

    sample_id: str
    repeat: NonNegativeInt
    kind: FailureKind
    try_number: int
    error: str
    traceback: str
    when: str


class OutcomeRecord(Record):
    """One sample at one checkpoint in both arms: the paired per-instance log that MED reads.

    `free_correct` and `available_correct` are None where the judge left the answer undecided,
    and so are the scores. `called` and the call counts are of the available arm. An answer is
    None where the trajectory ended without one. `judge` is the judge identity.
    """

    checkpoint: str
    series: str
    step: int | None
    benchmark: str
    pair: str
    sample_id: str
    groups: dict[str, str]
    cluster: str | None
    repeat: NonNegativeInt
    free_correct: bool | None
    available_correct: bool | None
    free_score: FiniteFloat | None
    available_score: FiniteFloat | None
    called: bool
    calls_attempted: int
    calls_executed: int
    calls_observed: int
    free_answer: str | None
    available_answer: str | None
    targets: tuple[str, ...]
    free_stop: StopReason
    available_stop: StopReason
    judge: str


class CellRecord(Record):
    """What a cell was evaluated with: the fields that can change its numbers, and their hash.

    `recorded` holds what was written down beside them without being compared (addresses,
    concurrency), one entry for each set of values the cell was worked on with.
    """

    fingerprint: str
    fields: dict[str, JsonValue]
    recorded: tuple[dict[str, JsonValue], ...]

    @model_validator(mode="after")
    def _fingerprint_is_of_fields(self) -> Self:
        if self.fingerprint != fingerprint(self.fields):
            raise ValueError("the fingerprint is not that of the fields")
        return self

    @classmethod
    def of(cls, fields: Mapping[str, object], *recorded: Mapping[str, object]) -> Self:
        """The record of these fields and of what is recorded beside them."""
        values = {
            "fingerprint": fingerprint(fields),
            "fields": json.loads(canonical_json(fields)),
            "recorded": [json.loads(canonical_json(entry)) for entry in recorded],
        }
        return _record(cls, values, "cell")


class DefinitionPart(Part):
    """A definition file that was used: the path as shown to people, and its kept copy's name."""

    kind: Literal["benchmark", "protocol", "judge"]
    name: str
    path: str
    sha256: str
    copy_name: str


class FilePart(Part):
    """A file that samples were read from."""

    name: str
    sha256: str | None = None
    size_bytes: int | None = None


class BenchmarkPart(Part):
    """Where a benchmark's samples came from.

    `revision` is the commit that was read, None where the source has none. `count` is the
    number of samples read, `expected_count` the published number or None. `pairing` says what
    makes two trajectories one sample's: its id, or, in imported logs without ids, its position.
    `aggregate`, `suite` and `cluster_size` are the definition's: how its score is made officially,
    which benchmarks it is averaged with, and how many samples share a cluster.
    """

    origin: str
    revision: str | None
    count: int
    expected_count: int | None
    files: tuple[FilePart, ...] = ()
    pairing: Pairing = "id"
    aggregate: Aggregate = "mean over samples"
    suite: str | None = None
    cluster_size: int | None = None

    @property
    def rows_mark(self) -> str:
        """What a table says of another number of rows than was published; empty without."""
        if self.expected_count in (None, self.count):
            return ""
        return f"{self.count:,} rows, {self.expected_count:,} published"


class SessionPart(Part):
    """One start of medeval on the run folder: what was asked, and by which versions.

    `created` is ISO 8601 in UTC. `git_commit` is that of medeval's checkout, None where it does
    not run from one. `extra` holds engine arguments and versions.
    """

    created: str
    medeval_version: str
    command: tuple[str, ...]
    plan: dict[str, JsonValue]
    git_commit: str | None
    python: str
    platform: str
    seed: int
    extra: dict[str, JsonValue] = Field(default_factory=dict)


class MetricPart(Part):
    """What a judge's scores mean, and from which score on an answer is correct."""

    name: str
    correct_at: FiniteFloat


class RunRecord(Record):
    """run.json: every session that worked on the run, and what all of them together used.

    `judges` maps each benchmark to the identity of its primary judge, `pairs` each pair to the
    names of its free and its available arm, `metrics` each judge identity to its metric.
    """

    sessions: tuple[SessionPart, ...]
    definitions: tuple[DefinitionPart, ...] = ()
    judges: dict[str, str] = Field(default_factory=dict)
    benchmarks: dict[str, BenchmarkPart] = Field(default_factory=dict)
    pairs: dict[str, tuple[str, str]] = Field(default_factory=dict)
    metrics: dict[str, MetricPart] = Field(default_factory=dict)

    def extended(self, later: "RunRecord") -> "RunRecord":
        """The record with a later one's sessions and whatever that used beyond this one.

        Where both name a benchmark, the later judge and origin hold; earlier sessions stay.
        """
        known = set(self.definitions)
        added = tuple(item for item in later.definitions if item not in known)
        return RunRecord(
            sessions=(*self.sessions, *later.sessions),
            definitions=(*self.definitions, *added),
            judges={**self.judges, **later.judges},
            benchmarks={**self.benchmarks, **later.benchmarks},
            pairs={**self.pairs, **later.pairs},
            metrics={**self.metrics, **later.metrics},
        )
