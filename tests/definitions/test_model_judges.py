"""The exact prompts that judges put before their model, and what they make of its replies."""

import asyncio
import hashlib
from collections.abc import Sequence

import pytest

from medeval.errors import JudgeError
from medeval.evaluation.loader import load, shipped
from medeval.scoring.judge import Judge
from medeval.scoring.judge_prompt import Inquiry
from medeval.types.sample import JsonValue, Sample
from medeval.types.trajectory import Answer
from medeval.types.verdict import Grade

ASKING = [judge.value.name for judge in shipped(Judge) if judge.value.needs_endpoint]


def asked(
    judge: str,
    text: str,
    *,
    replies: Sequence[str] = ("",),
    targets: tuple[str, ...] = ("Lyon",),
    options: tuple[str, ...] = (),
    metadata: dict[str, JsonValue] | None = None,
) -> tuple[list[Inquiry], Grade]:
    """What a judge asks about an answer, and the grade it makes of the replies."""
    inquiries: list[Inquiry] = []

    async def ask(inquiry: Inquiry) -> Grade:
        inquiries.append(inquiry)
        return inquiry.ruling.read(replies[len(inquiries) - 1])

    bound = load(judge, Judge).value.bound("m", ask)
    sample = Sample(
        id="s", question="Which city is <|answer|>?", images=(), targets=targets,
        options=options, metadata=metadata or {"answer_type": 2, "template": 3},
    )  # fmt: skip

    async def run() -> Grade:
        grade = bound.grade(sample, Answer(text=text, how_found="answer_tag", reply=f"So: {text}"))
        assert not isinstance(grade, Grade)
        return await grade

    return inquiries, asyncio.run(run())


@pytest.mark.parametrize("judge", ASKING)
def test_the_answer_stands_in_the_prompt_as_it_is_and_nothing_is_left_open(judge: str) -> None:
    if judge == "med":
        pytest.importorskip("math_verify", reason="the judge med needs the package math-verify")
    text = "Lyons <|question|> {} \\1 $x"
    (inquiry,), _ = asked(judge, text)
    assert inquiry.prompt.count(text) == 1
    assert "Lyon" in inquiry.prompt
    assert "So: " not in inquiry.prompt
    assert "<|" not in inquiry.prompt.replace(text, "").replace("<|answer|>", "")


@pytest.mark.parametrize("judge", ASKING)
def test_a_judge_that_asks_names_where_its_prompt_is_from(judge: str) -> None:
    value = load(judge, Judge).value
    assert value.source
    assert value.licence or value.source == "judges/model.py"


@pytest.mark.parametrize(
    ("judge", "right", "wrong"),
    [
        ("model", '{"verdict": "correct"}', '{"verdict": "incorrect"}'),
        ("rule_then_model", "Correct", "INCORRECT"),
        ("visual_probe", "Yes", "No."),
        ("refocus", "1", "0"),
        ("refocus_brief", "1", "0"),
        ("charxiv_reasoning", '{"extract_answer": "x", "score": 1}', '{"score": 0}'),
        (
            "charxiv_descriptive",
            '{"extract_answer_T1": "x", "score_T1": 1}',
            '{"extract_answer_T1": "x", "score_T1": 0}',
        ),
        ("med", 'It says Lyon.\n```json\n{"score": 1}\n```', '```json\n{"score": 0}\n```'),
    ],
)
def test_replies_are_read_as_the_prompt_asks_for_them(judge: str, right: str, wrong: str) -> None:
    if judge == "med":
        pytest.importorskip("math_verify")
    assert asked(judge, "the town", replies=[right])[1].score == 1.0
    assert asked(judge, "the town", replies=[wrong])[1].score == 0.0
    left_open = asked(judge, "the town", replies=["I think it may well be correct."])[1]
    assert left_open.score is None
    assert "I think it may well be correct." in left_open.reason


def test_yes_or_no_is_asked_as_published() -> None:
    (inquiry,), _ = asked("visual_probe", "lyons")
    assert inquiry.system == "Judge answer equivalence. Reply only Yes or No."
    assert inquiry.prompt == (
        "Q: Which city is <|answer|>?\nGT: Lyon\nPred: lyons\nEquivalent? Answer Yes or No."
    )


@pytest.mark.parametrize(
    ("text", "rated"),
    [
        ("a||b", "a|b"),
        ("THOUGHT: x. FINAL ANSWER: 80 Meters. TERMINATE", "80 Meters."),
        ("FINAL ANSWER: a\nTERMINATE", "a"),
        ("FINAL ANSWER: a\nb TERMINATE", "FINAL ANSWER: a\nb TERMINATE"),
        ("FINAL ANSWER: a TERMINATE FINAL ANSWER: b TERMINATE", "a"),
        ("80", "80"),
    ],
)
def test_of_a_refocus_answer_the_final_part_is_rated(text: str, rated: str) -> None:
    (inquiry,), _ = asked("refocus", text)
    assert inquiry.prompt.endswith(
        f"    # Question: Which city is <|answer|>?\n    # Prediction: {rated}\n"
        "    # Correct Answer: Lyon\n    # Your Response:"
    )
    assert inquiry.prompt.startswith("\n    You are given a prediction for the question.")
    (brief,), _ = asked("refocus_brief", text)
    assert brief.prompt.startswith(
        "\n    Rate my prediction given the correct answer.\n"
        f"    Prediction: {rated}\n    Answer: Lyon\n    If you think"
    )


@pytest.mark.parametrize("kind", [1, 2, 3, 4])
def test_reasoning_has_a_rubric_for_each_answer_type(kind: int) -> None:
    (inquiry,), _ = asked("charxiv_reasoning", "lyons", metadata={"answer_type": kind})
    assert inquiry.prompt.startswith("\nYou will be given a question, an ground truth answer")
    assert inquiry.prompt.endswith(
        "    ### Example 2 Ends ###\n\n    ### Your Turn ###\n"
        "    * Question: Which city is <|answer|>?\n    * Ground Truth: Lyon\n"
        "    * Response: lyons\n\n    "
    )
    rules = {1: "P56962", 2: "predefined options", 3: "exactly equal in values"}
    assert rules.get(kind, rules[3]) in inquiry.prompt


@pytest.mark.parametrize("metadata", [{"answer_type": 5}, {"answer_type": None}, {"template": 1}])
def test_an_unknown_answer_type_cannot_be_judged(metadata: dict[str, JsonValue]) -> None:
    with pytest.raises(JudgeError, match="an answer_type is 1 to 4"):
        asked("charxiv_reasoning", "x", metadata=metadata)


@pytest.mark.parametrize("template", range(1, 20))
def test_descriptions_have_a_rubric_for_each_template(template: int) -> None:
    (inquiry,), _ = asked("charxiv_descriptive", "lyons", metadata={"template": template})
    head, _, tail = inquiry.prompt.partition("\nRubric:")
    assert head.startswith("\nYou will be given 1 pairs of ground truth answers")
    assert "['extract_answer_T1', 'score_T1']" in head
    assert head.count("\n\n\nOverarching Question: ") == 1
    assert tail.endswith("T1:\nResponse 1: lyons\nGround Truth 1: Lyon\n\n")


@pytest.mark.parametrize("template", [0, 20, "3", None])
def test_an_unknown_template_cannot_be_judged(template: JsonValue) -> None:
    with pytest.raises(JudgeError, match="a template is 1 to 19"):
        asked("charxiv_descriptive", "x", metadata={"template": template})


def test_the_published_mistakes_are_kept() -> None:
    (inquiry,), _ = asked("charxiv_descriptive", "x", metadata={"template": 13})
    # an escape that the authors did not mean
    assert "Response 3: \x07lpha, \x08eta, \\gamma^t_v" in inquiry.prompt
    assert '"extract_answer_T2: "T56, B33"' in inquiry.prompt


@pytest.mark.parametrize(
    ("text", "targets", "options"),
    [
        ("lyon.", ("Paris", "Lyon"), ()),
        ("(B)", ("B",), ("Paris", "Lyon")),
        ("It is Lyon", ("B",), ("Paris", "Lyon")),
    ],
)
def test_what_the_rule_takes_for_correct_is_not_asked_about(
    text: str, targets: tuple[str, ...], options: tuple[str, ...]
) -> None:
    inquiries, grade = asked("rule_then_model", text, targets=targets, options=options)
    assert inquiries == []
    assert (grade.score, dict(grade.parts)) == (1.0, {"rule": 1.0})


def test_what_the_rule_does_not_know_the_model_decides() -> None:
    inquiries, grade = asked(
        "rule_then_model", "(A)", targets=("B",), options=("Paris", "Lyon"), replies=["correct"]
    )
    assert "A. Paris\nB. Lyon" in inquiries[0].prompt
    assert (grade.score, dict(grade.parts)) == (1.0, {"rule": 0.0, "model": 1.0})


@pytest.mark.parametrize(
    ("text", "reply", "score", "parts"),
    [
        ("1/2", '{"score": 1}', 1.0, {"rule": 1.0, "model": 1.0}),
        ("1/2", '{"score": 0}', 1.0, {"rule": 1.0, "model": 0.0}),
        ("1/2", "Hm.", 1.0, {"rule": 1.0, "model": None}),
        ("half", '{"score": 1}', 1.0, {"rule": 0.0, "model": 1.0}),
        ("half", '{"score": 0}', 0.0, {"rule": 0.0, "model": 0.0}),
        ("half", "Hm.", None, {"rule": 0.0, "model": None}),
    ],
)
def test_med_takes_the_rule_or_the_model_and_keeps_both(
    text: str, reply: str, score: float | None, parts: dict[str, float | None]
) -> None:
    pytest.importorskip("math_verify")
    inquiries, grade = asked("med", text, targets=("0.5",), replies=[reply])
    assert len(inquiries) == 1
    assert (grade.score, dict(grade.parts)) == (score, parts)


@pytest.mark.parametrize(
    ("judge", "length", "sha256"),
    [
        ("charxiv_descriptive", 1864, "c8853b349919426a"),
        ("charxiv_reasoning", 2073, "76027ef2a3199566"),
        ("med", 1477, "662cb0357fcb1540"),
        ("model", 703, "2276ab8ebcc76ce2"),
        ("refocus", 1074, "504b89923dd115f1"),
        ("refocus_brief", 183, "a3e1ada92d8e396b"),
        ("rule_then_model", 703, "2276ab8ebcc76ce2"),
        ("visual_probe", 127, "d4a415a3e04fea77"),
    ],
)
def test_a_prompt_does_not_change_unnoticed(judge: str, length: int, sha256: str) -> None:
    if judge == "med":
        pytest.importorskip("math_verify")
    (inquiry,), _ = asked(judge, "lyons")
    sent = f"{inquiry.system}\n{inquiry.prompt}"
    assert (len(sent), hashlib.sha256(sent.encode()).hexdigest()[:16]) == (length, sha256)
