"""A run in the published layout of MED's logs, which the original's scripts read unchanged."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medeval.interop.med.csv_files import experiment_csv
from medeval.interop.med.experiments import experiments
from medeval.interop.med.layout import (
    ARMS,
    BENCHMARKS,
    RESULTS,
    SCORES,
    TRAJECTORIES,
    Arm,
    benchmark_name,
    log_name,
)
from medeval.interop.med.lines import LineOrigin
from medeval.interop.med.paired import PairedCell, PairedRun, calls_that_reached_tools, paired_run
from medeval.store.files import write_whole
from medeval.store.keys import SampleKey
from medeval.store.records import json_values
from medeval.store.run_folder import CellKey, RunFolder
from medeval.types.sample import SampleRecord
from medeval.types.trajectory import Message, Text, Trajectory, TrajectoryImage

logger = logging.getLogger(__name__)


def export_med(
    folder: RunFolder,
    output_dir: Path,
    *,
    pair: str | None = None,
    family: str | None = None,
    allow_missing: bool = False,
) -> list[Path]:
    """Write `evals/` below `output_dir`; returns the files.

    Each line is a sample that is decided in both arms at every checkpoint, in the same order in
    every file. Next to the five released fields, a line has a `medeval` object with the fields that
    the layout lacks. `family` is the original's prefix for series that share a baseline. Raises the
    errors of `paired_run`.
    """
    run = paired_run(folder, pair=pair, allow_missing=allow_missing)
    _warn(run)
    judges = folder.record().judges
    samples = {name: {item.id: item for item in folder.samples(name)} for name in run.order}
    written: list[Path] = []
    for experiment in experiments(run, family=family):
        for cell in run.of(experiment.series):
            target = output_dir / experiment.folder(cell)
            for arm, protocol in zip(ARMS, (run.free, run.available), strict=True):
                key = CellKey(cell.series, cell.step, cell.benchmark, protocol)
                origin = _Origin(samples[cell.benchmark], protocol, judges[cell.benchmark])
                path = target / TRAJECTORIES / log_name(benchmark_name(cell.benchmark), arm)
                write_whole(path, _lines(folder, key, run.order[cell.benchmark], cell, arm, origin))
                written.append(path)
            scores = dict(zip((SCORES[arm] for arm in ARMS), cell.scores, strict=True))
            write_whole(target / RESULTS, [json.dumps(scores, indent=2).encode(), b"\n"])
            written.append(target / RESULTS)
    return written


def export_med_csv(
    folder: RunFolder,
    output_dir: Path,
    *,
    pair: str | None = None,
    family: str | None = None,
    allow_missing: bool = False,
) -> list[Path]:
    """Write each experiment's table to the path that the original's script uses; returns the files.

    The baseline has a table of its own, which the original's plots need for step 0.
    """
    run = paired_run(folder, pair=pair, allow_missing=allow_missing)
    written: list[Path] = []
    for experiment in experiments(run, family=family):
        path = output_dir / experiment.csv_name
        write_whole(path, [experiment_csv(run, experiment).encode()])
        written.append(path)
    return written


def _warn(run: PairedRun) -> None:
    for benchmark, keys in run.order.items():
        if benchmark_name(benchmark) not in BENCHMARKS:
            logger.warning(
                "benchmark %s: the original's scripts read only %s",
                benchmark,
                ", ".join(BENCHMARKS),
            )
        if any(repeat for _, repeat in keys):
            logger.warning(
                "benchmark %s: the original's scripts take each repeat for a sample", benchmark
            )


class _Origin:
    """Makes the `medeval` object of each line of a log."""

    def __init__(self, samples: Mapping[str, SampleRecord], protocol: str, judge: str) -> None:
        self._samples = samples
        self._protocol = protocol
        self._judge = judge

    def of(self, trajectory: Trajectory) -> LineOrigin:
        sample = self._samples[trajectory.sample_id]
        return LineOrigin(
            sample_id=sample.id,
            repeat=trajectory.repeat,
            protocol=self._protocol,
            judge=self._judge,
            question=sample.question,
            targets=sample.targets,
            groups=sample.groups,
            cluster=sample.cluster,
            stop=trajectory.stop,
            answer=trajectory.answer,
            # the layout has no images
            calls=tuple(replace(call, image=None) for call in trajectory.calls),
        )


def _lines(
    folder: RunFolder,
    key: CellKey,
    order: Sequence[SampleKey],
    cell: PairedCell,
    arm: Arm,
    origin: _Origin,
) -> Iterator[bytes]:
    correct = dict(zip(order, cell.free if arm == ARMS[0] else cell.available, strict=True))
    lines: dict[SampleKey, bytes] = {}
    for trajectory in folder.cell(key).trajectories():
        sample = (trajectory.sample_id, trajectory.repeat)
        if sample in correct:
            line = _line(trajectory, correct[sample], arm, origin.of(trajectory))
            lines[sample] = json.dumps(line).encode() + b"\n"
    return (lines[sample] for sample in order)


def _line(trajectory: Trajectory, is_correct: bool, arm: Arm, origin: LineOrigin) -> dict[str, Any]:
    repeat = f"#{trajectory.repeat}" if trajectory.repeat else ""
    return {
        "uid": f"{trajectory.sample_id}{repeat}",
        "response_length": trajectory.usage.completion_tokens,
        "tool_call_counts": calls_that_reached_tools(trajectory.calls),
        "messages": [_message(message, trajectory.images) for message in trajectory.messages],
        "accuracy_reward": int(is_correct),
        "medeval": json_values(origin),
    }


def _message(message: Message, images: Sequence[TrajectoryImage]) -> dict[str, Any]:
    """A message in the format of the logs, in which a tool's result is a user's message."""
    return {
        "role": "user" if message.role == "tool" else message.role,
        "content": [
            {"type": "text", "text": part.text}
            if isinstance(part, Text)
            else {"type": "image_placeholder", "description": _described(images[part.image])}
            for part in (*_reasoning(message.reasoning), *message.content, *_native(message))
        ],
        "tool_calls": None,
    }


def _reasoning(reasoning: str) -> tuple[Text, ...]:
    return (Text(f"<think>\n{reasoning}\n</think>\n"),) if reasoning else ()


def _native(message: Message) -> Iterator[Text]:
    for call in message.native_calls:
        body = f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}'
        yield Text(f"<tool_call>\n{body}\n</tool_call>")


def _described(image: TrajectoryImage) -> str:
    origin = "of the sample" if image.operation is None else f"made by {image.operation}"
    size = f"{image.sent.width_px}x{image.sent.height_px}"
    return f"image {image.index} {origin}, {size}, {image.shown_hash}"
