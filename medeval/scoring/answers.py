"""Reads an answer out of a model's reply; no other module does.

A reply may have any length and content: nothing here raises on it, and every function takes time
linear in its length.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from medeval.errors import DataError

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_THINK = re.compile(r"</?think>", re.IGNORECASE)
_FINAL_ANSWER = re.compile(r"FINAL ANSWER:", re.IGNORECASE)
_ANSWER_PREFIX = re.compile(r"ANSWER:", re.IGNORECASE)
_TERMINATE = re.compile(r"TERMINATE", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?=\s|$)")
_ANSWER = re.compile(r"</?answer>", re.IGNORECASE)
# An escaped brace is matched too, so that it does not count as a brace.
_BRACES = re.compile(r"(?P<boxed>\\boxed\s*\{)|\\[{}]|(?P<open>\{)|(?P<close>\})")

TextRule: TypeAlias = Literal[
    "answer_tag",
    "boxed",
    "whole_reply",
    "final_answer",
    "answer_prefix",
    "box_markers",
    "first_answer_tag_anywhere",
    "boxed_anywhere",
    "raw_reply",
]


def find_answer(reply: str, rule: TextRule, *, complete: bool) -> str | None:
    r"""The final answer of a reply by one rule, stripped, or None where the rule finds none.

    `complete` is False where the reply was cut off. Most rules do not search the thinking: text
    in `<think>...</think>`, text before a `</think>` whose `<think>` is in the template, and,
    unless `complete`, text after a `<think>` that is never closed.

    - `answer_tag`: the last `<answer>...</answer>`; where `complete`, the last block may lack its
      closing tag, which a stop string may have removed.
    - `boxed`: the last `\boxed{...}` whose braces balance.
    - `whole_reply`: all text after the thinking, where `complete`; none where the thinking
      never ends.
    - `final_answer`: the text after the last "FINAL ANSWER:" up to a full stop, the end of the
      line or "TERMINATE".
    - `answer_prefix`: the text after the first "ANSWER:" up to "TERMINATE" or, where `complete`,
      the end, as in VTool-R1's second version.
    - `box_markers`: the last text between GLM's `<|begin_of_box|>` and `<|end_of_box|>`.

    Three rules search the thinking too, as published evaluations do:

    - `first_answer_tag_anywhere`: the first closed `<answer>`.
    - `boxed_anywhere`: the last `\boxed{...}`.
    - `raw_reply`: the whole reply, cut off or not.

    >>> reply = "<think>maybe <answer>A</answer></think> <answer>B</answer>"
    >>> find_answer(reply, "answer_tag", complete=True)
    'B'
    """
    if rule in ("first_answer_tag_anywhere", "boxed_anywhere", "raw_reply"):
        answer = _find_anywhere(reply, rule)
    else:
        outside, thinking = _outside_thinking(reply)
        if rule == "whole_reply":
            return outside.strip() or None if complete else None
        searched = f"{outside}\n{thinking}" if complete else outside
        answer = _find(searched, rule, complete=complete)
    return None if answer is None else answer.strip() or None


def _find(text: str, rule: TextRule, *, complete: bool) -> str | None:
    match rule:
        case "answer_tag":
            return _last_tagged(text, complete=complete)
        case "final_answer":
            return _after_last_final_answer(text)
        case "answer_prefix":
            return _after_first_answer(text, complete=complete)
        case "box_markers":
            return _last_between(text, "<|begin_of_box|>", "<|end_of_box|>")
        case _:
            return _boxed(text)


def _find_anywhere(reply: str, rule: TextRule) -> str | None:
    if rule == "raw_reply":
        return reply
    if rule == "boxed_anywhere":
        return _boxed(reply)
    start = reply.find("<answer>")
    end = reply.find("</answer>", start) if start >= 0 else -1
    return reply[start + len("<answer>") : end] if end >= 0 else None


def _after_last_final_answer(text: str) -> str | None:
    ends = [mark.end() for mark in _FINAL_ANSWER.finditer(text)]
    if not ends:
        return None
    line = text[ends[-1] :].lstrip().partition("\n")[0]
    before_end = line.partition("TERMINATE")[0].rstrip()
    return _SENTENCE_END.split(before_end, maxsplit=1)[0]


def _after_first_answer(text: str, *, complete: bool) -> str | None:
    start = _ANSWER_PREFIX.search(text)
    end = _TERMINATE.search(text, start.end()) if start else None
    if start is None or not (end or complete):
        return None
    return text[start.end() : end.start() if end else None]


def _last_between(text: str, opening: str, closing: str) -> str | None:
    end = text.rfind(closing)
    start = text.rfind(opening, 0, end) if end >= 0 else -1
    return text[start + len(opening) : end] if start >= 0 else None


def _outside_thinking(reply: str) -> tuple[str, str]:
    """The text outside closed thinking, and the text after a `<think>` that is never closed."""
    parts: list[str] = []
    start, opened, ever_opened = 0, False, False
    for tag in _THINK.finditer(reply):
        closes = tag.group().startswith("</")
        if closes and not ever_opened:
            parts.clear()
        elif not opened:
            parts.append(reply[start : tag.start()])
        elif not closes:
            continue
        start, opened, ever_opened = tag.end(), not closes, True
    rest = reply[start:]
    return ("\n".join(parts), rest) if opened else ("\n".join([*parts, rest]), "")


def _last_tagged(text: str, *, complete: bool) -> str | None:
    content: str | None = None
    start: int | None = None
    for tag in _ANSWER.finditer(text):
        if not tag.group().startswith("</"):
            start = tag.end()
        elif start is not None:
            content, start = text[start : tag.start()], None
    return text[start:] if start is not None and complete else content


def _boxed(text: str) -> str | None:
    content: tuple[int, int] | None = None
    open_braces: list[int | None] = []
    for brace in _BRACES.finditer(text):
        if brace["boxed"]:
            open_braces.append(brace.end())
        elif brace["open"]:
            open_braces.append(None)
        elif brace["close"] and open_braces:
            start = open_braces.pop()
            content = content if start is None else (start, brace.start())
    return text[content[0] : content[1]] if content else None


def option_letter(index: int) -> str:
    """The letter of the option at `index`, counted from 0; raises DataError after Z.

    >>> option_letter(0), option_letter(25)
    ('A', 'Z')
    """
    if not 0 <= index < len(LETTERS):
        raise DataError(f"options are lettered A to Z, positions 0 to 25, got position {index!r}")
    return LETTERS[index]


def collapsed(text: str) -> str:
    r"""The text with each run of whitespace replaced by one space, and none at its ends.

    >>> collapsed(" two\n  lines ")
    'two lines'
    """
    return " ".join(text.split())


def normalised(text: str) -> str:
    """The text case-folded, collapsed, and without punctuation at its end.

    Punctuation is any of `. , ; : ! ?`; a text of punctuation alone keeps it.

    >>> normalised(" The  Red car. ")
    'the red car'
    """
    folded = collapsed(text).casefold()
    return folded.rstrip(" .,;:!?") or folded


def read_number(text: str) -> float | None:
    """The number that the whole text is to Python's `float`; a `%` at its end divides it by 100.

    "5.", "1e3" and "nan" are numbers; "1,000" and "$5" are not, and give None.

    >>> read_number("60%"), read_number("1,000")
    (0.6, None)
    """
    try:
        return float(text.rstrip("%")) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        return None


_CURRENCY = "[$\u20ac\u00a3\u00a5\u20b9\u20a9]"
_CURRENCY_BEFORE = re.compile(rf"([-+]?){_CURRENCY} ?")
_CURRENCY_AFTER = re.compile(rf" ?{_CURRENCY}\Z")
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]*)?")


def written_numbers(text: str) -> tuple[float, ...]:
    """The numbers a whole text may stand for: none, one, or both readings of a percentage.

    Thousands separators, a currency sign and a full stop at the end are ignored. Every finite
    number that `read_number` accepts is accepted.

    >>> written_numbers("$1,000."), written_numbers("60%"), written_numbers("2 dogs")
    ((1000.0,), (60.0, 0.6), ())
    """
    plain = text.strip().removesuffix(".").rstrip().replace("\u2212", "-")
    bare = plain.rstrip("%").rstrip()
    if before := _CURRENCY_BEFORE.match(bare):
        bare = before[1] + bare[before.end() :]
    bare = _CURRENCY_AFTER.sub("", bare)
    if _GROUPED.fullmatch(bare):
        bare = bare.replace(",", "")
    number = read_number(bare)
    if number is None or not math.isfinite(number):
        return ()
    return (number, number / 100.0) if plain.endswith("%") else (number,)


def edit_distance(first: str, second: str) -> int:
    """The least number of inserted, deleted and replaced characters between two texts.

    >>> edit_distance("0.28", "8.22")
    2
    """
    from rapidfuzz.distance import Levenshtein

    return int(Levenshtein.distance(first, second))


# A letter on its own: "B" in "(B)", "B.", "B,"; not in "Dog", "T-shirt" or "A's".
_ALONE_BEFORE = r"(?<![\w'\u2019])(?<!\w-)"
_ALONE_AFTER = r"(?![\w'\u2019])(?!-\w)"
# An option that the answer denies is not chosen.
_NOT_DENIED = r"(?<!not )(?<!n't )(?<!n\u2019t )(?<!nor )"
_NOT_REFUTED = r"(?!\W{0,3} (?:is|was) (?:not|wrong|incorrect|false)\b)"
# "the answer is A man" names no option; "the answer is A because" does.
_NO_ARTICLE = r"(?!(?<=[AI]) (?!(?:as|because|or|and|since|but|which|is|was|rather|not)\b)\w)"
# A lower-case letter counts only at the end or before punctuation: elsewhere it may be a word.
_LETTER = rf"(?P<letter>[A-Z]{_NO_ARTICLE}|[a-z](?=\W*$|[.,;:)\]]))"
_MORE = r"(?P<more>(?:(?: ?[,/&] ?| or | and )[(\[]?[A-Z][)\]]?(?![\w'\u2019]))*)"
_END = rf"{_ALONE_AFTER}{_NOT_REFUTED}"
_QUOTES = "\"'\u201c\u2018"

# Characters allowed between an option's letter and its text.
_TO_TEXT = r"[\s.,:;)\]\"'-]*"

# Ways of naming an option, the plainest first: the first pattern that names an option decides.
_NAMED = tuple(
    re.compile(pattern + _TO_TEXT)
    for pattern in (
        # answer is B; Answer: (B); the correct answer is option B
        r"(?i:\banswer(?:(?: is| was| would be| should be|\u2019s|'s)(?: option| choice)?)?)"
        rf"[ :=]{{0,3}}[{_QUOTES}(\[]{{0,2}}{_LETTER}{_END}[)\]]?{_MORE}",
        # B is the correct answer; (B) is right
        rf"{_ALONE_BEFORE}{_NOT_DENIED}[(\[]?(?P<letter>[A-Z])[)\]]? is "
        r"(?:the )?(?:correct|right|best|answer)\b(?P<more>)",
        # option B; I choose B
        r"(?i:\b(?:option|choice|choose|pick|select|chose|picked|selected)) "
        rf"[{_QUOTES}(\[]{{0,2}}{_NOT_DENIED}(?P<letter>[A-Z]{_NO_ARTICLE}){_END}[)\]]?{_MORE}",
        # (B), [b]
        rf"(?<!\w){_NOT_DENIED}[(\[](?P<letter>[A-Za-z])[)\]]{_NOT_REFUTED}(?P<more>)",
        # B. the red one; b) red; and "A. blue B. red", a list that chooses nothing
        rf"(?:^[{_QUOTES}]?|(?<= )(?=[A-Z][.:)] \S))(?P<letter>[A-Za-z])[.:)\]]"
        rf"(?![A-Za-z]\.){_MORE}",
    )
)
_BARE = re.compile(rf"{_ALONE_BEFORE}{_NOT_DENIED}(?P<letter>[A-Z]{_NO_ARTICLE}){_END}(?P<more>)")
_ONLY_LETTER = re.compile(r"\W*(?P<letter>[A-Za-z])\W*")
_MARKUP = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|boxed)\s*\{([^{}]*)\}|[*`$]")


def chosen_option(text: str, options: Sequence[str]) -> str | None:
    """The letter of the one option that an answer chooses, or None where it is ambiguous.

    These ways of naming an option are tried in order: the text is one letter; the text is one
    option; "answer is B"; "B is correct"; "option B"; "(B)"; "B." at the start; and last, capital
    letters on their own together with full texts of options. The first way that names any option
    decides, and must name exactly one. A letter followed by another option's text names both.
    The case of options' texts is ignored. Letters beyond the options are ignored; without
    `options` every letter counts.

    >>> chosen_option("Because the dog is red, (B)", ["blue", "red"])
    'B'
    >>> chosen_option("A man in red", ["blue", "red"])
    'B'
    >>> chosen_option("either A or B", ["blue", "red"]) is None
    True
    >>> chosen_option("A. red", ["blue", "red"]) is None
    True
    """
    plain = collapsed(_MARKUP.sub(lambda markup: markup[1] or "", text))
    letters = set(LETTERS[: len(options)] if options else LETTERS)
    if only := _ONLY_LETTER.fullmatch(plain):
        return _single({only["letter"].upper()} & letters)
    by_text = _letters_by_text(options)
    if same := by_text.get(normalised(plain)):
        return _single(same)
    option_text = _option_text_pattern(by_text)
    for pattern in _NAMED:
        if named := _named_letters(pattern, plain, option_text, by_text) & letters:
            return _single(named)
    quoted = {
        letter
        for match in option_text.finditer(plain)
        for letter in _quoted_letters(match, by_text)
    }
    without_texts = option_text.sub("\n", plain)
    return _single(quoted | (_named_letters(_BARE, without_texts, option_text, by_text) & letters))


def _single(letters: set[str]) -> str | None:
    return next(iter(letters)) if len(letters) == 1 else None


def _named_letters(
    pattern: re.Pattern[str],
    text: str,
    option_text: re.Pattern[str],
    by_text: Mapping[str, set[str]],
) -> set[str]:
    """The letters that `pattern` finds, in capitals, and those of option texts right after them."""
    letters: set[str] = set()
    for match in pattern.finditer(text):
        named = {match["letter"].upper(), *(mark for mark in match["more"] if mark in LETTERS)}
        after = option_text.match(text, match.end())
        if after and not _quoted_letters(after, by_text) & named:
            named |= _quoted_letters(after, by_text)
        letters |= named
    return letters


def _letters_by_text(options: Sequence[str]) -> dict[str, set[str]]:
    """The letters by normalised option text; several options may share a text."""
    by_text: dict[str, set[str]] = {}
    for letter, option in zip(LETTERS, options, strict=False):
        if key := normalised(option):
            by_text.setdefault(key, set()).add(letter)
    return by_text


def _option_text_pattern(by_text: Mapping[str, set[str]]) -> re.Pattern[str]:
    """The pattern that finds full texts of options.

    Where one option's text contains another's ("dark red", "red"), the longer one matches.
    """
    longest_first = sorted(by_text, key=len, reverse=True)
    texts = "|".join(re.escape(option) for option in longest_first) or r"(?!)"
    return re.compile(rf"(?<!\w)(?<!\d[.,]){_NOT_DENIED}(?:{texts})(?!\w)(?![.,]\d)", re.IGNORECASE)


def _quoted_letters(option_text: re.Match[str], by_text: Mapping[str, set[str]]) -> set[str]:
    """The letters of the option whose text is quoted."""
    return by_text.get(option_text.group().casefold(), set())


# `image 2`, `image_2`, `image="2"`, `"image_index": 2`
_CITED_IMAGE = re.compile(
    r"""\bimage(?:_index)?["']?[\s_]{0,9}[:=]?\s{0,9}["']?\#?(\d{1,6})\b""", re.IGNORECASE
)
_ANSWER_ELEMENT = re.compile(r"<answer\b", re.IGNORECASE)
_ANSWER_END = re.compile(r"</answer>", re.IGNORECASE)


def cited_image_index(reply: str, answer: str) -> int | None:
    """The index of the image that a final answer cites, or of the last one that it cites.

    Searches the reply's last `<answer>` element with its attributes, or `answer` where the reply
    has no such element; and where that names no image by number, the reply before the element.
    None where no image is cited.

    >>> cited_image_index("Image 0 is too small. <answer>B (image 2)</answer>", "B (image 2)")
    2
    >>> cited_image_index("It rests on image 1. <answer>B</answer>", "B")
    1
    """
    starts = [match.start() for match in _ANSWER_ELEMENT.finditer(reply)]
    start = starts[-1] if starts else len(reply)
    element = _ANSWER_END.split(reply[start:])[0] if starts else answer
    cited = _CITED_IMAGE.findall(element) or _CITED_IMAGE.findall(reply[:start])
    return int(cited[-1]) if cited else None
