"""Calls written as Python in the first ```python block of a reply; nothing of it is ever run.

The family of ReFocus and VTool-R1: a block of assignments and calls of the focus functions, of
which `display` shows one result. The block is read with `ast` and followed name by name; whatever
else a block holds makes it a call that is refused, with the reason. Source of the rules: the
parsers in zeyofu/ReFocus_Code at 8412b5f and VTool-R1/training-v2 at 563ef92
(recipe/vtool/refocus_tools.py, eval/vtool_eval_loop.py).
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from medeval.tools.calls.python_block import BlockCall, BlockReader, Kernel
from medeval.tools.calls.syntax import CallRules, Dialect, EarlierReply, MalformedError
from medeval.types.trajectory import ParsedCall

FENCE: Final = "```python"
END: Final = "```"

# Without any of these, VTool-R1's second version takes a block for part of an answer.
SIGNS: Final = ("focus_on_", "display(", "image_1", "columns_bbox", "rows_bbox")
ANSWER: Final = re.compile(r"\b(?:FINAL ANSWER|ANSWER)\s*:", re.IGNORECASE)
TERMINATE: Final = "TERMINATE"


@dataclass(frozen=True, slots=True)
class _Block:
    """The first block of a reply, its place in the text, and whether it is closed."""

    code: str
    start: int
    end: int
    is_closed: bool


def python_calls(
    text: str, rules: CallRules, earlier: Sequence[EarlierReply] = ()
) -> list[ParsedCall]:
    """The calls of a reply's first block in the order they would run; none where it is an answer.

    Every call names its image: `image_1` is the sample's first, `result_1` what the first call
    makes. The calls belong together (`of_block`): one that fails is the last to run, and only the
    result with `shown` is put before the model. In ReFocus' dialect, whose blocks share a kernel,
    the names that `earlier` blocks bound are known, and results are counted from the first of them.
    """
    kernel = Kernel()
    for said in earlier if rules.dialect == "refocus" else ():
        kernel = _after(said, rules, kernel)
    return _calls(text, rules, kernel.reader)


def _calls(
    text: str, rules: CallRules, reader: Callable[[str, Dialect], BlockReader]
) -> list[ParsedCall]:
    block = _first_block(text)
    if block is None or _is_answer(text, block, rules.dialect):
        return []
    try:
        if not block.is_closed:
            raise MalformedError("the block of code is not closed with ```")
        calls = reader(block.code, rules.dialect).calls()
    except MalformedError as malformed:
        return [_refused(text, block, str(malformed))]
    return [_parsed(call, block) for call in calls]


def _after(said: EarlierReply, rules: CallRules, kernel: Kernel) -> Kernel:
    """The kernel after an earlier reply, whose block bound what it bound before a call failed."""
    found = _calls(said.text, rules, kernel.reader)
    n_calls = kernel.n_calls + len(found)
    block = _first_block(said.text)
    if block is None or not found or found[0].error is not None:
        return replace(kernel, n_calls=n_calls)
    ran = kernel.reader(block.code, rules.dialect, said.n_executed)
    ran.calls()
    return Kernel(names=ran.names, n_calls=n_calls)


def _first_block(text: str) -> _Block | None:
    """The block as upstream finds it: all backslashes are taken out of the text first."""
    kept = [at for at, letter in enumerate(text) if letter != "\\"]
    plain = text.replace("\\", "")
    start = plain.find(FENCE)
    if start < 0:
        return None
    inside = start + len(FENCE)
    stop = plain.find(END, inside)
    is_closed = stop >= 0
    end = kept[stop + len(END) - 1] + 1 if is_closed else len(text)
    code = plain[inside : stop if is_closed else None].removeprefix("\n")
    return _Block(code, kept[start], end, is_closed)


def _is_answer(text: str, block: _Block, dialect: Dialect) -> bool:
    """Whether upstream takes a reply for an answer although it holds a block."""
    if dialect == "refocus":
        return TERMINATE in text
    if dialect == "vtool_v1":
        return False
    unlike = block.code.strip() != "" and not any(sign in block.code for sign in SIGNS)
    return unlike or (not block.is_closed and ANSWER.search(block.code) is not None)


def _refused(text: str, block: _Block, reason: str) -> ParsedCall:
    return ParsedCall(
        raw_text=text[block.start : block.end],
        name=None,
        arguments=None,
        error=reason,
        start=block.start,
        end=block.end,
        of_block=True,
    )


def _parsed(call: BlockCall, block: _Block) -> ParsedCall:
    return ParsedCall(
        raw_text=call.source,
        name=call.name,
        arguments=call.arguments,
        start=block.start,
        end=block.end,
        of_block=True,
        shown=call.shown,
    )
