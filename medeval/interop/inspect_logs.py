"""A run as Inspect AI's logs, written by its own library, for `inspect view`.

There is one log for each checkpoint, benchmark and arm. Images that the run folder kept are shown;
for others the log has a line of text with their hash.
"""

import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from medeval.errors import UsageError
from medeval.interop.judged import JudgedCell, JudgedTrajectory, created, judged_cells
from medeval.rollout.images import kept_image
from medeval.store.run_folder import RunFolder
from medeval.types.trajectory import Message, Text, Trajectory, Usage
from medeval.types.verdict import Verdict

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalResults, EvalSample
    from inspect_ai.model import ChatMessage, Content, ModelOutput, ModelUsage
    from inspect_ai.scorer import Score
    from inspect_ai.tool import ToolCall

VALUES: Final = {"correct": "C", "incorrect": "I"}
TRUNCATED: Final = frozenset({"length", "context"})


def export_inspect(folder: RunFolder, output_dir: Path) -> list[Path]:
    """Write one `.eval` file a cell; returns the files.

    Raises UsageError where Inspect AI is not installed.
    """
    try:
        from inspect_ai.log import write_eval_log
    except ImportError as error:
        raise UsageError(
            "Inspect AI's logs are written by its own library, which is not installed",
            hint="pip install 'medeval[inspect]'",
        ) from error
    output_dir.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for cell in judged_cells(folder):
        path = output_dir / f"{_file_stem(cell)}.eval"
        write_eval_log(_log(cell), str(path), format="eval")
        written.append(path)
    return written


def _identity(cell: JudgedCell) -> str:
    return hashlib.sha256(str(cell.key.relative_path).encode()).hexdigest()[:16]


def _file_stem(cell: JudgedCell) -> str:
    """The time, the task and an id, as Inspect names its logs."""
    began = created(cell.folder.record()).replace(":", "-")
    name = re.sub(r"[^\w.-]+", "-", f"{cell.key.checkpoint}-{cell.task}".replace("_", "-"))
    return f"{began}_{name}_{_identity(cell)}"


def _log(cell: JudgedCell) -> "EvalLog":
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalSpec, EvalStats

    judged = list(cell.judged())
    began = created(cell.folder.record())
    repeats = 1 + max((item.trajectory.repeat for item in judged), default=0)
    return EvalLog(
        status="success",
        eval=EvalSpec(
            eval_id=_identity(cell),
            run_id=hashlib.sha256(began.encode()).hexdigest()[:16],
            created=began,
            task=cell.task,
            task_id=_identity(cell),
            dataset=EvalDataset(
                name=cell.key.benchmark,
                samples=len(cell.samples),
                sample_ids=list(cell.samples),
                shuffled=False,
            ),
            model=cell.key.checkpoint,
            config=EvalConfig(epochs=repeats),
            metadata={"judge": cell.judge, "protocol": cell.key.protocol},
        ),
        results=_results(cell, judged),
        stats=EvalStats(started_at=began, completed_at=began),
        samples=[_sample(cell, item) for item in judged],
    )


def _results(cell: JudgedCell, judged: list[JudgedTrajectory]) -> "EvalResults":
    from inspect_ai.log import EvalMetric, EvalResults, EvalScore

    verdicts = [item.verdict for item in judged if item.verdict is not None]
    decided = [verdict for verdict in verdicts if verdict.score is not None]
    scores = [verdict.score for verdict in decided if verdict.score is not None]
    shares = {
        "accuracy": [float(verdict.status == "correct") for verdict in decided],
        cell.metric.name: scores,
    }
    return EvalResults(
        total_samples=len(judged),
        completed_samples=len(judged),
        scores=[
            EvalScore(
                name=cell.judge,
                scorer=cell.judge,
                scored_samples=len(decided),
                unscored_samples=len(judged) - len(decided),
                metrics={
                    name: EvalMetric(name=name, value=sum(values) / len(values))
                    for name, values in shares.items()
                    if values
                },
            )
        ],
    )


def _sample(cell: JudgedCell, judged: JudgedTrajectory) -> "EvalSample":
    from inspect_ai.log import EvalSample

    sample, trajectory = judged.sample, judged.trajectory
    return EvalSample(
        id=sample.id,
        epoch=trajectory.repeat + 1,
        input=sample.question,
        choices=list(sample.options) or None,
        target=list(sample.targets),
        messages=list(_messages(cell.folder, trajectory)),
        output=_output(cell, trajectory),
        scores=_scores(cell.judge, judged.verdict),
        total_time=trajectory.seconds,
        metadata={
            **sample.groups,
            "stop": trajectory.stop,
            "called": trajectory.called,
            "calls": [
                {"name": call.name, "status": call.status, "error": call.error}
                for call in trajectory.calls
            ],
        },
    )


def _scores(judge: str, verdict: Verdict | None) -> "dict[str, Score]":
    """The verdict as a score; empty where there is no verdict or it is undecided."""
    from inspect_ai.scorer import Score

    if verdict is None or verdict.status not in VALUES:
        return {}
    score = Score(
        value=VALUES[verdict.status],
        answer=verdict.extracted,
        explanation=verdict.reason or None,
        metadata={"score": verdict.score},
    )
    return {judge: score}


def _output(cell: JudgedCell, trajectory: Trajectory) -> "ModelOutput":
    from inspect_ai.model import ModelOutput

    text = trajectory.turns[-1].text if trajectory.turns else ""
    stop = "max_tokens" if trajectory.stop in TRUNCATED else "stop"
    output = ModelOutput.from_content(cell.key.checkpoint, text, stop_reason=stop)
    output.usage = _usage(trajectory.usage)
    return output


def _usage(usage: Usage) -> "ModelUsage":
    from inspect_ai.model import ModelUsage

    read, written = usage.prompt_tokens or 0, usage.completion_tokens or 0
    return ModelUsage(input_tokens=read, output_tokens=written, total_tokens=read + written)


def _messages(folder: RunFolder, trajectory: Trajectory) -> "Iterator[ChatMessage]":
    from inspect_ai.model import (
        ChatMessageAssistant,
        ChatMessageSystem,
        ChatMessageTool,
        ChatMessageUser,
    )

    for message in trajectory.messages:
        content = list(_content(folder, trajectory, message))
        if message.role == "assistant":
            yield ChatMessageAssistant(content=content, tool_calls=_calls(message))
        elif message.role == "tool":
            yield ChatMessageTool(content=content, tool_call_id=message.call_id)
        elif message.role == "system":
            yield ChatMessageSystem(content=content)
        else:
            yield ChatMessageUser(content=content)


def _calls(message: Message) -> "list[ToolCall] | None":
    from inspect_ai.tool import ToolCall

    return [
        ToolCall(id=call.id, function=call.name, arguments={"as sent": call.arguments})
        for call in message.native_calls
    ] or None


def _content(folder: RunFolder, trajectory: Trajectory, message: Message) -> "Iterator[Content]":
    from inspect_ai.model import ContentImage, ContentReasoning, ContentText

    if message.reasoning:
        yield ContentReasoning(reasoning=message.reasoning)
    for part in message.content:
        if isinstance(part, Text):
            yield ContentText(text=part.text)
            continue
        image = trajectory.images[part.image]
        kept = kept_image(folder, image)
        if kept is None:
            yield ContentText(text=f"[image {image.index}, {image.shown_hash}]")
        else:
            media_type, data = kept
            encoded = base64.b64encode(data).decode()
            yield ContentImage(image=f"data:{media_type};base64,{encoded}")
