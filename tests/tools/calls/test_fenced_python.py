"""Blocks of Python are followed, name by name, to the calls that they would make; none is run."""

import json
import random
import time
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from medeval.tools.calls.find import find_calls
from medeval.tools.calls.syntax import CallRules, Dialect
from medeval.types.sample import JsonValue
from medeval.types.trajectory import ParsedCall

DIALECTS: tuple[Dialect, ...] = ("refocus", "vtool_v1", "vtool_v2")

Calls = Sequence[tuple[str, str, JsonValue, JsonValue, bool]]


def fenced(code: str) -> str:
    return f"THOUGHT 0: I focus.\nACTION 0:\n```python\n{code}\n```"


def found(text: str, dialect: Dialect = "vtool_v2") -> tuple[ParsedCall, ...]:
    return find_calls(text, (), "fenced_python", CallRules(dialect=dialect))


def followed(code: str, dialect: Dialect = "vtool_v2") -> list[str]:
    """The calls of a block as "function(image, names) boxes", the one that is shown with a star."""
    lines = []
    for call in found(fenced(code), dialect):
        assert call.error is None, call.error
        given = call.arguments or {}
        name = (call.name or "").removeprefix("focus_on_")
        names, boxes = given.get("names"), given.get("boxes", "")
        line = f"{name}({given['image']}{'' if names is None else ' ' + json.dumps(names)}) {boxes}"
        lines.append(("* " if call.shown else "") + line.strip())
    return lines


DRAW = 'a = focus_on_columns_with_draw(image_1, ["Year"], columns_bbox)\n'
MASK = 'b = focus_on_rows_with_mask(a, ["1", "2"], rows_bbox)\n'
HIGHLIGHT = 'c = focus_on_columns_with_highlight(image_1, ["Year"], columns_bbox)\n'


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (DRAW + "display(a)", ['* columns_with_draw(image_1 ["Year"]) columns_bbox']),
        (
            DRAW + MASK + "display(b)",
            [
                'columns_with_draw(image_1 ["Year"]) columns_bbox',
                '* rows_with_mask(result_1 ["1", "2"]) rows_bbox',
            ],
        ),
        (
            'display(focus_on_rows_with_highlight(image_1, ["3"], rows_bbox))',
            ['* rows_with_highlight(image_1 ["3"]) rows_bbox'],
        ),
        (
            'names = ["A", "B"]\nshown: object = focus_on_columns_with_mask('
            "image=image_1, columns_to_focus_on=names, all_columns_bounding_boxes=columns_bbox)\n"
            "pass\ndisplay(shown)  # look",
            ['* columns_with_mask(image_1 ["A", "B"]) columns_bbox'],
        ),
        (
            "mine = {'A': {'x1': 1, 'y1': -2.5, 'x2': 3, 'y2': 4}}\n"
            "display(focus_on_columns_with_draw(image_1, ('A', 2005), mine))",
            [
                '* columns_with_draw(image_1 ["A", 2005]) '
                "{'A': {'x1': 1, 'y1': -2.5, 'x2': 3, 'y2': 4}}"
            ],
        ),
        ("x = y = image_1\ndisplay(x)", ["* display(image_1)"]),
        (
            'image_1 = focus_on_columns_with_highlight(image_1, ["A"], columns_bbox)\n'
            "display(image_1)",
            ['* columns_with_highlight(image_1 ["A"]) columns_bbox'],
        ),
    ],
)
def test_a_block_is_followed_to_its_calls(dialect: Dialect, code: str, expected: list[str]) -> None:
    assert followed(code, dialect) == expected


def test_mask_and_draw_change_the_image_that_they_are_given() -> None:
    second = 'd = focus_on_rows_with_draw(image_1, ["1"], rows_bbox)\ndisplay(d)'
    assert followed(DRAW + second) == [
        'columns_with_draw(image_1 ["Year"]) columns_bbox',
        '* rows_with_draw(result_1 ["1"]) rows_bbox',
    ]
    assert followed(DRAW + "display(image_1)")[-1].startswith("* columns_with_draw")


def test_highlight_gives_a_new_image() -> None:
    second = 'd = focus_on_rows_with_draw(image_1, ["1"], rows_bbox)\ndisplay(c)'
    assert followed(HIGHLIGHT + second) == [
        '* columns_with_highlight(image_1 ["Year"]) columns_bbox',
        'rows_with_draw(image_1 ["1"]) rows_bbox',
    ]


TWO = DRAW + "display(a)\n" + HIGHLIGHT + "display(c)\n"


@pytest.mark.parametrize(("dialect", "shown"), [("refocus", 0), ("vtool_v1", 1), ("vtool_v2", 1)])
def test_of_two_displays_refocus_shows_the_first_and_vtool_the_last(
    dialect: Dialect, shown: int
) -> None:
    assert [line.startswith("*") for line in followed(TWO, dialect)].index(True) == shown


@pytest.mark.parametrize(
    ("dialect", "shown"), [("refocus", "columns_with_draw"), ("vtool_v2", "rows_with_mask")]
)
def test_vtool_keeps_the_object_that_was_displayed_and_a_later_call_changes_it(
    dialect: Dialect, shown: str
) -> None:
    lines = followed(DRAW + "display(a)\n" + MASK, dialect)
    assert [line.split("(")[0] for line in lines if line.startswith("*")] == [f"* {shown}"]


def test_without_a_display_refocus_shows_the_original_and_vtool_v2_the_last_result() -> None:
    assert followed(DRAW, "refocus")[-1] == "* display(image_1)"
    assert followed(DRAW + MASK, "vtool_v2")[-1].startswith("* rows_with_mask")
    [call] = found(fenced(DRAW), "vtool_v1")
    assert call.error == "the block shows no image: end it with display(...)"
    assert followed("a = image_1", "vtool_v2") == ["* display(image_1)"]
    [call] = found(fenced("a = columns_bbox"), "vtool_v2")
    assert call.error == "the block shows no image: end it with display(...)"


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("ANSWER: 5. FINAL ANSWER: 5. TERMINATE", (0, 0, 0)),
        ("```\nfocus_on_columns\n```", (0, 0, 0)),
        (fenced(DRAW + "display(a)") + "\nFINAL ANSWER: 5. TERMINATE", (0, 1, 1)),
        (fenced("FINAL ANSWER: 62. TERMINATE"), (0, 1, 0)),
        (fenced("total = 3"), (1, 1, 0)),
        ("```python\ndisplay(image_1)\nFINAL ANSWER: 3", (1, 1, 0)),
        ("```python\ndisplay(image_1)\n", (1, 1, 1)),
        ("```python\n\n```", (1, 1, 1)),
        (fenced("display(image_1)") + "\n" + fenced(DRAW), (1, 1, 1)),
    ],
)
def test_what_is_a_call_and_what_an_answer_is_the_dialect_s(
    text: str, calls: tuple[int, int, int]
) -> None:
    assert tuple(len(found(text, dialect)) for dialect in DIALECTS) == calls


def test_the_first_block_counts_and_backslashes_are_taken_out() -> None:
    code = 'a = focus\\_on\\_columns\\_with\\_draw(image\\_1, ["Year"], columns\\_bbox)\ndisplay(a)'
    text = "\\`x\\` " + fenced(code) + " and then " + fenced(MASK)
    [call] = found(text)
    assert (call.name, call.error) == ("focus_on_columns_with_draw", None)
    assert text[call.start : call.end] == f"```python\n{code}\n```"
    assert call.raw_text == 'focus_on_columns_with_draw(image_1, ["Year"], columns_bbox)'


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("", "the block of code is empty"),
        ("display(", "the code has a syntax error in line 1"),
        ("import os", "line 1 of the block is an import; a block holds only"),
        ("from PIL import Image", "is an import"),
        ("\nfor x in image_1:\n    display(x)", "line 2 of the block is a loop"),
        ("if image_1:\n    display(image_1)", "is a condition"),
        ("display(open('/etc/passwd'))", "calls a function named 'open'"),
        ("__import__('os').system('true')", "a call of something other than a function by its na"),
        ("eval('image_1')", "calls a function named 'eval'"),
        ("display(image_1.rotate(90))", "a call of something other than a function by its name"),
        ("x = image_1.size", "holds an attribute"),
        ("x = columns_bbox['Year']", "holds a subscript"),
        ("x = [c for c in columns_bbox]", "holds a comprehension"),
        ("x = f'{image_1}'", "holds a formatted string"),
        ("x = 'a' + 'b'", "holds an operation"),
        ("x = b'bytes'", "holds Python of another kind"),
        ("x = 1e999", "holds a number that is not finite"),
        ("x = {1: 2}", "has a dictionary with a key that is no string"),
        ("x = {**columns_bbox}", "has a dictionary with a key that is no string"),
        ("x = [image_1]", "uses image_1 where a literal belongs"),
        ("x = " + "[" * 50 + "]" * 50, "nested more than 32 deep"),
        ("image_1.x = 1", "assigns to something other than a name"),
        ("a, b = 1, 2", "assigns to something other than a name"),
        ("display(image)", "uses a variable named 'image', which is not defined"),
        ("display(x_values_bbox)", "uses a variable named 'x_values_bbox', which is not defined"),
        ("display(columns_bbox)", "the block shows no image: end it with display"),
        ("display(image_1)\ndisplay(1)", "the block shows no image: end it with display"),
        ("display(image_1, image_1)", "calls display with something other than one image"),
        ("display(*image_1)", "Python of another kind"),
        ("focus_on_columns_with_draw(image_1, ['A'])", "not its arguments image, columns_to_focus"),
        ("focus_on_columns_with_draw(image_1, ['A'], columns_bbox, 1)", "not its arguments"),
        ("focus_on_columns_with_draw(image_1, names=['A'])", "arguments that it does not take"),
        ("focus_on_columns_with_draw(image_1, image=image_1)", "arguments that it does not take"),
        ("focus_on_columns_with_draw(**image_1)", "arguments that it does not take"),
        ("focus_on_columns_with_draw(1, ['A'], columns_bbox)", "something that is no image"),
        ("focus_on_columns_with_draw(image_1, image_1, columns_bbox)", "no list of names"),
        ("focus_on_columns_with_draw(image_1, ['A'], image_1)", "no boxes"),
        ("focus_on_columns_with_blur(image_1, ['A'], columns_bbox)", "calls a function named"),
        (DRAW * 17, "is more than the 16 calls a block may hold"),
        ("x = 1\n" * 2000, "the block of code is longer than 8000 characters"),
        ("x = '\ud800'", "the code cannot be read"),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_the_reason(code: str, said: str) -> None:
    [call] = found(fenced(code), "vtool_v1")
    assert said in (call.error or "")
    assert len(call.error or "") < 400
    assert (call.name, call.arguments, call.of_block) == (None, None, True)


def test_refocus_binds_the_boxes_of_charts_too() -> None:
    code = 'display(focus_on_x_values_with_draw(image_1, ["China"], x_values_bbox))'
    assert followed(code, "refocus") == ['* x_values_with_draw(image_1 ["China"]) x_values_bbox']
    [call] = found(fenced(code), "vtool_v2")
    assert "'x_values_bbox', which is not defined" in (call.error or "")


def test_vtool_v2_takes_the_newest_image_where_no_image_is_displayed_last() -> None:
    code = (
        'a = focus_on_columns_with_highlight(image_1, ["Year"], columns_bbox)\n'
        'b = focus_on_columns_with_highlight(a, ["Team"], columns_bbox)\n'
        "c = 3\ndisplay(a)\ndisplay(rows_bbox)"
    )
    assert [call.shown for call in found(fenced(code), "vtool_v2")] == [False, True]
    assert [call.shown for call in found(fenced(code), "refocus")] == [True, False]
    [call] = found(fenced(code), "vtool_v1")
    assert call.error == "the block shows no image: end it with display(...)"


pieces = st.sampled_from(
    [
        "```python\n", "```", "\n", DRAW, MASK, HIGHLIGHT, "display(a)\n", "display(", "image_1",
        "FINAL ANSWER: 3. TERMINATE", "\\", "columns_bbox", "import os\n", "[", "(", "{", "'", '"',
        "-" * 50, "lambda: ", "not ", "\x00", "\ud800", "é", "=", "#", "    ", "if x:\n", "1e999",
    ]
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(pieces | st.text(max_size=20), max_size=30), st.sampled_from(DIALECTS))
def test_no_text_raises_and_every_call_can_be_written_down(
    parts: list[str], dialect: Dialect
) -> None:
    text = "".join(parts)
    for call in found(text, dialect):
        assert (call.error is None) == (call.arguments is not None)
        assert 0 <= call.start < call.end <= len(text)
        json.dumps(call.arguments, allow_nan=False).encode()


def test_mutated_blocks_are_read_or_refused_within_a_moment() -> None:
    draw = random.Random(0)
    seeds = [fenced(code) for code in (DRAW + MASK + "display(b)", TWO, HIGHLIGHT)]
    letters = "()[]{}'\"`,=.:\\n \n#-*aA0_"
    slowest = 0.0
    for number in range(3000):
        text = list(seeds[number % len(seeds)])
        for _ in range(draw.randint(1, 8)):
            at = draw.randrange(len(text))
            match draw.randrange(3):
                case 0:
                    del text[at]
                case 1:
                    text.insert(at, draw.choice(letters))
                case _:
                    text[at:at] = text[at : at + draw.randint(1, 40)]
        started = time.process_time()
        calls = found("".join(text), DIALECTS[number % 3])
        slowest = max(slowest, (time.process_time() - started) / (len(text) / 1000))
        assert all((call.error is None) == (call.arguments is not None) for call in calls)
    assert slowest < 0.2, "seconds a thousand characters"


@pytest.mark.parametrize(
    "bomb",
    [
        "```python" * 20_000,
        "\\" * 200_000 + fenced("display(image_1)"),
        fenced("-" * 7_900 + "1"),
        fenced("not " * 1_900 + "1"),
        fenced("a" + ".b" * 3_900),
        fenced("1" + "+1" * 3_900),
        fenced("x = " + "[" * 190 + "]" * 190),
        fenced("lambda:" * 1_100 + "1"),
        fenced("x" + "()" * 3_900),
        fenced("x = 1" + "0" * 7_000),
        fenced('x = "' + "a" * 100_000 + '"'),
    ],
)
def test_no_text_takes_more_than_a_moment(bomb: str) -> None:
    started = time.perf_counter()
    for dialect in DIALECTS:
        found(bomb, dialect)
    assert time.perf_counter() - started < 1.0 + len(bomb) / 100_000
