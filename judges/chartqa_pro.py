r"""ChartQAPro's relaxed correctness, as published and as lmms-eval repeats it.

The rule of vis-nlp/ChartQAPro@8911d1b, evaluate_predictions.py. Full stops, then newlines, are
stripped from both texts; a text that reads as a Python list is one, any other a list of one; items
are compared by position, an item too many or too few scores 0, and the score is the mean over
items. An item whose year flag is YES is compared as text but for case. Any other: `%` is stripped
from both sides, so "60%" is "60"; numbers match within 5%, zero only zero; other text scores the
similarity of the `anls` package, which is 0 at 0.5 and below (DocVQA's keeps 0.5).

The script works out that multiple-choice and fact-checking answers should match exactly, and then
does not pass that on: they get similarity like the rest, so that "Unlikely" scores 0.75 for
"Likely". `chartqa_pro` keeps that; `chartqa_pro_lmms` is lmms-eval's repetition
(5a89faf, tasks/chartqapro/utils.py), which passes it on and strips spaces too, and never scores
higher by more than the spaces make.

A list without quotes is quoted first, in the target alone, a word at a time, as the script does:
"[New York, 5]" becomes "NewYork" and "5". An answer counts as correct at 1.0: every item in full.

Of the sample: `metadata["years"]`, one "YES" or "NO" a question or item ("NO" where there are too
few), and the group `question_type`, as the data set spells it.
"""

import ast
import re
import warnings

from medeval import Answer, Grade, Judge, Sample
from medeval.scoring.answers import collapsed, edit_distance

MAX_RELATIVE_CHANGE = 0.05
EXACT_TYPES = ("Fact Checking", "Multi Choice")
# A literal longer than this is not parsed: no answer is, and a parser may be made to work hard.
MAX_LITERAL_CHARACTERS = 10_000

_UNQUOTED_WORD = re.compile(r"(?<!['\w])\w['\w]*")


def literal(text: str) -> object:
    """The Python literal that a text is, None where it is none. Nothing is executed."""
    if "[" not in text or len(text) > MAX_LITERAL_CHARACTERS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value: object = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value


def items(text: str) -> list[str]:
    """The items of a text that is a list, without quotes around them; none of any other text."""
    value = literal(text)
    return [str(item).strip(" '") for item in value] if isinstance(value, list) else []


def quoted(text: str) -> str:
    """A list without quotes with them, as far as that makes it one; any other text as it is."""
    inside = re.match(r"^\[(.*)\]$", text.strip())
    if inside is None:
        return text
    with_quotes = _UNQUOTED_WORD.sub(r"'\g<0>'", inside[1])
    value = literal(f"[{with_quotes}]")
    return text if value is None else str(value)


def number(text: str) -> float | None:
    """The number a text is, percent signs around it left aside."""
    try:
        return float(text.strip().strip("%"))
    except ValueError:
        return None


def similarity(target: str, answer: str) -> float:
    """One minus the normalised edit distance, 0 where that is one half or less."""
    target, answer = collapsed(target.lower()), collapsed(answer.lower())
    length = max(len(target.upper()), len(answer.upper()))
    distance = edit_distance(target, answer) / length if length else 0.0
    return 1 - distance if distance < 0.5 else 0.0


def item_score(target: str, answer: str) -> float:
    """How well one item matches its target, 0 to 1."""
    target, answer = target.strip().strip("%").strip(), answer.strip().strip("%").strip()
    expected, found = number(target), number(answer)
    if expected is None or found is None:
        return similarity(target, answer)
    if expected == 0.0:
        return float(found == 0.0)
    return float(abs(found - expected) / abs(expected) <= MAX_RELATIVE_CHANGE)


def correctness(target: str, answer: str, years: list[str], *, exact: bool) -> float:
    """The mean score over the items of two texts."""
    expected, found = items(quoted(target)) or [target], items(answer) or [answer]
    if len(years) < len(expected):
        years = years * len(expected)
    scores = [
        float(wanted.strip().lower() == given.strip().lower())
        if exact or (index < len(years) and years[index].upper() == "YES")
        else item_score(wanted, given)
        for index, (wanted, given) in enumerate(zip(expected, found, strict=False))
    ]
    return sum(scores) / max(len(expected), len(found))


def year_flags(sample: Sample) -> list[str]:
    """The flags that the script reads: of a conversation the last one alone."""
    flags = sample.metadata.get("years")
    years = [str(flag) for flag in flags] if isinstance(flags, list | tuple) else []
    return years[-1:] if sample.groups.get("question_type") == "Conversational" else years


def grade(sample: Sample, answer: Answer) -> Grade:
    """The mean over the items, 0 to 1, by the best of the targets."""
    text, years = answer.text.strip(".").strip("\n"), year_flags(sample)
    scores = [
        correctness(target.strip(".").strip("\n"), text, years, exact=False)
        for target in sample.targets
    ]
    return Grade(score=max(scores), extracted=text)


def grade_lmms(sample: Sample, answer: Answer) -> Grade:
    """The same, with exact matching for multiple choice and fact checking."""
    text, years = answer.text.strip().strip(".").strip("\n"), year_flags(sample)
    exact = sample.groups.get("question_type") in EXACT_TYPES
    scores = [
        correctness(target.strip().strip(".").strip("\n"), text, years, exact=exact)
        for target in sample.targets
    ]
    return Grade(score=max(scores), extracted=text)


CHARTQA_PRO = Judge(
    name="chartqa_pro",
    metric="relaxed correctness",
    grade=grade,
    source="vis-nlp/ChartQAPro@8911d1b evaluate_predictions.py",
)
CHARTQA_PRO_LMMS = Judge(
    name="chartqa_pro_lmms",
    metric="relaxed correctness, exact for choices and facts",
    grade=grade_lmms,
    source="EvolvingLMMs-Lab/lmms-eval@5a89faf lmms_eval/tasks/chartqapro/utils.py",
)
