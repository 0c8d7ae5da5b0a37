"""Conversations with the real tools, played by a script."""

import asyncio
import io
import json
from dataclasses import replace

from PIL import Image

from medeval.images.picture import prepare
from medeval.models.base import Sampling
from medeval.models.scripted import ScriptedModel
from medeval.rollout.conversation import roll_out
from medeval.rollout.protocol import EvalProtocol
from medeval.tools.crop import crop_and_zoom
from medeval.tools.draw import draw_line, draw_point
from medeval.tools.focus import VTOOL_V1, focus_tools
from medeval.tools.rotate_flip import flip, rotate
from medeval.types.sample import ImageSource, JsonValue, Sample
from medeval.types.trajectory import Trajectory

WIDTH, HEIGHT = 400, 200

PROTOCOL = EvalProtocol(
    name="available",
    system="$tools",
    user="$question",
    tools=(
        crop_and_zoom(minimum_side_px=1),
        rotate(),
        flip(),
        draw_line(),
        draw_point(),
        *focus_tools(VTOOL_V1),
    ),
    call_syntax="hermes",
    frame="pixels_raw",
    max_generations=12,
    max_calls=10,
    sampling=Sampling(temperature=0.0, max_tokens=64),
)


def drawn(width: int = WIDTH, height: int = HEIGHT) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(buffer, "PNG")
    return buffer.getvalue()


DATA = drawn()
SAMPLE = Sample(
    id="s1",
    question="Which?",
    images=(ImageSource(name="drawn", read=lambda: DATA),),
    targets=("B",),
)


def call(name: str, **arguments: JsonValue) -> str:
    """A call as the model writes it; coordinates are raw pixels of the image it names."""
    written = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>\n{written}\n</tool_call>"


def crop(*box: float, image: int = 0) -> str:
    return call("crop_and_zoom", bbox_2d=list(box), image_index=image)


def box_of(*sides: float) -> dict[str, JsonValue]:
    """A box as a program writes it out."""
    return dict(zip(("x1", "y1", "x2", "y2"), sides, strict=True))


def played(*replies: str, sample: Sample = SAMPLE, answer: str = "B") -> Trajectory:
    """The conversation of these calls, one a reply, and of an answer after them."""
    model = ScriptedModel([*replies, f"<answer>{answer}</answer>"])
    pictures = [prepare(image.read(), name=image.name) for image in sample.images]
    rolled = asyncio.run(roll_out(sample, pictures, PROTOCOL, model))
    assert all(each.error is None or "!" in each.raw_text for each in rolled.trajectory.calls), [
        each.error for each in rolled.trajectory.calls
    ]
    return rolled.trajectory


def two_images(sample: Sample) -> Sample:
    return replace(sample, images=sample.images * 2)
