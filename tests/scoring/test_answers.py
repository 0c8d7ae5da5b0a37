import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medeval.errors import DataError
from medeval.scoring.answers import (
    LETTERS,
    chosen_option,
    collapsed,
    edit_distance,
    find_answer,
    normalised,
    option_letter,
    read_number,
)

SHARED = Path(__file__).parents[3] / "shared" / "data"
COLOURS = ("red", "blue", "dark red", "green")


@pytest.mark.parametrize(
    ("reply", "complete", "expected"),
    [
        ("<answer>B</answer>", True, "B"),
        ("<answer> two\nwords </answer> trailing", True, "two\nwords"),
        ("<answer>A</answer> no, <answer>B</answer>", True, "B"),
        ("<ANSWER>B</Answer>", True, "B"),
        ("<answer>B", True, "B"),
        ("<answer>B", False, None),
        ("<answer>A</answer> no, <answer>B", True, "B"),
        ("<answer>A</answer> no, <answer>B", False, "A"),
        ("<answer>I mean <answer>B</answer>", True, "B"),
        ("B</answer>", True, None),
        ("<answer>  </answer>", True, None),
        ("<answer>A</answer><answer></answer>", True, None),
        ("no tag", True, None),
        ("", True, None),
        ("<think><answer>A</answer></think><answer>B</answer>", True, "B"),
        ("<think><answer>A</answer></think>", True, None),
        ("<answer>B</answer><think><answer>A</answer></think>", True, "B"),
        ("a template opened it <answer>A</answer></think><answer>B</answer>", True, "B"),
        ("<answer>A</answer></think>", True, None),
        ("<think>x</think><answer>B</answer></think>", True, "B"),
        ("<think><think>x</think><answer>B</answer>", True, "B"),
        ("<think>never closed <answer>B</answer>", True, "B"),
        ("<think>cut off <answer>B</answer>", False, None),
        ("<ans<think>x</think>wer>B", True, None),
    ],
)
def test_the_last_answer_block_outside_thinking_is_the_answer(
    reply: str, complete: bool, expected: str | None
) -> None:
    assert find_answer(reply, "answer_tag", complete=complete) == expected


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (r"so \boxed{B}", "B"),
        (r"\boxed{A} then \boxed{ 4{,}000 }", "4{,}000"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed {B}", "B"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{ x \right.}", r"\left\{ x \right."),
        (r"\boxed{A} and \boxed{B", "A"),
        (r"{ \boxed{B}", "B"),
        (r"} \boxed{B}", "B"),
        (r"\boxed{a \boxed{b}}", r"a \boxed{b}"),
        (r"\boxed{}", None),
        (r"\boxed B", None),
        (r"<think>\boxed{A}</think>", None),
    ],
)
def test_the_last_balanced_box_is_the_answer(reply: str, expected: str | None) -> None:
    assert find_answer(reply, "boxed", complete=True) == expected
    assert find_answer(reply, "boxed", complete=False) == expected


@pytest.mark.parametrize(
    ("reply", "complete", "expected"),
    [
        (" 42 ", True, "42"),
        ("42", False, None),
        ("<think>x</think>\n42", True, "42"),
        ("x</think>42", True, "42"),
        ("<think>never closed", True, None),
        ("<think>x</think>", True, None),
    ],
)
def test_a_whole_reply_is_an_answer_only_when_complete(
    reply: str, complete: bool, expected: str | None
) -> None:
    assert find_answer(reply, "whole_reply", complete=complete) == expected


def test_letters_go_from_a_to_z() -> None:
    assert [option_letter(index) for index in range(26)] == list(LETTERS)


@pytest.mark.parametrize("index", [-1, 26])
def test_a_position_beyond_z_has_no_letter(index: int) -> None:
    with pytest.raises(DataError, match=f"got position {index}"):
        option_letter(index)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # reference values: what lmms-eval's reader makes of these, and what they mean
        ("Because it is", None),
        ("Dog", None),
        ("A man", None),
        ("The answer is C", "C"),
        ("(B)", "B"),
        (r"\boxed{B}", "B"),
        ("I think C", "C"),
        ("Based on the image", None),
        # a letter by itself
        ("B", "B"),
        ("b", "B"),
        (" b. ", "B"),
        ("**B**", "B"),
        (r"$\text{B}$", "B"),
        ('"B"', "B"),
        ("E", None),
        ("", None),
        # declared
        ("Answer:B", "B"),
        ("ANSWER: D", "D"),
        ("Final answer\n\nB", "B"),
        ("The answer is b", "B"),
        ("The answer is (B) blue, not (A) red", "B"),
        ("the answer is option B.", "B"),
        ("the answer is A because it is red", "A"),
        ("The answer is A man", None),
        ("The answer is a man", None),
        ("The answer is Because", None),
        ("The answer is A or B", None),
        ("Answer: A, B", None),
        ("The answer is A. No, the answer is B.", None),
        ("The answer is not A", None),
        ("The answer isn't A", None),
        ("B is the correct answer", "B"),
        ("B is correct, A is wrong", "B"),
        ("Option A shows red, so I choose B", "B"),
        ("I choose B.", "B"),
        ("option C", "C"),
        # marked
        ("surely [c]", "C"),
        ("not (A), (B)", "B"),
        ("(A) or (B)", None),
        ("B. blue", "B"),
        ("B) The man's cap", "B"),
        ("b: it is", "B"),
        ("A) and B)", None),
        ("A. red B. blue C. dark red D. green", None),
        ("B. red", None),
        ("D.C. is the place", None),
        # a letter with another option's text
        ("A. blue", None),
        ("The answer is (A) blue", None),
        ("B: blue, as red is elsewhere", "B"),
        ("The answer is B because the red one is hidden", "B"),
        # options' texts
        ("red", "A"),
        ("Dark  Red.", "C"),
        ("it's dark red!", "C"),
        ("It is not red", None),
        ("It is not red but blue", "B"),
        ("red and blue", None),
        ("A red thing", "A"),
        ("reddish", None),
        ("because of A, red", "A"),
        ("because of B, red", None),
        # bare letters
        ("A is wrong, B", "B"),
        ("either A or B", None),
        ("T-shirt, D-day, B's", None),
    ],
)
def test_an_option_is_read_only_where_it_is_plain(text: str, expected: str | None) -> None:
    assert chosen_option(text, COLOURS) == expected


def test_a_letter_inside_an_options_text_is_not_a_choice() -> None:
    options = ("Vitamin C", "iron", "zinc")
    assert chosen_option("Vitamin C", options) == "A"
    assert chosen_option("the glass holds vitamin C", options) == "A"


def test_a_number_is_not_found_inside_another() -> None:
    assert chosen_option("There are 2.5 of 12", ("2", "5")) is None
    assert chosen_option("There are 2.", ("2", "5")) == "A"


def test_options_that_read_the_same_choose_nothing() -> None:
    assert chosen_option("red", ("Red.", "red", "blue")) is None


def test_options_without_text_are_chosen_by_letter_alone() -> None:
    assert chosen_option("it is B", ("", "")) == "B"


def test_without_options_any_letter_counts() -> None:
    assert chosen_option("The answer is Q", ()) == "Q"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("60%", 0.6),
        ("5.", 5.0),
        ("1e3", 1000.0),
        ("-2.5", -2.5),
        ("1e999", float("inf")),
        ("1,000", None),
        ("$5", None),
        ("%", None),
        ("", None),
        ("five", None),
    ],
)
def test_a_number_is_what_float_reads(text: str, expected: float | None) -> None:
    assert read_number(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" The  Red\ncar. ", "the red car"),
        ("Yes!?", "yes"),
        ("Straße", "strasse"),
        ("...", "..."),
        ("", ""),
    ],
)
def test_normalised_forgets_case_space_and_final_punctuation(text: str, expected: str) -> None:
    assert normalised(text) == expected


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    assert normalised(normalised(text)) == normalised(text)
    assert collapsed(collapsed(text)) == collapsed(text)


@given(st.text(max_size=30), st.text(max_size=30))
def test_edit_distance_is_a_distance(first: str, second: str) -> None:
    distance = edit_distance(first, second)
    assert distance == edit_distance(second, first)
    assert (distance == 0) == (first == second)
    assert abs(len(first) - len(second)) <= distance <= max(len(first), len(second))


@given(st.text(), st.lists(st.text(), max_size=30), st.booleans())
def test_nothing_a_model_writes_raises(text: str, options: list[str], complete: bool) -> None:
    for reply in (text, f"<answer>{text}", f"<think>{text}", f"\\boxed{{{text}"):
        find_answer(reply, "answer_tag", complete=complete)
        find_answer(reply, "boxed", complete=complete)
        find_answer(reply, "whole_reply", complete=complete)
    chosen = chosen_option(text, options)
    assert chosen is None or chosen in LETTERS[: len(options) or len(LETTERS)]
    read_number(text)


@given(st.sampled_from("ABCD"), st.sampled_from(["{}", "({})", "{}.", "Answer: {}", "**{}**"]))
def test_a_letter_is_read_in_every_usual_form(letter: str, form: str) -> None:
    assert chosen_option(form.format(letter), COLOURS) == letter


@given(st.text(), st.text(alphabet="xyz ", min_size=1).filter(str.strip))
def test_an_answer_block_is_found_after_any_closed_thinking(thinking: str, answer: str) -> None:
    reply = f"<think>{thinking}</think><answer>{answer}</answer>"
    assert find_answer(reply, "answer_tag", complete=False) == answer.strip()


HOSTILE = (
    "<think>",
    "</think>",
    "<answer>",
    r"\boxed{",
    r"\boxed ",
    "{",
    "answer ",
    "answer is A,",
    "A ",
    "A or ",
    "(A",
    r"\text{",
    "option A is ",
    "dark ",
    "\x00",
    "*",
    '"',
    ".,",
    " ",
    "\u0130",
    "9",
)


@pytest.mark.parametrize("part", HOSTILE)
def test_hostile_text_takes_linear_time(part: str) -> None:
    text = part * (100_000 // len(part))
    started = time.process_time()
    for rule in ("answer_tag", "boxed", "whole_reply"):
        find_answer(text, rule, complete=True)
    chosen_option(text, COLOURS)
    normalised(text)
    read_number(text)
    # Linear code takes under 0.5 s here; quadratic code takes minutes.
    assert time.process_time() - started < 5


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data beside the project")
def test_real_conversations_give_up_their_published_answers() -> None:
    with (SHARED / "vstar" / "deepeyes_traces.jsonl").open(encoding="utf-8") as file:
        traces = [json.loads(line) for line in file]
    last = [trace["messages"][-1] for trace in traces]
    found = [
        find_answer(message["content"], "answer_tag", complete=True)
        if message["role"] == "assistant"
        else None
        for message in last
    ]
    agreed = [
        answer == trace["pred_ans"].strip() for answer, trace in zip(found, traces, strict=True)
    ]
    # Four conversations end on a user turn and 16 answer only inside their thinking. Of five,
    # the published answer is from an earlier block or lacks its letter.
    assert (len(traces), sum(answer is not None for answer in found), sum(agreed)) == (
        764,
        744,
        739,
    )
