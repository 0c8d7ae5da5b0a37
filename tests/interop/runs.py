"""Run folders for tests, written straight from what outcomes are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medeval.analysis.results import write_results
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.geometry import IDENTITY, Size
from medeval.types.run import BenchmarkRecord, Metric, RunRecord, Session
from medeval.types.sample import Sample, SampleRecord
from medeval.types.trajectory import (
    Answer,
    CallStatus,
    ImageRef,
    Message,
    NativeCall,
    StopReason,
    Text,
    ToolCall,
    Trajectory,
    TrajectoryImage,
    Turn,
    Usage,
)
from medeval.types.verdict import Verdict

JUDGE = "letter#01234567"
ARMS = ("free", "available")
CROP_PIXELS_SHA256 = "ab" * 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one trajectory came to; `is_correct` is None where the judge left it undecided."""

    is_correct: bool | None = True
    stop: StopReason = "answered"
    calls: tuple[CallStatus, ...] = ()


Arms = tuple[Sequence[Reply], Sequence[Reply]]
Cells = dict[tuple[str, int | None, str], Arms]


def session() -> Session:
    return Session(
        created="2026-01-02T03:04:05+00:00",
        medeval_version="0",
        command=("medeval",),
        plan={},
        git_commit=None,
        python="3",
        platform="any",
        seed=0,
    )


def write_run(path: Path, cells: Cells, *, repeats: int = 1) -> RunFolder:
    """A run with a cell for each (series, step, benchmark), its replies in the samples' order."""
    benchmarks = {name for _, _, name in cells}
    sizes = {
        name: max(len(arms[0]) for (_, _, other), arms in cells.items() if other == name) // repeats
        for name in benchmarks
    }
    folder = RunFolder.create(
        path,
        RunRecord(
            sessions=(session(),),
            judges=dict.fromkeys(benchmarks, JUDGE),
            benchmarks={
                name: BenchmarkRecord(
                    origin="drawn", revision=None, count=size, expected_count=None
                )
                for name, size in sizes.items()
            },
            pairs={"pair": ARMS},
            metrics={JUDGE: Metric(name="accuracy", correct_at=1.0)},
        ),
    )
    for name, size in sizes.items():
        folder.write_samples(name, [sample(number) for number in range(size)])
    keys = []
    for (series, step, benchmark), arms in cells.items():
        for protocol, replies in zip(ARMS, arms, strict=True):
            keys.append(CellKey(series, step, benchmark, protocol))
            write_cell(folder, keys[-1], replies, repeats)
    write_results(folder, keys)
    return folder


def sample(number: int) -> SampleRecord:
    return SampleRecord.from_sample(
        Sample(
            id=f"s{number}",
            question=f"Question {number}?",
            images=(),
            targets=("A", "B")[: 1 + number % 2],
            options=("red", "green"),
            groups={"parity": str(number % 2)},
            cluster=f"c{number // 2}",
        ),
        (),
    )


def write_cell(folder: RunFolder, key: CellKey, replies: Sequence[Reply], repeats: int) -> None:
    cell = folder.cell(key)
    cell.claim({"benchmark": key.benchmark, "series": key.series}, {"repeats": repeats})
    with cell.writer() as writer:
        # as they end, not in the samples' order
        for place, reply in reversed(list(enumerate(replies))):
            number, repeat = divmod(place, repeats)
            writer.append_trajectory(trajectory(f"s{number}", repeat, key.protocol, reply))
            writer.append_verdict(verdict(f"s{number}", repeat, reply))


def verdict(sample_id: str, repeat: int, reply: Reply) -> Verdict:
    status = {True: "correct", False: "incorrect", None: "undecided"}[reply.is_correct]
    return Verdict(
        sample_id=sample_id,
        repeat=repeat,
        judge=JUDGE,
        status=status,  # type: ignore[arg-type]
        score=None if reply.is_correct is None else float(reply.is_correct),
        extracted="A",
    )


def trajectory(sample_id: str, repeat: int, protocol: str, reply: Reply) -> Trajectory:
    calls = tuple(
        ToolCall(
            turn=turn,
            name="crop",
            raw_text="<tool_call>",
            arguments={"box": [turn, 1.5]},
            status=status,
            error=None if status == "executed" else "no",
            image=1 if status == "executed" else None,
            observed=status == "executed",
        )
        for turn, status in enumerate(reply.calls)
    )
    is_answered = reply.stop == "answered"
    native = NativeCall(id="c0", name="crop", arguments='{"box": [0, 1]}')
    return Trajectory(
        sample_id=sample_id,
        repeat=repeat,
        protocol=protocol,
        messages=(
            Message(role="system", content=(Text("Answer."),)),
            Message(role="user", content=(ImageRef(0), Text("Which?"))),
            Message(role="assistant", content=(), reasoning="Hm.", native_calls=(native,)),
            Message(role="tool", content=(ImageRef(1),), call_id="c0"),
            Message(role="assistant", content=(Text("A"),)),
        ),
        images=(image(0), image(1)),
        turns=(turn_of("", 3), turn_of("A", 4)),
        calls=calls,
        answer=Answer(text="A", how_found="tag", reply="A") if is_answered else None,
        stop=reply.stop,
        seconds=0.5,
    )


def turn_of(text: str, tokens: int) -> Turn:
    return Turn(
        text=text,
        reasoning="",
        native_calls=(),
        finish="stop",
        seed=1,
        usage=Usage(prompt_tokens=10, completion_tokens=tokens),
        seconds=0.1,
    )


def image(index: int) -> TrajectoryImage:
    made = index > 0
    return TrajectoryImage(
        index=index,
        sha256=None if made else "cd" * 32,
        media_type=None if made else "image/png",
        pixels_sha256=CROP_PIXELS_SHA256 if made else None,
        parent=0 if made else None,
        root=0,
        operation="crop" if made else None,
        arguments={},
        to_root=IDENTITY,
        raw=Size(8, 8),
        sent=Size(8, 8),
    )
