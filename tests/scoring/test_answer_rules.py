"""The published ways of finding an answer, and calls written as actions."""

import pytest

from medeval.errors import DefinitionError
from medeval.rollout.observation import AnswerRule, Wording, found_answer
from medeval.rollout.protocol import EvalProtocol
from medeval.tools.calls.actions import terminate_argument
from medeval.tools.calls.find import CallRules, find_calls

END = '{"thought": "done", "actions": [{"name": "Terminate", "arguments": {"ans": "42"}}]}'


@pytest.mark.parametrize(
    ("rule", "reply", "found"),
    [
        ("final_answer", "So. FINAL ANSWER: 3.5 apples. TERMINATE", "3.5 apples"),
        ("final_answer", "final answer: a\nFINAL ANSWER: b\nmore", "b"),
        ("final_answer", "no answer", None),
        ("answer_prefix", "So. ANSWER: It is 3.5 m.\nTERMINATE", "It is 3.5 m."),
        ("answer_prefix", "answer: red\nor so. ANSWER: blue", "red\nor so. ANSWER: blue"),
        ("answer_prefix", "ANSWER: TERMINATE", None),
        ("answer_prefix", "<think>ANSWER: 1</think>no", None),
        ("box_markers", "<|begin_of_box|>A<|end_of_box|> <|begin_of_box|>B<|end_of_box|>", "B"),
        ("box_markers", "<|begin_of_box|>A", None),
        ("box_markers", "A<|end_of_box|>", None),
        ("terminate", END, "42"),
        ("terminate", "none", None),
        ("first_answer_tag_anywhere", "<think><answer>A</answer></think><answer>B</answer>", "A"),
        ("first_answer_tag_anywhere", "<answer>A", None),
        ("boxed_anywhere", r"<think>\boxed{A}</think>", "A"),
        ("boxed", r"<think>\boxed{A}</think>", None),
        ("raw_reply", " <think>A", "<think>A"),
        ("raw_reply", " \n", None),
    ],
)
def test_a_rule_finds_this_answer(rule: AnswerRule, reply: str, found: str | None) -> None:
    assert found_answer(reply, rule, complete=True) == found


@pytest.mark.parametrize(
    "reply",
    ["", '{"actions": ', '{"actions": 3}', '{"actions": [1, {"name": "Terminate"}]}',
     '{"actions": [{"name": "Terminate", "arguments": {"ans": true}}]}',
     '{"actions": [{"name": "Terminate", "arguments": {"ans": " "}}]}'],
)  # fmt: skip
def test_an_action_that_gives_no_answer_gives_none(reply: str) -> None:
    assert terminate_argument(reply) is None


def test_actions_are_read_in_order_and_the_last_of_all_is_none() -> None:
    text = (
        'I look. {"thought": "a {brace}", "actions": [{"name": "Point", "arguments": {"p": 1}}, '
        '{"name": "Crop", "arguments": 3}, {"arguments": {}}, {"name": "Terminate"}]} so'
    )
    calls = find_calls(text, (), "actions_json", CallRules())
    assert [(call.name, call.error is None) for call in calls] == [
        ("Point", True), ("Crop", False), (None, False),
    ]  # fmt: skip
    assert find_calls(END, (), "actions_json") == ()
    for broken in ('"actions" alone', '{"actions": 3}'):
        (call,) = find_calls(broken, (), "actions_json")
        assert call.error is not None and '"actions"' in call.error


def test_a_wording_has_a_text() -> None:
    with pytest.raises(DefinitionError, match="at least one text"):
        Wording(texts=())


def test_the_frame_of_the_model_needs_its_budget() -> None:
    from medeval.tools.crop import crop_and_zoom

    with pytest.raises(DefinitionError, match="'pixels_model' needs a model_budget"):
        EvalProtocol(
            name="p", user="$question", tools=(crop_and_zoom(),), call_syntax="hermes",
            frame="pixels_model",
        )  # fmt: skip


def test_a_syntax_without_a_parser_is_refused() -> None:
    with pytest.raises(DefinitionError, match="no parser reads calls in the syntax 'xml'"):
        EvalProtocol(name="p", user="$question", call_syntax="xml")  # type: ignore[arg-type]
