"""Controls of the shipped series: does the last checkpoint answer from what it sees?

    python -m tests.recipes.controls [--samples 200]

Prints the share that answers with the marker's colour and, where a crop was put before the model,
with the colour in that crop.
"""

import argparse
import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
from PIL import Image

from medeval.cli.demo import shipped_checkpoints
from medeval.data.scenes import EDGE_PX
from medeval.evaluation.loader import load
from medeval.images.picture import Picture, made_picture
from medeval.models.base import Request
from medeval.models.transformers.model import TransformersModel
from medeval.rollout.observation import CallResult
from medeval.rollout.protocol import Pair
from medeval.tools.base import ToolContext
from medeval.tools.calls.find import find_calls
from medeval.types.sample import RequestImage, Sample
from medeval.types.trajectory import Message, Text
from recipes.demo_series.lessons import call_text
from recipes.demo_series.views import cell_of
from tests.tiny_checkpoints import marker, marker_request

PAIR = load("crop_zoom", Pair).value
TOOL = PAIR.available.tools[0]
BLANK = made_picture(Image.new("RGB", (EDGE_PX, EDGE_PX), (110, 110, 110)), budget=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """The share of answers that name a sample's colour; under another's crop, the crop's too."""

    seen: float
    blank: float
    gold_crop: float
    other_crop: float
    other_crop_own_colour: float


def controls(checkpoint: Path, indices: Sequence[int]) -> Shares:
    """What the checkpoint answers about some samples under each control."""
    markers = [marker(index) for index in indices]
    colours = [sample.targets[0] for sample, _ in markers]
    crops = [_gold_crop(sample, picture) for sample, picture in markers]
    others = [*crops[1:], crops[0]]
    free = [marker_request(index, PAIR.free) for index in indices]
    answers = _answers(
        checkpoint,
        [
            free,
            [_with_images(request, BLANK.sent_image) for request in free],
            [_after(index, crop) for index, crop in zip(indices, crops, strict=True)],
            [_after(index, crop) for index, crop in zip(indices, others, strict=True)],
        ],
    )
    seen, blank, gold, other = answers
    return Shares(
        seen=_share(seen, colours),
        blank=_share(blank, colours),
        gold_crop=_share(gold, colours),
        other_crop=_share(other, [*colours[1:], colours[0]]),
        other_crop_own_colour=_share(other, colours),
    )


def _gold_call(sample: Sample) -> str:
    assert sample.target_boxes is not None
    return call_text(*cell_of(sample.target_boxes[0]))


def _gold_crop(sample: Sample, picture: Picture) -> Picture:
    [call] = find_calls(_gold_call(sample), (), "hermes")
    context = ToolContext(pictures=(picture,), frame="permille")
    return TOOL.run(call.arguments or {}, context).picture


def _after(index: int, crop: Picture) -> Request:
    """The request after a call of the gold box, whatever the crop that it gave."""
    opening = marker_request(index, PAIR.available)
    called = Message(role="assistant", content=(Text(_gold_call(marker(index)[0])),))
    shown = PAIR.available.observe([CallResult(native_id=None, image=1)])
    made = _with_images(opening, *opening.images, crop.sent_image)
    return Request(
        messages=(*made.messages, called, *shown),
        images=made.images,
        sampling=made.sampling,
        seed=0,
        stop=made.stop,
    )


def _with_images(request: Request, *images: RequestImage) -> Request:
    return Request(
        messages=request.messages,
        images=images,
        sampling=request.sampling,
        seed=0,
        stop=request.stop,
    )


def _answers(checkpoint: Path, asked: Sequence[Sequence[Request]]) -> list[list[str]]:
    async def ask() -> list[list[str]]:
        model = TransformersModel(checkpoint)
        await model.start()
        try:
            return [
                [reply.text for reply in await asyncio.gather(*map(model.generate, requests))]
                for requests in asked
            ]
        finally:
            await model.close()

    return asyncio.run(ask())


def _share(replies: Sequence[str], colours: Sequence[str]) -> float:
    right = [
        reply == f"<answer>{colour}</answer>"
        for reply, colour in zip(replies, colours, strict=True)
    ]
    return sum(right) / len(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--samples", type=int, default=200)
    indices = range(parser.parse_args().samples)
    small = [index for index in indices if marker(index)[0].groups["size"] == "small"]
    for name, chosen in (("all", list(indices)), ("small", small)):
        shares = controls(shipped_checkpoints()[-1], chosen)
        click.echo(f"{name}, n = {len(chosen)}: {shares}")


if __name__ == "__main__":
    main()
