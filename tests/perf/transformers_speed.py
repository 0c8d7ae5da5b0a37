"""CPU seconds of the transformers backend beside a bare `generate` loop over the same prompts.

    OMP_NUM_THREADS=1 python tests/perf/transformers_speed.py [--samples 96] [--rounds 3]
    OMP_NUM_THREADS=1 python tests/perf/transformers_speed.py --turns 2 [--megapixels]

The prompts are the first turns of the demo's benchmark in both arms, by the last shipped checkpoint
or the one that `--checkpoint` names. The bare loop takes them in order, 32 at a time, both arms in
turn as a run asks for them (`mixed`) and each arm by itself (`by arm`).

With `--turns 2` the tool's arm is asked, and asked again with a second image: CPU a reply of each
turn, with the states of the first kept and computed anew. `--megapixels` does so with images of
1024 x 1024 pixels and a checkpoint of random weights that makes 1,369 tokens of each.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
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
from medeval.models.base import Reply, Request  # noqa: E402
from medeval.models.processor import ChatProcessor, Prompt  # noqa: E402
from medeval.models.transformers.model import MAX_BATCH_SIZE, TransformersModel  # noqa: E402
from medeval.rollout.protocol import EvalProtocol, Pair  # noqa: E402
from medeval.types.trajectory import ImageRef, Message, Text  # noqa: E402
from recipes.demo_series.checkpoints import Architecture, build_checkpoint  # noqa: E402
from tests.tiny_checkpoints import drawn_image, marker_request  # noqa: E402

MAX_TOKENS = 64
LARGE = Architecture(
    width=512, depth=6, vision_width=256, vision_depth=4, context_tokens=16384,
    image_tokens=(4, 1369),
)  # fmt: skip
EDGE_PX = 1024


class BareLoop:
    """transformers' own model and `generate`, with nothing of ours but the prompts' ids."""

    def __init__(self, checkpoint: Path, stop: tuple[str, ...]) -> None:
        self.processor = ChatProcessor(checkpoint, "qwen2_5_vl")
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
        width = max(len(prompt.ids) for prompt in prompts)
        pads = [width - len(prompt.ids) for prompt in prompts]
        pad_id = self.processor.pad_id
        ids = torch.tensor(
            [[pad_id] * pad + list(one.ids) for pad, one in zip(pads, prompts, strict=True)]
        )
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in pads])
        images = [image for prompt in prompts for image in prompt.images]
        with torch.inference_mode():
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                mm_token_type_ids=(ids == self.processor.image_id).int() * mask.int(),
                pixel_values=torch.cat([image.patches for image in images]),
                image_grid_thw=torch.tensor([image.grid for image in images]),
                max_new_tokens=MAX_TOKENS,
                do_sample=False,
                eos_token_id=self.processor.end_id,
                pad_token_id=pad_id,
                stop_strings=self._stop,
                tokenizer=self._tokenizer,
            )
        return [self.processor.decode(row) for row in output[:, width:].tolist()]


async def ours(checkpoint: Path, requests: list[Request]) -> tuple[list[str], float]:
    """The replies of the backend, and its CPU seconds from the first request to the last reply."""
    model = TransformersModel(checkpoint)
    await model.start()
    began = time.process_time()
    replies = await asyncio.gather(*map(model.generate, requests))
    seconds = time.process_time() - began
    await model.close()
    return [reply.text for reply in replies], seconds


def followed(asked: Request, reply: Reply, edge_px: int) -> Request:
    """The request after a reply, which puts another image before the model."""
    shown = (Text("<tool_response>\n"), ImageRef(len(asked.images)), Text("\n</tool_response>"))
    return replace(
        asked,
        messages=(
            *asked.messages,
            Message(role="assistant", content=(Text(reply.text),)),
            Message(role="user", content=shown),
        ),
        images=(*asked.images, drawn_image(len(reply.text), edge_px, edge_px)),
        history=reply.history,
    )


async def two_turns(
    checkpoint: Path, requests: list[Request], edge_px: int, kept_bytes: int | None
) -> tuple[list[str], list[float]]:
    """The replies of second turns, and the CPU seconds of all first turns and all second ones."""
    model = TransformersModel(checkpoint, kept_bytes=kept_bytes)
    await model.start()
    times = [time.process_time()]
    replies = await asyncio.gather(*map(model.generate, requests))
    times.append(time.process_time())
    later = [followed(*pair, edge_px) for pair in zip(requests, replies, strict=True)]
    drawn_s = time.process_time() - times[-1]
    replies = await asyncio.gather(*map(model.generate, later))
    times.append(time.process_time() - drawn_s)
    await model.close()
    return [reply.text for reply in replies], [times[1] - times[0], times[2] - times[1]]


def compare_turns(checkpoint: Path, requests: list[Request], edge_px: int, rounds: int) -> None:
    """Print what turns cost with the states of earlier ones kept, and without."""
    seconds: dict[str, list[list[float]]] = {"kept": [], "computed anew": []}
    texts: dict[str, list[str]] = {}
    for _ in range(rounds):
        for name, taken in seconds.items():
            bound = None if name == "kept" else 0
            texts[name], turns = asyncio.run(two_turns(checkpoint, requests, edge_px, bound))
            taken.append(turns)
    middle = {
        name: [statistics.median(turn) for turn in zip(*taken, strict=True)]
        for name, taken in seconds.items()
    }
    for name, (first, second) in middle.items():
        print(
            f"{name:13} {1000 * first / len(requests):7.1f} ms of CPU a reply in first turns, "
            f"{1000 * second / len(requests):7.1f} in second ones, "
            f"{second / middle['kept'][1]:.2f} of that with kept states"
        )
    alike = [one == other for one, other in zip(*texts.values(), strict=True)]
    print(f"equal replies: {statistics.mean(alike):.3f}")


def large_requests(n_samples: int, protocol: EvalProtocol) -> list[Request]:
    """The demo's questions about images of a megapixel."""
    return [
        replace(marker_request(index, protocol), images=(drawn_image(index, EDGE_PX, EDGE_PX),))
        for index in range(n_samples)
    ]


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
    parser.add_argument("--turns", type=int, choices=(1, 2), default=1)
    parser.add_argument("--megapixels", action="store_true")
    how = parser.parse_args()
    protocol = load("crop_zoom", Pair).value.available
    if how.megapixels:
        asked = large_requests(how.samples, protocol)
        with tempfile.TemporaryDirectory() as folder:
            path = build_checkpoint(Path(folder), family="qwen2_5_vl", seed=0, architecture=LARGE)
            short = [replace(one, sampling=replace(one.sampling, max_tokens=16)) for one in asked]
            compare_turns(path, short, EDGE_PX // 2, how.rounds)
    elif how.turns == 2:
        asked = [marker_request(index, protocol) for index in range(how.samples)]
        compare_turns(how.checkpoint, asked, 64, how.rounds)
    else:
        beside_a_bare_loop(how.checkpoint, how.samples, how.rounds)


if __name__ == "__main__":
    main()
