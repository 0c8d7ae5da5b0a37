"""One scripted conversation for each arm of a preset, in the compact form the golden files have.

Run as a program, this module writes the files anew: look at the difference before keeping it.
"""

import asyncio
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from medeval.evaluation.loader import load
from medeval.images.picture import Picture, prepare
from medeval.models.base import Reply
from medeval.models.scripted import ScriptedModel
from medeval.rollout.conversation import Rollout, roll_out
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import ImageRef, Message, NativeCall, Text

GOLDEN = Path(__file__).parent / "golden"


def drawn(width: int = 1200, height: int = 800) -> bytes:
    """A pattern without symmetry, so that each region of it is unlike any other."""
    row = bytes(value for x in range(width) for value in (x % 256, (x // 5) % 256, x // 256 * 40))
    pixels = b"".join(
        bytes((value + 3 * y) % 256 for value in row[:30]) + row[30:] for y in range(height)
    )
    image = Image.frombytes("RGB", (width, height), pixels)
    image.paste((200, 30, 30), (300, 200, 420, 260))
    image.paste((20, 30, 220), (900, 500, 960, 620))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


DATA = drawn()
SAMPLE = Sample(
    id="golden",
    question="What is the colour of the flag?",
    images=(ImageSource(name="drawn", read=lambda: DATA),),
    targets=("B",),
    options=("green", "red"),
    metadata={
        "regions": [
            {"axis": "x", "name": "2005", "box": [0.1, 0.1, 0.3, 0.9]},
            {"axis": "x", "name": "2006", "box": [0.4, 0.1, 0.6, 0.9]},
        ]
    },
)


TABLE = replace(
    SAMPLE,
    metadata={
        "regions": [
            {"axis": "column", "name": "Year", "box": [0.0, 0.0, 0.5, 1.0]},
            {"axis": "column", "name": "Flag", "box": [0.5, 0.0, 1.0, 1.0]},
            {"axis": "row", "name": "Year", "box": [0.0, 0.0, 1.0, 0.5]},
            {"axis": "row", "name": "2006", "box": [0.0, 0.5, 1.0, 1.0]},
        ]
    },
)


def hermes(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def native(name: str, **arguments: object) -> Reply:
    call = NativeCall(id="call-1", name=name, arguments=json.dumps(arguments))
    return Reply(text="", finish="tool_calls", native_calls=(call,))


def glm(name: str, **arguments: object) -> str:
    pairs = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>"
        f"{value if isinstance(value, str) else json.dumps(value)}</arg_value>\n"
        for key, value in arguments.items()
    )
    return f"<tool_call>{name}\n{pairs}</tool_call>"


def grounding(box: Sequence[float], source: str) -> str:
    return f'<grounding>{{"bbox_2d": {list(box)}, "source": "{source}"}}</grounding>'


ZOOM = "image_zoom_in_tool"
MED = "image_crop_and_zoom_in_tool"
PIXEL = "crop_image_normalized"
TABLE_FOCUS = """THOUGHT 0: I focus.
ACTION 0:
```python
chosen = focus_on_columns_with_draw(image_1, ["Flag"], columns_bbox)
chosen = focus_on_rows_with_highlight(chosen, ["2006"], rows_bbox)
display(chosen)
```
OBSERVATION: Execution success. I imagine this.
"""
FOCUS = """THOUGHT 0: I focus.
ACTION 0:
```python
chosen = focus_on_x_values_with_{mode}(image_1, [{names}], x_values_bbox)
display(chosen)
```"""
BOXED = "The flag is red. The final answer is: $\\boxed{B}$"
TAGGED = "<think>It is red.</think> <answer>B</answer>"

# What the model says in the available arm; in the free arm it says the last of these alone.
SCRIPTS: Mapping[str, Sequence[str]] = {
    "deepeyes": [
        "<think>Closer.</think>\n" + hermes(ZOOM, bbox_2d=[290, 190, 430, 270], label="flag"),
        TAGGED,
    ],
    "deepeyes_mapped": [
        "<think>Closer.</think>\n" + hermes(ZOOM, bbox_2d=[290, 190, 430, 270], label="flag"),
        TAGGED,
    ],
    "deepeyes_train": [
        hermes(ZOOM, bbox_2d=[290, 190, 300, 200]),
        hermes(ZOOM, bbox_2d=[0, 0, 1, 1]) + hermes(ZOOM, bbox_2d=[290, 190, 430, 270]),
        TAGGED,
    ],
    "mini_o3": [
        "<think>Closer.</think>" + grounding([0.2, 0.2, 0.6, 0.6], "original_image"),
        grounding([0.1, 0.1, 0.9, 0.9], "observation_2"),
        grounding([0.0, 0.0, 0.5, 0.5], "observation_1"),
        TAGGED,
    ],
    "mini_o3_train": [
        "<think>Closer.</think>" + grounding([0.2, 0.2, 0.6, 0.6], "original_image"),
        grounding([0.1, 0.1, 0.9, 0.9], "observation_1"),
        TAGGED,
    ],
    "pixel_reasoner": [
        hermes(PIXEL, bbox_2d=[0.25, 0.25, 0.35, 0.325], target_image=1),
        hermes(PIXEL, bbox_2d=[0.5, 0.5, 1.0, 1.0], target_image=2),
        hermes("select_frames", target_frames=[1]),
        hermes(PIXEL, bbox_2d=[0.2, 0.2, 0.8, 0.8], target_image=2),
        BOXED,
    ],
    "chain_of_focus": [
        "<think>Closer.</think> " + hermes(ZOOM, bbox_2d=[290, 190, 430, 270], label="flag"),
        hermes(ZOOM, bbox_2d=[430, 270, 290, 190]),
        TAGGED,
    ],
    "qwen3vl_zoom": [
        hermes(ZOOM, bbox_2d=[240, 240, 360, 340], label="flag", img_idx=0)
        + "\n"
        + hermes(ZOOM, bbox_2d=[750, 625, 751, 626], label="dot", img_idx=0),
        hermes(ZOOM, bbox_2d=[0, 0, 500, 500], label="flag", img_idx=1),
        "It is red: B",
    ],
    "med": [
        hermes(MED, bbox_2d=[240, 240, 360, 340], label="flag", image_index=0),
        hermes(MED, bbox_2d=[0, 0, 500, 500], label="flag", image_index=1),
        BOXED,
    ],
    "med_glm": [
        glm(MED, bbox_2d=[240, 240, 360, 340], label="flag", image_index=0),
        "<think>Red.</think> <|begin_of_box|>B<|end_of_box|>",
    ],
    "glm45v": [
        glm(MED, bbox_2d=[240, 240, 360, 340], label="flag", image_index=0),
        glm(MED, bbox_2d=[0, 0, 500, 500], label="flag", image_index=1),
        "<think>Red.</think> <|begin_of_box|>B<|end_of_box|>",
    ],
    "vtool_r1_v1": [TABLE_FOCUS, "ANSWER: It is red. FINAL ANSWER: B. TERMINATE"],
    "vtool_r1_v1_chart": [
        FOCUS.format(mode="draw", names='"2006"').replace("x_values_bbox", "rows_bbox"),
        "ANSWER: It is red. FINAL ANSWER: B. TERMINATE",
    ],
    "vtool_r1": [TABLE_FOCUS, "ANSWER: It is red. FINAL ANSWER: B. TERMINATE"],
    "vtool_r1_chart": [
        FOCUS.format(mode="mask", names='"2006"').replace("x_values", "columns"),
        "ANSWER: It is red. FINAL ANSWER: B. TERMINATE",
    ],
    "iapo": [
        FOCUS.format(mode="highlight", names='"2006"').replace("x_values", "columns"),
        "ANSWER: It is red. FINAL ANSWER: B. TERMINATE",
    ],
    "refocus": [
        TABLE_FOCUS,
        TABLE_FOCUS.replace('"Flag"', '"Weight"'),
        "ANSWER: It is red. FINAL ANSWER: B. TERMINATE",
    ],
    "crop_zoom": [
        hermes("crop_and_zoom", bbox_2d=[240, 240, 360, 340]),
        hermes("crop_and_zoom", bbox_2d=[0, 0, 500, 500], image_index=1),
        hermes("crop_and_zoom", bbox_2d=[500, 500, 0, 0]),
        TAGGED,
    ],
    "native5": [
        hermes("rotate", angle=90),
        hermes("flip", direction="horizontal", image_index=1),
        hermes("draw_line", axis="y", value=500, image_index=2),
        hermes("draw_point", x=250, y=125),
        hermes("zoom", bbox_2d=[0, 0, 500, 500], image_index=1),
        TAGGED,
    ],
    "refocus_chart": [
        FOCUS.format(mode="highlight", names='"2006"'),
        FOCUS.format(mode="draw", names='"2007"'),
        FOCUS.format(mode="mask", names='"2005"').replace("image_1", "image_1[0]"),
        FOCUS.format(mode="draw", names='"2005", "2006"'),
        "ANSWER: It is red. FINAL ANSWER: B. TERMINATE",
    ],
}


# The same for pairs whose calls come in a server's own field.
NATIVE_SCRIPTS: Mapping[str, Sequence[Reply | str]] = {
    "crop_zoom_native": [
        native("crop_and_zoom", bbox_2d=[240, 240, 360, 340]),
        native("crop_and_zoom", bbox_2d=[0, 0, 500, 500], image_index=7),
        TAGGED,
    ],
    "native5_native": [
        native("rotate", angle=180),
        native("draw_point", x=1200, y=5),
        native("zoom", bbox_2d=[240, 240, 360, 340]),
        TAGGED,
    ],
}

OF_TABLES = frozenset({"refocus", "vtool_r1", "vtool_r1_v1"})


def pictures_of(protocol: EvalProtocol) -> list[Picture]:
    return [prepare(DATA, name="drawn", budget=protocol.pixel_budget)]


def rolled(
    protocol: EvalProtocol, script: Sequence[str | Reply], sample: Sample = SAMPLE
) -> Rollout:
    pictures = pictures_of(protocol) * len(sample.images)
    return asyncio.run(roll_out(sample, pictures, protocol, ScriptedModel(script)))


def shown(message: Message) -> list[str]:
    """A message as its role and its parts, an image by its number."""
    parts = [
        part.text if isinstance(part, Text) else f"<image {part.image}>" for part in message.content
    ]
    assert all(isinstance(part, Text | ImageRef) for part in message.content)
    return [message.role, *parts, *(f"{one.name} {one.arguments}" for one in message.native_calls)]


def pixels_hash(picture: Picture) -> str:
    """Size and hash of the pixels as they are sent; the bytes of a PNG may differ."""
    image = picture.sent_pixels()
    digest = hashlib.sha256(image.tobytes()).hexdigest()[:16]
    return f"{image.width}x{image.height} {digest}"


def transcript(
    protocol: EvalProtocol, script: Sequence[str | Reply], sample: Sample = SAMPLE
) -> dict[str, Any]:
    """A conversation, with all that decides it, as JSON."""
    rollout = rolled(protocol, script, sample)
    ended = rollout.trajectory
    return {
        "messages": [shown(message) for message in ended.messages],
        "images": [pixels_hash(picture) for picture in pictures_of(protocol)]
        + [pixels_hash(picture) for picture in rollout.made.values()],
        "calls": [[call.status, call.error, call.observed] for call in ended.calls],
        "answer": None if ended.answer is None else [ended.answer.text, ended.answer.how_found],
        "stop": ended.stop,
        "counts": [ended.attempted, ended.executed, ended.observed],
    }


def transcripts(name: str) -> dict[str, Any]:
    """Both arms of a pair."""
    pair = load(name, Pair).value
    script = SCRIPTS[name] if name in SCRIPTS else NATIVE_SCRIPTS[name]
    sample = TABLE if name in OF_TABLES else SAMPLE
    return {
        "free": transcript(pair.free, script[-1:], sample),
        "available": transcript(pair.available, script, sample),
    }


def main() -> None:
    """Write the golden files anew."""
    for name in (*SCRIPTS, *NATIVE_SCRIPTS):
        text = json.dumps(transcripts(name), indent=1, ensure_ascii=False)
        (GOLDEN / f"{name}.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
