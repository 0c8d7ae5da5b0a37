"""Whether two answers are equal as mathematics, by the math-verify package."""

import importlib.util
import logging
import threading

from medeval.errors import JudgeError, UsageError

# Longer answers are compared as text alone: a parser may be made to work hard.
MAX_CHARACTERS = 1000
# math-verify's own limit; it needs the main thread's alarm clock.
LIMIT_S = 5


def check_installed() -> None:
    """Raise UsageError, with what to install, where math-verify is not there."""
    if importlib.util.find_spec("math_verify") is None:
        raise UsageError(
            "this judge needs the package math-verify, which is not installed",
            hint="pip install 'medeval[math]'",
        )


def are_equal(target: str, answer: str) -> bool:
    r"""Whether an answer equals a target: as text but for case, or as what is in `\boxed{}`.

    After GAIR-NLP/Med@c41310c, reward_server/verifier/utils_rule.py `verify_accuracy`, with its
    settings of math-verify; there the whole response is searched for the answer. A target
    that cannot be parsed equals nothing but its own text. Raises UsageError without math-verify,
    and JudgeError outside the main thread.
    """
    if answer.strip().lower() == target.strip().lower():
        return True
    if max(len(answer), len(target)) > MAX_CHARACTERS:
        return False
    check_installed()
    if threading.current_thread() is not threading.main_thread():
        raise JudgeError(
            "math-verify keeps its time limit in the main thread alone",
            hint="judge from a terminal: medeval grade RUN --again",
        )
    return _are_equal(target, answer)


def _are_equal(target: str, answer: str) -> bool:
    import math_verify
    from latex2sympy2_extended import NormalizationConfig

    # it warns of every answer that it gives up on, with the answer in full
    logging.getLogger("math_verify").addHandler(logging.NullHandler())
    boxed_first = math_verify.LatexExtractionConfig(
        normalization_config=NormalizationConfig(
            nits=False, malformed_operators=False, basic_latex=True, boxed="all", units=True
        ),
        boxed_match_priority=0,
        try_extract_without_anchor=False,
    )
    gold = math_verify.parse(
        boxed(target),
        extraction_config=[boxed_first],
        extraction_mode="first_match",
        parsing_timeout=LIMIT_S,
    )
    if not gold:
        return False
    found = math_verify.parse(
        boxed(answer),
        extraction_config=[boxed_first],
        extraction_mode="first_match",
        parsing_timeout=LIMIT_S,
    ) or math_verify.parse(boxed(answer), extraction_mode="first_match", parsing_timeout=LIMIT_S)
    return bool(math_verify.verify(gold, found, timeout_seconds=LIMIT_S))


def boxed(text: str) -> str:
    r"""The text in `\boxed{}`, unless it holds such a box already."""
    return text if "\\boxed{" in text else f"\\boxed{{{text}}}"
