"""Reads calls written as Python in the first ```python block of a reply; no code is ever run.

ReFocus and VTool-R1 write blocks of assignments and calls of the focus functions; `display` shows
one of the results. A block is read with `ast`, and its variables are followed. A block that holds
anything else becomes one call that cannot be read, with the reason. Source of the rules: the
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

# VTool-R1's second version takes a block without any of these for part of an answer.
SIGNS: Final = ("focus_on_", "display(", "image_1", "columns_bbox", "rows_bbox")
ANSWER: Final = re.compile(r"\b(?:FINAL ANSWER|ANSWER)\s*:", re.IGNORECASE)
TERMINATE: Final = "TERMINATE"


@dataclass(frozen=True, slots=True)
class _Block:
    """The first code block of a reply, its place in the text, and whether it is closed."""

    code: str
    start: int
    end: int
    is_closed: bool


def python_calls(
    text: str, rules: CallRules, earlier: Sequence[EarlierReply] = ()
) -> list[ParsedCall]:
    """The calls of a reply's first block, in the order in which they would run.

    There are none where the reply is an answer. Each call names its image: `image_1` is the first
    of the sample, `result_1` what the first call makes. The calls belong together (`of_block`):
    after one that fails none runs, and the model is shown only the result with `shown`. In ReFocus'
    dialect blocks share a kernel: the variables of the `earlier` replies' blocks are bound, and
    results are counted from the first of these blocks.
    """
    kernel = Kernel()
    for reply in earlier if rules.dialect == "refocus" else ():
        kernel = _after(reply, rules, kernel)
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


def _after(reply: EarlierReply, rules: CallRules, kernel: Kernel) -> Kernel:
    """The kernel after an earlier reply, whose block ran up to the call that failed, if any."""
    found = _calls(reply.text, rules, kernel.reader)
    n_calls = kernel.n_calls + len(found)
    block = _first_block(reply.text)
    if block is None or not found or found[0].error is not None:
        return replace(kernel, n_calls=n_calls)
    ran = kernel.reader(block.code, rules.dialect, reply.n_executed)
    ran.calls()
    return Kernel(names=ran.names, n_calls=n_calls)


def _first_block(text: str) -> _Block | None:
    """The first block; as in the published parsers, all backslashes are taken out first."""
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
    """Whether the published parser takes a reply for an answer although it holds a block."""
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
