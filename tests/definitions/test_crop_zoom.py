"""The neutral pair, word for word: what each arm sends, turn by turn, for one real drawn image."""

import asyncio
import io
import json
from dataclasses import replace

import pytest
from PIL import Image

from medeval.evaluation.loader import load
from medeval.images.picture import prepare
from medeval.models.base import Reply, Sampling
from medeval.models.scripted import Script, ScriptedModel
from medeval.rollout.conversation import roll_out
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.types.geometry import Affine, Size
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import ImageRef, Message, NativeCall, Text, Trajectory

HERMES = load("crop_zoom", Pair).value
NATIVE = load("crop_zoom_native", Pair).value

QUESTION = """Which colour is the flag?
A. red
B. blue
Answer with the option's letter.

Think step by step. Then write the final answer, and nothing else, between <answer> and </answer>."""  # noqa: E501

SCHEMA = json.dumps(
    {
        "type": "function",
        "function": {
            "name": "crop_and_zoom",
            "description": (
                "Cut a rectangular region out of an image and look at it enlarged, in the detail "
                "of the original. Use it to read small text or to inspect small or distant "
                "objects. The region is shown to you as a new image."
            ),
            "parameters": {
                "type": "object",
                "properties": {
                    "bbox_2d": {
                        "type": "array",
                        "items": {"type": "number"},
                        "minItems": 4,
                        "maxItems": 4,
                        "description": (
                            "The region as [x1, y1, x2, y2]: its top-left corner (x1, y1) and its "
                            "bottom-right corner (x2, y2), with x1 < x2 and y1 < y2. Coordinates "
                            "are in thousandths of that image's width (x) and height (y), from 0 "
                            "to 1000, measured from its top-left corner: [0, 0, 1000, 1000] is "
                            "the whole image."
                        ),
                    },
                    "image_index": {
                        "type": "integer",
                        "minimum": 0,
                        "default": 0,
                        "description": (
                            "Which image to cut from, counted from 0 in the order in which the "
                            "images appear in the conversation: 0 is the first image you were "
                            "given, and images made by tools are numbered after those you were "
                            "given."
                        ),
                    },
                },
                "required": ["bbox_2d"],
                "additionalProperties": False,
            },
        },
    }
)

HERMES_SYSTEM = f"""You are a helpful assistant.

# Tools

You may call a tool before you answer. These are the tools, one JSON schema a line:
<tools>
{SCHEMA}
</tools>

To call a tool, write its name and arguments as JSON inside <tool_call> and </tool_call>, then stop:
<tool_call>
{{"name": <name>, "arguments": <arguments>}}
</tool_call>
The result comes in the next message, inside <tool_response> and </tool_response>. You may make at most 4 calls, one a message."""  # noqa: E501

NATIVE_SYSTEM = """You are a helpful assistant.

You may call a tool before you answer. Its result comes in the next message. You may make at most 4 calls."""  # noqa: E501

ASKED = Message(role="user", content=(ImageRef(0), Text(QUESTION)))
ANSWERED = "It is blue. <answer>B</answer>"

HERMES_CALL = (
    'I look closer.\n<tool_call>\n{"name": "crop_and_zoom", '
    '"arguments": {"bbox_2d": [0, 250, 500, 750]}}\n</tool_call>'
)
HERMES_BROKEN = '<tool_call>\n{"name": "crop_and_zoom", "arguments": {"bbox_2d": [500, 0, 0]}}\n'
NATIVE_CALLS = (
    NativeCall(id="a", name="crop_and_zoom", arguments='{"bbox_2d": [0, 250, 500, 750]}'),
    NativeCall(id="b", name="crop_and_zoom", arguments='{"bbox_2d": [500, 0, 0]}'),
)


def system(text: str) -> Message:
    return Message(role="system", content=(Text(text),))


def said(text: str, *calls: NativeCall) -> Message:
    return Message(role="assistant", content=(Text(text),), native_calls=calls)


def flag() -> bytes:
    image = Image.new("RGB", (400, 200), "white")
    image.paste("blue", (0, 50, 200, 150))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def trajectory(protocol: EvalProtocol, script: Script) -> Trajectory:
    data = flag()
    sample = Sample(
        id="flag",
        question="Which colour is the flag?",
        images=(ImageSource(name="flag", read=lambda: data),),
        targets=("B",),
        options=("red", "blue"),
        instruction="Answer with the option's letter.",
    )
    picture = prepare(data, name="flag", budget=protocol.pixel_budget)
    return asyncio.run(roll_out(sample, [picture], protocol, ScriptedModel(script))).trajectory


@pytest.mark.parametrize("pair", [HERMES, NATIVE], ids=lambda pair: pair.name)
def test_the_free_arm_is_one_question_and_one_reply(pair: Pair) -> None:
    ended = trajectory(pair.free, [ANSWERED])
    assert ended.messages == (system("You are a helpful assistant."), ASKED, said(ANSWERED))
    assert ended.stop == "answered"


def test_the_available_arm_writes_calls_as_hermes_blocks() -> None:
    ended = trajectory(HERMES.available, [HERMES_CALL, HERMES_BROKEN, ANSWERED])
    assert ended.messages == (
        system(HERMES_SYSTEM),
        ASKED,
        said(HERMES_CALL),
        Message(
            role="user",
            content=(Text("<tool_response>\n"), ImageRef(1), Text("\n</tool_response>")),
        ),
        said(HERMES_BROKEN),
        Message(
            role="user",
            content=(
                Text(
                    "<tool_response>\nError: 'bbox_2d' is a list of four numbers, "
                    "not [500, 0, 0]\n</tool_response>"
                ),
            ),
        ),
        said(ANSWERED),
    )
    assert [call.status for call in ended.calls] == ["executed", "rejected"]


def test_the_native_available_arm_answers_each_call_and_then_shows_the_image() -> None:
    reply = Reply(text="I look closer.", finish="tool_calls", native_calls=NATIVE_CALLS)
    ended = trajectory(NATIVE.available, [reply, ANSWERED])
    assert ended.messages == (
        system(NATIVE_SYSTEM),
        ASKED,
        said("I look closer.", *NATIVE_CALLS),
        Message(role="tool", content=(Text("Done. Image 1 is in the next message."),), call_id="a"),
        Message(
            role="tool",
            content=(Text("Error: 'bbox_2d' is a list of four numbers, not [500, 0, 0]"),),
            call_id="b",
        ),
        Message(
            role="user",
            content=(Text("The image that the call made (image 1):\n"), ImageRef(1)),
        ),
        said(ANSWERED),
    )


def test_the_crop_is_the_region_in_thousandths_enlarged() -> None:
    image = trajectory(HERMES.available, [HERMES_CALL, ANSWERED]).images[1]
    assert image.arguments["box_px"] == [0, 50, 200, 150]
    assert (image.raw, image.sent) == (Size(200, 100), Size(644, 336))
    assert image.to_root == Affine(200 / 644, 0, 0, 0, 100 / 336, 50)


@pytest.mark.parametrize("pair", [HERMES, NATIVE], ids=lambda pair: pair.name)
def test_the_arms_differ_by_the_tool_alone(pair: Pair) -> None:
    free, available = pair.arms
    assert pair.differences == {}
    assert available.system.startswith(free.system)
    assert free == replace(
        available,
        name=free.name,
        title=free.title,
        system=free.system,
        tools=(),
        max_generations=1,
        max_calls=0,
    )


@pytest.mark.parametrize("arm", [*HERMES.arms, *NATIVE.arms], ids=lambda arm: arm.name)
def test_settings_of_every_arm(arm: EvalProtocol) -> None:
    assert arm.sampling == Sampling(temperature=0.0, max_tokens=2048)
    assert (arm.frame, arm.answer_rules, arm.pixel_budget) == ("permille", ("answer_tag",), None)
    limits = (arm.max_generations, arm.max_calls)
    assert limits == ((5, 4) if arm.tools else (1, 0))
    assert arm.stop == (("</tool_call>",) if arm.call_syntax == "hermes" else ())
