"""What definitions refuse, what an arm with tools keeps, and what a model is shown."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.errors import DataError, DefinitionError
from medeval.images.resize import PixelBudget
from medeval.models.base import Sampling
from medeval.rollout.observation import CallResult, Observation, Wording
from medeval.rollout.protocol import EvalProtocol, Pair
from medeval.scoring.judge import Judge
from medeval.tools.calls.find import BEHAVIOUR, CallRules
from medeval.tools.crop import crop_and_zoom
from medeval.types.sample import ImageSource, Sample
from medeval.types.trajectory import ImageRef, Message, Text
from medeval.types.verdict import Grade

TOOL = crop_and_zoom()
FREE = EvalProtocol(
    name="free",
    system="Be brief.",
    user="$question$options$instruction",
    call_syntax="hermes",
    frame="percent",
    observation=Observation(before="<seen $index>", after="</seen>", error="No: $message"),
    on_malformed="end",
    answer_rules=("boxed", "answer_tag"),
    stop=("</tool_call>",),
    sampling=Sampling(temperature=0.5, max_tokens=99),
    pixel_budget=PixelBudget(min_px=784, max_px=78_400, factor=28),
    title="a free arm",
    source="somewhere",
    licence="MIT",
)
AVAILABLE = FREE.with_tools(
    TOOL, name="available", prompt="\n<tools>$tools</tools>", max_generations=3, max_calls=2
)


def image(name: str) -> ImageSource:
    return ImageSource(name=name, read=lambda: b"")


SAMPLE = Sample(
    id="s", question="Which?", images=(image("a"), image("b")), targets=("A",), options=("x", "y")
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"user": "costs $5"}, "protocol 'p': user has a '$' that starts no placeholder"),
        ({"user": "$question $choices"}, "protocol 'p': user uses ['choices'], which is not"),
        ({"user": "$tools"}, "user uses ['tools'], which is not filled in; known: ['columns',"),
        ({"system": "$question"}, "protocol 'p': system uses ['question'], which is not filled in"),
        ({"observation": Observation(before="$message")}, "observation.before uses ['message']"),
        ({"observation": Observation(after="$")}, "observation.after has a '$'"),
        ({"observation": Observation(error="$index")}, "observation.error uses ['index']"),
        ({"max_generations": 0}, "max_generations is 0, not 1 or more"),
        ({"tools": (TOOL,)}, "protocol 'p' offers tools, but its call_syntax is 'none'"),
    ],
)
def test_a_protocol_that_cannot_be_meant_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        EvalProtocol(**{"name": "p", "user": "$question", **changes})
    assert message in refused.value.message


def test_a_dollar_sign_is_written_twice() -> None:
    protocol = EvalProtocol(name="p", user="$$5 or $question")
    assert protocol.opening(SAMPLE)[0].text == "$5 or Which?"


@given(st.text(), st.text(), st.lists(st.text(), max_size=3))
def test_no_text_of_a_sample_is_read_as_a_template(
    question: str, instruction: str, options: list[str]
) -> None:
    sample = replace(SAMPLE, question=question, instruction=instruction, options=tuple(options))
    shown = FREE.opening(sample)[1].text
    lines = "".join(f"\n{'ABC'[index]}. {option}" for index, option in enumerate(options))
    assert shown == question + lines + (f"\n{instruction}" if instruction else "")


def test_opening_is_the_system_text_then_images_and_question() -> None:
    assert FREE.opening(SAMPLE) == (
        Message(role="system", content=(Text("Be brief."),)),
        Message(role="user", content=(ImageRef(0), ImageRef(1), Text("Which?\nA. x\nB. y"))),
    )


def test_a_protocol_without_a_system_text_sends_none() -> None:
    assert [m.role for m in replace(FREE, system="").opening(SAMPLE)] == ["user"]


def test_a_27th_option_has_no_letter() -> None:
    with pytest.raises(DataError, match="position 26"):
        FREE.opening(replace(SAMPLE, options=("x",) * 27))


def test_schemas_stand_in_the_system_text_one_a_line() -> None:
    other = replace(TOOL, name="zoom_again", description="Noch näher.")
    both = AVAILABLE.with_tools(TOOL, other, name="both", prompt="", max_generations=2, max_calls=1)
    lines = both.opening(SAMPLE)[0].text.partition("<tools>")[2].removesuffix("</tools>")
    schemas = [json.loads(line) for line in lines.splitlines()]
    assert [schema["function"]["name"] for schema in schemas] == ["crop_and_zoom", "zoom_again"]
    assert "näher" in lines


def test_with_tools_keeps_everything_else_equal() -> None:
    changed = {"name", "system", "tools", "max_generations", "max_calls"}
    for item in fields(EvalProtocol):
        before, after = getattr(FREE, item.name), getattr(AVAILABLE, item.name)
        assert (before != after) == (item.name in changed), item.name
    assert AVAILABLE.system == "Be brief.\n<tools>$tools</tools>"


def test_with_tools_takes_a_title_and_an_image_limit_of_its_own() -> None:
    arm = FREE.with_tools(
        TOOL, name="a", max_generations=2, max_calls=1, max_images=4, title="with tools"
    )
    assert (arm.title, arm.max_images, arm.system) == ("with tools", 4, FREE.system)


def test_a_pair_made_by_with_tools_declares_nothing() -> None:
    assert Pair(name="pair", free=FREE, available=AVAILABLE).arms == (FREE, AVAILABLE)


OTHER_VALUES: Mapping[str, Any] = {
    "user": "Q: $question",
    "system": "Something else.",
    "call_syntax": "openai",
    "frame": "pixels_raw",
    "observation": Observation(),
    "on_malformed": "observe",
    "answer_rules": ("whole_reply",),
    "stop": (),
    "sampling": Sampling(temperature=0.5, max_tokens=100),
    "pixel_budget": None,
    "user_open": "Question: $question",
    "wordings": {"hint": Wording(texts=("Look.",))},
    "images_after": True,
    "call_rules": CallRules(pick="first"),
    "model_budget": PixelBudget(min_px=784, max_px=78_400, factor=14),
    "on_error": "end",
    "max_context_tokens": 9,
    "max_response_tokens": 9,
    "at_limit": "last_reply",
    "answer_over": "all_replies",
    "used": "observed",
}


@pytest.mark.parametrize("name", OTHER_VALUES)
def test_a_difference_between_arms_must_be_declared(name: str) -> None:
    other = replace(AVAILABLE, **{name: OTHER_VALUES[name]})
    with pytest.raises(DefinitionError) as refused:
        Pair(name="pair", free=FREE, available=other)
    assert refused.value.message == (
        f"pair 'pair': its arms differ in [{name!r}], but it declares []"
    )
    pair = Pair(name="pair", free=FREE, available=other, differences={name: "as published"})
    assert pair.differences[name] == "as published"


def test_every_field_of_a_protocol_is_either_the_tools_doing_or_must_be_declared() -> None:
    tool_fields = {"name", "title", "tools", "max_generations", "max_calls", "max_images",
                   "source", "licence"}  # fmt: skip
    assert {item.name for item in fields(EvalProtocol)} == tool_fields | set(OTHER_VALUES)


@pytest.mark.parametrize("declared", [{"user": "why"}, {"user": "why", "nonsense": "why"}])
def test_a_difference_that_is_none_must_not_be_declared(declared: dict[str, str]) -> None:
    with pytest.raises(DefinitionError, match=r"differ in \[\], but it declares \["):
        Pair(name="pair", free=FREE, available=AVAILABLE, differences=declared)


@pytest.mark.parametrize(
    ("free", "available", "message"),
    [
        (AVAILABLE, AVAILABLE, "its free arm offers tools"),
        (FREE, FREE, "its available arm offers no tool"),
    ],
)
def test_a_pair_needs_one_arm_without_and_one_with_tools(
    free: EvalProtocol, available: EvalProtocol, message: str
) -> None:
    with pytest.raises(DefinitionError, match=message):
        Pair(name="pair", free=free, available=available)


def test_results_of_text_calls_are_one_message() -> None:
    results = [
        CallResult(native_id=None, image=1),
        CallResult(native_id=None, error="pay $5, not $message"),
    ]
    assert AVAILABLE.observe(results) == (
        Message(
            role="user",
            content=(
                Text("<seen 1>"), ImageRef(1), Text("</seen>"), Text("No: pay $5, not $message"),
            ),
        ),
    )  # fmt: skip


def test_an_observation_may_be_an_image_alone() -> None:
    bare = replace(AVAILABLE, observation=Observation(role="tool", before="", after=""))
    assert bare.observe([CallResult(native_id=None, image=2)]) == (
        Message(role="tool", content=(ImageRef(2),)),
    )


OBSERVED = st.builds(
    CallResult,
    native_id=st.uuids().map(str),
    image=st.integers(1, 9),
    error=st.none() | st.text(min_size=1),
)


@given(st.lists(OBSERVED, min_size=1, max_size=5))
def test_native_calls_are_answered_as_openai_servers_demand(results: list[CallResult]) -> None:
    """Each call by one tool message of text, in order and right after it; images by the user."""
    messages = AVAILABLE.observe(results)
    answers, rest = messages[: len(results)], messages[len(results) :]
    assert [(m.role, m.call_id) for m in answers] == [("tool", r.native_id) for r in results]
    assert all(isinstance(part, Text) for m in answers for part in m.content)
    assert all(m.text for m in answers)
    made = [r.image for r in results if r.error is None]
    assert len(rest) == bool(made)
    for message in rest:
        assert (message.role, message.call_id) == ("user", None)
        shown = [part.image for part in message.content if isinstance(part, ImageRef)]
        assert shown == made


@pytest.mark.parametrize(
    ("reply", "complete", "found"),
    [
        (r"\boxed{A} <answer>B</answer>", True, ("A", "boxed")),
        ("<answer>B</answer>", True, ("B", "answer_tag")),
        ("<answer>B", True, ("B", "answer_tag")),
        ("<answer>B", False, None),
        ("B", True, None),
    ],
)
def test_the_first_rule_that_finds_an_answer_decides(
    reply: str, complete: bool, found: tuple[str, str] | None
) -> None:
    answer = FREE.extract(reply, complete=complete)
    assert (answer and (answer.text, answer.how_found)) == found
    assert answer is None or answer.reply == reply


def test_the_description_is_json_and_holds_every_field_that_can_change_a_number() -> None:
    described = AVAILABLE.describe()
    assert json.loads(json.dumps(described)) == described
    told = {item.name for item in fields(EvalProtocol)} - {"title", "source", "licence"}
    assert set(described) == told | {"behaviour"}
    assert described["behaviour"] == BEHAVIOUR
    assert described["sampling"] == {
        "temperature": 0.5, "max_tokens": 99, "top_p": None, "top_k": None,
        "repetition_penalty": None, "presence_penalty": None,
    }  # fmt: skip
    assert described["tools"] == [{**TOOL.schema.as_json(), "settings": dict(TOOL.settings)}]


def test_what_a_tool_does_unseen_is_part_of_the_description() -> None:
    descriptions = [
        FREE.with_tools(tool, name="a", max_generations=2, max_calls=1).describe()
        for tool in (
            crop_and_zoom(), crop_and_zoom(budget=None), crop_and_zoom(minimum_side_px=9),
        )
    ]  # fmt: skip
    assert all(descriptions.count(one) == 1 for one in descriptions)


def test_a_field_without_a_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="no JSON form"):
        replace(FREE, frame=b"bytes").describe()  # type: ignore[arg-type]


def test_a_judge_reads_fields_of_a_sample_only() -> None:
    with pytest.raises(DefinitionError, match="judge 'j' reads 'target', which is no field"):
        Judge(name="j", metric="m", grade=lambda *_: Grade(score=1.0), reads=("target",))
