"""The five native tools, word for word and pixel for pixel: both arms, Hermes and native calls."""

import asyncio
import hashlib
import io
import json

import pytest
from PIL import Image

from medeval.evaluation.loader import load
from medeval.images.picture import prepare
from medeval.models.base import Reply, Sampling
from medeval.models.scripted import Script, ScriptedModel
from medeval.rollout.conversation import Rollout, roll_out
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.types.geometry import Affine, Size
from medeval.types.sample import ImageSource, JsonValue, Sample
from medeval.types.trajectory import Content, ImageRef, Message, NativeCall, Text

HERMES = load("native5", Pair).value
NATIVE = load("native5_native", Pair).value

QUESTION = """Which way is up?
A. left
B. right

Think step by step. Then write the final answer, and nothing else, between <answer> and </answer>."""  # noqa: E501
WHAT = """You may call a tool before you answer, on any image of the conversation. Each result is a new image; images are numbered from 0, first those you were given, then those that tools made. You may make at most 10 calls, one a message. In your last message, before the answer, name the image that it rests on, as "image 2"."""  # noqa: E501
ANSWERED = "It rests on image 5. <answer>B</answer>"

CALLS: list[tuple[str, dict[str, JsonValue]]] = [
    ("zoom", {"bbox_2d": [0, 0, 500, 1000]}),
    ("rotate", {"angle": 90, "image_index": 1}),
    ("flip", {"direction": "horizontal", "image_index": 2}),
    ("draw_line", {"axis": "y", "value": 500, "image_index": 3}),
    ("draw_point", {"x": 250, "y": 250, "image_index": 4}),
]


def sheet(size: tuple[int, int], *patches: tuple[str, tuple[int, int, int, int]]) -> Image.Image:
    """A white image with patches of colour, as left, top, right, bottom."""
    image = Image.new("RGB", size, "white")
    for colour, box in patches:
        image.paste(colour, box)
    return image


def sha256(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


MIRRORED: tuple[str, tuple[int, int, int, int]] = ("blue", (0, 0, 30, 50))
# What the calls make of a page whose upper left quarter is blue, drawn by hand; the point, by what
# Pillow made of it once.
PIXELS = {
    1: sha256(sheet((50, 60), ("blue", (0, 0, 50, 30)))),
    2: sha256(sheet((60, 50), ("blue", (30, 0, 60, 50)))),
    3: sha256(sheet((60, 50), MIRRORED)),
    4: sha256(sheet((60, 50), MIRRORED, ("red", (0, 24, 60, 26)))),
    5: "f90cb618ac6d908ecad9defd23cae95ee5373c161477f4c504db395774e66858",
}


def hermes(name: str, arguments: JsonValue) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def native(name: str, arguments: JsonValue, call_id: str = "a") -> Reply:
    call = NativeCall(id=call_id, name=name, arguments=json.dumps(arguments))
    return Reply(text="", finish="tool_calls", native_calls=(call,))


def drawn() -> bytes:
    image = Image.new("RGB", (100, 60), "white")
    image.paste("blue", (0, 0, 50, 30))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def rolled(protocol: EvalProtocol, script: Script) -> Rollout:
    data = drawn()
    sample = Sample(
        id="page",
        question="Which way is up?",
        images=(ImageSource(name="page", read=lambda: data),),
        targets=("B",),
        options=("left", "right"),
    )
    return asyncio.run(
        roll_out(sample, [prepare(data, name="page")], protocol, ScriptedModel(script))
    )


def user(*content: Content) -> Message:
    return Message(role="user", content=content)


ASKED = user(ImageRef(0), Text(QUESTION))


@pytest.mark.parametrize("pair", [HERMES, NATIVE], ids=lambda pair: pair.name)
def test_the_free_arm_is_one_question_and_one_reply(pair: Pair) -> None:
    ended = rolled(pair.free, [ANSWERED]).trajectory
    system = Message(role="system", content=(Text("You are a helpful assistant."),))
    assert ended.messages == (
        system,
        ASKED,
        Message(role="assistant", content=(Text(ANSWERED),)),
    )


def test_the_hermes_arm_shows_each_image_with_its_number() -> None:
    replies = [hermes(*call) for call in CALLS]
    done = rolled(HERMES.available, [*replies, ANSWERED])
    schemas = "\n".join(
        json.dumps(tool.schema.as_json(), ensure_ascii=False) for tool in HERMES.available.tools
    )
    system, asked, *rest = done.trajectory.messages
    assert system.text == (
        f"You are a helpful assistant.\n\n# Tools\n\n{WHAT} These are the tools, one JSON schema a "
        f"line:\n<tools>\n{schemas}\n</tools>\n\nTo call a tool, write its name and arguments as "
        'JSON inside <tool_call> and </tool_call>, then stop:\n<tool_call>\n{"name": <name>, '
        '"arguments": <arguments>}\n</tool_call>\nThe result comes in the next message, inside '
        "<tool_response> and </tool_response>."
    )
    assert asked == ASKED
    for number, reply in enumerate(replies, start=1):
        assert rest[2 * number - 2] == Message(role="assistant", content=(Text(reply),))
        assert rest[2 * number - 1] == user(
            Text(f"<tool_response>\nimage {number}\n"),
            ImageRef(number),
            Text("\n</tool_response>"),
        )
    assert rest[10:] == [Message(role="assistant", content=(Text(ANSWERED),))]


def test_the_native_arm_shows_each_image_after_the_answer_to_its_call() -> None:
    done = rolled(NATIVE.available, [*(native(*call) for call in CALLS), ANSWERED])
    messages = done.trajectory.messages
    assert messages[0].text == f"You are a helpful assistant.\n\n{WHAT}"
    assert messages[3:5] == (
        Message(role="tool", content=(Text("Done. Image 1 is in the next message."),), call_id="a"),
        user(Text("The image that the call made (image 1):\n"), ImageRef(1)),
    )
    assert [call.status for call in done.trajectory.calls] == ["executed"] * 5


@pytest.mark.parametrize(
    ("pair", "write"), [(HERMES, hermes), (NATIVE, native)], ids=["hermes", "native"]
)
def test_each_tool_makes_the_pixels_it_is_to_make(pair: Pair, write: object) -> None:
    assert callable(write)
    done = rolled(pair.available, [*(write(*call) for call in CALLS), ANSWERED])
    assert {index: sha256(made.pixels()) for index, made in done.made.items()} == PIXELS
    images = done.trajectory.images
    assert [image.operation for image in images[1:]] == [
        "crop", "rotate", "flip", "draw_line", "draw_point",
    ]  # fmt: skip
    assert [image.parent for image in images[1:]] == [0, 1, 2, 3, 4]
    assert [image.raw for image in images[1:]] == [Size(50, 60), *[Size(60, 50)] * 4]
    # Turned clockwise and mirrored left to right: x and y of the zoomed half have changed places.
    assert images[5].to_root == Affine(0.0, 1.0, 0.0, 1.0, 0.0, 0.0)
    assert images[4].arguments["value_px"] == 25.0
    assert (images[5].arguments["x_px"], images[5].arguments["y_px"]) == (15.0, 12.5)


def test_one_call_a_message_is_carried_out() -> None:
    two = hermes(*CALLS[0]) + hermes("rotate", {"angle": 180})
    calls = rolled(HERMES.available, [two, ANSWERED]).trajectory.calls
    assert [call.status for call in calls] == ["executed"]
    both = Reply(
        text="",
        finish="tool_calls",
        native_calls=tuple(
            call for name in "ab" for call in native("rotate", {"angle": 90}, name).native_calls
        ),
    )
    calls = rolled(NATIVE.available, [both, ANSWERED]).trajectory.calls
    assert [call.status for call in calls] == ["executed", "over_limit"]


def test_a_refused_call_is_answered_with_the_reason() -> None:
    ended = rolled(HERMES.available, [hermes("rotate", {"angle": 45}), ANSWERED]).trajectory
    assert ended.messages[3] == user(
        Text(
            "<tool_response>\nError: 'angle' is an angle in degrees, clockwise: 90, 180 or 270; "
            "not 45\n</tool_response>"
        )
    )


def test_the_eleventh_call_ends_it() -> None:
    ended = rolled(HERMES.available, [hermes("rotate", {"angle": 90})] * 11).trajectory
    assert (ended.stop, ended.executed, len(ended.turns)) == ("call_limit", 10, 11)


@pytest.mark.parametrize("arm", [*HERMES.arms, *NATIVE.arms], ids=lambda arm: arm.name)
def test_settings_of_every_arm(arm: EvalProtocol) -> None:
    assert arm.sampling == Sampling(temperature=0.0, max_tokens=2048)
    assert (arm.frame, arm.answer_rules, arm.pixel_budget) == ("permille", ("answer_tag",), None)
    assert (arm.max_generations, arm.max_calls) == ((11, 10) if arm.tools else (1, 0))
    assert arm.stop == (("</tool_call>",) if arm.call_syntax == "hermes" else ())
