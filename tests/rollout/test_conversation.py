"""How conversations go and end: every stop reason, every call status, and nothing that raises."""

import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from medeval.errors import DataError, TransientModelError
from medeval.evaluation.loader import load
from medeval.images.picture import Picture, prepare
from medeval.images.resize import PixelBudget
from medeval.models.base import Reply, Request, TokenHistory
from medeval.models.scripted import Script, ScriptedModel
from medeval.rollout.conversation import Rollout, request_seed, roll_out
from medeval.rollout.observation import Observation
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.tools.calls.find import CallRules
from medeval.tools.crop import crop_and_zoom
from medeval.types.geometry import Size
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import (
    CallStatus,
    FinishReason,
    NativeCall,
    StopReason,
    Trajectory,
    Usage,
)


def drawn(width: int = 200, height: int = 100) -> bytes:
    """A gradient, so that each region of it is unlike any other."""
    image = Image.linear_gradient("L").resize((width, height)).convert("RGB")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


DATA = drawn()
PICTURE = prepare(DATA, name="drawn")
SAMPLE = Sample(
    id="s1",
    question="Which colour?",
    images=(ImageSource(name="drawn", read=lambda: DATA),),
    targets=("B",),
    options=("red", "blue"),
)

HERMES = load("crop_zoom", Pair).value
NATIVE = load("crop_zoom_native", Pair).value


def rolled(
    protocol: EvalProtocol,
    script: Script,
    *,
    pictures: Sequence[Picture] = (PICTURE,),
    repeat: int = 0,
    seed: int = 0,
) -> tuple[Rollout, ScriptedModel]:
    model = ScriptedModel(script)
    sample = replace(SAMPLE, images=SAMPLE.images * len(pictures))
    return asyncio.run(roll_out(sample, pictures, protocol, model, repeat=repeat, seed=seed)), model


def trajectory(protocol: EvalProtocol, script: Script) -> Trajectory:
    return rolled(protocol, script)[0].trajectory


def block(body: str, *, closed: bool = True) -> str:
    return f"<tool_call>\n{body}\n" + ("</tool_call>" if closed else "")


def crop(box: Sequence[float] = (0, 0, 500, 500), image: int = 0, **others: object) -> str:
    arguments = {"bbox_2d": list(box), "image_index": image, **others}
    return block(json.dumps({"name": "crop_and_zoom", "arguments": arguments}))


def native(
    *arguments: str,
    text: str = "",
    name: str = "crop_and_zoom",
    finish: FinishReason = "tool_calls",
) -> Reply:
    calls = tuple(
        NativeCall(id=f"call-{index}", name=name, arguments=text_)
        for index, text_ in enumerate(arguments)
    )
    return Reply(text=text, finish=finish, native_calls=calls)


BOX = '{"bbox_2d": [0, 0, 500, 500]}'
BROKEN = block('{"name": "crop_and_zoom", "arguments": {"bbox_2d": [0, 0')


FIRST, LAST = CallRules(pick="first"), CallRules(pick="last")


def four(status: CallStatus) -> tuple[CallStatus, ...]:
    return (status,) * 4


def cut(text: str) -> Reply:
    return Reply(text=text, finish="length")


ENDINGS: list[tuple[str, EvalProtocol, Script, StopReason, Sequence[CallStatus]]] = [
    ("an answer", HERMES.free, ["<answer>B</answer>"], "answered", []),
    ("an answer after a crop", HERMES.available, [crop(), "<answer>B</answer>"], "answered",
     ["executed"]),
    ("no answer tag", HERMES.free, ["It is blue."], "no_answer", []),
    ("an empty answer tag", HERMES.free, ["<answer> </answer>"], "no_answer", []),
    ("no text", HERMES.free, [""], "empty", []),
    ("blanks", HERMES.available, [" \n"], "empty", []),
    ("a call without tools", HERMES.free, [crop()], "not_offered", ["not_offered"]),
    ("a broken call without tools", HERMES.free, [BROKEN], "not_offered", ["not_offered"]),
    ("a native call without tools", NATIVE.free, [native(BOX, BOX)], "not_offered",
     ["not_offered", "not_offered"]),
    ("a written call without native tools", NATIVE.free, [crop()], "not_offered", ["not_offered"]),
    ("a written call where no syntax is named", replace(NATIVE.free, call_syntax="none"), [crop()],
     "not_offered", ["not_offered"]),
    ("a written call beside native tools", NATIVE.available, [crop()], "no_answer", []),
    ("an answer beside a call without tools", HERMES.free, [f"<answer>B</answer>{crop()}"],
     "not_offered", ["not_offered"]),
    ("calls that are refused in every turn", HERMES.available, [crop(box=(9, 9, 1, 1))] * 5,
     "turn_limit", [*four("rejected"), "over_limit"]),
    ("calls that are carried out in every turn", HERMES.available, [crop()] * 5, "call_limit",
     [*four("executed"), "over_limit"]),
    ("more calls in one reply than allowed", NATIVE.available, [native(*[BOX] * 6)], "call_limit",
     [*four("executed"), "over_limit", "over_limit"]),
    ("broken calls in every turn", HERMES.available, [BROKEN] * 5, "malformed_call",
     ["malformed"] * 5),
    ("a broken call where that ends it", replace(HERMES.available, on_malformed="end"), [BROKEN],
     "malformed_call", ["malformed"]),
    ("a broken call before a good one, where that ends it",
     replace(NATIVE.available, on_malformed="end"), [native("{", BOX)], "malformed_call",
     ["malformed", "over_limit"]),
    ("a refused call where that ends it", replace(HERMES.available, on_error="end"),
     [crop(box=(9, 9, 1, 1))], "tool_error", ["rejected"]),
    ("a broken call where it is passed over", replace(HERMES.available, on_malformed="ignore"),
     [BROKEN], "malformed_call", ["malformed"]),
    ("a broken call beside an answer where it is passed over",
     replace(HERMES.available, on_malformed="ignore"), ["<answer>B</answer>" + BROKEN], "answered",
     ["malformed"]),
    ("a broken call before a good one, where it is passed over",
     replace(NATIVE.available, on_malformed="ignore"), [native("{", BOX), "<answer>B</answer>"],
     "answered", ["malformed", "executed"]),
    ("two calls where the first counts", replace(NATIVE.available, call_rules=FIRST),
     [native(BOX, BOX), "<answer>B</answer>"], "answered", ["executed", "over_limit"]),
    ("two calls where the last counts", replace(NATIVE.available, call_rules=LAST),
     [native("{", BOX), "<answer>B</answer>"], "answered", ["over_limit", "executed"]),
    ("an answer beside a call where the answer wins",
     replace(HERMES.available, call_rules=CallRules(answer_wins="after_calls")),
     ["<answer>B</answer>" + crop()], "answered", ["executed"]),
    ("a call that is no end of its reply",
     replace(HERMES.available, call_rules=CallRules(must_end_reply=True), stop=()),
     [crop() + " so: <answer>B</answer>"], "answered", []),
    ("a turn limit where the last reply counts", replace(HERMES.available, at_limit="last_reply",
     max_generations=1, stop=()), ["<answer>B</answer>" + crop()], "answered", ["over_limit"]),
    ("a turn limit where the last reply counts and says nothing",
     replace(HERMES.available, at_limit="last_reply", max_generations=1), [crop()], "turn_limit",
     ["over_limit"]),
    ("a prompt that no longer fits where the last reply counts",
     replace(HERMES.available, at_limit="last_reply", answer_rules=("raw_reply",)),
     [crop(), Reply(text="", finish="context")], "answered", ["executed"]),
    ("more tokens than the context holds", replace(HERMES.available, max_context_tokens=100),
     [replace(Reply(text=crop(), finish="stop"), usage=Usage(prompt_tokens=90,
     completion_tokens=10))], "context", ["over_limit"]),
    ("a closed answer before a call", replace(HERMES.available,
     call_rules=CallRules(answer_wins="before_calls")), ["<answer>B</answer>" + crop()],
     "answered", ["over_limit"]),
    ("a broken call that is carried out without arguments",
     replace(HERMES.available, on_malformed="carry_out"), [BROKEN, "<answer>B</answer>"],
     "answered", ["rejected"]),
    ("no tokens left to reply with", replace(HERMES.available, max_response_tokens=10),
     [replace(Reply(text=crop(), finish="stop"), usage=Usage(prompt_tokens=90,
     completion_tokens=10))], "length", ["executed"]),
    ("an answer in an earlier reply where all count",
     replace(HERMES.available, answer_over="all_replies", stop=()),
     ["<answer>B</answer>" + crop(), "As I said."], "answered", ["executed"]),
    ("a program for a sandbox", HERMES.available, ["<code>import os</code>"] * 5,
     "malformed_call", ["malformed"] * 5),
    ("a third image where two are allowed", replace(HERMES.available, max_images=2),
     [crop(), crop()], "image_limit", ["executed", "over_limit"]),
    ("a broken call where no more images are allowed", replace(HERMES.available, max_images=1),
     [BROKEN, "<answer>B</answer>"], "answered", ["malformed"]),
    ("cut off in the text", HERMES.free, [cut("Let me think")], "length", []),
    ("cut off in an answer", HERMES.free, [cut("<answer>B or pe")], "length", []),
    ("cut off after an answer", HERMES.free, [cut("<answer>B</answer> since")], "answered", []),
    ("cut off in a call", HERMES.available, [cut('<tool_call>\n{"name": "crop_a')], "length",
     ["malformed"]),
    ("cut off in a native call", NATIVE.available, [native('{"bbox', finish="length")], "length",
     ["malformed"]),
    ("cut off after a good and in a second native call", NATIVE.available,
     [native(BOX, '{"bbox', finish="length")], "length", ["executed", "malformed"]),
    ("cut off after a call that was complete", HERMES.available,
     [cut(crop() + "And then it"), "<answer>B</answer>"], "answered", ["executed"]),
    ("cut off long after a broken call that a stop string ended", HERMES.available,
     [cut(BROKEN + "babble " * 9), "<answer>B</answer>"], "answered", ["malformed"]),
    ("a prompt that does not fit", HERMES.free, [Reply(text="", finish="context")], "context", []),
    ("a prompt that no longer fits", HERMES.available,
     [crop(), Reply(text="", finish="context")], "context", ["executed"]),
    ("a refusal", HERMES.free, [Reply(text="I cannot.", finish="refused")], "refused", []),
]  # fmt: skip


@pytest.mark.parametrize(
    ("protocol", "script", "stop", "statuses"),
    [ending[1:] for ending in ENDINGS],
    ids=[ending[0] for ending in ENDINGS],
)
def test_every_ending_has_its_stop_reason_and_call_statuses(
    protocol: EvalProtocol, script: Script, stop: StopReason, statuses: Sequence[CallStatus]
) -> None:
    ended = trajectory(protocol, script)
    assert (ended.stop, [call.status for call in ended.calls]) == (stop, list(statuses))
    assert (ended.answer is not None) == (stop == "answered")
    assert (ended.protocol, ended.sample_id) == (protocol.name, "s1")


def test_the_table_above_reaches_every_stop_reason_and_status() -> None:
    assert {ending[3] for ending in ENDINGS} == set(StopReason.__args__)  # type: ignore[attr-defined]
    statuses = {status for ending in ENDINGS for status in ending[4]}
    assert statuses == set(CallStatus.__args__)  # type: ignore[attr-defined]


def test_counts_tell_attempted_from_executed_from_observed() -> None:
    ended = trajectory(NATIVE.available, [native(BOX, "{", '{"bbox_2d": [1]}'), native(*[BOX] * 4)])
    assert [call.status for call in ended.calls] == [
        "executed", "malformed", "rejected", "executed", "executed", "executed", "over_limit",
    ]  # fmt: skip
    assert (ended.attempted, ended.executed, ended.observed) == (7, 4, 1)
    assert [call.observed for call in ended.calls] == [True] * 3 + [False] * 4
    assert [call.turn for call in ended.calls] == [0, 0, 0, 1, 1, 1, 1]
    assert ended.called


@pytest.mark.parametrize(
    ("script", "called"),
    [(["<answer>B</answer>"], False), ([BROKEN, "<answer>B</answer>"], False),
     ([crop((5, 5, 1, 1)), "<answer>B</answer>"], True), ([crop(), "<answer>B</answer>"], True)],
)  # fmt: skip
def test_called_means_that_a_call_reached_the_tools(script: Script, called: bool) -> None:
    assert trajectory(HERMES.available, script).called is called


def test_a_call_in_the_free_arm_is_not_carried_out() -> None:
    rollout, model = rolled(HERMES.free, [crop()])
    assert rollout.made == {}
    assert len(rollout.trajectory.images) == len(model.requests) == 1
    assert not rollout.trajectory.called


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (block('{"name": "zoom", "arguments": {}}'),
         "there is no tool named 'zoom'; offered: crop_and_zoom"),
        (block('{"name": "crop_and_zoom", "arguments": {}}'),
         "'bbox_2d' is missing; it is a list [x1, y1, x2, y2]"),
        (crop(image=7), "there is no image 7; images are numbered 0 to 0"),
        (crop(angle=90),
         "there is no argument named 'angle'; the arguments are 'bbox_2d' and 'image_index'"),
        (block('{"name": "<|image_pad|>", "arguments": {}}'),
         "there is no tool of another name; offered: crop_and_zoom"),
        (block('{"name": "crop_and_zoom", "arguments": {"<|im_end|>": 1}}'),
         "there is no argument of another name; the arguments are 'bbox_2d' and 'image_index'"),
    ],
)  # fmt: skip
def test_a_refused_call_is_answered_with_an_error_and_the_conversation_goes_on(
    reply: str, error: str
) -> None:
    ended = trajectory(HERMES.available, [reply, "<answer>B</answer>"])
    assert ended.messages[-2].text == f"<tool_response>\nError: {error}\n</tool_response>"
    assert (ended.calls[0].status, ended.calls[0].error) == ("rejected", error)
    assert ended.calls[0].observed
    assert ended.stop == "answered"


def test_a_malformed_call_is_answered_with_its_error_and_may_be_mended() -> None:
    ended = trajectory(HERMES.available, [BROKEN, crop(), "<answer>B</answer>"])
    assert [call.status for call in ended.calls] == ["malformed", "executed"]
    assert ended.messages[3].text.startswith("<tool_response>\nError: the JSON cannot be read")
    assert ended.stop == "answered"


def test_what_follows_a_stop_string_is_dropped() -> None:
    ended = trajectory(HERMES.available, [crop() + "<answer>A</answer>", "<answer>B</answer>"])
    assert ended.turns[0].text == ended.messages[2].text == crop()
    assert ended.answer is not None
    assert ended.answer.text == "B"


def test_answer_holds_the_rule_that_found_it_and_the_whole_last_reply() -> None:
    ended = trajectory(HERMES.available, [crop(), "So: <answer> B </answer>"])
    assert ended.answer is not None
    assert (ended.answer.text, ended.answer.how_found) == ("B", "answer_tag")
    assert ended.answer.reply == "So: <answer> B </answer>"


def test_reasoning_and_native_calls_stay_apart_from_the_text() -> None:
    said = replace(native(BOX, text="Looking."), reasoning="<answer>A</answer>")
    ended = trajectory(NATIVE.available, [said, "<answer>B</answer>"])
    message = ended.messages[2]
    assert (message.text, message.reasoning) == ("Looking.", "<answer>A</answer>")
    assert message.native_calls == ended.turns[0].native_calls == said.native_calls


def test_several_native_calls_are_answered_one_by_one_before_the_images() -> None:
    ended = trajectory(
        NATIVE.available,
        [native(BOX, '{"bbox_2d": [0, 0, 9, 9], "image_index": 4}', BOX), "<answer>B</answer>"],
    )
    after = ended.messages[3:-1]
    assert [(message.role, message.call_id) for message in after] == [
        ("tool", "call-0"), ("tool", "call-1"), ("tool", "call-2"), ("user", None),
    ]  # fmt: skip
    assert [message.text for message in after] == [
        "Done. Image 1 is in the next message.",
        "Error: there is no image 4; images are numbered 0 to 1",
        "Done. Image 2 is in the next message.",
        "The image that the call made (image 1):\nThe image that the call made (image 2):\n",
    ]


def test_a_crop_of_a_crop_knows_its_parent_its_root_and_the_way_back() -> None:
    big = prepare(drawn(1200, 800), name="big")
    rollout, model = rolled(
        HERMES.available,
        [crop((250, 250, 750, 750), 1), crop((500, 500, 1000, 1000), 2), "<answer>B</answer>"],
        pictures=(PICTURE, big),
    )
    first, second = rollout.trajectory.images[2:]
    assert [(image.index, image.parent, image.root) for image in (first, second)] == [
        (2, 1, 1), (3, 2, 1),
    ]  # fmt: skip
    assert first.raw == Size(600, 400)
    assert second.raw == Size(300, 200)
    for image, corner in ((first, (300, 200)), (second, (600, 400))):
        assert image.to_root.apply(0, 0) == pytest.approx(corner, abs=0.5)
        end = (corner[0] + image.raw.width_px, corner[1] + image.raw.height_px)
        sent = image.to_root.apply(image.sent.width_px, image.sent.height_px)
        assert sent == pytest.approx(end, abs=0.5)
    assert sorted(rollout.made) == [2, 3]
    assert (
        rollout.made[3].sent_image.sha256
        == second.pixels_sha256
        == model.requests[2].images[3].sha256
    )


@settings(deadline=None, max_examples=50)
@given(
    boxes=st.lists(
        st.tuples(*[st.integers(0, 480)] * 2, *[st.integers(520, 1000)] * 2),
        min_size=1,
        max_size=4,
    ),
    size=st.tuples(st.integers(60, 600), st.integers(60, 600)),
    budget=st.sampled_from([None, PixelBudget(min_px=784, max_px=40_000, factor=28)]),
)
def test_nested_crops_map_back_to_the_root_within_half_a_pixel(
    boxes: list[tuple[int, int, int, int]],
    size: tuple[int, int],
    budget: PixelBudget | None,
) -> None:
    root = prepare(drawn(*size), name="root", budget=budget)
    replies = [crop(box, index) for index, box in enumerate(boxes)]
    rollout, _ = rolled(HERMES.available, [*replies, "<answer>B</answer>"], pictures=(root,))
    left, top = 0, 0
    for image in rollout.trajectory.images[1:]:
        recipe = image.arguments["box_px"]
        assert isinstance(recipe, list)
        corner = [number for number in recipe if isinstance(number, int)]
        left, top = left + corner[0], top + corner[1]
        right, bottom = left + image.raw.width_px, top + image.raw.height_px
        assert image.to_root.apply(0, 0) == pytest.approx((left, top), abs=0.5)
        sent = image.to_root.apply(image.sent.width_px, image.sent.height_px)
        assert sent == pytest.approx((right, bottom), abs=0.5)


def test_a_sample_image_that_was_resized_maps_back_to_its_raw_pixels() -> None:
    budget = PixelBudget(min_px=784, max_px=5_000, factor=28)
    picture = prepare(drawn(300, 150), name="large", budget=budget)
    image = rolled(HERMES.free, ["x"], pictures=(picture,))[0].trajectory.images[0]
    assert (image.parent, image.root, image.operation) == (None, 0, None)
    assert image.sent != image.raw
    assert image.to_root.apply(image.sent.width_px, image.sent.height_px) == pytest.approx(
        (300, 150)
    )


def test_requests_of_both_arms_have_equal_seeds_sampling_stops_and_images() -> None:
    _, free = rolled(HERMES.free, ["<answer>B</answer>"], repeat=2, seed=5)
    _, available = rolled(HERMES.available, [crop(), "<answer>B</answer>"], repeat=2, seed=5)
    one, other = free.requests[0], available.requests[0]
    assert one.seed == other.seed == request_seed(5, "s1", 2, 0)
    assert (one.sampling, one.stop, one.images) == (other.sampling, other.stop, other.images)
    assert available.requests[1].seed == request_seed(5, "s1", 2, 1)


@given(st.integers(), st.text(), st.integers(0), st.integers(0))
def test_a_request_seed_is_a_31_bit_number(seed: int, sample: str, repeat: int, turn: int) -> None:
    assert 0 <= request_seed(seed, sample, repeat, turn) < 2**31


def test_request_seeds_differ_by_run_sample_repeat_and_turn() -> None:
    asked = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)]
    assert len({request_seed(*one) for one in asked}) == len(asked)


def test_history_is_handed_back_with_the_next_request_of_the_conversation() -> None:
    history = TokenHistory((1, 2, 3), n_messages=3)
    _, model = rolled(
        HERMES.available, [Reply(text=crop(), finish="stop", history=history), "<answer>B</answer>"]
    )
    assert [request.history for request in model.requests] == [None, history]


def test_sizes_after_the_engines_processor_are_noted() -> None:
    sizes = (Size(28, 28),)
    said = Reply(text=crop(), finish="stop", model_sizes=sizes)
    ended = trajectory(
        HERMES.available,
        [said, Reply(text="x", finish="stop", model_sizes=(*sizes, Size(56, 56)))],
    )
    assert [image.model for image in ended.images] == [Size(28, 28), Size(56, 56)]


def test_usage_adds_up_over_the_turns() -> None:
    counted = Usage(prompt_tokens=10, completion_tokens=2)
    ended = trajectory(
        HERMES.available,
        [Reply(text=crop(), finish="stop", usage=counted), Reply(text="x", finish="stop",
                                                                  usage=counted)],
    )  # fmt: skip
    assert ended.usage == Usage(prompt_tokens=20, completion_tokens=4)


def test_tools_are_in_the_request_only_where_they_are_offered_natively() -> None:
    offered = {
        arm.name: [tool.name for tool in rolled(arm, ["x"])[1].requests[0].tools]
        for pair in (HERMES, NATIVE)
        for arm in pair.arms
    }
    assert offered == {
        "tool_free": [],
        "tool_available": [],
        "tool_free_native": [],
        "tool_available_native": ["crop_and_zoom"],
    }


def test_a_request_holds_all_messages_and_images_so_far() -> None:
    rollout, model = rolled(HERMES.available, [crop(), "<answer>B</answer>"])
    first, second = model.requests
    assert second.messages == rollout.trajectory.messages[:-1]
    assert second.messages[:2] == first.messages
    assert second.images == (PICTURE.sent_image, rollout.made[1].sent_image)


@pytest.mark.parametrize("arm", [HERMES.available, NATIVE.available], ids=lambda arm: arm.name)
def test_a_model_that_calls_for_ever_ends_at_the_limit(arm: EvalProtocol) -> None:
    reply = native(BOX) if arm.call_syntax == "openai" else crop()
    rollout, model = rolled(arm, lambda _: reply)
    assert rollout.trajectory.stop == "call_limit"
    assert (len(model.requests), rollout.trajectory.executed) == (5, 4)


def test_an_engine_without_a_reply_raises_and_leaves_no_trajectory() -> None:
    def fail(_: Request) -> str:
        raise TransientModelError("no reply")

    with pytest.raises(TransientModelError, match="no reply"):
        rolled(HERMES.free, fail)


def test_a_sample_image_that_is_damaged_inside_is_no_fault_of_the_models() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((300, 300), 80).convert("RGB").save(buffer, "PNG")
    whole = buffer.getvalue()
    damaged = whole[: len(whole) // 2] + bytes(200) + whole[len(whole) // 2 + 200 :]
    with pytest.raises(DataError, match="damaged"):
        rolled(HERMES.available, [crop(), "x"], pictures=(prepare(damaged, name="damaged"),))


ENDING_TEXTS = st.sampled_from(
    ["<tool_call>", "</tool_call>", "<answer>", "</answer>", "<think>", "</think>", "{", "}", "$",
     '"name": "crop_and_zoom"', '"arguments": ', '"bbox_2d": [0, 0, 1e9, 5]', "\ud800", "\0"]
)  # fmt: skip
WRITTEN = st.lists(ENDING_TEXTS | st.text(max_size=8), max_size=12).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
ARGUMENTS = (
    st.fixed_dictionaries(
        {},
        optional={
            "bbox_2d": JSON
            | st.lists(st.integers(-10, 2000) | st.floats(), min_size=4, max_size=4),
            "image_index": JSON | st.integers(-2, 3),
        },
    )
    | JSON
)
CALLS = st.builds(
    NativeCall,
    id=st.text(max_size=3),
    name=st.sampled_from(["crop_and_zoom", "", "zoom"]) | st.text(max_size=3),
    arguments=ARGUMENTS.map(json.dumps) | st.text(max_size=20),
)
HERMES_CALLS = ARGUMENTS.map(
    lambda arguments: block(json.dumps({"name": "crop_and_zoom", "arguments": arguments}))
)
FINISHES: tuple[FinishReason, ...] = ("stop", "length", "tool_calls", "context", "refused")
REPLIES = st.builds(
    Reply,
    text=WRITTEN | HERMES_CALLS,
    finish=st.sampled_from(FINISHES),
    reasoning=st.text(max_size=5),
    native_calls=st.lists(CALLS, max_size=3).map(tuple),
)


@settings(deadline=None, max_examples=200)
@given(
    replies=st.lists(REPLIES, min_size=5, max_size=5),
    arm=st.sampled_from([*HERMES.arms, *NATIVE.arms]),
    on_malformed=st.sampled_from(["end", "observe"]),
)
@example(replies=[native('{"bbox_2d": [0, 0, 1e308, 1e308]}')] * 5, arm=NATIVE.available,
         on_malformed="observe")  # fmt: skip
@example(replies=[native("[" * 100_000)] * 5, arm=NATIVE.available, on_malformed="observe")
def test_nothing_a_model_writes_raises(
    replies: list[Reply], arm: EvalProtocol, on_malformed: str
) -> None:
    protocol = replace(arm, on_malformed=on_malformed)  # type: ignore[arg-type]
    ended = trajectory(protocol, replies)
    assert len(ended.turns) <= protocol.max_generations
    assert ended.executed <= protocol.max_calls
    assert (ended.answer is not None) == (ended.stop == "answered")
    assert all((call.image is not None) == (call.status == "executed") for call in ended.calls)
    assert arm.tools or {call.status for call in ended.calls} <= {"not_offered"}


def test_a_crop_without_a_budget_is_as_large_as_its_region() -> None:
    plain = HERMES.free.with_tools(
        crop_and_zoom(budget=None), name="plain", prompt="$tools", max_generations=2, max_calls=1
    )
    image = trajectory(plain, [crop(), "x"]).images[1]
    assert image.raw == image.sent == Size(100, 50)


def test_a_reply_may_be_as_long_as_the_tokens_that_are_left() -> None:
    protocol = replace(HERMES.available, max_response_tokens=2100)
    long = Reply(text=crop(), finish="stop", usage=Usage(prompt_tokens=500, completion_tokens=100))
    longer = replace(long, usage=Usage(prompt_tokens=900, completion_tokens=50))
    _, model = rolled(protocol, [long, longer, "<answer>B</answer>"])
    assert [request.sampling.max_tokens for request in model.requests] == [2048, 2000, 1650]
    _, untold = rolled(protocol, [crop(), "<answer>B</answer>"])
    assert [request.sampling.max_tokens for request in untold.requests] == [2048, 2048]


def test_an_answer_at_a_limit_tells_which() -> None:
    protocol = replace(HERMES.available, at_limit="last_reply", max_generations=1, stop=())
    ended = trajectory(protocol, ["<answer>B</answer>" + crop()])
    assert ended.answer is not None
    assert ended.answer.how_found == "answer_tag at turn_limit"


def test_an_observation_tells_sizes_rounds_and_images() -> None:
    told = Observation(
        before="$index $made $turn $observation ${width}x$height ${raw_width}x$raw_height|",
        after="",
        error="$turn $observation $message",
        malformed="$turn: $message",
    )
    protocol = replace(HERMES.available, observation=told)
    ended = trajectory(protocol, [crop(box=(9, 9, 1, 1)), BROKEN, crop(), "<answer>B</answer>"])
    said = [message.text for message in ended.messages if message.role == "user"][1:]
    assert said[0].startswith("0 1 'bbox_2d' needs x1 < x2")
    assert said[1].startswith("1: the JSON cannot be read")
    assert said[2] == "1 1 2 3 644x336 100x50|"
