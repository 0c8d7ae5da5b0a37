"""Where an observation stands: in a turn of its own, in the reply's, or as if it had been there."""

import asyncio
import io
from dataclasses import replace

import pytest
from PIL import Image

from medeval.errors import DefinitionError
from medeval.evaluation.loader import load
from medeval.images.picture import Picture, prepare
from medeval.models.base import Reply, TokenHistory
from medeval.models.scripted import ScriptedModel
from medeval.rollout.conversation import Rollout, roll_out
from medeval.rollout.observation import (
    CallResult,
    Observation,
    ObservationPlace,
    observation_messages,
    rewritten,
    to_last_fence,
)
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.store.records import line, parse_record
from medeval.types.geometry import Size
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import ImageRef, Message, Text, Trajectory

CROP_ZOOM = load("crop_zoom", Pair).value.available
CALL = (
    '<tool_call>\n{"name": "crop_and_zoom", "arguments": {"bbox_2d": [0, 0, 500, 500]}}\n'
    "</tool_call>"
)
BAD = '<tool_call>\n{"name": "crop_and_zoom", "arguments": {}}\n</tool_call>'
ANSWER = "<answer>B</answer>"


def drawn() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (80, 40), (0, 255, 0)).save(buffer, "PNG")
    return buffer.getvalue()


SAMPLE = Sample(
    id="drawn",
    question="Which?",
    images=(ImageSource(name="drawn", read=drawn),),
    targets=("B",),
)


def placed(place: ObservationPlace) -> EvalProtocol:
    observation = Observation(
        place=place, before="<seen>", after="</seen>", error="<error>$message</error>"
    )
    return replace(CROP_ZOOM, observation=observation)


def pictures() -> list[Picture]:
    return [prepare(drawn(), name="drawn")]


def rolled(protocol: EvalProtocol, *script: str | Reply) -> tuple[Rollout, ScriptedModel]:
    model = ScriptedModel(script)
    return asyncio.run(roll_out(SAMPLE, pictures(), protocol, model)), model


def with_history(text: str, n_messages: int) -> Reply:
    return Reply(text=text, finish="stop", history=TokenHistory((1, 2, 3), n_messages))


def assistant(*content: Text | ImageRef, continues: bool = True) -> Message:
    return Message(role="assistant", content=content, continues=continues)


def test_a_result_in_the_same_turn_is_followed_by_more_of_that_turn() -> None:
    done, model = rolled(placed("same_turn"), with_history(CALL, 3), ANSWER)
    assert done.trajectory.messages[2:] == (
        assistant(Text(CALL), continues=False),
        assistant(Text("<seen>"), ImageRef(1), Text("</seen>")),
        assistant(Text(ANSWER)),
    )
    assert done.trajectory.answer is not None and done.trajectory.answer.text == "B"
    assert [turn.text for turn in done.trajectory.turns] == [CALL, ANSWER]
    assert done.trajectory.observed == 1
    # an engine that keeps ids goes on from them
    assert model.requests[1].history == TokenHistory((1, 2, 3), 3)
    assert model.requests[1].messages[-1].continues


def test_an_error_in_the_same_turn_is_text_in_it() -> None:
    done, _ = rolled(placed("same_turn"), BAD, CALL, ANSWER)
    told = done.trajectory.messages[3]
    assert told == assistant(Text(told.text))
    assert told.text.startswith("<error>'bbox_2d' is missing")
    assert [message.continues for message in done.trajectory.messages[2:]] == [False] + [True] * 4


def test_a_result_that_is_rewritten_stands_in_the_question_and_at_the_reply_s_end() -> None:
    done, model = rolled(placed("rewritten"), with_history(f"Look: {CALL}", 3), ANSWER)
    opening = placed("rewritten").opening(SAMPLE)
    question = replace(opening[1], content=(ImageRef(0), ImageRef(1), *opening[1].content[1:]))
    assert done.trajectory.messages == (
        opening[0],
        question,
        assistant(Text(f"Look: {CALL}<seen></seen>"), continues=False),
        assistant(Text(ANSWER), continues=False),
    )
    # what was said has changed, so that no ids of it hold
    assert model.requests[1].history is None
    assert done.trajectory.turns[0].text == f"Look: {CALL}"


@pytest.mark.parametrize("place", ["new_turn", "same_turn", "rewritten"])
def test_a_trajectory_of_each_kind_can_be_written_down_and_read_back(
    place: ObservationPlace,
) -> None:
    done, _ = rolled(placed(place), CALL, ANSWER)
    assert parse_record(Trajectory, line(done.trajectory), "a line") == done.trajectory


def test_rewriting_takes_the_blank_before_the_question_once_images_stand_together() -> None:
    asked = Message(role="user", content=(ImageRef(0), Text(" # USER REQUEST #: a ")))
    told = observation_messages(
        Observation(place="rewritten"), [CallResult(native_id=None, image=1)]
    )
    again = rewritten((asked, assistant(Text("x"), continues=False)), told)
    assert again[0].content == (ImageRef(0), ImageRef(1), Text("# USER REQUEST #: a "))


def test_rewriting_puts_images_first_where_the_question_shows_none() -> None:
    asked = Message(role="user", content=(Text("a"), Text("b")))
    told = [Message(role="user", content=(ImageRef(0),))]
    again = rewritten((asked, assistant(Text("x"), continues=False)), told)
    assert again[0].content == (ImageRef(0), Text("a"), Text("b"))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("a ```python\nb\n``` c", "a ```python\nb\n```"),
        ("a ```b``` c ```d``` e", "a ```b``` c ```d```"),
        ("a ```b``` c ```d", "a ```b``` c ```"),
        ("a ```b", "a ```b"),
        ("a ````b", "a ````b"),
        ("a", "a"),
    ],
)
def test_a_reply_ends_with_its_last_fence_if_that_is_not_its_first(text: str, kept: str) -> None:
    assert to_last_fence(text) == kept


@pytest.mark.parametrize(("after", "error"), [("", "no"), ("yes", "")])
def test_an_observation_in_the_same_turn_must_end_with_text(after: str, error: str) -> None:
    with pytest.raises(DefinitionError, match="ends with text"):
        replace(CROP_ZOOM, observation=Observation(place="same_turn", after=after, error=error))


@pytest.mark.parametrize("place", ["same_turn", "rewritten"])
def test_native_calls_are_answered_in_turns_of_their_own(place: ObservationPlace) -> None:
    native = load("crop_zoom_native", Pair).value.available
    with pytest.raises(DefinitionError, match="native calls are answered in turns of their own"):
        replace(native, observation=Observation(place=place))


def test_sizes_that_an_engine_tells_belong_to_the_images_in_their_places() -> None:
    protocol = replace(
        placed("new_turn"), observation=Observation(after="\n$original\n</tool_response>")
    )
    sizes = (Size(28, 28), Size(56, 56), Size(28, 28))
    done, _ = rolled(
        protocol,
        CALL,
        Reply(text=CALL, finish="stop", model_sizes=sizes),
        Reply(text=ANSWER, finish="stop"),
    )
    models = [image.model for image in done.trajectory.images]
    assert models == [Size(28, 28), Size(56, 56), None]
