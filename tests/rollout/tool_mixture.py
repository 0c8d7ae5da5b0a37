"""Real tables, and a policy that plays a known mixture of good and bad tool calls over them.

`write_tables` writes a benchmark of the tables in ../shared/data/tablevqa_rendered; each sample's
target box is one named row. A server whose `respond` is `player` answers every request with the
reply that `native5_script` or `vtool_script` has for that sample, so that whoever measures the run
knows what there is to find: `played` is the same mixture, counted.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from tests.stub_server import Body

TABLES = Path(__file__).parents[3] / "shared/data/tablevqa_rendered"

# A name with one of these is written with a backslash, which the readers of blocks take out.
ESCAPED = set('\\"\n\t')

DEFINITION = """
import json
from pathlib import Path

from medeval import Benchmark, Box, DrawnRows, Sample
from medeval.types.geometry import RELATIVE

FOLDER = Path({folder!r})
TABLES = json.loads({tables!r})


def draw(index):
    return {{"image": (FOLDER / TABLES[index]["image"]).read_bytes()}}


def to_sample(row):
    table = TABLES[row.index]
    return Sample(
        id=f"t{{row.index:03d}}",
        question=table["question"],
        images=(row.image("image"),),
        targets=("yes",),
        metadata={{"regions": table["regions"]}},
        target_boxes=(Box(*table["target"], RELATIVE),),
    )


TABLES_BENCHMARK = Benchmark(
    name="tables",
    title="rendered tables",
    rows=DrawnRows({n}, draw),
    count={n},
    columns=("image",),
    to_sample=to_sample,
    judge={judge!r},
)
"""

JUDGE = """
from medeval import Grade, Judge


def grade(sample, answer):
    return Grade(score=float(answer.text in sample.targets), extracted=answer.text)


SAME = Judge(name="same", metric="accuracy", grade=grade)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One sample: its question, its regions, the row in question and where that is, 0 to 1."""

    question: str
    image: str
    columns: tuple[str, ...]
    row: str
    target: tuple[float, ...]
    regions: tuple[dict[str, object], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What is said about one sample turn by turn, and what becomes of its calls, in order."""

    replies: tuple[str, ...]
    calls: tuple[tuple[str | None, str], ...]
    is_right: bool


def read_tables(n: int) -> list[Table]:
    """The first `n` tables that have a row whose name no other row has."""
    lines = (TABLES / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    found = [_table(number, json.loads(line)) for number, line in enumerate(lines)]
    return [table for table in found if table is not None][:n]


def _table(number: int, line: Body) -> Table | None:
    sides = ("x1", "y1", "x2", "y2")
    regions: list[dict[str, object]] = [
        {"axis": axis, "name": name, "box": [box[side] for side in sides]}
        for axis, names, boxes in (
            ("column", line["column_headers"], line["columns_bbox"]),
            ("row", line["row_starters"], line["rows_bbox"]),
        )
        for name, box in zip(names, boxes, strict=False)
    ]
    counted: Counter[str] = Counter(line["row_starters"])
    alone = [
        (name, box)
        for name, box in zip(line["row_starters"], line["rows_bbox"], strict=False)
        if counted[name] == 1 and name and name.isascii() and not ESCAPED & set(name)
    ][1:]
    if not alone:
        return None
    name, box = alone[number % len(alone)]
    return Table(
        question=f"({number}) {line['question']}",
        image=line["image"],
        columns=tuple(line["column_headers"]),
        row=name,
        target=tuple(box[side] for side in sides),
        regions=tuple(regions),
    )


def write_tables(folder: Path, tables: Sequence[Table]) -> Path:
    """The benchmark's definition, with its judge beside it."""
    judge = folder / "same.py"
    judge.write_text(JUDGE, encoding="utf-8")
    listed = [
        {
            "question": table.question,
            "image": table.image,
            "regions": table.regions,
            "target": table.target,
        }
        for table in tables
    ]
    path = folder / "tables.py"
    path.write_text(
        DEFINITION.format(
            folder=str(TABLES), tables=json.dumps(listed), n=len(tables), judge=str(judge)
        ),
        encoding="utf-8",
    )
    return path


def hermes(name: str, **arguments: object) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def permille(box: Sequence[float]) -> list[float]:
    return [round(1000 * side, 3) for side in box]


def native5_script(number: int, table: Table) -> Script:
    """One of eight ways to use the five tools, well or badly, right every other time."""
    target, is_right = permille(table.target), number % 2 == 0
    answer = f"It rests on image 0. <answer>{'yes' if is_right else 'no'}</answer>"
    far = [0, 0, 40, 40] if target[1] > 500 else [960, 960, 1000, 1000]
    ways: tuple[tuple[tuple[str, ...], tuple[tuple[str | None, str], ...]], ...] = (
        ((hermes("zoom", bbox_2d=target),), (("zoom", "executed"),)),
        ((hermes("zoom", bbox_2d=far),), (("zoom", "executed"),)),
        (
            (hermes("rotate", angle=90), hermes("rotate", angle=-90, image_index=1)),
            (("rotate", "executed"), ("rotate", "executed")),
        ),
        ((hermes("rotate", angle=45),), (("rotate", "rejected"),)),
        (
            (
                hermes("flip", direction="horizontal"),
                hermes("draw_line", axis="y", value=500, image_index=1),
            ),
            (("flip", "executed"), ("draw_line", "executed")),
        ),
        (('<tool_call>\n{"name": "zoom", "arguments": [\n</tool_call>',), ((None, "malformed"),)),
        ((), ()),
        (
            (
                hermes("zoom", bbox_2d=[0, 0, 1000, 800]),
                hermes("zoom", bbox_2d=[100, 250, 900, 1000], image_index=1),
                hermes("draw_point", x=target[0], y=target[1]),
            ),
            (("zoom", "executed"), ("zoom", "executed"), ("draw_point", "executed")),
        ),
    )
    replies, calls = ways[number % len(ways)]
    return Script(replies=(*replies, answer), calls=calls, is_right=is_right)


def block(code: str) -> str:
    return f"THOUGHT 0: I focus.\nACTION 0:\n```python\n{code}\n```"


def vtool_script(number: int, table: Table) -> Script:
    """One of six ways to write a block, well or badly, right every other time."""
    is_right = number % 2 == 0
    answer = f"ANSWER: so. FINAL ANSWER: {'yes' if is_right else 'no'}. TERMINATE"
    row, column = json.dumps([table.row]), json.dumps([table.columns[0]])
    draw, mask = "focus_on_rows_with_draw", "focus_on_columns_with_mask"
    highlight = "focus_on_rows_with_highlight"
    ways: tuple[tuple[str, tuple[tuple[str | None, str], ...]], ...] = (
        (f"display({draw}(image_1, {row}, rows_bbox))", ((draw, "executed"),)),
        (f"display({mask}(image_1, {column}, columns_bbox))", ((mask, "executed"),)),
        (
            f"a = {mask}(image_1, {column}, columns_bbox)\n"
            f"b = {highlight}(a, {row}, rows_bbox)\ndisplay(b)",
            ((mask, "executed"), (highlight, "executed")),
        ),
        (f'display({draw}(image_1, ["no such row"], rows_bbox))', ((draw, "executed"),)),
        ("for name in rows_bbox:\n    display(image_1)", ((None, "malformed"),)),
        ("", ()),
    )
    code, calls = ways[number % len(ways)]
    return Script(
        replies=(block(code), answer) if code else (answer,), calls=calls, is_right=is_right
    )


def played(scripts: Sequence[Script]) -> Counter[tuple[str | None, str]]:
    """How often each call has each status over all scripts."""
    return Counter(call for script in scripts for call in script.calls)


def player(
    tables: Sequence[Table], scripts: Sequence[Script], is_offered: Callable[[str], bool]
) -> Callable[[int, Body], web.Response]:
    """A server's `respond`: each sample's script where tools are offered, else a right answer."""

    def respond(_: int, body: Body) -> web.Response:
        prompt = "\n".join(_text(message) for message in body["messages"])
        number = next(at for at, table in enumerate(tables) if table.question in prompt)
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        free = "FINAL ANSWER: yes. TERMINATE <answer>yes</answer>"
        said = scripts[number].replies[turn] if is_offered(prompt) else free
        return web.json_response(
            {
                "id": "chatcmpl-mixture",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "message": {"role": "assistant", "content": said},
                        "finish_reason": "stop",
                    }
                ],
                "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
            }
        )

    return respond


def _text(message: Body) -> str:
    content = message["content"] or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
