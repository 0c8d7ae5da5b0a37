"""A run as lmms-eval's logged samples: one JSONL file for each checkpoint, benchmark and arm.

The fields are those that `--log_samples` leaves on disk (lmms_eval/loggers/evaluation_tracker.py,
save_results_samples, and lmms_eval/evaluator.py of EvolvingLMMs-Lab/lmms-eval 0.7): doc_id,
target, filtered_resps, resps, token_counts, doc_hash, input, and the metric under its own name.
medeval adds sample_id, repeat, verdict, stop and n_calls.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medeval.interop.judged import JudgedCell, JudgedTrajectory, created, judged_cells
from medeval.store.files import write_whole
from medeval.store.records import line
from medeval.store.run_folder import RunFolder


def export_lmms_eval(folder: RunFolder, output_dir: Path) -> list[Path]:
    """Write `<checkpoint>/<time>_samples_<benchmark>_<protocol>.jsonl` for each cell.

    A sample without a trajectory has no line. An undecided one has null as its metric. Returns
    the files.
    """
    began = re.sub(r"[-:]", "", created(folder.record()))[:15].replace("T", "_")
    written: list[Path] = []
    for cell in judged_cells(folder):
        checkpoint = _plain(cell.key.checkpoint.replace("/", "__"))
        path = output_dir / checkpoint / f"{began}_samples_{_plain(cell.task)}.jsonl"
        write_whole(path, _lines(cell))
        written.append(path)
    return written


def _plain(name: str) -> str:
    """A name in the form that lmms-eval gives to file names."""
    return re.sub(r"[^\w.-]", "_", name)


def _lines(cell: JudgedCell) -> Iterator[bytes]:
    for judged in cell.judged():
        yield json.dumps(_line(judged, cell.metric.name), ensure_ascii=True).encode() + b"\n"


def _line(judged: JudgedTrajectory, metric: str) -> dict[str, Any]:
    sample, trajectory, verdict = judged.sample, judged.trajectory, judged.verdict
    answer = trajectory.answer
    described = json.dumps(json.loads(line(sample)), sort_keys=True)
    return {
        "doc_id": judged.position,
        "target": sample.targets[0] if len(sample.targets) == 1 else str(list(sample.targets)),
        "resps": [[turn.text for turn in trajectory.turns]],
        "filtered_resps": ["" if answer is None else answer.text],
        "token_counts": [_token_counts(judged)],
        "doc_hash": hashlib.sha256(described.encode()).hexdigest(),
        "input": _opening(judged),
        metric: None if verdict is None else verdict.score,
        "sample_id": sample.id,
        "repeat": trajectory.repeat,
        "verdict": None if verdict is None else verdict.status,
        "stop": trajectory.stop,
        "n_calls": trajectory.attempted,
    }


def _token_counts(judged: JudgedTrajectory) -> dict[str, int] | None:
    usage = judged.trajectory.usage
    counts = {"input_tokens": usage.prompt_tokens, "output_tokens": usage.completion_tokens}
    known = {name: count for name, count in counts.items() if count is not None}
    return known or None


def _opening(judged: JudgedTrajectory) -> str:
    """The text of the messages before the model's first reply."""
    texts: list[str] = []
    for message in judged.trajectory.messages:
        if message.role == "assistant":
            break
        texts.append(message.text)
    return "\n".join(texts)
