"""CPU seconds of the transformers backend beside a bare `generate` loop over the same prompts.

    OMP_NUM_THREADS=1 python tests/perf/transformers_speed.py [--samples 96] [--rounds 3]

The prompts are the first turns of the demo's benchmark in both arms, by the last shipped checkpoint
or the one that `--checkpoint` names. The bare loop takes them in order, 32 at a time, both arms in
turn as a run asks for them (`mixed`) and each arm by itself (`by arm`).
"""

import argparse
import asyncio
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from transformers import AutoModelForImageTextToText, AutoTokenizer  # noqa: E402

from medeval import load  # noqa: E402
from medeval.cli.demo import shipped_checkpoints  # noqa: E402
from medeval.models.base import Request  # noqa: E402
from medeval.models.transformers.loading import load_config  # noqa: E402
from medeval.models.transformers.model import MAX_BATCH_SIZE, TransformersModel  # noqa: E402
from medeval.models.transformers.processor import ChatProcessor, Prompt  # noqa: E402
from medeval.rollout.protocol import Pair  # noqa: E402
from tests.tiny_checkpoints import marker_request  # noqa: E402

MAX_TOKENS = 64


class BareLoop:
    """transformers' own model and `generate`, with nothing of ours but the prompts' ids."""

    def __init__(self, checkpoint: Path, stop: tuple[str, ...]) -> None:
        self.processor = ChatProcessor(checkpoint, load_config(checkpoint))
        self._model: Any = AutoModelForImageTextToText.from_pretrained(
            checkpoint, dtype=torch.float32
        ).eval()
        self._tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint)
        self._stop = list(stop)

    def texts(self, requests: list[Request]) -> list[str]:
        """The reply to each request, in order; prompts are made here too."""
        prompts = [self.processor.opening(one.messages, one.images) for one in requests]
        found: list[str] = []
        for first in range(0, len(prompts), MAX_BATCH_SIZE):
            found += self._batch(prompts[first : first + MAX_BATCH_SIZE])
        return found

    def _batch(self, prompts: list[Prompt]) -> list[str]:
        inputs = self.processor.batch(prompts)
        template = self.processor.template
        with torch.inference_mode():
            output = self._model.generate(
                **inputs,
                max_new_tokens=MAX_TOKENS,
                do_sample=False,
                eos_token_id=template.end_id,
                pad_token_id=template.pad_id,
                stop_strings=self._stop,
                tokenizer=self._tokenizer,
            )
        width = inputs["input_ids"].shape[1]
        return [template.decode(row) for row in output[:, width:].tolist()]


async def ours(checkpoint: Path, requests: list[Request]) -> tuple[list[str], float]:
    """The replies of the backend, and its CPU seconds from the first request to the last reply."""
    model = TransformersModel(checkpoint)
    await model.start()
    began = time.process_time()
    replies = await asyncio.gather(*map(model.generate, requests))
    seconds = time.process_time() - began
    await model.close()
    return [reply.text for reply in replies], seconds


def beside_a_bare_loop(checkpoint: Path, n_samples: int, rounds: int) -> None:
    """Print what first turns cost, beside a bare loop over the same prompts."""
    pair = load("crop_zoom", Pair).value
    arms = [
        [
            replace(one, sampling=replace(one.sampling, max_tokens=MAX_TOKENS))
            for one in (marker_request(index, protocol) for index in range(n_samples))
        ]
        for protocol in (pair.free, pair.available)
    ]
    mixed = [request for both in zip(*arms, strict=True) for request in both]
    bare = BareLoop(checkpoint, pair.available.stop)
    seconds: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    for _ in range(rounds):
        for name, order in {"bare, mixed": mixed, "bare, by arm": [*arms[0], *arms[1]]}.items():
            began = time.process_time()
            texts[name] = bare.texts(order)
            seconds.setdefault(name, []).append(time.process_time() - began)
        texts["medeval"], taken = asyncio.run(ours(checkpoint, mixed))
        seconds.setdefault("medeval", []).append(taken)
    alike = statistics.mean(
        one == other for one, other in zip(texts["medeval"], texts["bare, mixed"], strict=True)
    )
    least = statistics.median(seconds["medeval"])
    for name, taken_s in seconds.items():
        middle = statistics.median(taken_s)
        print(
            f"{name:13} {1000 * middle / len(mixed):6.1f} ms of CPU a reply "
            f"({1000 * min(taken_s) / len(mixed):.1f}-{1000 * max(taken_s) / len(mixed):.1f}), "
            f"{middle / least:.2f} of medeval's"
        )
    print(f"equal replies: {alike:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoint", type=Path, default=shipped_checkpoints()[-1])
    how = parser.parse_args()
    beside_a_bare_loop(how.checkpoint, how.samples, how.rounds)


if __name__ == "__main__":
    main()
